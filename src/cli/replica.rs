//! `transfer replica`: what can be said of replicas, and what cannot.

use std::path::PathBuf;

use super::{Fleet, Typed, all, host, hosts};
use crate::endpoint::HostName;
use crate::values::{TableCheck, Time};

/// `--max-lag`.
pub type MaxLag = Time<1, 86_400>;

/// Replicas that are to be made.
#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a word of the command line")]
pub struct Replica {
    /// The host of the server that they replicate from, [USER@]HOST; where that is itself a replica, from where it does
    #[arg(required = true, value_name = "PRIMARY", value_parser = host())]
    pub primary: HostName,
    /// The hosts whose servers become replicas
    #[arg(required = true, value_name = "TARGET", value_parser = hosts())]
    pub targets: Vec<Fleet<HostName>>,
    /// Copy the server of DONOR, a replica of PRIMARY, instead of PRIMARY itself
    #[arg(long, value_name = "DONOR", value_parser = host(), help_heading = "Replicas")]
    pub from: Option<HostName>,
    /// Replicate from where PRIMARY does, beside it [default, where PRIMARY is a replica, even a stopped one]
    #[arg(long, conflicts_with_all = ["from", "chain"], help_heading = "Replicas")]
    pub sibling: bool,
    /// Replicate from PRIMARY, though it is itself a replica [default: off]
    #[arg(long, conflicts_with = "from", help_heading = "Replicas")]
    pub chain: bool,
    /// Replicate by the account in FILE of this machine, an option file with user and password below [client] [default: the
    /// one by which the copied server itself replicates]
    #[arg(long, value_name = "FILE", help_heading = "Replicas")]
    pub account: Option<PathBuf>,
    /// Make an account for each replica: REPLICATION SLAVE from its address only, with a password that nobody is shown
    /// [default: off]
    #[arg(long, conflicts_with = "account", help_heading = "Replicas")]
    pub create_account: bool,
    /// What the replicas call the host that they replicate from [default: PRIMARY, or its address where that name does not
    /// lead to it]
    #[arg(long, value_name = "NAME", value_parser = server_host, help_heading = "Replicas")]
    pub primary_address: Option<String>,
    /// A replica has caught up when within TIME it applies all that its source had when asked: 1s-24h [default: 1s]
    #[arg(long, value_name = "TIME", help_heading = "Replicas")]
    pub max_lag: Option<MaxLag>,
    /// Compare all tables with those of the server that was copied, at one GTID: by checksum or by rows [default: off;
    /// without CHECK by checksum]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "checksum", value_name = "CHECK",
        hide_possible_values = true, help_heading = "Replicas")]
    pub verify_tables: Option<TableCheck>,
    /// Replace servers that others are connected to over the network, write to or replicate from: they are cut off
    /// [default: off]
    #[arg(long, help_heading = "Replicas")]
    pub allow_clients: bool,
    /// What may be said of every run.
    #[command(flatten)]
    pub typed: Typed,
}

impl Replica {
    /// All targets, in their order.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostName> {
        all(&self.targets)
    }
}

/// What is behind the help of `transfer replica`.
pub(super) const AFTER_HELP: &str = "\
A server that holds databases is replaced with --replace only; it comes back as it was if anything fails, until the new one \
replicates and has caught up.

Examples:
  transfer replica db1 db2 --create-account   db2 becomes a replica of db1
  transfer replica db1 db2 --create-account --dry-run
  transfer replica db1 db2 db3 --from db4 --create-account
                                              copied from db4, a replica of db1; both replicate from db1";

/// What has no effect on replicas: it is decided by what they are.
pub(super) const NOT_FOR_REPLICAS: [&str; 16] = [
    "transfer_type",
    "exclude",
    "ignore_changed",
    "drop_attributes",
    "prepare",
    "stop_server",
    "allow_running",
    "rename",
    "chown",
    "keep_staging",
    "skip_refused",
    "checksum",
    "no_checksum",
    "checksum_algorithm",
    "stop_replication",
    "no_stop_replication",
];

/// What a server calls another one's host: a name or an address.
fn server_host(word: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    if word.is_empty() || word.starts_with('-') || !word.chars().all(good) {
        return Err("it is no name and no address of a host".into());
    }
    Ok(word.to_owned())
}
