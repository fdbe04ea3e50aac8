//! Layer of options: the values from one place (a file, a profile, the environment, the command line). Layers are
//! merged here; `settings` interprets the result.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use merge::Merge;
use serde::Deserialize;

use crate::config::values::{
    Attributes, Compress, DigestAlgorithm, Ends, FileName, FirewallChoice, Hook, HostPath, Memory, Nice,
    Owner, Pattern, PortRange, ProgressChoice, TargetAddress, Time, TransferType, UnitName, Whole,
    from_hooks, from_word, from_words,
};

/// `--lease-time`.
pub(crate) type LeaseTime = Time<2, 86_400>;
/// `--idle-timeout`.
pub(crate) type IdleTimeout = Time<1, 604_800>;
/// `--max-duration`: up to a year.
pub(crate) type MaxDuration = Time<1, 31_536_000>;

/// `--server-timeout`: shorter than the time limit of any command to an agent.
pub(crate) type ServerTimeout = Time<1, 850>;

/// `--compress-level`: the widest range of any program.
pub(crate) type Level = Whole<1, 19>;
/// `--threads`.
pub(crate) type Threads = Whole<1, 1024>;

/// `--history-size`.
pub(crate) type HistorySize = Whole<0, 10_000>;

/// Values from one place; `None` where it sets none.
///
/// The declaration of an option has all that is written about it. The first paragraph is its line in `--help`,
/// with the default in brackets. Further paragraphs are for man pages and documents. The last one may be an
/// example of its value in a file, and must be one if there is no default to show.
/// A switch without a `--no-` form is turned off with `=false`.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args, Deserialize, Merge)]
#[serde(default, deny_unknown_fields)]
#[merge(strategy = merge::option::overwrite_none)]
pub struct Options {
    /// file, mariabackup, xtrabackup, compress, decompress; file copies a file or directory tree, the
    /// backups are hot and take the server's socket as SOURCE, compress writes an archive, decompress
    /// unpacks one [default: file]
    ///
    /// Archives are made of a file, a directory tree or a hot backup.
    #[arg(long = "type", value_name = "TYPE", hide_possible_values = true, help_heading = "Source")]
    #[serde(rename = "type")]
    pub transfer_type: Option<TransferType>,
    /// Leave out files that match PATTERN; at any depth below the source, or anchored at the source with
    /// a leading /; repeatable
    ///
    /// `*`, `?` and `[...]` are those of tar's own `--exclude`: they match slashes, too.
    ///
    /// Example: `["*.err", "/lost+found"]`
    #[arg(long, value_name = "PATTERN", value_parser = pattern(), help_heading = "Source")]
    #[serde(deserialize_with = "from_words")]
    pub exclude: Option<Vec<Pattern>>,
    /// Accept files that change, appear or disappear during the copy, and list them; compares a
    /// digest of every file [default: off]
    ///
    /// A difference is accepted only if the inode of the file did change since the run began. Cannot be
    /// used with `--no-checksum`.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "Source")]
    pub ignore_changed: Option<bool>,
    /// Let a target lose attributes that its file system cannot store: xattrs, acls, capabilities
    /// [default: none]
    ///
    /// `xattrs` are extended attributes, `acls` are POSIX ACLs. A kind that the file system can store is
    /// still copied. The report counts the files. Without this option such a copy is refused, or fails.
    ///
    /// Example: `"xattrs,acls"`
    #[arg(long, value_name = "KIND[,KIND...]", help_heading = "Source")]
    #[serde(deserialize_with = "from_word")]
    pub drop_attributes: Option<Attributes>,

