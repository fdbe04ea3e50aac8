//! Arguments of `transfer replica`, and the options that it refuses.

use std::path::PathBuf;

use super::{Fleet, Typed, all, host, hosts};
use crate::base::endpoint::HostName;
use crate::config::values::{TableCheck, Time};

/// `--max-lag`.
pub(crate) type MaxLag = Time<1, 86_400>;

/// Order to turn servers into replicas.
#[derive(Clone, Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of the command line")]
pub struct Replica {
    /// Host of the server to replicate from, [USER@]HOST; if that is a replica itself, the new
    /// replicas use its primary
    #[arg(required = true, value_name = "PRIMARY", value_parser = host())]
    pub primary: HostName,
    /// Hosts whose servers become replicas
    #[arg(required = true, value_name = "TARGET", value_parser = hosts())]
    pub targets: Vec<Fleet<HostName>>,
    /// Copy from DONOR, a replica of PRIMARY [default: PRIMARY itself]
    #[arg(long, value_name = "DONOR", value_parser = host(), help_heading = "Replicas")]
    pub from: Option<HostName>,
    /// Replicate from the primary of PRIMARY, beside it [default if PRIMARY is a replica, even a
    /// stopped one]
    #[arg(long, conflicts_with_all = ["from", "replicate_from_primary"], help_heading = "Replicas")]
    pub sibling: bool,
    /// Replicate from PRIMARY, itself a replica; by default from its primary [default: off]
    #[arg(long, alias = "chain", conflicts_with = "from", help_heading = "Replicas")]
    pub replicate_from_primary: bool,
    /// Replicate with the account in FILE; an option file on this machine with user and password below
    /// [client] [default: the account that the copied server itself replicates with]
    ///
    /// No other account may be able to read the file. The account is tried only at a primary that you name.
    #[arg(long, value_name = "FILE", help_heading = "Replicas")]
    pub account: Option<PathBuf>,
    /// Create a replication account for each replica; REPLICATION SLAVE, from the replica's address only,
    /// with a random password that is never shown [default: off]
    #[arg(long, conflicts_with = "account", help_heading = "Replicas")]
    pub create_account: bool,
    /// Name or address by which the replicas reach their primary [default: PRIMARY, or its address if
    /// that name does not lead to it]
    #[arg(long, value_name = "NAME", value_parser = server_host, help_heading = "Replicas")]
    pub primary_address: Option<String>,
    /// Replication lag at which a replica counts as caught up: 1s-24h [default: 1s]
    ///
    /// Within this time it must have applied everything that its upstream had when it was asked.
    #[arg(long, value_name = "TIME", help_heading = "Replicas")]
    pub max_lag: Option<MaxLag>,
    /// Compare all tables with the donor's; at one GTID, by checksum or by rows (CHECK; default:
    /// checksum) [default: off]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "checksum", value_name = "CHECK",
        hide_possible_values = true, help_heading = "Replicas")]
    pub verify_tables: Option<TableCheck>,
    /// Replace servers that are in use; their network clients, writers and replicas are disconnected
    /// [default: off]
    #[arg(long, help_heading = "Replicas")]
    pub allow_clients: bool,
    /// Options of every run.
    #[command(flatten)]
    pub typed: Typed,
}

impl Replica {
    /// Returns all targets, in their order.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostName> {
        all(&self.targets)
    }
}

/// Text below the help of `transfer replica`.
pub(super) const AFTER_HELP: &str = "\
A server that holds databases is replaced with --replace only. Until the new replica runs and has caught up, any failure \
brings the old server and its data back.

Examples:
  transfer replica db1 db2 --create-account            db2 becomes a replica of db1
  transfer replica db1 db2 --create-account --dry-run  show what that would change
  transfer replica db1 db2 db3 --from db4 --create-account
                                                       copy from db4, a replica of db1; db2 and db3
                                                       replicate from db1";

/// Text below `transfer replica -h`.
pub(super) const AFTER_SHORT_HELP: &str = "\
All options: transfer replica --help

Examples:
  transfer replica db1 db2 --create-account             db2 replicates from db1
  transfer replica db1 db2 --create-account --dry-run   show what that changes
  transfer replica db1 db2 --create-account --from db4  copied from replica db4";

/// Options that `transfer replica` decides itself.
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

/// Checks the name or address by which a server reaches another one.
fn server_host(word: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    if word.is_empty() || word.starts_with('-') || !word.chars().all(good) {
        return Err("expected a host name or an address".into());
    }
    Ok(word.to_owned())
}
