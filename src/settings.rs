//! What was meant: the command line over the environment over the configuration over the defaults, with nothing left open.

mod sources;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use sources::Sources;

use crate::cli::Typed;
use crate::endpoint::{Endpoint, HostName, MOST_TARGETS};
use crate::options::Options;
use crate::printable::printable;
use crate::values::{
    AttributeKind, Compress, Ends, FileDigest, FileName, FirewallChoice, Hook, Owner, Pattern, PortRange,
    ProgressChoice, TargetAddress, TransferType,
};

/// The ports of which one is taken when none is asked for.
const PORTS: PortRange = PortRange { first: 4400, last: 4500 };

/// The records of runs that are kept where nothing is said.
const HISTORY_SIZE: usize = 1000;

/// How a run is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one option of the command line")]
pub struct Settings {
    /// What to transfer.
    pub transfer_type: TransferType,
    /// Commands before and after the work.
    pub hooks: Vec<Hook>,
    /// What it is to do with servers.
    pub servers: Servers,
    /// What is left out.
    pub exclude: Vec<Pattern>,
    /// What changes while it is copied is no failure.
    pub ignore_changed: bool,
    /// Kinds of attributes that may be lost where the target's file system cannot hold them.
    pub drop_attributes: BTreeSet<AttributeKind>,
    /// The final name, where it is not the source's.
    pub rename: Option<FileName>,
    /// What to do with what has the final name.
    pub replace: Replace,
    /// Whose the copy becomes; `None`: as on the source.
    pub chown: Option<Owner>,
    /// Keep what has arrived of a failed copy.
    pub keep_staging: bool,
    /// Wait until the copy is on the disk.
    pub fsync: bool,
    /// Leave out targets that are refused.
    pub skip_refused: bool,
    /// Target directories that other accounts of a host can replace are no refusal.
    pub allow_shared_path: bool,
    /// Whether and how to compress.
    pub compress: Compress,
    /// The level, as the program counts.
    pub compress_level: u8,
    /// Encrypt on the way.
    pub encrypt: bool,
    /// Processors that may be used on each host; `None`: by their number there.
    pub threads: Option<u32>,
    /// How much our programs stand back, 0 to 19.
    pub nice: u8,
    /// Compare every file, disk against disk, by this digest.
    pub checksum: Option<FileDigest>,
    /// Compare a digest of the stream even where it is not encrypted.
    pub parallel_checksum: bool,
    /// Which ports may be listened on.
    pub ports: PortRange,
    /// Which layers of the firewall may be opened.
    pub firewall: FirewallChoice,
    /// The source's address on the data path, where it was said.
    pub source_address: Option<IpAddr>,
    /// The targets' addresses on the data path, where they were said.
    pub target_address: Vec<TargetAddress>,
    /// How to log in.
    pub login: Login,
    /// Silence after which an agent undoes everything.
    pub lease_time: Duration,
    /// Standstill after which a transfer has failed.
    pub idle_timeout: Duration,
    /// The longest that the run may take.
    pub max_duration: Option<Duration>,
    /// Print the plan, change nothing.
    pub dry_run: bool,
    /// How to show progress.
    pub progress: ProgressChoice,
    /// Events and report as JSON.
    pub json: bool,
    /// Tell every step.
    pub verbose: bool,
    /// The file for Prometheus.
    pub metrics: Option<PathBuf>,
    /// How many records of runs are kept.
    pub history_size: usize,
}

/// What is to be done with servers of databases, and how they are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    /// Threads of a hot backup and of its extraction; `None`: by the processors there.
    pub threads: Option<u32>,
    /// Stop the source's replication meanwhile.
    pub stop_replication: bool,
    /// Make a backup ready to be started.
    pub prepare: bool,
    /// Bytes of memory for that; `None`: by what the source's server has, and what is available.
    pub prepare_memory: Option<u64>,
    /// Whose servers are stopped while their data is copied or replaced.
    pub stop: Ends,
    /// Their unit, where it was said.
    pub unit: Option<String>,
    /// How long one may take to stop.
    pub timeout: Duration,
    /// Copy what a running server works on.
    pub allow_running: bool,
    /// Options for logins, a file on the hosts.
    pub defaults_file: Option<String>,
}

