//! Outcome of a run for one target.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::values::{AttributeKind, DigestAlgorithm, TableCheck};
use crate::error::Error;
use crate::mariadb::plan::Position;

/// Result for one target.
#[derive(Debug)]
pub enum Outcome {
    /// The copy has its final name.
    Done(Copied),
    /// The copy had its final name when the run ended early.
    Published,
    /// The copy failed.
    Failed(Error),
}

/// Facts about a completed copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Number of entries: files, directories and others.
    pub entries: u64,
    /// Total size of the files.
    pub bytes: u64,
    /// Bytes read from the source: less than `bytes` if files are sparse.
    pub read_bytes: u64,
    /// Bytes sent over the network.
    pub wire_bytes: u64,
    /// Time from the first lease to the final name.
    pub took: Duration,
    /// Duration of the stream alone.
    pub streamed: Duration,
    /// Algorithm of the stream's digest.
    pub stream_digest: Option<String>,
    /// Digest of the stream, hexadecimal, identical on both sides.
    pub stream_value: Option<String>,
    /// Algorithm of the file digests and the number of compared files.
    pub files_compared: Option<(DigestAlgorithm, u64)>,
    /// SHA-256 of the sorted list of all entries, identical on both sides.
    pub entries_digest: String,
    /// The copy was synced to disk.
    pub synced: bool,
    /// Files changed on the source during the copy; the remarks list them.
    pub changed: bool,
    /// Names and sizes of all entries were compared with the source.
    pub listed: bool,
    /// Facts about a hot backup.
    pub backup: Option<Box<BackupFacts>>,
    /// Facts about a replica.
    pub replica: Option<Box<Followed>>,
    /// Extended attributes that were dropped because the target's file system cannot store them: files by
    /// kind.
    pub dropped: BTreeMap<AttributeKind, u64>,
    /// Remarks about the source: its downtime, and complaints of stages that did not fail, mostly about skipped
    /// sockets.
    pub source_remarks: Vec<String>,
    /// Remarks about this target.
    pub remarks: Vec<String>,
}

/// Metadata of a hot backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupFacts {
    /// Backup program and its version.
    pub tool: String,
    /// Version of the server that was backed up.
    pub server_version: String,
    /// The backup is prepared: a server can start with it.
    pub prepared: bool,
    /// GTID position of the backup as written by the server, or empty.
    pub gtid: String,
    /// Position in the source's own binlog: file and offset.
    pub binlog: Option<(String, u64)>,
    /// Position in the upstream's binlog as a statement, if the source is a replica.
    pub source_position: Option<String>,
}

/// Facts about a new replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Followed {
    /// Upstream, as named by the user.
    pub primary: String,
    /// Address of the upstream as the replica uses it, `HOST:PORT`.
    pub place: String,
    /// Replication account.
    pub user: String,
    /// The account was created for this replica.
    pub made: bool,
    /// Binlog position at which replication began.
    pub began: Position,
    /// GTID position of the replica.
    pub gtid: String,
    /// Lag behind the upstream.
    pub lag: Duration,
    /// Successful comparison of the tables with those of the donor: method, number of tables, and GTID or
    /// binlog position.
    pub tables: Option<(TableCheck, u64, String)>,
    /// Duration of each step, in order.
    pub steps: Vec<(&'static str, Duration)>,
}
