//! Files, their digests and attributes, and the names that copies get.

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{HostBytes, Text};

/// Kind of extended attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AttributeKind {
    /// Extended attributes that are not of another kind
    Xattrs,
    /// POSIX ACLs
    Acls,
    /// File capabilities
    Capabilities,
}

impl AttributeKind {
    /// All kinds.
    pub const ALL: [Self; 3] = [Self::Xattrs, Self::Acls, Self::Capabilities];

    /// Word for the option, the hosts and the report.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Xattrs => "xattrs",
            Self::Acls => "acls",
            Self::Capabilities => "capabilities",
        }
    }

    /// Plural noun for messages.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Self::Xattrs => "extended attributes",
            Self::Acls => "ACLs",
            Self::Capabilities => "capabilities",
        }
    }

    /// Returns the kind with this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Digest that an agent computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DigestKind {
    /// MD5.
    Md5,
    /// SHA-256.
    Sha256,
    /// The 512 bits of `BLAKE2b`.
    Blake2b,
    /// BLAKE3.
    Blake3,
}

impl fmt::Display for DigestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Md5 => "md5",
            Self::Sha256 => "sha256",
            Self::Blake2b => "blake2b",
            Self::Blake3 => "blake3",
        })
    }
}

/// Identity of a file or directory on one host, until the host is rebooted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FileId {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
}

/// Treatment of data that has the final name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Replace {
    /// Refuse.
    No,
    /// Remove it after the copy has taken its place.
    Remove,
    /// Keep it under another name.
    Keep,
}

/// How a copy gets its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Naming {
    /// By a rename, with this treatment of data that has the name.
    Rename(Replace),
    /// Entry by entry, into a directory.
    Fill,
}

/// Tree that is listed: an entry of a directory, and what is left out below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Name in the directory.
    pub name: HostBytes,
    /// Patterns of paths to leave out, as those of `find -path`: `*`, `?` and `[…]` match slashes, too. A path
    /// begins with `./NAME`. What is below an excluded directory is excluded.
    pub exclude: Vec<HostBytes>,
}

/// Kinds of attributes of a set of files.
pub type AttributeKinds = BTreeSet<AttributeKind>;

/// Extended attributes of one kind in a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttributeUse {
    /// Kind.
    pub kind: AttributeKind,
    /// Number of files and directories that have such attributes.
    pub files: u64,
    /// Path of one of them.
    pub example: HostBytes,
}

/// Attributes that count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttributeScope {
    /// All.
    All,
    /// Attributes that can be set without root.
    Unprivileged,
}

/// New owner and group of a copy, by name or number; empty texts keep those that are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewOwner {
    /// User.
    pub user: Text,
    /// Group.
    pub group: Text,
}

/// Whether lists contain modes, owners, groups and times, which only root can set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OwnerColumn {
    /// Names, types, sizes and link targets only.
    Absent,
    /// Modes, owners and groups of all entries, and the times of files.
    Present,
}

/// Age of the files that are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Freshness {
    /// They may be read from the cache.
    Old,
    /// They were just written: they are synced, and read from the disk.
    JustWritten,
}

/// Treatment of files that are removed or replaced while they are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Changes {
    /// Any is an error.
    Strict,
    /// They have no digest, or are not listed.
    Lenient,
}

/// How a tree is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTask {
    /// Tree.
    pub tree: Tree,
    /// Digest of each file, if any.
    pub digest: Option<DigestKind>,
    /// Number of files that are read at a time.
    pub workers: u16,
    /// Whether owners are listed.
    pub owners: OwnerColumn,
    /// Age of the files.
    pub freshness: Freshness,
    /// Treatment of changes.
    pub changes: Changes,
}

/// Staging directory to be made in a target directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagingTask {
    /// Path: the target directory and a name that carries the agent's.
    pub path: HostBytes,
    /// Keep it when the run fails, unless it is empty.
    pub keep: bool,
    /// How the copy gets its name: the file system must be able to do that.
    pub naming: Naming,
    /// Directory in it in which the copy arrives; empty for none.
    pub inner: HostBytes,
}

/// Publication of a staged copy by a rename.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishTask {
    /// Name of the copy in the staging directory.
    pub staged: HostBytes,
    /// Final name in the target directory.
    pub name: HostBytes,
    /// Treatment of data that has the name.
    pub replace: Replace,
    /// Name for that data if it is kept; empty otherwise.
    pub aside: HostBytes,
    /// Whether the name must survive a power cut.
    pub durable: bool,
    /// Identity of that data in the preflight. Nothing else is replaced.
    pub seen: Option<FileId>,
}

/// Publication of the entries of a staged directory, one by one, in the target directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FillTask {
    /// Name of the directory in the staging directory.
    pub staged: HostBytes,
    /// Whether the names must survive a power cut.
    pub durable: bool,
    /// Whether the target directory may have other entries.
    pub beside: bool,
}
