//! Closing of a staging directory that is kept: what is in it was never verified, and may be anything.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{FileType, Mode, fchmod, fstat, lremovexattr};
use rustix::io::Errno;

use super::open::{
    Mounts, Privileges, chmod_pinned, descriptor_path, directory_at, kind, permissions, pin_at,
};
use super::walk::{Entry, Root, Visit, Visitor, Walk, WalkError, walk};

/// Number of components of the path of an entry of the staging directory itself, `././NAME`.
const TOP_PARTS: usize = 3;

/// Makes a staging directory one that only its owner can enter, and takes all rights of their own from the
/// programs in it. It must be the agent's own: where others may change the names above it, nothing of theirs
/// is changed.
pub(super) fn close_kept(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let directory = directory_at(parent, name, Mounts::Cross)?;
    if fstat(&directory)?.st_uid != rustix::process::geteuid().as_raw() {
        return Err(Errno::PERM.into());
    }
    fchmod(&directory, Mode::RWXU)?;
    let root = Root::Held(directory.as_fd());
    let mut closer = Closer { privileges: Privileges::current() };
    walk(&Walk { root, name: ".".as_ref(), exclude: &[], mounts: Mounts::Refuse }, &mut closer)
}

struct Closer {
    privileges: Privileges,
}

impl Visitor for Closer {
    type Error = io::Error;

    fn enter(&mut self, entry: &Entry<'_>) -> io::Result<Visit> {
        if entry.name.is_empty() {
            return Ok(Visit::Descend(None));
        }
        match entry.kind {
            FileType::Directory => {
                // Those of the staging directory protect everything below them.
                if entry.path.split(|&byte| byte == b'/').count() == TOP_PARTS {
                    change_mode(entry, |_| 0o700)?;
                }
                Ok(Visit::Descend(None))
            }
            FileType::RegularFile => {
                if permissions(&entry.stat()?) & 0o7000 != 0 {
                    change_mode(entry, |mode| mode & 0o777)?;
                }
                if self.privileges == Privileges::Root {
                    remove_capability(entry)?;
                }
                Ok(Visit::Skip)
            }
            _ => Ok(Visit::Skip),
        }
    }

    fn failed(&mut self, _path: &[u8], error: WalkError) -> io::Result<()> {
        match error {
            // Behind a mount point nothing is ours.
            WalkError::Call(error) if Errno::from_io_error(&error) == Some(Errno::XDEV) => Ok(()),
            WalkError::Call(error) => Err(error),
            WalkError::Replaced => Err(io::Error::other(WalkError::Replaced)),
        }
    }
}

fn change_mode(entry: &Entry<'_>, new: impl Fn(u32) -> u32) -> io::Result<()> {
    let pin = pin_at(entry.directory.as_fd(), entry.name)?;
    let stat = fstat(&pin)?;
    if kind(&stat) == FileType::Symlink {
        return Ok(());
    }
    chmod_pinned(pin.as_fd(), new(permissions(&stat)))
}

fn remove_capability(entry: &Entry<'_>) -> io::Result<()> {
    let mut path = descriptor_path(entry.directory.as_fd()).into_bytes();
    path.push(b'/');
    path.extend_from_slice(entry.name.to_bytes());
    match lremovexattr(OsStr::from_bytes(&path), c"security.capability") {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn kept_directories_are_closed_and_programs_lose_their_rights() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("kept/copy/deep")).unwrap();
        let set = |path: &str, mode: u32| {
            fs::set_permissions(tree.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
        };
        let mode = |path: &str| fs::metadata(tree.path().join(path)).unwrap().permissions().mode() & 0o7777;
        for path in ["kept/copy/deep/program", "kept/other", "outside"] {
            fs::write(tree.path().join(path), "").unwrap();
        }
        symlink("../outside", tree.path().join("kept/link")).unwrap();
        set("kept/copy/deep/program", 0o6755);
        set("kept/other", 0o644);
        set("outside", 0o4755);
        set("kept/copy", 0o2777);
        set("kept", 0o777);
        let parent = File::open(tree.path()).unwrap();
        close_kept(parent.as_fd(), "kept".as_ref()).unwrap();
        for (path, expected) in [
            ("kept", 0o700),
            ("kept/copy", 0o700),
            ("kept/copy/deep/program", 0o755),
            ("kept/other", 0o644),
            ("outside", 0o4755),
        ] {
            assert_eq!(mode(path), expected, "{path}");
        }
    }

    #[test]
    fn links_are_refused() {
        let tree = tempfile::tempdir().unwrap();
        symlink("/etc", tree.path().join("kept")).unwrap();
        let parent = File::open(tree.path()).unwrap();
        close_kept(parent.as_fd(), "kept".as_ref()).unwrap_err();
    }
}
