//! Small files that the agent adds to data.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::BorrowedFd;

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, fstat, openat};

use super::place::check_name;

/// Writes a file that belongs to the owner of its directory, if there is nothing of that name.
pub(crate) fn write_new(directory: BorrowedFd<'_>, name: &OsStr, text: &[u8]) -> io::Result<()> {
    check_name(name)?;
    let owner = fstat(directory)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(text)?;
    Ok(fchown(&file, Some(Uid::from_raw(owner.st_uid)), Some(Gid::from_raw(owner.st_gid)))?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::{MetadataExt as _, chown, symlink};

    use super::*;

    #[test]
    fn new_files_get_the_owner_and_nothing_is_replaced() {
        let tree = tempfile::tempdir().unwrap();
        if rustix::process::geteuid().is_root() {
            chown(tree.path(), Some(12345), Some(54321)).unwrap();
        }
        let directory = File::open(tree.path()).unwrap();
        write_new(directory.as_fd(), "new".as_ref(), b"text").unwrap();
        let (above, file) = (directory.metadata().unwrap(), fs::metadata(tree.path().join("new")).unwrap());
        assert_eq!((file.uid(), file.gid(), file.mode() & 0o777), (above.uid(), above.gid(), 0o600));
        symlink("missing", tree.path().join("link")).unwrap();
        for name in ["new", "link", "../new"] {
            write_new(directory.as_fd(), name.as_ref(), b"other").expect_err(name);
        }
        assert_eq!(fs::read(tree.path().join("new")).unwrap(), b"text");
    }
}
