//! Final names and their directories.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;

use crate::agent::files::fill::foreign_entry;
use crate::agent::proc;
use crate::proto::HostBytes;
use crate::proto::files::{FileId, Naming, Replace};

/// Opens a directory. The error names it.
pub(super) fn open(path: &HostBytes) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    openat(CWD, path.as_path(), flags, Mode::empty()).map_err(|error| {
        let error = io::Error::from(error);
        io::Error::new(error.kind(), format!("cannot open {path}: {error}"))
    })
}

/// Returns the identity of a directory.
pub(super) fn id(directory: BorrowedFd<'_>) -> io::Result<FileId> {
    Ok(proc::id(&fstat(directory)?))
}

/// Returns the name of data that is in the way of a copy, if there is any.
pub(super) fn taken(
    directory: BorrowedFd<'_>,
    name: &HostBytes,
    naming: Naming,
    seen: Option<FileId>,
) -> io::Result<Option<HostBytes>> {
    let replace = match naming {
        Naming::Fill => return Ok(foreign_entry(directory)?.as_deref().map(HostBytes::from)),
        Naming::Rename(replace) => replace,
    };
    match statat(directory, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(found) if replace != Replace::No && Some(proc::id(&found)) == seen => Ok(None),
        Ok(_) => Ok(Some(name.clone())),
    }
}
