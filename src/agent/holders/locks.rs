//! Locks of servers on the files of their data directories.

use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{F_RDLCK, F_UNLCK, SEEK_SET, flock};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

/// Process that has locked a file for writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Locker {
    /// Process; `None` where it has no number here.
    pub(super) pid: Option<u32>,
}

/// Returns the process that has locked a file for writing, if there is one.
pub(super) fn locker(path: &Path) -> Option<Locker> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let stat = rustix::fs::statat(CWD, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).ok()?;
    // Nothing else is opened: that can have effects.
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let file = openat(CWD, path, flags, Mode::empty()).ok()?;
    if FileType::from_raw_mode(fstat(&file).ok()?.st_mode) != FileType::RegularFile {
        return None;
    }
    // Conflicts with the locks of writers only; anyone who can read may hold the others.
    let mut lock = flock {
        l_type: i16::try_from(F_RDLCK).ok()?,
        l_whence: i16::try_from(SEEK_SET).ok()?,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(&file, FcntlArg::F_GETLK(&mut lock)).ok()?;
    // The owner of an open file description has the number -1, a process of another namespace 0.
    let pid = u32::try_from(lock.l_pid).ok().filter(|pid| *pid > 0);
    (i32::from(lock.l_type) != F_UNLCK).then_some(Locker { pid })
}