/// What to do with what has the final name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// Refuse.
    No,
    /// Remove it after the copy took its place.
    Remove,
    /// Keep it under another name.
    Keep,
}

impl Replace {
    /// As agents call it.
    #[must_use]
    pub fn word(self) -> &'static [u8] {
        match self {
            Self::No => b"no",
            Self::Remove => b"remove",
            Self::Keep => b"keep",
        }
    }
}

/// How to log in on hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// Become root there.
    pub sudo: bool,
    /// ssh's configuration file, where it is not the user's own.
    pub config: Option<PathBuf>,
    /// Options of ssh, `KEY=VALUE`.
    pub options: Vec<String>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file is not there, cannot be read or holds something wrong.
    #[error("configuration file {}: {text}", printable(path.as_os_str().as_encoded_bytes()))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        text: String,
    },
    /// ssh's configuration is not there, or others can change it.
    #[error("--ssh-config {}: {text}", printable(path.as_os_str().as_encoded_bytes()))]
    Ssh {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        text: String,
    },
    /// A variable of the environment is wrong.
    #[error("environment variable {}: {text}", printable(name.as_bytes()))]
    Variable {
        /// Its name.
        name: String,
        /// What is wrong with it.
        text: String,
    },
    /// There is no such profile.
    #[error("--profile {name}: there is no [profile.{name}]: {place}")]
    Profile {
        /// Its name, as it may be shown.
        name: String,
        /// Where it was looked for, likewise.
        place: String,
    },
    /// Options that contradict each other.
    #[error("{0}")]
    Contradiction(String),
}

impl Settings {
    /// Puts what was typed over what the other sources say.
    pub fn load(typed: &Typed, sources: &Sources) -> Result<Self, SettingsError> {
        let below = sources.layers(typed.config.as_deref(), typed.profile.as_deref())?;
        Self::resolve(typed.layer().over(below), typed.dry_run)
    }

    /// Checks the files that programs of ours obey and we do not read.
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
        let contradiction = |text: &str| Err(SettingsError::Contradiction(text.into()));
        let replace = match (replace.unwrap_or(false), keep_old.unwrap_or(false)) {
            (true, true) => Replace::Keep,
            (true, false) => Replace::Remove,
            // As a key of a file: whenever something is replaced.
            (false, _) => Replace::No,
        };
        if port.is_some_and(|port| port != 0) && port_range.is_some() {
            return contradiction("--port and --port-range cannot be said together");
        }
        let compress = compress.unwrap_or(Compress::Auto);
        let level = compress_level.map_or(1, |level| u8::try_from(level.0).unwrap_or(u8::MAX));
        if let Compress::With(program) = compress {
            if level > program.highest_level() {
                return Err(SettingsError::Contradiction(format!(
                    "--compress-level {level}: the highest of {} is {}",
                    program.name(),
                    program.highest_level()
                )));
            }
        }
        let transfer_type = transfer_type.unwrap_or(TransferType::File);
        let ignore_changed = ignore_changed.unwrap_or(false);
        // Otherwise a program's word would be all that tells a change from a fault of a disk.
        let needs_digests = ignore_changed && transfer_type == TransferType::File;
        if needs_digests && checksum == Some(false) {
            return contradiction(
                "--ignore-changed cannot be used with --no-checksum: only digests tell changes from faults",
            );
        }
        let parallel_checksum_only = parallel_checksum == Some(true) && checksum != Some(true);
        let checksum = if needs_digests { true } else { checksum.unwrap_or(parallel_checksum != Some(true)) };
        if keep_staging == Some(true) && replace == Replace::Remove {
            return contradiction("--keep-staging is not with --replace unless there is --keep-old, too");
        }
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
            keep_staging: keep_staging.unwrap_or(false),
            fsync: fsync.unwrap_or(true),
            skip_refused: skip_refused.unwrap_or(false),
            allow_shared_path: allow_shared_path.unwrap_or(false),
            compress,
            compress_level: level,
            encrypt: encrypt.unwrap_or(true),
            threads: threads.map(|threads| threads.0),
            nice: nice.map_or(0, |nice| nice.0),
            checksum: checksum.then(|| checksum_algorithm.unwrap_or(FileDigest::Md5)),
            parallel_checksum: parallel_checksum_only,
            ports: match port {
                Some(port @ 1..) => PortRange { first: port, last: port },
                _ => port_range.unwrap_or(PORTS),
            },
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

