//! Removal of trees.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, FileType, fstat, unlinkat};
use rustix::io::Errno;

use super::mounts::is_mounted;
use super::open::{Mounts, Privileges, chmod_pinned, identity, kind, permissions, pin_at, stat_at};
use super::place::check_name;
use super::walk::{Entry, Left, Root, Visit, Visitor, Walk, WalkError, walk};
use crate::proto::HostBytes;

/// Maximum number of times that directories are read again: a file system may skip entries while others are
/// removed; but another process that creates new ones must not keep us here.
const MAX_PASSES: u32 = 1000;

/// Error of a tree that is not, or not wholly, removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoveError {
    /// Something is mounted in the tree.
    #[error("{0} is not removed: something is mounted at or below it")]
    Mounted(HostBytes),
    /// An entry cannot be removed.
    #[error("cannot remove {path}: {source}")]
    Entry {
        /// Path of the entry, from the directory that contains the tree.
        path: HostBytes,
        /// Cause.
        source: io::Error,
    },
}

/// Removes an entry of a directory with everything below it on its own file system; nothing if something is
/// mounted there. No link is followed. Succeeds if there is no such entry.
pub(crate) fn remove_tree(directory: BorrowedFd<'_>, name: &OsStr) -> Result<(), RemoveError> {
    remove_as(directory, name, Privileges::current())
}

