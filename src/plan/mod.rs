//! Plan of a run as plain data: made from settings and facts, so that nothing is decided later.

mod build;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::base::endpoint::Endpoint;
use crate::base::run_id::{AgentId, RunId};
use crate::config::settings::{Replace, Settings};
use crate::config::values::{AttributeKind, Compressor, DigestAlgorithm, Hook, Owner, Pattern, PortRange};
use crate::engine::netcat::variant::Netcat;
use crate::host::facts::{Facts, Layer};
use crate::mariadb::backup::Tool;
use crate::mariadb::plan::{Follow, ReplicaPlan};
use crate::proto::Text;
use crate::proto::files::{FileId, NewOwner};
use crate::shape::{Producer, Shape};

/// Directory in the staging directory where a copy arrives.
const INBOX: &str = "copy";

/// Plan of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one decision")]
pub struct Plan {
    /// Name of the run.
    pub run: RunId,
    /// The source.
    pub source: SourcePlan,
    /// The targets, one or more.
    pub targets: Vec<TargetPlan>,
    /// Engine that moves the data.
    pub engine: Engine,
    /// Contents of the copy on the source and on the targets.
    pub shape: Shape,
    /// Hot backup of a running server.
    pub backup: Option<BackupPlan>,
    /// Replication of the copies, if they become replicas.
    pub replica: Option<ReplicaPlan>,
    /// Commands of the user.
    pub hooks: Vec<Hook>,
    /// Number of threads that extract a backup; `None`: chosen by the processors of the target.
    pub backup_threads: Option<u32>,
    /// Name of the data in the staging directory.
    pub staged: OsString,
    /// Compression of the stream.
    pub compression: Option<Compression>,
    /// Whether the stream is encrypted with a key of this run.
    pub encrypt: bool,
    /// Digest of the stream, computed on both sides.
    pub stream_digest: Option<DigestAlgorithm>,
    /// Digest by which every file is compared, disk against disk.
    pub file_digest: Option<DigestAlgorithm>,
    /// Patterns of entries to leave out.
    pub exclude: Vec<Pattern>,
    /// Whether files that change while they are copied are accepted.
    pub ignore_changed: bool,
    /// Treatment of data that has the final name already.
    pub replace: Replace,
    /// Owner of the copies.
    pub chown: Option<Owner>,
    /// Whether the data of a failed copy is kept.
    pub keep_staging: bool,
    /// Whether to wait until a copy is on the disk.
    pub fsync: bool,
    /// Number of processors that may be used on each host, if given.
    pub threads: Option<u32>,
    /// Nice value of the programs on hosts, 0 to 19.
    pub nice: u8,
    /// Ports that may be used.
    pub ports: PortRange,
    /// Silence of the controller after which an agent rolls back.
    pub lease_time: Duration,
    /// Time without progress after which the run fails.
    pub idle_timeout: Duration,
}

/// Engine that moves the data of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// tar, meters and netcat in one pipeline on each end.
    Netcat,
}

impl Engine {
    /// Returns the engine of a run with these settings.
    #[must_use]
    pub(crate) fn of(_settings: &Settings) -> Self {
        Self::Netcat
    }
}

/// Plan of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePlan {
    /// The source as the user wrote it.
    pub endpoint: Endpoint,
    /// Name of its agent.
    pub agent: AgentId,
    /// Directory that contains the data.
    pub parent: PathBuf,
    /// Name of the data.
    pub name: OsString,
    /// Identity of the data in the preflight; `None` if it is neither a file nor a directory.
    pub id: Option<FileId>,
    /// Whether the data is a directory.
    pub is_directory: bool,
    /// Whether the login is root.
    pub root: bool,
    /// Number of files, directories and other entries.
    pub entries: u64,
    /// Number of regular files.
    pub files: u64,
    /// Sum of their sizes.
    pub bytes: u64,
    /// Disk space that they use.
    pub disk_bytes: u64,
    /// Number of processors.
    pub cores: u32,
    /// Address that the source connects from, if given.
    pub address: Option<IpAddr>,
    /// Netcat that sends to all targets.
    pub netcat: Netcat,
    /// Servers to quiesce while their data is read.
    pub servers: Vec<StopPlan>,
}

/// A server that is stopped and started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopPlan {
    /// The systemd unit.
    pub unit: String,
    /// The socket, empty if unknown.
    pub socket: String,
    /// File with login options; empty: the host's default.
    pub defaults_file: String,
    /// Data directory.
    pub datadir: PathBuf,
    /// Maximum time to stop.
    pub timeout: Duration,
}

/// Plan of a hot backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupPlan {
    /// Backup program.
    pub program: String,
    /// Data directory.
    pub datadir: PathBuf,
    /// File with login options; empty: the host's default.
    pub defaults_file: String,
    /// Number of threads that read files.
    pub threads: u32,
    /// Locations of files outside the data directory, as options.
    pub places: Vec<String>,
    /// Whether the server is a replica: then the backup contains its replication position.
    pub replica: bool,
    /// Whether running replication threads are stopped for the backup.
    pub stop_replication: bool,
}

