//! Places of entries: a directory that is held open, and a name in it.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

/// Directory that contains a path, and the name in it.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// The directory.
    pub(crate) directory: OwnedFd,
    /// Name in it.
    pub(crate) name: &'a OsStr,
}

impl<'a> Place<'a> {
    /// Opens the directory that contains an absolute path; links above its last component are followed.
    /// `None` if there is no such directory.
    pub(crate) fn of(path: &'a Path) -> io::Result<Option<Self>> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not the path of an entry"));
        };
        match open_above(above) {
            Ok(directory) => Ok(Some(Self { directory, name })),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Opens a directory by its path, for reading if that is allowed.
fn open_above(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(CWD, path, flags | OFlags::RDONLY, Mode::empty()) {
        // Names can be changed in a directory that cannot be listed.
        Err(Errno::ACCESS) => openat(CWD, path, flags | OFlags::PATH, Mode::empty()),
        result => result,
    }
}

/// Fails unless the bytes are the name of an entry: one component, and neither `.` nor `..`.
pub(crate) fn check_name(name: &OsStr) -> io::Result<()> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(part)), None) if part == name => Ok(()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not the name of an entry")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_of_paths_may_be_missing() {
        let tree = tempfile::tempdir().unwrap();
        let path = tree.path().join("entry");
        assert_eq!(Place::of(&path).unwrap().unwrap().name, "entry");
        assert!(Place::of(&tree.path().join("missing/entry")).unwrap().is_none());
        for path in ["/", "/tmp/..", ""] {
            Place::of(Path::new(path)).expect_err(path);
        }
    }

    #[test]
    fn names_have_one_component() {
        for name in ["a", ".a", "a b"] {
            check_name(OsStr::new(name)).unwrap();
        }
        for name in ["", ".", "..", "a/b", "/a", "a/", "./a"] {
            check_name(OsStr::new(name)).unwrap_err();
        }
    }
}
