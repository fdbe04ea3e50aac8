//! Directories in which jobs work, held as descriptors.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, openat, readlink};

use super::Context;
use crate::proto::HostBytes;
use crate::proto::task::{Held, Place};

/// Flags with which directories are opened.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// Flags with which files for output are opened.
const OUTPUT: OFlags = OFlags::WRONLY
    .union(OFlags::CREATE)
    .union(OFlags::TRUNC)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// Reason why a job cannot work in its directory.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlaceError {
    /// The agent does not hold it.
    #[error("the agent does not hold the {}", match .0 { Held::Source => "source", Held::Staging => "staging directory" })]
    NotHeld(Held),
    /// The directory cannot be opened.
    #[error("cannot open {path}: {source}")]
    Directory {
        /// Path, or name in the staging directory.
        path: HostBytes,
        /// Cause.
        source: io::Error,
    },
    /// The file cannot be created.
    #[error("cannot create {name}: {source}")]
    File {
        /// Name.
        name: HostBytes,
        /// Cause.
        source: io::Error,
    },
}

/// Directory that is held open.
#[derive(Debug)]
pub(super) struct Directory(OwnedFd);

impl Directory {
    /// Opens the directory of a task.
    pub(super) fn open(context: &Context<'_>, place: &Place) -> Result<Self, PlaceError> {
        let (path, opened) = match place {
            Place::Root => ("/".into(), open(CWD, &"/".into(), DIRECTORY)),
            Place::Path(path) => (path.clone(), open(CWD, path, DIRECTORY)),
            Place::Source => ("the source".into(), context.source()?.try_clone_to_owned()),
            Place::Staging(name) if name.is_empty() => {
                ("the staging directory".into(), context.staging()?.try_clone_to_owned())
            }
            Place::Staging(name) => {
                let staging = context.staging()?;
                let opened = component(name).and_then(|()| open(staging, name, DIRECTORY | OFlags::NOFOLLOW));
                (name.clone(), opened)
            }
        };
        opened.map(Self).map_err(|source| PlaceError::Directory { path, source })
    }

    /// Returns a path by which this process and its children reach the directory.
    pub(super) fn path(&self) -> PathBuf {
        path_of(&self.0)
    }

    /// Returns the real path of the directory, if it has one.
    pub(super) fn real_path(&self) -> Option<PathBuf> {
        let path: HostBytes = readlink(self.path(), Vec::new()).ok()?.into_bytes().into();
        let has_one = path.as_bytes().starts_with(b"/") && !path.as_bytes().ends_with(b" (deleted)");
        has_one.then(|| path.into())
    }

    /// Creates a file in the directory that only its owner can read, or empties it.
    pub(super) fn create(&self, name: &HostBytes) -> Result<File, PlaceError> {
        let mode = Mode::RUSR | Mode::WUSR;
        component(name)
            .and_then(|()| Ok(openat(&self.0, name.as_path(), OUTPUT, mode)?.into()))
            .map_err(|source| PlaceError::File { name: name.clone(), source })
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Returns the path of a descriptor, for this process and those that inherit it.
pub(super) fn path_of(fd: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

fn open(directory: impl AsFd, path: &HostBytes, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(openat(directory, path.as_path(), flags, Mode::empty())?)
}

/// Fails unless the name is that of an entry of a directory.
fn component(name: &HostBytes) -> io::Result<()> {
    let bytes = name.as_bytes();
    if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not the name of an entry"));
    }
    Ok(())
}