/// Preparation of a backup on a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// Suitable tools for the version of the server, at least one (checked by the preflight).
    pub tools: Vec<Tool>,
    /// Maximum memory in bytes.
    pub memory: u64,
    /// Owner of the prepared files.
    pub owner: String,
}

/// Plan of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPlan {
    /// The target as the user wrote it.
    pub endpoint: Endpoint,
    /// Number of the target, from 1.
    pub number: usize,
    /// Name of its agent.
    pub agent: AgentId,
    /// Address that the target listens on.
    pub address: IpAddr,
    /// Address of the source as the target sees it.
    pub peer: IpAddr,
    /// Firewall layers to open for the source.
    pub layers: Vec<Layer>,
    /// Staging directory.
    pub staging: PathBuf,
    /// Path of the published copy.
    pub final_path: PathBuf,
    /// Identity of the data that had the final name before the run.
    pub old: Option<FileId>,
    /// Path that the replaced data gets, if it is kept.
    pub old_path: PathBuf,
    /// Whether the login is root.
    pub root: bool,
    /// Number of processors.
    pub cores: u32,
    /// Netcat that receives.
    pub netcat: Netcat,
    /// Servers to quiesce until their data is replaced.
    pub servers: Vec<StopPlan>,
    /// Kinds of attributes that may be dropped.
    pub may_lose: BTreeSet<AttributeKind>,
    /// Kinds of attributes to drop because the file system cannot store them, with the number of source files
    /// that have them.
    pub drops: BTreeMap<AttributeKind, u64>,
    /// Program that extracts the stream of a backup.
    pub extractor: &'static str,
    /// Preparation of the backup.
    pub prepare: Option<Prepare>,
    /// Replication of its server, once it has the copy.
    pub follow: Option<Follow>,
}

/// Compression of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// Program, present on all ends.
    pub program: Compressor,
    /// Compression level.
    pub level: u8,
}

/// The source with the results of its probe.
#[derive(Clone, Copy, Debug)]
pub struct SourceFactsOf<'a> {
    /// The source as the user wrote it.
    pub endpoint: &'a Endpoint,
    /// Result of the probe.
    pub facts: &'a Facts,
}

/// A target with the results of its probe.
#[derive(Debug)]
pub struct TargetFactsOf<'a> {
    /// The target as the user wrote it.
    pub endpoint: &'a Endpoint,
    /// Result of the probe.
    pub facts: &'a Facts,
    /// Address of the target, reachable from the source.
    pub address: IpAddr,
    /// Address of the source when it connects to the target.
    pub peer: IpAddr,
}

impl Plan {
    /// Returns the plan with replication for the copies.
    #[must_use]
    pub(crate) fn for_replicas(mut self, replica: ReplicaPlan) -> Self {
        for target in &mut self.targets {
            let how = replica.targets.iter().find(|(host, _)| *host == target.endpoint.host);
            target.follow = how.map(|(_, how)| how.clone());
        }
        Self { replica: Some(replica), ..self }
    }

    /// Name of the account that is created for the target with this number.
    #[must_use]
    pub(crate) fn account_name(&self, number: usize) -> String {
        format!("replica-{}-{number}", self.run)
    }

    /// Returns whether the tables of new replicas are compared with those of the donor.
    #[must_use]
    pub(crate) fn compares_tables(&self) -> bool {
        self.replica.as_ref().is_some_and(|replica| replica.tables.is_some())
    }

    /// Returns whether something on the source is quiesced while it is copied.
    #[must_use]
    pub(crate) fn rests(&self) -> bool {
        !self.source.servers.is_empty() || self.backup.as_ref().is_some_and(|backup| backup.stop_replication)
    }

    /// Number of bytes that tar is expected to write: sparse files count with their data only, each entry has
    /// a header.
    #[must_use]
    pub fn expected_bytes(&self) -> u64 {
        let headers = match self.shape.producer {
            Producer::Tree => self.source.entries.saturating_mul(1024),
            Producer::Backup | Producer::File => 0,
        };
        self.source.bytes.min(self.source.disk_bytes.max(1)).saturating_add(headers).max(1)
    }
}

impl TargetPlan {
    /// Directory where a copy arrives. The staging directory above protects it, whatever mode or owner a
    /// stream gives it.
    #[must_use]
    pub(crate) fn inbox(&self) -> PathBuf {
        self.staging.join(INBOX)
    }

    /// Returns the new owner of the copy, if it gets one.
    #[must_use]
    pub(crate) fn new_owner(&self, plan: &Plan) -> Option<NewOwner> {
        let prepared = self.prepare.as_ref().map(|prepare| &prepare.owner);
        let owner = prepared.or(plan.chown.as_ref().map(|owner| &owner.0))?;
        let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
        Some(NewOwner { user: Text::new(user), group: Text::new(group) })
    }

    /// Whether the old data is kept until its server runs with the new data.
    #[must_use]
    pub(crate) fn keeps_old_until_it_runs(&self) -> bool {
        !self.servers.is_empty() || self.follow.is_some()
    }
}
