//! Report of a run: a result per target, leftovers on hosts, and the exit code. Pure.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;

use crate::base::endpoint::Endpoint;
use crate::base::exit::Exit;
use crate::base::printable::printable;
use crate::base::run_id::RunId;
use crate::config::settings::Login;
use crate::config::values::DigestAlgorithm;
use crate::error::Error;
use crate::lease::Leftover;
use crate::plan::{Compression, Plan};
use crate::preflight::Finding;
use crate::report::dry_run::DryRun;
use outcome::{Copied, Outcome};

pub mod dry_run;
mod json;
pub mod outcome;
mod text;

/// Result of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Name of the run; `None` if it had none yet.
    pub id: Option<RunId>,
    /// Time at which the run began and ended.
    pub time: Option<(Timestamp, Timestamp)>,
    /// Facts about the run; `None` if it ended before the plan was complete.
    pub run: Option<RunFacts>,
    /// Result of each target.
    pub targets: Vec<TargetReport>,
    /// Refusals and warnings of the preflight.
    pub findings: Vec<Finding>,
    /// Leases that were not rolled back, or are not known to be.
    pub leftovers: Vec<Leftover>,
    /// Duration of each phase.
    pub phases: Vec<(&'static str, Duration)>,
    /// Steps of a dry run.
    pub dry_run: Option<DryRun>,
    /// Error that ended the whole run.
    pub error: Option<Error>,
    /// Options of the logins to the hosts.
    pub login: Login,
    /// State of the source's servers and replication, except for leftovers.
    pub servers: Vec<(String, ServerState)>,
}

/// Facts about a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFacts {
    /// Name of the run.
    pub id: String,
    /// Source as typed.
    pub source: Endpoint,
    /// Files, directories and other entries of the source, counted by the preflight.
    pub entries: u64,
    /// Regular files of the source.
    pub files: u64,
    /// Sum of their sizes in bytes.
    pub bytes: u64,
    /// Bytes that they use on the source's disk.
    pub disk_bytes: u64,
    /// Compression of the stream.
    pub compression: Option<Compression>,
    /// Whether the stream was encrypted.
    pub encrypted: bool,
    /// Digest of the stream that was compared.
    pub stream_digest: Option<DigestAlgorithm>,
    /// Patterns of excluded files.
    pub exclude: Vec<String>,
    /// Last lines that a backup program wrote on the source.
    pub log: Vec<String>,
}

impl RunFacts {
    /// Takes the facts from a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        Self {
            id: plan.run.to_string(),
            source: plan.source.endpoint.clone(),
            entries: plan.source.entries,
            files: plan.source.files,
            bytes: plan.source.bytes,
            disk_bytes: plan.source.disk_bytes,
            compression: plan.compression,
            encrypted: plan.encrypt,
            stream_digest: plan.stream_digest,
            exclude: plan.exclude.iter().map(|pattern| printable(pattern.0.as_encoded_bytes())).collect(),
            log: Vec::new(),
        }
    }
}

/// State of a server, or of its replication, that the run was to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerState {
    /// Stopped, and running again.
    Restored,
    /// Not stopped in time, and running.
    Running,
    /// Not stopped, and still running.
    LeftRunning,
    /// Not stopped when its host was lost.
    RunningWhenLost,
    /// Stopped, or about to be, when its host was lost.
    MayBeStopped,
}

/// Data that had the final name before the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OldData {
    /// There was none, or its state is unknown.
    #[default]
    Unknown,
    /// The run did not change it, or brought it back.
    Unchanged,
    /// The run had not begun to replace it when the host was lost.
    UnchangedWhenLost,
    /// Replaced by the copy and removed.
    Removed,
    /// Replaced by the copy and kept at this path.
    Kept(PathBuf),
}

/// Result of one target.
#[derive(Debug)]
pub struct TargetReport {
    /// Target as typed.
    pub endpoint: Endpoint,
    /// Final path of the copy, if the run got that far.
    pub final_path: Option<PathBuf>,
    /// Addresses of target and source on the data path, if the run got that far.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// Last port that the target listened on.
    pub port: Option<u16>,
    /// Result of the transfer.
    pub outcome: Outcome,
    /// Staging directories that were kept.
    pub kept: Vec<String>,
    /// The copy has its final name.
    pub published: bool,
    /// The agent was lost, and the host may hold a published copy or a kept staging directory.
    pub is_uncertain: bool,
    /// Data that had the final name before.
    pub old: OldData,
    /// State of the target's servers, except for leftovers.
    pub servers: Vec<(String, ServerState)>,
    /// Last lines that the preparation of a backup wrote on the target.
    pub log: Vec<String>,
}

impl TargetReport {
    /// Returns the report of a target that was not transferred to.
    #[must_use]
    pub(crate) fn without_copy(endpoint: Endpoint, error: Error) -> Self {
        Self {
            endpoint,
            final_path: None,
            addresses: None,
            port: None,
            outcome: Outcome::Failed(error),
            kept: Vec::new(),
            log: Vec::new(),
            old: OldData::Unknown,
            published: false,
            is_uncertain: false,
            servers: Vec::new(),
        }
    }
}

impl Report {
    /// Returns the exit code of the whole run.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let mut exit = self.error.as_ref().map_or(Exit::Done, Error::exit);
        // The errors of the targets are part of the run's error.
        if self.ended_before_it_began() {
            return exit;
        }
        for target in &self.targets {
            if let Outcome::Failed(error) = &target.outcome {
                exit = exit.worse(error.exit());
            }
        }
        if self.leftovers.is_empty() { exit } else { exit.worse(Exit::Leftovers) }
    }
}

impl Report {
    /// Returns whether the run ended in its preflight.
    fn ended_before_it_began(&self) -> bool {
        self.run.is_none() && self.error.is_some()
    }
}

/// Returns the bytes of the source that were copied per second.
fn rate(copied: &Copied) -> u64 {
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "for display, never negative"
    )]
    ((copied.read_bytes as f64 / copied.streamed.as_secs_f64().max(0.001)) as u64)
}
