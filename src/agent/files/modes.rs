//! Modes of directories that had to be writable to be moved.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{FileType, fstat};

use super::open::{chmod_pinned, kind, permissions, pin_at, stat_at};

/// Restores the mode of an entry if it has this inode, and returns whether it has.
pub(super) fn restore_mode(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    inode: u64,
    mode: u32,
) -> io::Result<bool> {
    if stat_at(directory, name)?.is_none() {
        return Ok(false);
    }
    let pin = pin_at(directory, name)?;
    let stat = fstat(&pin)?;
    if stat.st_ino != inode || kind(&stat) == FileType::Symlink {
        return Ok(false);
    }
    if permissions(&stat) != mode {
        chmod_pinned(pin.as_fd(), mode)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    #[test]
    fn modes_are_restored_by_inode_and_links_are_not_followed() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("d")).unwrap();
        symlink("d", tree.path().join("link")).unwrap();
        let directory = File::open(tree.path()).unwrap();
        let state = |name: &str| fs::symlink_metadata(tree.path().join(name)).unwrap();
        let inode = state("d").ino();
        let restore =
            |name: &str, inode: u64| restore_mode(directory.as_fd(), name.as_ref(), inode, 0o555).unwrap();
        assert!(!restore("d", inode + 1) && !restore("link", inode) && !restore("link", state("link").ino()));
        assert!(!restore("missing", inode));
        assert_ne!(state("d").mode() & 0o7777, 0o555);
        assert!(restore("d", inode));
        assert_eq!(state("d").mode() & 0o7777, 0o555);
    }
}
