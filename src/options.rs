//! One layer of options: what one place (a file, a profile, the environment, the command line) says and no more. Layers
//! are put over each other here; what they mean together is `settings`'.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use serde::Deserialize;

use crate::values::{
    Attributes, Compress, Ends, FileDigest, FileName, FirewallChoice, Hook, HostPath, Memory, Nice, Owner,
    Pattern, PortRange, ProgressChoice, TargetAddress, Time, TransferType, UnitName, Whole, from_hooks,
    from_word, from_words,
};

/// `--lease-time`.
pub type LeaseTime = Time<2, 86_400>;
/// `--idle-timeout`.
pub type IdleTimeout = Time<1, 604_800>;
/// `--max-duration`: up to a year.
pub type MaxDuration = Time<1, 31_536_000>;

/// `--server-timeout`: shorter than an agent is given for any command.
pub type ServerTimeout = Time<1, 850>;

/// `--compress-level`, as far as any program's go.
pub type Level = Whole<1, 19>;
/// `--threads`.
pub type Threads = Whole<1, 1024>;

/// `--history-size`.
pub type HistorySize = Whole<0, 10_000>;

/// What one place says; `None`: nothing.
///
/// A switch that is not one of a pair is turned off again by `=false`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    /// What to transfer: file (a file or a directory tree), mariabackup or xtrabackup (a hot backup of the server behind
    /// the socket SOURCE), decompress (an archive, unpacked), compress (into an archive) [default: file]
    #[arg(long = "type", value_name = "TYPE", hide_possible_values = true, help_heading = "What is copied")]
    #[serde(rename = "type")]
    pub transfer_type: Option<TransferType>,
    /// Leave out what matches, at any depth below the source; with a leading / from the source on; repeatable
    #[arg(long, value_name = "PATTERN", value_parser = pattern(), help_heading = "What is copied")]
    #[serde(deserialize_with = "from_words")]
    pub exclude: Option<Vec<Pattern>>,
    /// Accept files that change, appear or disappear while they are copied, and name them; compares a digest of every
    /// file [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "What is copied")]
    pub ignore_changed: Option<bool>,
    /// Allow a target to lose attributes that its file system cannot hold: xattrs, acls, capabilities [default: none]
    #[arg(long, value_name = "KIND[,KIND...]", help_heading = "What is copied")]
    #[serde(deserialize_with = "from_word")]
    pub drop_attributes: Option<Attributes>,

    /// Threads of a hot backup on the source, and of its extraction on the targets [default: half of the processors]
    #[arg(long, value_name = "N", help_heading = "Databases")]
    #[serde(deserialize_with = "from_word")]
    pub backup_threads: Option<Threads>,
    /// Stop what the source replicates during a hot backup, and start exactly that again [default: off]
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        overrides_with = "no_stop_replication",
        help_heading = "Databases"
    )]
    #[serde(alias = "stop_slave")]
    pub stop_replication: Option<bool>,
    /// Prepare a hot backup on the targets: what arrives can be started as a server [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "Databases")]
    pub prepare: Option<bool>,
    /// Memory for that [default: the source's buffer pool, up to half of what is available]
    #[arg(long, value_name = "SIZE", help_heading = "Databases")]
    #[serde(deserialize_with = "from_word")]
    pub prepare_memory: Option<Memory>,
    /// Stop the server of a data directory while it is copied, and start it again: of the source, of the target that it
    /// replaces, or of both [default: none]
    #[arg(long, value_name = "END", hide_possible_values = true, help_heading = "Databases")]
    pub stop_server: Option<Ends>,
    /// The unit of that server [default: the one that it runs in]
    #[arg(long, value_name = "UNIT", help_heading = "Databases")]
    #[serde(deserialize_with = "from_word")]
    pub unit: Option<UnitName>,
    /// How long the server may take to stop: 1s-850s [default: 600s]
    #[arg(long, value_name = "TIME", help_heading = "Databases")]
    #[serde(deserialize_with = "from_word")]
    pub server_timeout: Option<ServerTimeout>,
    /// Copy the data directory of a running server all the same [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "Databases")]
    pub allow_running: Option<bool>,
    /// File of options on the hosts, for logins to their servers [default: their own; root's socket]
    #[arg(long, value_name = "FILE", help_heading = "Databases")]
    #[serde(deserialize_with = "from_word")]
    pub defaults_file: Option<HostPath>,

    /// Run COMMAND on an end of the run before or after all else; PHASE is before- or after- and source, target or
    /// controller; repeatable
    #[arg(long, value_name = "PHASE=COMMAND", help_heading = "Hooks")]
    #[serde(deserialize_with = "from_hooks")]
    pub hook: Option<Vec<Hook>>,

    /// The final name [default: the source's own]
    #[arg(long = "as", value_name = "NAME", value_parser = file_name(), help_heading = "What becomes of it")]
    #[serde(rename = "as", deserialize_with = "from_word")]
    pub rename: Option<FileName>,
    /// Replace what has the final name: in one step, after the copy was verified [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "What becomes of it")]
    pub replace: Option<bool>,
    /// With --replace: keep the old one beside the copy, as NAME.old-RUN [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "What becomes of it")]
    pub keep_old: Option<bool>,
    /// Whose the copy becomes: USER, USER:GROUP or :GROUP of the target [default: as on the source]
    #[arg(long, value_name = "USER:GROUP", help_heading = "What becomes of it")]
    #[serde(deserialize_with = "from_word")]
    pub chown: Option<Owner>,
    /// When the transfer fails, keep what has arrived in its staging directory [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "What becomes of it")]
    pub keep_staging: Option<bool>,
    /// Do not wait until the copy is on the disk; a power cut soon afterwards may lose it
    #[arg(skip)]
    pub fsync: Option<bool>,
    /// Allow a target directory that another account of its host could replace: owned by that account, writable by it,
    /// or below such a directory [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "What becomes of it")]
    pub allow_shared_path: Option<bool>,
    /// With several targets: leave out those that are refused, instead of refusing the run [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "What becomes of it")]
    pub skip_refused: Option<bool>,

    /// Compress with zstd, pigz, gzip or lz4; without TOOL with the first of the first three that all ends have [default]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "auto", value_name = "TOOL",
        overrides_with = "no_compress", help_heading = "On the way")]
    #[serde(deserialize_with = "from_word")]
    pub compress: Option<Compress>,
    /// Level of the compression: zstd 1-19, lz4 1-12, pigz and gzip 1-9 [default: 1]
    #[arg(long, value_name = "N", help_heading = "On the way")]
    #[serde(deserialize_with = "from_word")]
    pub compress_level: Option<Level>,
    /// Encrypt with AES-256-CTR and a key of this run; checks the stream, too [default]
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        overrides_with = "no_encrypt",
        help_heading = "On the way"
    )]
    pub encrypt: Option<bool>,
    /// Processors to use on each host [default: half of them; for digests of the copy all, up to 4]
    #[arg(long, value_name = "N", help_heading = "On the way")]
    #[serde(deserialize_with = "from_word")]
    pub threads: Option<Threads>,
    /// Stand back behind the hosts' other programs, 1-19; without N 10 [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "10", value_name = "N",
        help_heading = "On the way")]
    #[serde(deserialize_with = "from_word")]
    pub nice: Option<Nice>,

    /// Compare a digest of every file, read from both disks [default]
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        overrides_with = "no_checksum",
        help_heading = "Checks"
    )]
    pub checksum: Option<bool>,
    /// The digest of files: md5, sha256 or blake2b [default: md5]
    #[arg(long, value_name = "NAME", hide_possible_values = true, help_heading = "Checks")]
    pub checksum_algorithm: Option<FileDigest>,
    /// Compare a digest of the stream instead: sees the network's faults, not the disks'. Turns --checksum off, is
    /// ignored with an explicit --checksum
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        overrides_with = "no_parallel_checksum",
        help_heading = "Checks"
    )]
    pub parallel_checksum: Option<bool>,

    /// Port to listen on at the targets; 0 is the first free one of --port-range [default: 0]
    #[arg(long, value_name = "N", help_heading = "Network")]
    pub port: Option<u16>,
    /// Ports to choose from [default: 4400-4500]
    #[arg(long, value_name = "FIRST-LAST", help_heading = "Network")]
    #[serde(deserialize_with = "from_word")]
    pub port_range: Option<PortRange>,
    /// What to open on the targets for the source: auto (every firewall in use), iptables, nftables or none
    /// [default: auto]
    #[arg(long, value_name = "KIND", hide_possible_values = true, help_heading = "Network")]
    pub firewall: Option<FirewallChoice>,
    /// The source's address on the data path [default: by its routes]
    #[arg(long, value_name = "ADDRESS", help_heading = "Network")]
    pub source_address: Option<IpAddr>,
    /// A target's address on the data path; with HOST= of that target; repeatable [default: that of its SSH
    /// connection]
    #[arg(long, value_name = "[HOST=]ADDRESS", help_heading = "Network")]
    #[serde(deserialize_with = "from_words")]
    pub target_address: Option<Vec<TargetAddress>>,

    /// Become root with sudo after the login; it must ask no password [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, global = true, help_heading = "Login")]
    pub sudo: Option<bool>,
    /// Configuration file of ssh [default: the user's own]
    #[arg(long, value_name = "FILE", global = true, help_heading = "Login")]
    pub ssh_config: Option<PathBuf>,
    /// An option of ssh, such as Port=2222; repeatable
    #[arg(long, value_name = "KEY=VALUE", global = true, help_heading = "Login")]
    #[serde(deserialize_with = "from_words")]
    pub ssh_option: Option<Vec<SshOption>>,

    /// A host that hears nothing for so long undoes everything by itself: 2s-24h [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Limits")]
    #[serde(deserialize_with = "from_word")]
    pub lease_time: Option<LeaseTime>,
    /// A transfer of which no byte moves for so long has failed: 1s-168h [default: 300s]
    #[arg(long, value_name = "TIME", help_heading = "Limits")]
    #[serde(deserialize_with = "from_word")]
    pub idle_timeout: Option<IdleTimeout>,
    /// A run that is not done after so long has failed: 1s-8760h [default: none]
    #[arg(long, value_name = "TIME", help_heading = "Limits")]
    #[serde(deserialize_with = "from_word")]
    pub max_duration: Option<MaxDuration>,

    /// Progress on standard error: auto (a bar on a terminal, else lines), bar, plain or none [default: auto]
    #[arg(long, value_name = "KIND", hide_possible_values = true, help_heading = "Output")]
    pub progress: Option<ProgressChoice>,
    /// Events and the report as JSON lines on standard output [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "Output")]
    pub json: Option<bool>,
    /// Tell every step on standard error [default: off]
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, global = true, help_heading = "Output")]
    pub verbose: Option<bool>,

    /// Write what became of the last runs to FILE, for the textfile collector of Prometheus [default: none]
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub metrics: Option<PathBuf>,
    /// Records of runs that are kept on this machine, for transfer history; older ones are removed; 0: none [default: 1000]
    #[arg(long, value_name = "N", help_heading = "Output")]
    #[serde(deserialize_with = "from_word")]
    pub history_size: Option<HistorySize>,

    /// Variants of a configuration file by name, chosen with `--profile`; only at its top.
    #[arg(skip)]
    pub profile: BTreeMap<String, Options>,
}