    /// Final name of the copy [default: name of the source]
    ///
    /// A hot backup or an unpacked archive has no name of its own: without this option it fills the target
    /// directory.
    ///
    /// Example: `"sqldata"`
    #[arg(long = "as", value_name = "NAME", value_parser = file_name(), help_heading = "Destination")]
    #[serde(rename = "as", deserialize_with = "from_word")]
    pub rename: Option<FileName>,
    /// Replace an existing file or directory; by one rename, after the copy was verified [default: off]
    ///
    /// The old data is removed afterwards, or kept with `--keep-old`.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "Destination")]
    pub replace: Option<bool>,
    /// Keep the replaced data beside the copy, as NAME.old-RUN; requires --replace [default: off]
    ///
    /// In a file it applies to every run that replaces something.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "Destination")]
    pub keep_old: Option<bool>,
    /// Owner of the copy: USER, USER:GROUP or :GROUP, as known on the target [default: the owners on
    /// the source]
    ///
    /// Applies to the whole copy; numbers are allowed, too. As with `chown`, files lose their setuid bits
    /// and capabilities.
    ///
    /// Example: `"mysql:mysql"`
    #[arg(long, value_name = "USER:GROUP", help_heading = "Destination")]
    #[serde(deserialize_with = "from_word")]
    pub chown: Option<Owner>,
    /// Keep the staging directory with the partial copy when the transfer fails [default: off]
    ///
    /// With `--replace` it requires `--keep-old`.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "Destination")]
    pub keep_staging: Option<bool>,
    /// Allow a target directory that another account of its host could replace, because that account
    /// owns it or can write to it or to a directory above it [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "Destination")]
    pub allow_shared_path: Option<bool>,
    /// Continue with the other targets when the preflight refuses one [default: off]
    ///
    /// By default the whole run is refused. The exit code is 1 if a target was left out.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "Destination")]
    pub skip_refused: Option<bool>,
    /// Wait until the copy is on stable storage [default]
    ///
    /// With `--no-fsync`, a power failure soon after the run may lose the copy, and files may be compared
    /// from the cache. Old data is never removed before the copy is on disk.
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        overrides_with = "no_fsync",
        help_heading = "Destination"
    )]
    pub fsync: Option<bool>,

    /// Threads of a hot backup on the source, and of its extraction on the targets [default: half of
    /// the processors]
    ///
    /// From 1 to 1024.
    ///
    /// Example: `4`
    #[arg(long, value_name = "N", help_heading = "Databases")]
    #[serde(deserialize_with = "from_word")]
    pub backup_threads: Option<Threads>,
    /// Stop the replication threads of the source during a hot backup, and start the same ones again
    /// [default: off]
    ///
    /// transferpy's `--stop-slave` does the same, and so does the key `stop_slave`.
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        overrides_with = "no_stop_replication",
        help_heading = "Databases"
    )]
    #[serde(alias = "stop_slave")]
    pub stop_replication: Option<bool>,
    /// Prepare the hot backup on the targets, so that a server can start on it [default: off]
    ///
    /// Also changes the owner of the copy to the account of the server.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "Databases")]
    pub prepare: Option<bool>,
    /// Memory for preparing the backup [default: the source's buffer pool, at most half of the
    /// available memory]
    ///
    /// At least 64M.
    ///
    /// Example: `"4G"`
    #[arg(long, value_name = "SIZE", help_heading = "Databases")]
    #[serde(deserialize_with = "from_word")]
    pub prepare_memory: Option<Memory>,
    /// Stop the server of source, target or both; during the copy of its data directory (the target's for
    /// the exchange only), and start it again, on the target with the new data [default: none]
    #[arg(long, value_name = "WHERE", hide_possible_values = true, help_heading = "Databases")]
    pub stop_server: Option<Ends>,
    /// systemd unit of that server [default: the one that the server runs in]
    ///
    /// Example: `"mariadb@north"`
    #[arg(long, value_name = "UNIT", help_heading = "Databases")]
    #[serde(deserialize_with = "from_word")]
    pub unit: Option<UnitName>,
    /// Time for the server to stop: 1s-850s [default: 600s]
    #[arg(long, value_name = "TIME", help_heading = "Databases")]
    #[serde(deserialize_with = "from_word")]
    pub server_timeout: Option<ServerTimeout>,
    /// Copy the data directory of a running server without stopping it; the copy is not consistent
    /// [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "Databases")]
    pub allow_running: Option<bool>,
    /// Option file on the hosts for logins to their servers [default: the client's own, as root
    /// through the socket]
    ///
    /// The path is absolute.
    ///
    /// Example: `"/etc/mysql/transfer.cnf"`
    #[arg(long, value_name = "FILE", help_heading = "Databases")]
    #[serde(deserialize_with = "from_word")]
    pub defaults_file: Option<HostPath>,

    /// Run COMMAND before or after the transfer; PHASE is before-source, before-target,
    /// before-controller, after-source, after-target or after-controller; repeatable
    ///
    /// COMMAND is for bash, or sh without it. A failed `before-` command ends the run. `after-` commands
    /// always run, even if the controller is gone. Their environment has `TRANSFER_HOOK_RUN`, `_PHASE`,
    /// `_END`, `_SOURCE`, `_TARGETS`, and after the run `_STATUS`: done, failed or lost. In a file, a
    /// phase may have a list.
    ///
    /// Example: `{ before_source = "depool $HOSTNAME", after_source = "repool $HOSTNAME" }`
    #[arg(long, value_name = "PHASE=COMMAND", help_heading = "Hooks")]
    #[serde(deserialize_with = "from_hooks")]
    pub hook: Option<Vec<Hook>>,

    /// Compress with zstd, pigz, gzip or lz4; without TOOL: the first of zstd, pigz and gzip that all
    /// hosts have [default]
    ///
    /// In a file, `true` is this option without TOOL, and `false` is `--no-compress`.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "auto", value_name = "TOOL",
        overrides_with = "no_compress", help_heading = "Compression and encryption")]
    #[serde(deserialize_with = "from_word")]
    pub compress: Option<Compress>,
    /// Compression level: zstd 1-19, lz4 1-12, pigz and gzip 1-9 [default: 1]
    #[arg(long, value_name = "N", help_heading = "Compression and encryption")]
    #[serde(deserialize_with = "from_word")]
    pub compress_level: Option<Level>,
    /// Encrypt with AES-256-CTR and a key made for this run; also takes a digest of the stream
    /// [default]
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        overrides_with = "no_encrypt",
        help_heading = "Compression and encryption"
    )]
    pub encrypt: Option<bool>,

    /// Compare a digest of every file, read back from both disks [default]
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        overrides_with = "no_checksum",
        help_heading = "Verification"
    )]
    pub checksum: Option<bool>,
    /// Digest of files: blake3, md5, sha256 or blake2b [default: blake3]
    ///
    /// `blake3` is the fastest of them.
    #[arg(long, value_name = "NAME", hide_possible_values = true, help_heading = "Verification")]
    pub checksum_algorithm: Option<DigestAlgorithm>,
    /// Verify a digest of the stream, not of files; it is taken during the copy and finds faults of the
    /// network, not of the disks. Turns --checksum off; ignored when --checksum is given
    ///
    /// The digest is SHA-256. With `--encrypt` it is always compared.
    #[arg(
        long,
        num_args = 0,
        default_missing_value = "true",
        overrides_with = "no_parallel_checksum",
        help_heading = "Verification"
    )]
    pub parallel_checksum: Option<bool>,

    /// Port to listen on at the targets; 0 for the first free one of --port-range [default: 0]
    ///
    /// A number other than 0 cannot be used with `--port-range`.
    #[arg(long, value_name = "N", help_heading = "Network")]
    pub port: Option<u16>,
    /// Ports to choose from [default: 4400-4500]
    #[arg(long, value_name = "FIRST-LAST", help_heading = "Network")]
    #[serde(deserialize_with = "from_word")]
    pub port_range: Option<PortRange>,
    /// Firewall to open on the targets for the source: auto (each one in use), iptables, nftables or
    /// none [default: auto]
    ///
    /// Only the source's address and the one port are allowed.
    #[arg(long, value_name = "KIND", hide_possible_values = true, help_heading = "Network")]
    pub firewall: Option<FirewallChoice>,
    /// Address of the source on the data path [default: by its routing table]
    ///
    /// Must be one of the source's own addresses.
    ///
    /// Example: `"10.64.0.11"`
    #[arg(long, value_name = "ADDRESS", help_heading = "Network")]
    pub source_address: Option<IpAddr>,
    /// Address of a target on the data path; HOST= names the target; repeatable [default: the address
    /// of its SSH connection]
    ///
    /// Example: `["db2=10.64.0.12", "db3=10.64.0.13"]`
    #[arg(long, value_name = "[HOST=]ADDRESS", help_heading = "Network")]
    #[serde(deserialize_with = "from_words")]
    pub target_address: Option<Vec<TargetAddress>>,

    /// Use sudo to become root after the login; requires sudo without a password [default: off]
    ///
    /// Logins may then use an unprivileged account.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, global = true, help_heading = "SSH")]
    pub sudo: Option<bool>,
    /// Configuration file of ssh [default: the user's own]
    ///
    /// Example: `"/etc/transfer/ssh_config"`
    #[arg(long, value_name = "FILE", global = true, help_heading = "SSH")]
    pub ssh_config: Option<PathBuf>,
    /// Option of ssh, such as Port=2222; repeatable
    ///
    /// Written as in `ssh_config(5)`.
    ///
    /// Example: `["Port=2222", "User=dba"]`
    #[arg(long, value_name = "KEY=VALUE", global = true, help_heading = "SSH")]
    #[serde(deserialize_with = "from_words")]
    pub ssh_option: Option<Vec<SshOption>>,

    /// Time without a heartbeat from the controller after which a host rolls back on its own: 2s-24h
    /// [default: 30s]
    #[arg(long, value_name = "TIME", help_heading = "Limits")]
    #[serde(deserialize_with = "from_word")]
    pub lease_time: Option<LeaseTime>,
    /// Time without any data moving after which the transfer fails: 1s-168h [default: 300s]
    ///
    /// With several targets, one that takes no data for this time is dropped, and the others continue.
    #[arg(long, value_name = "TIME", help_heading = "Limits")]
    #[serde(deserialize_with = "from_word")]
    pub idle_timeout: Option<IdleTimeout>,
    /// Time after which an unfinished run fails: 1s-8760h [default: none]
    ///
    /// Example: `"8h"`
    #[arg(long, value_name = "TIME", help_heading = "Limits")]
    #[serde(deserialize_with = "from_word")]
    pub max_duration: Option<MaxDuration>,
    /// Run the programs on the hosts at nice value N (1-19; 10 without N) and low I/O priority
    /// [default: off]
    ///
    /// The I/O priority is set with ionice. In a file, `true` is the option without N.
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "10", value_name = "N",
        help_heading = "Limits")]
    #[serde(deserialize_with = "from_word")]
    pub nice: Option<Nice>,
    /// Processors to use on each host [default: half of the processors; up to 4
    /// for digests of files]
    ///
    /// Used for compression and digests. From 1 to 1024.
    ///
    /// Example: `2`
    #[arg(long, value_name = "N", help_heading = "Limits")]
    #[serde(deserialize_with = "from_word")]
    pub threads: Option<Threads>,

    /// Progress on standard error: auto (a bar on a terminal, otherwise lines), bar, plain or none
    /// [default: auto]
    ///
    /// A terminal whose `TERM` is `dumb` gets lines, too.
    #[arg(long, value_name = "KIND", hide_possible_values = true, help_heading = "Output")]
    pub progress: Option<ProgressChoice>,
    /// Print JSON lines on standard output; events while it runs and the report at the end [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, help_heading = "Output")]
    pub json: Option<bool>,
    /// Report each step on standard error; with the command that was run [default: off]
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        hide_possible_values = true, global = true, help_heading = "Output")]
    pub verbose: Option<bool>,

    /// Write metrics of the last runs to FILE, for the textfile collector of Prometheus [default:
    /// none]
    ///
    /// Written after each run: the result of the last run of each source and target, for `node_exporter`.
    ///
    /// Example: `"/var/lib/prometheus/node-exporter/transfer.prom"`
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub metrics: Option<PathBuf>,
    /// Number of runs to keep in this machine's history; older ones are removed, 0 keeps none
    /// [default: 1000]
    ///
    /// `transfer history` and `transfer show` print them. From 0 to 10000.
    #[arg(long, value_name = "N", help_heading = "Output")]
    #[serde(deserialize_with = "from_word")]
    pub history_size: Option<HistorySize>,

    /// Profiles of a configuration file by name, for `--profile`.
    #[arg(skip)]
    #[merge(skip)]
    pub profile: BTreeMap<String, Options>,
}

