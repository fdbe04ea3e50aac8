//! First messages of a conversation.

use serde::{Deserialize, Serialize};

use super::Text;

/// First bytes of an agent. What a host writes before them is the output of a login shell's start-up files.
pub const MAGIC: &[u8] = b"\0transfer-agent";
/// Version of the messages. Both ends are of the same build; another version is refused.
pub const PROTOCOL: u32 = 2;

/// First message of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the messages.
    pub protocol: u32,
    /// Version of the program.
    pub program: Text,
    /// Public key for secrets.
    pub key: PublicKey,
}

/// First message of a controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Public key for secrets.
    pub key: PublicKey,
    /// Lease time in seconds until a run begins: an agent that hears nothing for so long ends.
    pub lease_seconds: u64,
}

/// X25519 public key of one conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicKey(pub [u8; 32]);
