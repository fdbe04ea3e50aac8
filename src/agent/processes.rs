//! Processes of a job: those that have the lock file of the job open, under any descriptor.
//!
//! Every process of a job inherits that file. No process is known by its number: the kernel reuses numbers. A
//! signal goes through a pidfd, after the process behind it was seen to hold the file.
//!
//! Names of open files come from the kernel and never block; only a file with the right name is looked at. Other
//! users may have very many processes and open files. So the processes of this user are searched first, and the
//! others only while the lock (`flock`) that the members inherit shows that there are more.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, StatxFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, getpid, pidfd_open, pidfd_send_signal};

use super::flock::{self, Wait};

/// Time for terminated processes to end before they are killed.
const GRACE: Duration = Duration::from_millis(500);
/// Maximum time between two searches.
const ROUND: Duration = Duration::from_millis(50);
/// Maximum number of processes that are waited for or named at a time.
const MOST: usize = 16;
/// Size in bytes of the buffer for names of directory entries and files.
const BUFFER: usize = 8 << 10;
/// Suffix of the kernel for names of open files that were removed.
const DELETED: &[u8] = b" (deleted)";

/// Error of processes that could not be ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EndError {
    /// Processes remain.
    #[error("{}", remaining(pids, *count))]
    Remain {
        /// Numbers of some of them.
        pids: Vec<i32>,
        /// Number of processes; 0 if they cannot be seen.
        count: usize,
    },
    /// The processes cannot be searched.
    #[error("cannot search processes: {0}")]
    Search(#[from] io::Error),
}

fn remaining(pids: &[i32], count: usize) -> String {
    let numbers = pids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match count - pids.len() {
        _ if count == 0 => "a process that cannot be seen holds the lock file of the job".to_owned(),
        0 => format!("processes do not end: {numbers}"),
        more => format!("processes do not end: {numbers} and {more} more"),
    }
}

/// Processes that have a lock file open.
#[derive(Debug)]
pub(crate) struct Members {
    path: PathBuf,
    device: u64,
    inode: u64,
}

/// Processes that are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owners {
    /// Processes of this user.
    Own,
    /// Processes of all users.
    All,
}

/// Processes found by one search.
#[derive(Debug, Default)]
struct Found {
    count: usize,
    pids: Vec<i32>,
    signalled: Vec<OwnedFd>,
}

impl Members {
    /// Returns the processes that have a lock file open; `None` if there is no such file.
    pub(crate) fn of(lock: &Path) -> io::Result<Option<Self>> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        match rustix::fs::statat(CWD, lock, flags) {
            Ok(found) => Ok(Some(Self { path: lock.to_owned(), device: found.st_dev, inode: found.st_ino })),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Calls a function with the number of each process, never this one.
    #[cfg(test)]
    pub(crate) fn visit(&self, visitor: &mut dyn FnMut(Pid) -> io::Result<()>) -> io::Result<()> {
        self.search(Owners::All, visitor)
    }

    /// Ends all processes, first with SIGTERM and then with SIGKILL, and returns when none is left.
    pub(crate) fn end(&self, limit: Duration) -> Result<(), EndError> {
        let deadline = Instant::now() + limit;
        let (mut owners, mut kill_at) = (Owners::Own, None);
        loop {
            let signals: &[Signal] = match kill_at {
                // A stopped process must wake up to die.
                None => &[Signal::TERM, Signal::CONT],
                Some(at) if Instant::now() >= at => &[Signal::KILL],
                Some(_) => &[],
            };
            kill_at = kill_at.or_else(|| Some(Instant::now() + GRACE));
            let found = self.signal(owners, signals)?;
            if found.count == 0 {
                // The search is no snapshot, but members cannot inherit a lock that is free.
                if self.is_free()? {
                    return Ok(());
                }
                if owners == Owners::Own {
                    (owners, kill_at) = (Owners::All, None);
                    continue;
                }
            }
            if Instant::now() >= deadline {
                return Err(EndError::Remain { pids: found.pids, count: found.count });
            }
            wait(&found.signalled);
        }
    }

    /// Sends signals to all processes.
    fn signal(&self, owners: Owners, signals: &[Signal]) -> io::Result<Found> {
        let mut found = Found::default();
        self.search(owners, &mut |pid| {
            let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
                Err(Errno::SRCH) => return Ok(()),
                opened => opened?,
            };
            // The number may have become another process's before that.
            if !self.is_held_by(pid)? {
                return Ok(());
            }
            for &signal in signals {
                // It may have ended, or be a setuid program that this user cannot end.
                let _ = pidfd_send_signal(&pidfd, signal);
            }
            found.count += 1;
            if found.pids.len() < MOST {
                found.pids.push(pid.as_raw_nonzero().get());
                found.signalled.push(pidfd);
            }
            Ok(())
        })?;
        Ok(found)
    }

