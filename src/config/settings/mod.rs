//! Resolved settings: command line over environment over configuration over defaults; nothing is left open.

mod check;
#[cfg(test)]
mod check_tests;
mod resolve;
#[cfg(test)]
mod source_tests;
mod sources;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod text_tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use sources::Sources;

use crate::base::endpoint::Endpoint;
use crate::base::printable::printable;
use crate::config::typed::Typed;
use crate::config::values::{
    AttributeKind, Compress, DigestAlgorithm, Ends, FileName, FirewallChoice, Hook, Owner, Pattern,
    PortRange, ProgressChoice, TargetAddress, TransferType,
};
pub use crate::proto::files::Replace;

/// Settings of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one option of the command line")]
pub struct Settings {
    /// Type of the transfer.
    pub transfer_type: TransferType,
    /// Commands before and after the work.
    pub hooks: Vec<Hook>,
    /// Treatment of database servers.
    pub servers: Servers,
    /// Patterns of entries to leave out.
    pub exclude: Vec<Pattern>,
    /// Whether files that change while they are copied are accepted.
    pub ignore_changed: bool,
    /// Kinds of attributes that may be dropped if the target's file system cannot store them.
    pub drop_attributes: BTreeSet<AttributeKind>,
    /// Final name, if it is not the source's.
    pub rename: Option<FileName>,
    /// Treatment of data that has the final name already.
    pub replace: Replace,
    /// Owner of the copy; `None`: as on the source.
    pub chown: Option<Owner>,
    /// Whether the data of a failed copy is kept.
    pub keep_staging: bool,
    /// Whether to wait until the copy is on the disk.
    pub fsync: bool,
    /// Whether to continue without targets that were refused.
    pub skip_refused: bool,
    /// Whether target directories that other accounts of a host can replace are accepted.
    pub allow_shared_path: bool,
    /// Compression of the stream.
    pub compress: Compress,
    /// Compression level, on the scale of the program.
    pub compress_level: u8,
    /// Whether to encrypt the stream.
    pub encrypt: bool,
    /// Number of processors that may be used on each host; `None`: chosen by their number there.
    pub threads: Option<u32>,
    /// Nice value of the programs on hosts, 0 to 19.
    pub nice: u8,
    /// Digest by which every file is compared, disk against disk.
    pub checksum: Option<DigestAlgorithm>,
    /// Whether to compare a digest of the stream even without encryption.
    pub parallel_checksum: bool,
    /// Ports that targets may listen on.
    pub ports: PortRange,
    /// Firewall layers that may be opened.
    pub firewall: FirewallChoice,
    /// Source's address on the data path, if given.
    pub source_address: Option<IpAddr>,
    /// Targets' addresses on the data path, if given.
    pub target_address: Vec<TargetAddress>,
    /// Login on hosts.
    pub login: Login,
    /// Silence of the controller after which an agent rolls back.
    pub lease_time: Duration,
    /// Time without progress after which a transfer fails.
    pub idle_timeout: Duration,
    /// Maximum time of the run.
    pub max_duration: Option<Duration>,
    /// Whether to print the plan and change nothing.
    pub dry_run: bool,
    /// Display of progress.
    pub progress: ProgressChoice,
    /// Whether to print events and the report as JSON.
    pub json: bool,
    /// Whether to log every step.
    pub verbose: bool,
    /// Metrics file for Prometheus.
    pub metrics: Option<PathBuf>,
    /// Number of records of past runs to keep.
    pub history_size: usize,
}

/// Treatment of database servers, and access to them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    /// Threads of a hot backup and of its extraction; `None`: chosen by the processors there.
    pub threads: Option<u32>,
    /// Whether to stop the donor's replication for the backup.
    pub stop_replication: bool,
    /// Whether to prepare a backup, so that a server can be started with it.
    pub prepare: bool,
    /// Bytes of memory for that; `None`: chosen by the donor's buffer pool and the available memory.
    pub prepare_memory: Option<u64>,
    /// Ends whose servers are stopped while their data is copied or replaced.
    pub stop: Ends,
    /// The systemd unit of the servers, if given.
    pub unit: Option<String>,
    /// Maximum time for a server to stop.
    pub timeout: Duration,
    /// Whether to copy data that a running server has open.
    pub allow_running: bool,
    /// File with login options on the hosts.
    pub defaults_file: Option<String>,
}

/// Login on hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// Whether to become root with sudo.
    pub sudo: bool,
    /// SSH configuration file, if not the user's own.
    pub config: Option<PathBuf>,
    /// SSH options, `KEY=VALUE`.
    pub options: Vec<String>,
}

/// Error in the command line or the configuration.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Configuration file that is missing, unreadable or invalid.
    #[error("configuration file {}: {text}", printable(path.as_os_str().as_encoded_bytes()))]
    File {
        /// The file.
        path: PathBuf,
        /// Error and its place in the file.
        text: String,
    },
    /// SSH configuration file that is missing, or that other accounts can change.
    #[error("--ssh-config {}: {text}", printable(path.as_os_str().as_encoded_bytes()))]
    Ssh {
        /// The file.
        path: PathBuf,
        /// Error.
        text: String,
    },
    /// Invalid environment variable.
    #[error("environment variable {}: {text}", printable(name.as_bytes()))]
    Variable {
        /// Name of the variable.
        name: String,
        /// Error.
        text: String,
    },
    /// Unknown profile.
    #[error("--profile {name}: no [profile.{name}]: {place}")]
    Profile {
        /// Name of the profile, printable.
        name: String,
        /// Existing profiles, printable.
        place: String,
    },
    /// Options that contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

impl Settings {
    /// Resolves the command line over the other sources.
    pub fn load(typed: &Typed, sources: &Sources) -> Result<Self, SettingsError> {
        let below = sources.layers(typed.config.as_deref(), typed.profile.as_deref())?;
        Self::resolve(typed.layer().over(below), typed.dry_run)
    }

    /// Checks files that programs on this machine obey but this one does not read.
    pub fn check_files(&self) -> Result<(), SettingsError> {
        self.login.config.as_deref().map_or(Ok(()), sources::check_ssh)
    }

    /// Returns the address of a target on the data path, if given: for its host, or without a host for the
    /// only target.
    #[must_use]
    pub(crate) fn address_of(&self, target: &Endpoint, alone: bool) -> Option<IpAddr> {
        let matches = |given: &&TargetAddress| match &given.host {
            Some(host) => target.host.is_same(host),
            None => alone,
        };
        self.target_address.iter().rev().find(matches).map(|given| given.address)
    }
}

fn contradiction<T>(text: &str) -> Result<T, SettingsError> {
    Err(SettingsError::Contradiction(text.to_owned()))
}
