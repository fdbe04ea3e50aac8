//! What was typed. Validated as far as one word can be, without effects and without defaults: those are `settings`'.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Parser, Subcommand, ValueEnum};

use crate::endpoint::{Endpoint, HostName};

/// Moves databases and directory trees between hosts: verified, undone on any failure.
///
/// SOURCE is copied into each TARGET directory under its own name: from host to host over netcat, driven over SSH from
/// here. It gets its name there only after it was verified.
#[derive(Debug, Parser)]
#[command(
    name = "transfer",
    version,
    subcommand_negates_reqs = true,
    override_usage = "transfer [OPTIONS] SOURCE TARGET...\n       transfer status HOST...\n       transfer clean HOST...",
    after_help = "Exit codes: 0 done, 1 failed, 2 usage or configuration, 3 verification failed, 4 refused, nothing \
changed, 5 busy, 6 something could not be undone, 128+N interrupted by signal N."
)]
pub struct Cli {
    /// The source.
    #[arg(required = true, value_name = "SOURCE", value_parser = endpoint())]
    #[arg(help = "What to copy: [USER@]HOST:/PATH, or /PATH or localhost:/PATH of this machine")]
    pub source: Option<Endpoint>,
    /// The directories to copy it into, written like SOURCE
    #[arg(required = true, value_name = "TARGET", value_parser = endpoint())]
    pub targets: Vec<Endpoint>,
    /// Everything else that may be typed before or after them.
    #[command(flatten)]
    pub options: Options,
    /// Work other than a transfer.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Work other than a transfer.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List the runs that hold something on the hosts, live and dead
    Status {
        /// The hosts to ask
        #[arg(required = true, value_name = "HOST", value_parser = host())]
        hosts: Vec<HostName>,
    },
    /// Undo what dead runs left on the hosts; live runs are not touched
    Clean {
        /// The hosts to clean
        #[arg(required = true, value_name = "HOST", value_parser = host())]
        hosts: Vec<HostName>,
    },
}

/// The options; `None` and `false` stand for "not typed".
#[derive(Debug, Default, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "clap's shape of a pair of options")]
pub struct Options {
    /// Port to listen on at the target; 0 takes the first free one of 4400-4500 [default: 0]
    #[arg(long, value_name = "N")]
    pub port: Option<u16>,
    /// What to transfer [default: file]
    #[arg(long = "type", value_name = "TYPE")]
    pub transfer_type: Option<TransferType>,
    /// Compress on the way: zstd where both ends have it, else pigz, else gzip [default]
    #[arg(long, overrides_with = "no_compress")]
    pub compress: bool,
    /// Do not compress
    #[arg(long, overrides_with = "compress")]
    pub no_compress: bool,
    /// Encrypt on the way: AES-256-CTR with a key of this run; always checks the stream, too [default]
    #[arg(long, overrides_with = "no_encrypt")]
    pub encrypt: bool,
    /// Do not encrypt
    #[arg(long, overrides_with = "encrypt")]
    pub no_encrypt: bool,
    /// Compare the md5 of every file, read from both disks [default]
    #[arg(long, overrides_with = "no_checksum")]
    pub checksum: bool,
    /// Do not compare files
    #[arg(long, overrides_with = "checksum")]
    pub no_checksum: bool,
    /// Compare a digest of the stream instead: sees the network's faults, not the disks'; turns --checksum off, is
    /// ignored with an explicit --checksum
    #[arg(long, overrides_with = "no_parallel_checksum")]
    pub parallel_checksum: bool,
    /// Do not take a digest of the stream, unless it is encrypted [default]
    #[arg(long, overrides_with = "parallel_checksum")]
    pub no_parallel_checksum: bool,
    /// Firewall to open on the targets for the source [default: auto, all that are in use]
    #[arg(long, value_name = "KIND")]
    pub firewall: Option<FirewallChoice>,
    /// With several targets: leave out those that are refused, instead of refusing the run
    #[arg(long)]
    pub skip_refused: bool,
    /// Print what would be done on each host and how it would be undone; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Seconds of silence after which a host undoes everything by itself [default: 30]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(2..=86_400))]
    pub lease_time: Option<u64>,
    /// Seconds without a byte moving after which a transfer has failed [default: 300]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub idle_timeout: Option<u64>,
    /// Configuration file, TOML [default: /etc/transfer/transfer.conf, if it is there]
    #[arg(long, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Tell every step
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

/// `--type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferType {
    /// A file or a directory tree
    File,
    /// A hot backup; not in this version
    #[value(hide = true)]
    Xtrabackup,
    /// An archive that is unpacked on the target; not in this version
    #[value(hide = true)]
    Decompress,
}

/// `--firewall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirewallChoice {
    /// Every layer that is in use on the target
    Auto,
    /// iptables only, both back ends
    Iptables,
    /// Native nftables only
    Nftables,
    /// Open nothing
    None,
}

/// A pair `--x`, `--no-x`: what was typed last, if anything.
#[must_use]
pub fn pair(on: bool, off: bool) -> Option<bool> {
    match (on, off) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

fn endpoint() -> impl TypedValueParser<Value = Endpoint> {
    OsStringValueParser::new().try_map(|word: OsString| Endpoint::parse(&word))
}

fn host() -> impl TypedValueParser<Value = HostName> {
    OsStringValueParser::new().try_map(|word: OsString| HostName::parse(&word))
}

impl Cli {
    /// What clap cannot say: a transfer and a subcommand in one line.
    pub fn check(&self) -> Result<(), clap::Error> {
        use clap::CommandFactory as _;
        if self.command.is_some() && self.source.is_some() {
            return Err(Self::command().error(
                clap::error::ErrorKind::ArgumentConflict,
                "SOURCE and a subcommand cannot be in one command",
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn clap_accepts_the_definition() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_last_of_a_pair_wins() {
        let cli = Cli::parse_from(["transfer", "--compress", "--no-compress", "a:/x", "b:/y"]);
        assert_eq!(pair(cli.options.compress, cli.options.no_compress), Some(false));
    }

    #[test]
    fn options_may_stand_before_a_subcommand() {
        let cli = Cli::parse_from(["transfer", "--config", "/x", "status", "db1"]);
        assert!(matches!(cli.command, Some(Command::Status { .. })));
        assert!(cli.check().is_ok());
        let cli = Cli::try_parse_from(["transfer", "a:/x", "status", "db1"]).unwrap();
        assert!(cli.check().is_err());
    }
}