    fn search(&self, owners: Owners, visitor: &mut dyn FnMut(Pid) -> io::Result<()>) -> io::Result<()> {
        let proc = open_directory(CWD, "/proc")?;
        let (own, user) = (getpid(), geteuid());
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut processes = RawDir::new(&proc, &mut buffer);
        while let Some(entry) = processes.next() {
            let entry = entry?;
            let number = entry.file_name().to_str().ok().and_then(|name| name.parse().ok());
            let Some(pid) = number.and_then(Pid::from_raw).filter(|&pid| pid != own) else { continue };
            let Some(descriptors) = descriptors(proc.as_fd(), pid)? else { continue };
            let is_searched = owners == Owners::All
                || rustix::fs::fstat(&descriptors).is_ok_and(|found| found.st_uid == user.as_raw());
            if is_searched && self.is_in(&descriptors) {
                visitor(pid)?;
            }
        }
        Ok(())
    }

    /// Returns whether a process has the lock file open.
    fn is_held_by(&self, pid: Pid) -> io::Result<bool> {
        let proc = open_directory(CWD, "/proc")?;
        Ok(descriptors(proc.as_fd(), pid)?.is_some_and(|descriptors| self.is_in(&descriptors)))
    }

    /// Returns whether the lock file is among the descriptors of a process.
    fn is_in(&self, descriptors: &OwnedFd) -> bool {
        let wanted = self.path.file_name().unwrap_or_default().as_bytes();
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut path = [MaybeUninit::uninit(); BUFFER];
        let mut entries = RawDir::new(descriptors, &mut buffer);
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name();
            let Ok((target, _)) = rustix::fs::readlinkat_raw(descriptors, name, &mut path) else { continue };
            let target = target.strip_suffix(DELETED).unwrap_or(target);
            if target.rsplit(|&byte| byte == b'/').next() == Some(wanted)
                && self.is_opened_as(descriptors, name)
            {
                return true;
            }
        }
        false
    }

    fn is_opened_as(&self, descriptors: &OwnedFd, name: &std::ffi::CStr) -> bool {
        // Never asks a file server, which may be another user's and not answer.
        let found = rustix::fs::statx(descriptors, name, AtFlags::STATX_DONT_SYNC, StatxFlags::INO);
        found.is_ok_and(|found| {
            let device = rustix::fs::makedev(found.stx_dev_major, found.stx_dev_minor);
            (device, found.stx_ino) == (self.device, self.inode)
        })
    }

    /// Returns whether no process holds the lock that members inherit. Opens the file only now: a search must
    /// not find the processes that this one is just starting.
    fn is_free(&self) -> io::Result<bool> {
        match flock::options().open(&self.path) {
            Ok(file) => flock::lock(file, Wait::No),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Creates the lock file of a job, locked. The agent closes it when the job has inherited it: the lock shows
/// whether any process of the job is left.
pub(crate) fn create_lock(path: &Path) -> io::Result<File> {
    let file = flock::options().write(true).create(true).mode(0o600).open(path)?;
    if flock::lock(&file, Wait::No)? { Ok(file) } else { Err(ErrorKind::ResourceBusy.into()) }
}

/// Ends all processes that have a lock file open.
pub(crate) fn end_all(lock: &Path, limit: Duration) -> Result<(), EndError> {
    match Members::of(lock)? {
        Some(members) => members.end(limit),
        None => Ok(()),
    }
}

/// Opens the descriptors of a process; `None` if it has ended, or this user may not look into it. Without a free
/// descriptor or memory, an empty search would prove nothing.
fn descriptors(proc: BorrowedFd<'_>, pid: Pid) -> io::Result<Option<OwnedFd>> {
    match open_directory(proc, &format!("{}/fd", pid.as_raw_nonzero())) {
        Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM)) => Err(error.into()),
        opened => Ok(opened.ok()),
    }
}

fn open_directory(at: BorrowedFd<'_>, path: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(at, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Waits until the processes have ended, but no longer than a round.
fn wait(processes: &[OwnedFd]) {
    let deadline = Instant::now() + ROUND;
    let mut running: Vec<PollFd<'_>> =
        processes.iter().map(|pidfd| PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)).collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
        let _ = poll(&mut running, Some(&timeout));
        running.retain(|process| process.revents().is_empty());
        if left.is_zero() || running.is_empty() && !processes.is_empty() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
