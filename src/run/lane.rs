//! State of the transfer to one target, and the context of the work on it after the stream.

use std::time::{Duration, Instant};

use crate::engine::Sent;
use crate::lease::End;
use crate::mariadb::quiesce::Quiesced;
use crate::mariadb::replicate::Replica;
use crate::plan::{Plan, TargetPlan};
use crate::progress::Progress;
use crate::report::outcome::Outcome;

/// State of the transfer to one target.
#[derive(Debug)]
pub(super) struct Lane<'a> {
    /// Position of the target in the plan, from 0.
    pub(super) index: usize,
    pub(super) plan: &'a TargetPlan,
    pub(super) end: &'a End,
    pub(super) goal: Goal<'a>,
    /// Last port, 0 if there was none.
    pub(super) port: u16,
}

/// Goal of a lane, once its copy is proven.
#[derive(Debug)]
pub(super) enum Goal<'a> {
    /// The copy gets its final name.
    Publish,
    /// The copy gets its final name provisionally, until its server replicates.
    Replicate(Box<Replica<'a>>),
}

/// End of the transfer to one target.
#[derive(Debug)]
pub(super) struct Ended {
    /// Last port, 0 if there was none.
    pub(super) port: u16,
    pub(super) outcome: Outcome,
}

/// Context of the work after the stream.
#[derive(Clone, Copy)]
pub(super) struct Completing<'a> {
    pub(super) plan: &'a Plan,
    pub(super) source: &'a End,
    /// Result of the stream on the source.
    pub(super) sent: &'a Sent,
    /// Servers of the source, which are restored when it has been read.
    pub(super) quiesced: &'a Quiesced<'a>,
    pub(super) progress: &'a Progress,
    /// Time of the first lease.
    pub(super) began: Instant,
    /// Duration of the stream.
    pub(super) streamed: Duration,
}
