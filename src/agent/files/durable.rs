//! Data that must survive a power cut, and data that must be read from the disk.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{Advice, fadvise, fsync, syncfs};

use super::open::same_directory;

/// Whether a change must survive a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The change is synced.
    Synced,
    /// No disk is waited for.
    Hasty,
}

/// Syncs the file system of an open file or directory.
pub(crate) fn sync_file_system(file: BorrowedFd<'_>) -> io::Result<()> {
    Ok(syncfs(file)?)
}

/// Syncs the entries of a directory, which may be open as a path only.
pub(crate) fn sync_directory(directory: BorrowedFd<'_>) -> io::Result<()> {
    Ok(fsync(same_directory(directory)?)?)
}

/// Syncs the entries of a directory in which something was rolled back, so that a power cut does not bring it
/// back after the journal is gone. A disk that refuses is no reason to keep a journal.
pub(crate) fn make_durable(directory: BorrowedFd<'_>, durability: Durability) {
    if durability == Durability::Synced {
        let _ = sync_directory(directory);
    }
}

/// Drops the cached pages of a file, so that the next reader reads the disk. Pages that are not synced stay. A
/// file system without such a cache refuses, which is no error.
pub(crate) fn drop_cache(file: BorrowedFd<'_>) {
    let _ = fadvise(file, 0, None, Advice::DontNeed);
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write as _;
    use std::os::fd::AsFd as _;

    use super::super::place::Place;
    use super::*;

    #[test]
    fn directories_are_synced_also_when_they_are_only_pinned() {
        let tree = tempfile::tempdir().unwrap();
        let directory = File::open(tree.path()).unwrap();
        sync_directory(directory.as_fd()).unwrap();
        sync_file_system(directory.as_fd()).unwrap();
        let path = tree.path().join("file");
        let place = Place::of(&path).unwrap().unwrap();
        make_durable(place.directory.as_fd(), Durability::Synced);
        make_durable(place.directory.as_fd(), Durability::Hasty);
    }

    #[test]
    fn dropped_pages_are_read_again() {
        let tree = tempfile::tempdir().unwrap();
        let mut file = File::create(tree.path().join("file")).unwrap();
        file.write_all(&vec![7; 100_000]).unwrap();
        file.sync_all().unwrap();
        drop_cache(file.as_fd());
        assert_eq!(std::fs::read(tree.path().join("file")).unwrap(), vec![7; 100_000]);
    }
}
