//! Facts about the path of a source and the directory of a target.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::server::{OtherServer, Server};
use super::{MOST_OF_A_KIND, Transfer, TreeSize};
use crate::proto::bounded::at_most;
use crate::proto::files::{AttributeKinds, FileId};
use crate::proto::{HostBytes, Text};

/// Maximum number of accounts and of groups.
pub const MOST_OWNERS: usize = 1000;

/// Question about a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceQuery {
    /// Kind of the transfer.
    pub transfer: Transfer,
    /// Path of the file, directory or socket.
    pub path: HostBytes,
    /// Patterns of paths to leave out, as in [`crate::proto::files::Tree::exclude`].
    pub exclude: Vec<HostBytes>,
}

/// Question about a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetQuery {
    /// Kind of the transfer.
    pub transfer: Transfer,
    /// Directory.
    pub directory: HostBytes,
    /// Name of the copy in it; empty where the copy fills the directory itself.
    pub name: HostBytes,
    /// Requested user of the copy, by name or number, or empty.
    pub user: Text,
    /// Requested group of the copy, by name or number, or empty.
    pub group: Text,
}

/// Type of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathType {
    /// Nothing that the agent can see.
    #[default]
    Missing,
    /// Directory.
    Directory,
    /// Regular file.
    File,
    /// Symbolic link.
    Symlink,
    /// Socket.
    Socket,
    /// Named pipe.
    Fifo,
    /// Device.
    Device,
}

/// Shows the type in the words of `stat`.
impl fmt::Display for PathType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing",
            Self::Directory => "directory",
            Self::File => "regular file",
            Self::Symlink => "symbolic link",
            Self::Socket => "socket",
            Self::Fifo => "fifo",
            Self::Device => "device",
        })
    }
}

/// Numbers of accounts and of groups, by name. Only those of the host itself: the numbers of a directory service
/// are the same everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// User IDs.
    #[serde(deserialize_with = "at_most::<MOST_OWNERS, _, _>")]
    pub users: BTreeMap<Text, u32>,
    /// Group IDs.
    #[serde(deserialize_with = "at_most::<MOST_OWNERS, _, _>")]
    pub groups: BTreeMap<Text, u32>,
}

/// Facts about the path of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFacts {
    /// Type; a symbolic link is not followed.
    pub path_type: PathType,
    /// The path is readable for the agent.
    pub readable: bool,
    /// Path with symbolic links resolved.
    pub real: HostBytes,
    /// Place in the file system: `/DEVICE/PATH`, the path being that from the root of the file system, which is
    /// the same through every bind mount. `None` where that is unknown.
    pub place: Option<HostBytes>,
    /// Identity of the file or directory.
    pub id: Option<FileId>,
    /// Run that has quiesced a server with this data.
    pub quiesced: Option<Text>,
    /// Contents of the file, if it is to be unpacked.
    pub archive: Option<Archive>,
    /// Number and size of the entries.
    pub size: TreeSize,
    /// Local accounts and groups that own entries.
    pub owners: Owners,
    /// Running servers whose data the path concerns.
    #[serde(deserialize_with = "at_most::<MOST_OF_A_KIND, _, _>")]
    pub servers: Vec<Server>,
    /// Running servers of ordinary accounts whose data the path concerns.
    #[serde(deserialize_with = "at_most::<MOST_OF_A_KIND, _, _>")]
    pub other_servers: Vec<OtherServer>,
}

/// Archive and its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Archive {
    /// Compression format.
    pub format: Option<Format>,
    /// Type of the decompressed contents.
    pub content: Content,
    /// Size of the decompressed contents in bytes, as far as the format records it.
    pub bytes: Option<u64>,
    /// The size is a lower bound.
    pub at_least: bool,
}

/// Compression format of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// gzip, also as written by pigz.
    Gzip,
    /// Zstandard.
    Zstd,
    /// LZ4.
    Lz4,
    /// xz.
    Xz,
}

