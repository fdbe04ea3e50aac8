//! Jobs of an agent: their names, and what they report.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Text;
use super::files::AttributeKind;

/// Beginning of the names of the stages that feed targets.
const SINK: &str = "netcat";

/// Job of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum JobName {
    /// The stream's end on the source.
    Sender,
    /// The stream's end on a target.
    Receiver,
    /// List and digests of the source.
    Manifest,
    /// List and digests of the copy.
    Verify,
    /// Files that changed on the source.
    Changed,
    /// Removal of the top directory of an archive.
    Strip,
    /// Digest of an archive, read back from disk.
    Archive,
    /// New owner of the copy.
    Chown,
    /// Preparation of a backup.
    Prepare,
    /// Metadata of a backup.
    Inspect,
    /// Command of the user.
    Hook,
}

impl JobName {
    /// All jobs.
    pub const ALL: [Self; 11] = [
        Self::Sender,
        Self::Receiver,
        Self::Manifest,
        Self::Verify,
        Self::Changed,
        Self::Strip,
        Self::Archive,
        Self::Chown,
        Self::Prepare,
        Self::Inspect,
        Self::Hook,
    ];

    /// Returns the word of the protocol.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::Receiver => "receiver",
            Self::Manifest => "manifest",
            Self::Verify => "verify",
            Self::Changed => "changed",
            Self::Strip => "strip",
            Self::Archive => "archive",
            Self::Chown => "chown",
            Self::Prepare => "prepare",
            Self::Inspect => "inspect",
            Self::Hook => "hook",
        }
    }
}

/// Counter of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Meter {
    /// Bytes that were read, before compression.
    Read,
    /// Bytes of the stream, before encryption.
    Wire,
    /// Bytes that the stage for the target with this number has taken.
    Sink(usize),
    /// Bytes whose digests were computed.
    Digests,
    /// Bytes of the log of a backup, which may work for long without output.
    Log,
}

impl Meter {
    /// Returns the meter of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "read" => Some(Self::Read),
            "wire" => Some(Self::Wire),
            "digests" => Some(Self::Digests),
            "log" => Some(Self::Log),
            name => sink_number(name).map(Self::Sink),
        }
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => f.write_str("read"),
            Self::Wire => f.write_str("wire"),
            Self::Digests => f.write_str("digests"),
            Self::Log => f.write_str("log"),
            Self::Sink(number) => write!(f, "{SINK}{number}"),
        }
    }
}

/// Program of a job, by the name of its stage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// Writes or reads a tar stream.
    Tar,
    /// Compresses the stream.
    Compress,
    /// Decompresses the stream.
    Decompress,
    /// Encrypts the stream.
    Encrypt,
    /// Decrypts the stream.
    Decrypt,
    /// Listens for the stream.
    Netcat,
    /// Sends the stream to the target with this number.
    Sink(usize),
    /// Any other program, whose status has no meaning of its own.
    Other(String),
}

impl Program {
    /// Returns the program of that name.
    #[must_use]
    pub fn named(name: &str) -> Self {
        match name {
            "tar" => Self::Tar,
            "compress" => Self::Compress,
            "decompress" => Self::Decompress,
            "encrypt" => Self::Encrypt,
            "decrypt" => Self::Decrypt,
            SINK => Self::Netcat,
            name => sink_number(name).map_or_else(|| Self::Other(name.to_owned()), Self::Sink),
        }
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tar => f.write_str("tar"),
            Self::Compress => f.write_str("compress"),
            Self::Decompress => f.write_str("decompress"),
            Self::Encrypt => f.write_str("encrypt"),
            Self::Decrypt => f.write_str("decrypt"),
            Self::Netcat => f.write_str(SINK),
            Self::Sink(number) => write!(f, "{SINK}{number}"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// Returns the number of the target in the name of a sink.
#[must_use]
pub fn sink_number(name: &str) -> Option<usize> {
    name.strip_prefix(SINK)?.parse().ok()
}

/// Reason why a sink was dropped from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dropped {
    /// The target accepted no data for the idle timeout.
    Stalled,
    /// The connection was closed.
    Closed,
}

/// Class of files that a program has lost although it may exit with 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FaultClass {
    /// Files that could not be read.
    Unreadable,
    /// Files of a stream that were not written.
    Skipped,
    /// Files that lost attributes of this kind.
    Attributes(AttributeKind),
}

impl FaultClass {
    /// Returns the class of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "read" => Some(Self::Unreadable),
            "skipped" => Some(Self::Skipped),
            name => AttributeKind::of_name(name).map(Self::Attributes),
        }
    }
}

/// List of a job, stored on its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum List {
    /// Names, types, sizes and owners of all entries.
    Entries,
    /// Digests of all files.
    Digests,
}

impl List {
    /// All lists.
    pub const ALL: [Self; 2] = [Self::Entries, Self::Digests];

    /// Returns the name of its file on the host.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Entries => "entries",
            Self::Digests => "digests",
        }
    }
}

/// Summary of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Number of records.
    pub records: u64,
    /// Total size of the listed files.
    pub bytes: u64,
    /// SHA-256 of the list.
    pub digest: String,
}

/// Report of a job, as its agent passes it on. `docs/design/agent.md` describes who sends which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobReport {
    /// Bytes that went through a meter so far.
    Bytes(Meter, u64),
    /// The sink of the target with this number was dropped from the stream.
    Dropped(usize, Dropped),
    /// Line of standard error.
    Complaint(Text),
    /// Number of further lines on standard error.
    Silenced(u64),
    /// Files that a program has lost so far, and one of them with the reason.
    Fault(FaultClass, u64, Option<Text>),
    /// Line of a log.
    Log(Text),
    /// The job repeats this error without making progress.
    Stuck(Text),
    /// The job waits for this; `None`: no longer.
    Waits(Option<Text>),
    /// Metadata of a backup.
    Backup(BackupFacts),
    /// Exit statuses of the stages, in the pipeline's order: 128 and the number of a signal where one ended it.
    Stages(Vec<(Program, i32)>),
    /// Digest of the stream, hexadecimal.
    Digest(String),
    /// A list is complete.
    Manifest(List, Manifest),
    /// The kernel of the host cannot confine this program to the staging directory.
    Unconfined(Program),
    /// The job has ended with this status.
    Exit(i32),
}

/// Metadata of a backup, as its files give it; empty where they do not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupFacts {
    /// Kind of the backup, such as `full-backuped`.
    pub state: Text,
    /// Backup program.
    pub tool_name: Text,
    /// Version of the backup program.
    pub tool_version: Text,
    /// Version of the server that was backed up.
    pub server_version: Text,
    /// Binlog file.
    pub binlog_file: Text,
    /// Offset in the binlog file.
    pub binlog_position: Option<u64>,
    /// GTID position; longer than a text may be.
    pub gtid: String,
    /// Position in the upstream's binlog, as a statement.
    pub source_position: String,
}
