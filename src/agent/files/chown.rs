//! New owner of a copy.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Uid, chownat};

use super::durable::{Durability, sync_file_system};
use super::open::Mounts;
use super::walk::{Entry, Left, Root, Visit, Visitor, Walk, WalkError, walk};
use crate::proto::HostBytes;

/// Error of an entry that does not get its owner.
#[derive(Debug, thiserror::Error)]
#[error("cannot change the owner of {path}: {source}")]
pub(crate) struct ChownError {
    path: HostBytes,
    source: io::Error,
}

impl ChownError {
    fn new(path: &[u8], source: io::Error) -> Self {
        Self { path: HostBytes::from(path.strip_prefix(b"./").unwrap_or(path).to_vec()), source }
    }
}

/// New owner and group, by number; `None` keeps the one that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ownership {
    /// User ID.
    pub(crate) user: Option<u32>,
    /// Group ID.
    pub(crate) group: Option<u32>,
}

/// Gives an entry of a directory and everything below it to another owner. Links are changed themselves.
///
/// A directory changes its owner after its entries: until then nobody else can exchange them.
pub(crate) fn change_owner(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    owner: Ownership,
    durability: Durability,
) -> Result<(), ChownError> {
    let mut owners = Owners(owner);
    let root = Root::Entry(directory);
    walk(&Walk { root, name, exclude: &[], mounts: Mounts::Cross }, &mut owners)?;
    if durability == Durability::Synced {
        sync_file_system(directory).map_err(|source| ChownError { path: name.into(), source })?;
    }
    Ok(())
}

struct Owners(Ownership);

impl Owners {
    fn change(&self, entry: &Entry<'_>) -> Result<(), ChownError> {
        let (user, group) = (self.0.user.map(Uid::from_raw), self.0.group.map(Gid::from_raw));
        chownat(entry.directory.as_fd(), entry.name, user, group, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| ChownError::new(entry.path, error.into()))
    }
}

impl Visitor for Owners {
    type Error = ChownError;

    fn enter(&mut self, entry: &Entry<'_>) -> Result<Visit, ChownError> {
        if entry.kind == FileType::Directory {
            return Ok(Visit::Descend(None));
        }
        self.change(entry)?;
        Ok(Visit::Skip)
    }

    fn leave(&mut self, entry: &Entry<'_>) -> Result<Left, ChownError> {
        self.change(entry)?;
        Ok(Left::Done)
    }

    fn failed(&mut self, path: &[u8], error: WalkError) -> Result<(), ChownError> {
        let source = match error {
            WalkError::Call(source) => source,
            WalkError::Replaced => io::Error::other(error),
        };
        Err(ChownError::new(path, source))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn everything_but_link_targets_gets_the_owner() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("d/a/b")).unwrap();
        fs::write(tree.path().join("d/a/file"), "").unwrap();
        fs::write(tree.path().join("outside"), "").unwrap();
        symlink("../outside", tree.path().join("d/link")).unwrap();
        let directory = File::open(tree.path()).unwrap();
        let owner = Ownership { user: Some(12345), group: None };
        change_owner(directory.as_fd(), "d".as_ref(), owner, Durability::Synced).unwrap();
        let found = |path: &str| {
            let found = fs::symlink_metadata(tree.path().join(path)).unwrap();
            (found.uid(), found.gid())
        };
        for path in ["d", "d/a", "d/a/b", "d/a/file", "d/link"] {
            assert_eq!(found(path), (12345, 0), "{path}");
        }
        assert_eq!(found("outside"), (0, 0));
        let owner = Ownership { user: None, group: Some(54321) };
        change_owner(directory.as_fd(), "d".as_ref(), owner, Durability::Hasty).unwrap();
        assert_eq!(found("d/a/b"), (12345, 54321));
    }

    #[test]
    fn missing_trees_are_errors() {
        let tree = tempfile::tempdir().unwrap();
        let directory = File::open(tree.path()).unwrap();
        let owner = Ownership { user: None, group: None };
        let error = change_owner(directory.as_fd(), "d".as_ref(), owner, Durability::Hasty).unwrap_err();
        assert_eq!(error.to_string(), "cannot change the owner of d: No such file or directory (os error 2)");
    }
}
