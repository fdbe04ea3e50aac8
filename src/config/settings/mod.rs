//! Resolved settings: command line over environment over configuration over defaults; nothing is left open.

mod sources;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use sources::Sources;

use crate::base::endpoint::{Endpoint, HostName, MOST_TARGETS};
use crate::base::printable::printable;
use crate::config::options::{Level, Options};
use crate::config::typed::Typed;
use crate::config::values::{
    AttributeKind, Compress, Ends, FileDigest, FileName, FirewallChoice, Hook, Owner, Pattern, PortRange,
    ProgressChoice, TargetAddress, TransferType,
};

/// Default port range.
const PORTS: PortRange = PortRange { first: 4400, last: 4500 };

/// Default number of records of past runs.
const HISTORY_SIZE: usize = 1000;

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
    pub checksum: Option<FileDigest>,
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

/// Treatment of data that has the final name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Refuse.
    No,
    /// Remove it after the copy has taken its place.
    Remove,
    /// Keep it under another name.
    Keep,
}

impl Replace {
    /// Word for agents.
    #[must_use]
    pub fn word(self) -> &'static [u8] {
        match self {
            Self::No => b"no",
            Self::Remove => b"remove",
            Self::Keep => b"keep",
        }
    }
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

    #[expect(clippy::too_many_lines, reason = "a line or two for each option")]
    fn resolve(options: Options, dry_run: bool) -> Result<Self, SettingsError> {
        // Without `..`, so that an option cannot be forgotten.
        let Options {
            transfer_type,
            exclude,
            ignore_changed,
            drop_attributes,
            backup_threads,
            stop_replication,
            prepare,
            prepare_memory,
            stop_server,
            unit,
            server_timeout,
            allow_running,
            defaults_file,
            hook,
            rename,
            replace,
            keep_old,
            chown,
            keep_staging,
            fsync,
            allow_shared_path,
            skip_refused,
            compress,
            compress_level,
            encrypt,
            threads,
            nice,
            checksum,
            checksum_algorithm,
            parallel_checksum,
            port,
            port_range,
            firewall,
            source_address,
            target_address,
            sudo,
            ssh_config,
            ssh_option,
            lease_time,
            idle_timeout,
            max_duration,
            progress,
            json,
            verbose,
            metrics,
            history_size,
            profile: _,
        } = options;
        let transfer_type = transfer_type.unwrap_or(TransferType::File);
        let ignore_changed = ignore_changed.unwrap_or(false);
        let keep_staging = keep_staging.unwrap_or(false);
        let ports = ports(port, port_range)?;
        let (compress, compress_level) = compression(compress, compress_level)?;
        let is_digest_needed = ignore_changed && transfer_type == TransferType::File;
        let Checks { files, stream } = checks(is_digest_needed, checksum, parallel_checksum)?;
        let replace = replacing(replace, keep_old, keep_staging)?;
        Ok(Self {
            transfer_type,
            hooks: hook.unwrap_or_default(),
            servers: Servers {
                threads: backup_threads.map(|threads| threads.0),
                stop_replication: stop_replication.unwrap_or(false),
                prepare: prepare.unwrap_or(false),
                prepare_memory: prepare_memory.map(|memory| memory.0),
                stop: stop_server.unwrap_or(Ends::None),
                unit: unit.map(|unit| unit.0),
                timeout: server_timeout.map_or(Duration::from_secs(600), |time| time.0),
                allow_running: allow_running.unwrap_or(false),
                defaults_file: defaults_file.map(|file| file.0),
            },
            exclude: exclude.unwrap_or_default(),
            ignore_changed,
            drop_attributes: drop_attributes.unwrap_or_default().0,
            rename,
            replace,
            chown,
            keep_staging,
            fsync: fsync.unwrap_or(true),
            skip_refused: skip_refused.unwrap_or(false),
            allow_shared_path: allow_shared_path.unwrap_or(false),
            compress,
            compress_level,
            encrypt: encrypt.unwrap_or(true),
            threads: threads.map(|threads| threads.0),
            nice: nice.map_or(0, |nice| nice.0),
            checksum: files.then(|| checksum_algorithm.unwrap_or(FileDigest::Md5)),
            parallel_checksum: stream,
            ports,
            firewall: firewall.unwrap_or(FirewallChoice::Auto),
            source_address,
            target_address: target_address.unwrap_or_default(),
            login: Login {
                sudo: sudo.unwrap_or(false),
                config: ssh_config,
                options: ssh_option.unwrap_or_default().into_iter().map(|option| option.0).collect(),
            },
            lease_time: lease_time.map_or(Duration::from_secs(30), |time| time.0),
            idle_timeout: idle_timeout.map_or(Duration::from_secs(300), |time| time.0),
            max_duration: max_duration.map(|time| time.0),
            dry_run,
            progress: progress.unwrap_or(ProgressChoice::Auto),
            json: json.unwrap_or(false),
            verbose: verbose.unwrap_or(false),
            metrics,
            history_size: history_size.map_or(HISTORY_SIZE, |size| size.0 as usize),
        })
    }

    /// Checks the settings for a transfer to these targets. A typed option must have an effect; one from a
    /// file may be meant for other runs.
    pub fn check(&self, typed: &Typed, targets: &[Endpoint]) -> Result<(), SettingsError> {
        let contradiction = |text: String| Err(SettingsError::Contradiction(text));
        Self::check_number(targets.len())?;
        if typed.options.keep_old == Some(true) && self.replace == Replace::No {
            return contradiction("--keep-old requires --replace".into());
        }
        let kind = self.transfer_type;
        if let Some(option) = without_effect(kind, &typed.options) {
            return contradiction(format!("{option} has no effect with --type {}", kind.name()));
        }
        let has_name = kind == TransferType::File || self.rename.is_some();
        let replaces = typed.options.replace == Some(true);
        if replaces && !has_name && kind != TransferType::Compress {
            return contradiction(format!(
                "--replace requires --as NAME with --type {} (otherwise the copy fills the target directory)",
                kind.name()
            ));
        }
        if replaces && kind == TransferType::Compress {
            return contradiction(
                "--replace cannot be used with --type compress; choose another name with --as".into(),
            );
        }
        let hosts: Vec<&HostName> = targets.iter().map(|target| &target.host).collect();
        Self::check_addresses(typed, &hosts)
    }

    fn check_number(targets: usize) -> Result<(), SettingsError> {
        if targets > MOST_TARGETS {
            let text = format!("{targets} targets: the maximum for a run is {MOST_TARGETS}");
            return Err(SettingsError::Contradiction(text));
        }
        Ok(())
    }

    /// Checks the settings for replicas on these hosts.
    pub fn check_replicas(typed: &Typed, targets: &[HostName]) -> Result<(), SettingsError> {
        Self::check_number(targets.len())?;
        if typed.options.keep_old == Some(true) && typed.options.replace != Some(true) {
            return Err(SettingsError::Contradiction("--keep-old requires --replace".into()));
        }
        Self::check_addresses(typed, &targets.iter().collect::<Vec<_>>())
    }

    /// Checks that each address on the data path belongs to a target.
    fn check_addresses(typed: &Typed, targets: &[&HostName]) -> Result<(), SettingsError> {
        let contradiction = |text: String| Err(SettingsError::Contradiction(text));
        for given in typed.options.target_address.iter().flatten() {
            let address = given.address;
            let text = match &given.host {
                None if targets.len() > 1 => {
                    format!("--target-address {address}: with several targets, use HOST={address}")
                }
                Some(host) if !targets.iter().any(|target| target.is_same(host)) => {
                    format!("--target-address {host}={address}: {host} is not a target")
                }
                _ => continue,
            };
            return contradiction(text);
        }
        Ok(())
    }

    /// Returns the address of a target on the data path, if given: for its host, or without a host for the
    /// only target.
    #[must_use]
    pub fn address_of(&self, target: &Endpoint, alone: bool) -> Option<IpAddr> {
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

/// Resolves what happens to data that has the final name already.
fn replacing(
    replace: Option<bool>,
    keep_old: Option<bool>,
    keep_staging: bool,
) -> Result<Replace, SettingsError> {
    match (replace.unwrap_or(false), keep_old.unwrap_or(false)) {
        (true, true) => Ok(Replace::Keep),
        (true, false) if keep_staging => contradiction("--keep-staging with --replace requires --keep-old"),
        (true, false) => Ok(Replace::Remove),
        // In a file `keep_old` applies only to runs that replace something.
        (false, _) => Ok(Replace::No),
    }
}

/// Resolves the ports that targets may listen on.
fn ports(port: Option<u16>, range: Option<PortRange>) -> Result<PortRange, SettingsError> {
    match (port.filter(|port| *port != 0), range) {
        (Some(_), Some(_)) => contradiction("--port and --port-range cannot be used together"),
        (Some(port), None) => Ok(PortRange { first: port, last: port }),
        (None, range) => Ok(range.unwrap_or(PORTS)),
    }
}

/// Resolves the compression and its level, on the scale of the program.
fn compression(compress: Option<Compress>, level: Option<Level>) -> Result<(Compress, u8), SettingsError> {
    let compress = compress.unwrap_or(Compress::Auto);
    let level = level.map_or(1, |level| u8::try_from(level.0).unwrap_or(u8::MAX));
    match compress {
        Compress::With(program) if level > program.highest_level() => contradiction(&format!(
            "--compress-level {level}: the maximum for {} is {}",
            program.name(),
            program.highest_level()
        )),
        _ => Ok((compress, level)),
    }
}

/// Digests that are compared.
struct Checks {
    /// A digest of every file.
    files: bool,
    /// A digest of the stream, even without encryption.
    stream: bool,
}

/// Resolves the digests to compare. `is_needed`: digests of files are needed to tell changes from faults.
fn checks(is_needed: bool, files: Option<bool>, stream: Option<bool>) -> Result<Checks, SettingsError> {
    // Otherwise only a program's message would tell a change from a disk error.
    if is_needed && files == Some(false) {
        return contradiction(
            "--ignore-changed cannot be used with --no-checksum: only digests tell changes from faults",
        );
    }
    Ok(Checks {
        files: is_needed || files.unwrap_or(stream != Some(true)),
        stream: stream == Some(true) && files != Some(true),
    })
}

/// Returns the first typed option that has no effect with this type.
fn without_effect(kind: TransferType, typed: &Options) -> Option<&'static str> {
    use TransferType::{Backup, Compress, Decompress, File};
    let on = |option: Option<bool>| option == Some(true);
    let stops = typed.stop_server.unwrap_or(Ends::None);
    let of: [(bool, &'static str, &[TransferType]); 9] = [
        (typed.exclude.is_some(), "--exclude", &[File, Compress]),
        (on(typed.ignore_changed), "--ignore-changed", &[File]),
        (typed.drop_attributes.is_some(), "--drop-attributes", &[File, Decompress]),
        (typed.backup_threads.is_some(), "--backup-threads", &[Backup, Compress, Decompress]),
        (on(typed.prepare), "--prepare", &[Backup, Decompress]),
        (typed.prepare_memory.is_some(), "--prepare-memory", &[Backup, Decompress]),
        (stops.source(), "--stop-server source", &[File, Compress]),
        (stops.target(), "--stop-server target", &[File, Backup, Decompress]),
        (on(typed.allow_running), "--allow-running", &[File, Compress]),
    ];
    of.into_iter().find(|(given, _, types)| *given && !types.contains(&kind)).map(|(_, option, _)| option)
}
