//! Files, their digests and attributes, and the names that copies get.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::HostBytes;

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
