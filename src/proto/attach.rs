//! First messages of a controller that lost its connection and reaches the agent of its run by another one.
//!
//! The conversation goes on with the keys that it began with: whoever has none of them is not its controller.
//! Both ends repeat what has not arrived.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::vault::Sealed;

/// Longest time between two heartbeats: two of them are missed before an sshd with short intervals gives up.
const LONGEST_BEAT: Duration = Duration::from_secs(5);
/// Number of heartbeats in a lease time, at least.
const BEATS: u32 = 12;
/// Number of heartbeats that are missing before the end of input counts as a cut.
const MISSED: u32 = 2;

/// First message of the agent: random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge(pub [u8; 32]);

/// Answer of the controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attach {
    /// The challenge, sealed with the keys of the conversation.
    pub proof: Sealed,
    /// Number of messages that have arrived from the agent.
    pub arrived: u64,
}

/// Answer of the agent to the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attached {
    /// The conversation goes on: the agent repeats its later messages.
    Resumed {
        /// Number of the last command that has arrived from the controller, which repeats the later ones.
        call: u64,
    },
    /// Messages are lost, and the run is rolled back.
    Lost,
}

/// Returns the time between two heartbeats, for a lease time.
#[must_use]
pub fn beat(lease: Duration) -> Duration {
    (lease / BEATS).min(LONGEST_BEAT)
}

/// Returns whether a connection that ends was cut. `silence` is the time since the last message. A controller that
/// ends closes its connection between two heartbeats.
#[must_use]
pub fn is_cut(lease: Duration, silence: Duration) -> bool {
    silence >= beat(lease) * MISSED
}