fn remove_as(directory: BorrowedFd<'_>, name: &OsStr, privileges: Privileges) -> Result<(), RemoveError> {
    let failed = |source: io::Error| RemoveError::Entry { path: name.into(), source };
    check_name(name).map_err(failed)?;
    match stat_at(directory, name).map_err(failed)? {
        None => return Ok(()),
        Some(stat) if kind(&stat) != FileType::Directory => {
            return unlink(directory, name, AtFlags::empty()).map_err(failed);
        }
        Some(_) => {}
    }
    if is_mounted(directory, name).map_err(failed)? {
        return Err(RemoveError::Mounted(name.into()));
    }
    let mut remover = Remover { privileges, passes: 0, first: None };
    walk(&Walk { root: Root::Entry(directory), name, exclude: &[], mounts: Mounts::Refuse }, &mut remover)?;
    match remover.first {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

fn unlink(directory: BorrowedFd<'_>, name: impl rustix::path::Arg, flags: AtFlags) -> io::Result<()> {
    match unlinkat(directory, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes what it visits. The first failure is reported, but everything else is removed.
struct Remover {
    privileges: Privileges,
    /// How often directories were read again.
    passes: u32,
    first: Option<RemoveError>,
}

impl Remover {
    fn note(&mut self, path: &[u8], source: io::Error) {
        let path = HostBytes::from(path.strip_prefix(b"./").unwrap_or(path).to_vec());
        self.first.get_or_insert(RemoveError::Entry { path, source });
    }
}

impl Visitor for Remover {
    type Error = RemoveError;

    fn enter(&mut self, entry: &Entry<'_>) -> Result<Visit, RemoveError> {
        if entry.kind != FileType::Directory {
            if let Err(error) = unlink(entry.directory.as_fd(), entry.name, AtFlags::empty()) {
                self.note(entry.path, error);
            }
            return Ok(Visit::Skip);
        }
        // Without root, directories keep their entries if they cannot be written to. Files have their modes:
        // they may have other names. Root needs no mode, and must change none that its owner directs it to.
        if self.privileges == Privileges::Ordinary {
            if let Err(error) = make_writable(entry) {
                self.note(entry.path, error);
            }
        }
        Ok(Visit::Descend(None))
    }

    fn leave(&mut self, entry: &Entry<'_>) -> Result<Left, RemoveError> {
        if let Err(error) = unlink(entry.directory.as_fd(), entry.name, AtFlags::REMOVEDIR) {
            let is_full = Errno::from_io_error(&error) == Some(Errno::NOTEMPTY);
            if is_full && self.first.is_none() && self.passes < MAX_PASSES {
                self.passes += 1;
                return Ok(Left::Again);
            }
            self.note(entry.path, error);
        }
        Ok(Left::Done)
    }

    fn failed(&mut self, path: &[u8], error: WalkError) -> Result<(), RemoveError> {
        match error {
            WalkError::Call(error) if error.kind() == io::ErrorKind::NotFound => {}
            WalkError::Call(error) => self.note(path, error),
            WalkError::Replaced => self.note(path, io::Error::other("it was moved")),
        }
        Ok(())
    }
}

/// Gives the owner of a directory all rights to it.
fn make_writable(entry: &Entry<'_>) -> io::Result<()> {
    let pin = pin_at(entry.directory.as_fd(), entry.name)?;
    let stat = fstat(&pin)?;
    let mode = permissions(&stat);
    if kind(&stat) != FileType::Directory || mode & 0o700 == 0o700 {
        return Ok(());
    }
    chmod_pinned(pin.as_fd(), mode | 0o700)
}

/// Removes an entry if it is the one with this inode. Returns false if another one has the name, and stays.
pub(crate) fn remove_if_same(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    inode: u64,
) -> Result<bool, RemoveError> {
    let found =
        stat_at(directory, name).map_err(|source| RemoveError::Entry { path: name.into(), source })?;
    match found {
        Some(stat) if identity(&stat).inode != inode => Ok(false),
        _ => remove_tree(directory, name).map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn trees_are_removed_and_links_are_not_followed() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("d/a/b")).unwrap();
        fs::write(tree.path().join("outside"), "").unwrap();
        fs::create_dir(tree.path().join("kept")).unwrap();
        fs::write(tree.path().join("kept/file"), "").unwrap();
        symlink("../../kept", tree.path().join("d/a/link")).unwrap();
        fs::hard_link(tree.path().join("outside"), tree.path().join("d/a/b/hard")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, tree.path().join("d/fifo"), rustix::fs::Mode::RWXU).unwrap();
        symlink("kept", tree.path().join("link")).unwrap();
        let directory = File::open(tree.path()).unwrap();
        for name in ["d", "link", "outside", "missing"] {
            remove_tree(directory.as_fd(), name.as_ref()).unwrap();
            assert!(fs::symlink_metadata(tree.path().join(name)).is_err(), "{name}");
        }
        assert!(tree.path().join("kept/file").exists());
    }

    #[test]
    fn paths_are_refused() {
        let tree = tempfile::tempdir().unwrap();
        let directory = File::open(tree.path()).unwrap();
        for name in ["", ".", "..", "a/b", "/tmp"] {
            remove_tree(directory.as_fd(), name.as_ref()).expect_err(name);
        }
    }

    #[test]
    fn nothing_is_removed_where_something_is_mounted() {
        let root = File::open("/").unwrap();
        let error = remove_tree(root.as_fd(), "proc".as_ref()).unwrap_err();
        assert!(matches!(error, RemoveError::Mounted(_)), "{error}");
    }

    #[test]
    fn directories_without_modes_are_removed_without_root() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("d/a/b")).unwrap();
        fs::write(tree.path().join("d/a/b/file"), "").unwrap();
        for path in ["d/a/b", "d/a"] {
            fs::set_permissions(tree.path().join(path), fs::Permissions::from_mode(0o000)).unwrap();
        }
        let directory = File::open(tree.path()).unwrap();
        remove_as(directory.as_fd(), "d".as_ref(), Privileges::Ordinary).unwrap();
        assert!(!tree.path().join("d").exists());
    }

    #[test]
    fn many_entries_are_removed() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("d")).unwrap();
        for number in 0..5000 {
            fs::write(tree.path().join(format!("d/{number:0>40}")), "").unwrap();
        }
        let directory = File::open(tree.path()).unwrap();
        remove_tree(directory.as_fd(), "d".as_ref()).unwrap();
    }
}