/// Options of ssh that the program sets itself: a run has one connection per host and cannot answer prompts.
const OURS: [&str; 6] =
    ["batchmode", "controlmaster", "controlpath", "controlpersist", "remotecommand", "requesttty"];

/// Option of ssh, `KEY=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshOption(pub String);

impl std::str::FromStr for SshOption {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let key = word.split(['=', ' ']).next().unwrap_or_default();
        let good = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !good || key.len() == word.len() || word.contains(['\n', '\0']) {
            return Err("expected KEY=VALUE as in ssh_config(5)".into());
        }
        if OURS.contains(&key.to_ascii_lowercase().as_str()) {
            return Err(format!("{key} cannot be changed"));
        }
        Ok(Self(word.to_owned()))
    }
}

impl Options {
    /// Merges this layer over another. Options that depend on each other are taken from the same layer.
    #[must_use]
    pub(crate) fn over(self, below: Self) -> Self {
        let below = Self {
            // The level belongs to another program.
            compress_level: below.compress_level.filter(|_| match self.compress {
                Some(Compress::With(_)) => self.compress == below.compress,
                _ => true,
            }),
            // Both together are refused, so the option of the lower layer must go.
            keep_staging: below.keep_staging.filter(|_| self.replace != Some(true)),
            replace: below.replace.filter(|_| self.keep_staging != Some(true)),
            // Each replaces the other.
            port: below.port.filter(|_| self.port_range.is_none()),
            port_range: below.port_range.filter(|_| self.port.is_none_or(|port| port == 0)),
            // --parallel-checksum turns --checksum off; an explicit --checksum wins.
            checksum: below.checksum.filter(|_| self.parallel_checksum != Some(true)),
            parallel_checksum: below.parallel_checksum.filter(|_| self.checksum != Some(true)),
            ..below
        };
        let mut merged = self;
        merged.merge(below);
        merged
    }
}

fn pattern() -> impl TypedValueParser<Value = Pattern> {
    OsStringValueParser::new().try_map(|word| Pattern::parse(&word))
}

fn file_name() -> impl TypedValueParser<Value = FileName> {
    OsStringValueParser::new().try_map(|word| FileName::parse(&word))
}
