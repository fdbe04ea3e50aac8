//! Engines, which move the data of a run from its source to its targets.
//!
//! An engine has requirements, which the preflight checks, and describes its work for the dry run. In a run its
//! [`Stream`] is connected, copies, is closed, and has a [`Verdict`] for each target. A target that fails keeps its
//! error, and the others go on.

pub mod netcat;

use std::collections::BTreeMap;

use crate::config::settings::Settings;
use crate::config::values::AttributeKind;
use crate::error::Error;
use crate::lease::End;
use crate::plan::{Engine, Plan, TargetPlan};
use crate::preflight::Requirements;
use crate::progress::Progress;

/// Result of a stream on the source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Bytes read, before compression.
    pub read_bytes: u64,
    /// Digest of the sent data, hexadecimal.
    pub digest: Option<String>,
    /// Complaints of programs that did not fail.
    pub complaints: Vec<String>,
}

/// Data that has arrived in the staging directory of a target; unchanged, if the stream was closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// Bytes that arrived over the network.
    pub wire_bytes: u64,
    /// Digest of the received data, hexadecimal.
    pub digest: Option<String>,
    /// Attributes that were dropped: files by kind.
    pub dropped: BTreeMap<AttributeKind, u64>,
    /// Complaints of programs that did not fail.
    pub complaints: Vec<String>,
}

/// Result for one target. What has arrived is judged by [`Stream::close`].
#[derive(Debug)]
pub(crate) struct Verdict {
    /// Last port that was used, 0 if there was none.
    pub port: u16,
    /// Arrived data, or the first error.
    pub result: Result<Received, Error>,
}

/// Target of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StreamTarget<'a> {
    /// Plan of the target.
    pub(crate) plan: &'a TargetPlan,
    /// Agent and connection.
    pub(crate) end: &'a End,
}

/// Stream of a run: one source, one or more targets.
#[derive(Debug)]
pub(crate) enum Stream<'a> {
    /// Stream of [`Engine::Netcat`].
    Netcat(netcat::Stream<'a>),
}

impl Engine {
    /// Returns what every host needs.
    #[must_use]
    pub(crate) fn requirements(self, settings: &Settings) -> Requirements {
        match self {
            Self::Netcat => netcat::requirements(settings),
        }
    }

    /// Describes its work on the source, for the dry run.
    #[must_use]
    pub fn describe_source(self, plan: &Plan) -> String {
        match self {
            Self::Netcat => netcat::describe_source(plan),
        }
    }

    /// Describes its work on a target, for the dry run.
    #[must_use]
    pub fn describe_target(self, plan: &Plan, target: &TargetPlan) -> String {
        match self {
            Self::Netcat => netcat::describe_target(plan, target),
        }
    }

    /// Returns a stream to targets whose staging directories exist. Nothing is started yet.
    pub(crate) fn stream<'a>(
        self,
        plan: &'a Plan,
        source: &'a End,
        targets: Vec<StreamTarget<'a>>,
    ) -> Stream<'a> {
        match self {
            Self::Netcat => Stream::Netcat(netcat::Stream::new(plan, source, targets)),
        }
    }
}

impl Stream<'_> {
    /// Connects the source to the targets. No data is read before [`Stream::copy`]. Fails if the source does.
    pub(crate) async fn connect(&mut self) -> Result<(), Error> {
        match self {
            Self::Netcat(stream) => stream.connect().await,
        }
    }

    /// Returns whether a target is left.
    pub(crate) fn is_live(&self) -> bool {
        match self {
            Self::Netcat(stream) => stream.is_live(),
        }
    }

    /// Copies the data, and returns when both ends have ended or were given up. Fails if the source does.
    pub(crate) async fn copy(&mut self, progress: &Progress) -> Result<(), Error> {
        match self {
            Self::Netcat(stream) => stream.copy(progress).await,
        }
    }

    /// Frees ports and firewalls, and judges what has arrived.
    pub(crate) async fn close(&mut self) -> Sent {
        match self {
            Self::Netcat(stream) => stream.close().await,
        }
    }

    /// Returns the verdicts, in the order of the targets.
    pub(crate) fn verdicts(self) -> Vec<Verdict> {
        match self {
            Self::Netcat(stream) => stream.verdicts(),
        }
    }
}