impl Format {
    /// Returns the program that decompresses this format, and its Debian package.
    #[must_use]
    pub fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Gzip => ("gzip", "gzip"),
            Self::Zstd => ("zstd", "zstd"),
            Self::Lz4 => ("lz4", "lz4"),
            Self::Xz => ("xz", "xz-utils"),
        }
    }
}

/// Contents of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// tar archive.
    Tar,
    /// Stream of mariadb-backup or xtrabackup.
    Backup,
    /// Anything else.
    Other,
    /// Unknown, because the host cannot decompress the archive.
    Unknown,
}

/// Component of a path that an account other than the trusted ones can replace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedComponent {
    /// Path of the component.
    pub path: HostBytes,
    /// Name of its owner.
    pub owner: Text,
    /// Permission bits of its mode.
    pub mode: u32,
}

/// Result of the check whether other accounts can redirect a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathTrust {
    /// No other account can.
    #[default]
    Trusted,
    /// Others can replace this component.
    Shared(SharedComponent),
    /// The check failed with this error.
    Unknown(Text),
}

/// Data that exists where the copy is to be published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Existing {
    /// Nothing.
    #[default]
    Nothing,
    /// File or directory with the final name.
    Entry(FileId),
    /// Only the digest file of an archive with that name.
    DigestFile,
}

/// Requested owner of the copy that is unknown on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnknownOwner {
    /// User.
    User(Text),
    /// Group.
    Group(Text),
}

impl fmt::Display for UnknownOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(name) => write!(f, "user {name}"),
            Self::Group(name) => write!(f, "group {name}"),
        }
    }
}

/// Facts about the directory of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetFacts {
    /// Type; symbolic links are followed.
    pub path_type: PathType,
    /// Everything else, of a directory.
    pub directory: Option<DirectoryFacts>,
}

/// Facts about an existing directory of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of the probe")]
pub struct DirectoryFacts {
    /// Identity of the directory.
    pub id: FileId,
    /// Path with symbolic links resolved.
    pub real: HostBytes,
    /// Place in the file system, as in [`SourceFacts::place`].
    pub place: Option<HostBytes>,
    /// Whether other accounts can redirect the copy.
    pub trust: PathTrust,
    /// User who owns the directory.
    pub owner: Text,
    /// The directory is writable for the agent.
    pub writable: bool,
    /// The file system is mounted read-only.
    pub read_only: bool,
    /// Type of the file system, such as `ext4`; empty if unknown.
    pub file_system: Text,
    /// The file system is case-insensitive.
    pub folds_case: bool,
    /// Kinds of extended attributes that the file system cannot store, as far as this could be tried.
    pub lacks: AttributeKinds,
    /// Bytes on the file system that are free for the agent.
    pub free_bytes: u64,
    /// Number of free inodes; `None` if the file system has no such limit.
    pub free_inodes: Option<u64>,
    /// Name of an existing entry, where the copy is to fill the directory.
    pub holds: Option<HostBytes>,
    /// Data with the final name.
    pub existing: Existing,
    /// Something is mounted at the final name or below it.
    pub mounted: bool,
    /// Run that is writing to the final name.
    pub busy: Option<Text>,
    /// Local accounts and groups.
    pub owners: Owners,
    /// Requested owners of the copy that are unknown on the host.
    #[serde(deserialize_with = "at_most::<MOST_OF_A_KIND, _, _>")]
    pub unknown_owners: Vec<UnknownOwner>,
    /// Running servers whose data the final name or the directory concerns.
    #[serde(deserialize_with = "at_most::<MOST_OF_A_KIND, _, _>")]
    pub servers: Vec<Server>,
    /// Running servers of ordinary accounts, likewise.
    #[serde(deserialize_with = "at_most::<MOST_OF_A_KIND, _, _>")]
    pub other_servers: Vec<OtherServer>,
}
