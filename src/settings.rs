//! What was meant: the command line over the environment over the configuration over the defaults, with nothing left open.

mod sources;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use sources::Sources;

use crate::cli::Typed;
use crate::endpoint::Endpoint;
use crate::options::Options;
use crate::printable::printable;
use crate::values::{
    Compress, FileDigest, FileName, FirewallChoice, Owner, Pattern, PortRange, ProgressChoice, TargetAddress,
    TransferType,
};

/// The ports of which one is taken when none is asked for.
const PORTS: PortRange = PortRange { first: 4400, last: 4500 };

/// How a run is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one option of the command line")]
pub struct Settings {
    /// What to transfer.
    pub transfer_type: TransferType,
    /// Asked for, and without effect on files.
    pub stop_slave: bool,
    /// What is left out.
    pub exclude: Vec<Pattern>,
    /// What changes while it is copied is no failure.
    pub ignore_changed: bool,
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
    /// Silence after which a guard undoes everything.
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
    /// As guards call it.
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
    /// A type that this version cannot transfer.
    #[error("--type {0} is not in this version: only --type file is")]
    Type(&'static str),
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

    fn resolve(options: Options, dry_run: bool) -> Result<Self, SettingsError> {
        // Without `..`, so that an option cannot be forgotten.
        let Options {
            transfer_type,
            exclude,
            ignore_changed,
            stop_slave,
            rename,
            replace,
            keep_old,
            chown,
            keep_staging,
            fsync,
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
        if keep_staging == Some(true) && replace == Replace::Remove {
            return contradiction("--keep-staging is not with --replace unless there is --keep-old, too");
        }
        Ok(Self {
            transfer_type: transfer_type.unwrap_or(TransferType::File),
            stop_slave: stop_slave.unwrap_or(false),
            exclude: exclude.unwrap_or_default(),
            ignore_changed: ignore_changed.unwrap_or(false),
            rename,
            replace,
            chown,
            keep_staging: keep_staging.unwrap_or(false),
            fsync: fsync.unwrap_or(true),
            skip_refused: skip_refused.unwrap_or(false),
            compress,
            compress_level: level,
            encrypt: encrypt.unwrap_or(true),
            threads: threads.map(|threads| threads.0),
            nice: nice.map_or(0, |nice| nice.0),
            checksum: checksum
                .unwrap_or(parallel_checksum != Some(true))
                .then(|| checksum_algorithm.unwrap_or(FileDigest::Md5)),
            parallel_checksum: parallel_checksum == Some(true) && checksum != Some(true),
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
        })
    }

    /// What is wrong for a transfer to these targets, and not for other work. What was typed must have an effect; what
    /// stands in a file may be for other runs.
    pub fn check(&self, typed: &Typed, targets: &[Endpoint]) -> Result<(), SettingsError> {
        match self.transfer_type {
            TransferType::File => {}
            TransferType::Xtrabackup => return Err(SettingsError::Type("xtrabackup")),
            TransferType::Decompress => return Err(SettingsError::Type("decompress")),
        }
        if typed.options.keep_old == Some(true) && self.replace == Replace::No {
            return Err(SettingsError::Contradiction("--keep-old is only with --replace".into()));
        }
        for said in typed.options.target_address.iter().flatten() {
            let address = said.address;
            let text = match &said.host {
                None if targets.len() > 1 => {
                    format!("--target-address {address}: of several targets, say HOST={address}")
                }
                Some(host) if !targets.iter().any(|target| target.host.is_same(host)) => {
                    format!("--target-address {host}={address}: {host} is no target")
                }
                _ => continue,
            };
            return Err(SettingsError::Contradiction(text));
        }
        Ok(())
    }

    /// The name that the copy gets.
    #[must_use]
    pub fn final_name<'a>(&'a self, source: &'a Endpoint) -> &'a OsStr {
        self.rename.as_ref().map_or_else(|| source.name().unwrap_or_default(), |name| &name.0)
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