/// Options of ssh that are ours: the run is lost with its connection, and nobody is there to be asked.
const OURS: [&str; 6] =
    ["batchmode", "controlmaster", "controlpath", "controlpersist", "remotecommand", "requesttty"];

/// An option of ssh, `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshOption(pub String);

impl std::str::FromStr for SshOption {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let key = word.split(['=', ' ']).next().unwrap_or_default();
        let good = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !good || key.len() == word.len() || word.contains(['\n', '\0']) {
            return Err("it is no KEY=VALUE of ssh_config(5)".into());
        }
        if OURS.contains(&key.to_ascii_lowercase().as_str()) {
            return Err(format!("{key} is not to be changed"));
        }
        Ok(Self(word.to_owned()))
    }
}

impl Options {
    /// This layer over another: what is said here counts, and what hangs together is said together.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        let below = Self {
            // The level was that of another program.
            compress_level: below.compress_level.filter(|_| match self.compress {
                Some(Compress::With(_)) => self.compress == below.compress,
                _ => true,
            }),
            // Both at once would keep the old one.
            keep_staging: below.keep_staging.filter(|_| self.replace != Some(true)),
            replace: below.replace.filter(|_| self.keep_staging != Some(true)),
            // The one is said instead of the other.
            port: below.port.filter(|_| self.port_range.is_none()),
            port_range: below.port_range.filter(|_| self.port.is_none_or(|port| port == 0)),
            // The check of the stream alone turns that of the files off, and is ignored beside an explicit one.
            checksum: below.checksum.filter(|_| self.parallel_checksum != Some(true)),
            parallel_checksum: below.parallel_checksum.filter(|_| self.checksum != Some(true)),
            ..below
        };
        // All of them, so that none can be forgotten.
        macro_rules! first {
            ($($field:ident),* $(,)?) => {{
                let Self { $($field,)* profile } = self;
                Self { $($field: $field.or(below.$field),)* profile }
            }};
        }
        first!(
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
        )
    }
}

fn pattern() -> impl TypedValueParser<Value = Pattern> {
    OsStringValueParser::new().try_map(|word| Pattern::parse(&word))
}

fn file_name() -> impl TypedValueParser<Value = FileName> {
    OsStringValueParser::new().try_map(|word| FileName::parse(&word))
}