    /// What is wrong for a transfer to these targets, and not for other work. What was typed must have an effect; what
    /// stands in a file may be for other runs.
    pub fn check(&self, typed: &Typed, targets: &[Endpoint]) -> Result<(), SettingsError> {
        let contradiction = |text: String| Err(SettingsError::Contradiction(text));
        Self::check_number(targets.len())?;
        if typed.options.keep_old == Some(true) && self.replace == Replace::No {
            return contradiction("--keep-old is only with --replace".into());
        }
        let kind = self.transfer_type;
        if let Some(option) = without_effect(kind, &typed.options) {
            return contradiction(format!("{option} has no effect with --type {}", kind.name()));
        }
        let has_name = kind == TransferType::File || self.rename.is_some();
        let replaces = typed.options.replace == Some(true);
        if replaces && !has_name && kind != TransferType::Compress {
            return contradiction(format!(
                "--replace is for a copy with a name of its own: say --as NAME, too (--type {} fills the directory)",
                kind.name()
            ));
        }
        if replaces && kind == TransferType::Compress {
            return contradiction(
                "--replace is not with --type compress: choose another name with --as".into(),
            );
        }
        let hosts: Vec<&HostName> = targets.iter().map(|target| &target.host).collect();
        Self::check_addresses(typed, &hosts)
    }

    fn check_number(targets: usize) -> Result<(), SettingsError> {
        if targets > MOST_TARGETS {
            let text = format!("{targets} targets: one run has at most {MOST_TARGETS}");
            return Err(SettingsError::Contradiction(text));
        }
        Ok(())
    }

    /// The same, for replicas on these hosts.
    pub fn check_replicas(typed: &Typed, targets: &[HostName]) -> Result<(), SettingsError> {
        Self::check_number(targets.len())?;
        if typed.options.keep_old == Some(true) && typed.options.replace != Some(true) {
            return Err(SettingsError::Contradiction("--keep-old is only with --replace".into()));
        }
        Self::check_addresses(typed, &targets.iter().collect::<Vec<_>>())
    }

    /// Addresses of the data path are of targets.
    fn check_addresses(typed: &Typed, targets: &[&HostName]) -> Result<(), SettingsError> {
        let contradiction = |text: String| Err(SettingsError::Contradiction(text));
        for said in typed.options.target_address.iter().flatten() {
            let address = said.address;
            let text = match &said.host {
                None if targets.len() > 1 => {
                    format!("--target-address {address}: of several targets, say HOST={address}")
                }
                Some(host) if !targets.iter().any(|target| target.is_same(host)) => {
                    format!("--target-address {host}={address}: {host} is no target")
                }
                _ => continue,
            };
            return contradiction(text);
        }
        Ok(())
    }

    /// The address of a target on the data path, if it was said: with its host, or where it is the only target.
    #[must_use]
    pub fn address_of(&self, target: &Endpoint, alone: bool) -> Option<IpAddr> {
        let its = |said: &&TargetAddress| match &said.host {
            Some(host) => target.host.is_same(host),
            None => alone,
        };
        self.target_address.iter().rev().find(its).map(|said| said.address)
    }
}

/// The first of the options of one type that were typed with another one.
fn without_effect(kind: TransferType, typed: &Options) -> Option<&'static str> {
    use TransferType::{Backup, Compress, Decompress, File};
    let on = |said: Option<bool>| said == Some(true);
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
    of.into_iter().find(|(said, _, types)| *said && !types.contains(&kind)).map(|(_, option, _)| option)
}
