//! Lock files of final names, servers and ports, by which the runs on a host keep out of each other's way.

pub(crate) mod ports;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};

use super::flock::{self, Wait};
use super::state::{self, Directories, StateError};
use crate::proto::files::FileId;
use crate::proto::name::AgentName;
use crate::proto::{HostBytes, Text};

/// Time to wait for a lock that a clean-up may hold for a moment.
pub(crate) const PATIENCE: Wait = Wait::For(Duration::from_secs(1));
/// Attempts to lock a file that others remove in between.
const ATTEMPTS: u32 = 5;
/// Age at which a lock file that no process holds is removed. A new one may not be locked yet.
const STALE: Duration = Duration::from_secs(60);
/// Maximum size in bytes of the text in a lock file.
const LONGEST: u64 = 4096;

/// Error of a lock that was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Another run holds it.
    #[error("{holder}")]
    Held {
        /// Description of the other run; may be empty.
        holder: Text,
    },
    /// There can be no lock files.
    #[error(transparent)]
    Runtime(#[from] StateError),
    /// The lock file cannot be opened.
    #[error("cannot lock {}: {source}", path.display())]
    Open {
        /// Lock file.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// Lock file that this process, or a program that inherits it, holds.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Takes a lock.
    pub(crate) fn take(directories: &Directories, name: &str, wait: Wait) -> Result<Self, LockError> {
        let path = directories.runtime().join(name);
        let failed = |source| LockError::Open { path: path.clone(), source };
        let mut last = ErrorKind::ResourceBusy.into();
        for _ in 0..ATTEMPTS {
            // The release of another run may remove the empty directory in between.
            if let Err(error) = state::create(directories.runtime()) {
                last = error;
                continue;
            }
            match state::open_owned(directories.runtime()) {
                Err(StateError::Open { source, .. }) if source.kind() == ErrorKind::NotFound => continue,
                opened => opened?,
            };
            let file = match flock::options().append(true).create(true).mode(0o600).open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened.map_err(failed)?,
            };
            if !flock::lock(&file, wait).map_err(failed)? {
                return Err(LockError::Held { holder: text(&file) });
            }
            // The file that is locked must be the one that others see: its last owner may have removed it.
            if flock::is_at(&file, &path) {
                return Ok(Self { file, path });
            }
        }
        Err(failed(last))
    }

    /// Takes the lock of a name in a directory, whatever path leads there: symbolic links and bind mounts do not
    /// change the directory's identity.
    pub(crate) fn of_name(
        directories: &Directories,
        directory: FileId,
        name: &HostBytes,
        wait: Wait,
    ) -> Result<Self, LockError> {
        Self::take(directories, &name_lock(directory, name), wait)
    }

    /// Takes the lock of the server with a data directory.
    pub(crate) fn of_server(directories: &Directories, data: FileId, wait: Wait) -> Result<Self, LockError> {
        Self::take(directories, &server_lock(data), wait)
    }

    /// Takes the lock of a lock file that exists.
    pub(crate) fn of_existing(path: &Path) -> Option<Self> {
        state::open_owned(path.parent()?).ok()?;
        let file = flock::options()
            .append(true)
            .open(path)
            .ok()
            .filter(|file| file.metadata().is_ok_and(|found| found.is_file()))?;
        let is_ours = flock::lock(&file, Wait::No).is_ok_and(|locked| locked) && flock::is_at(&file, path);
        is_ours.then(|| Self { file, path: path.to_owned() })
    }

    /// Returns the path, for the undo.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes who holds the lock, for the messages of other runs.
    pub(crate) fn sign(&mut self, agent: &AgentName, controller: &Text) -> io::Result<()> {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC");
        self.file.set_len(0)?;
        self.file.write_all(format!("run {} of {controller}, since {now}", agent.run()).as_bytes())
    }

    /// Removes the lock file and releases the lock, also if other processes have inherited it. The file goes
    /// first: whoever waits for the lock sees then that it is no longer the one.
    pub(crate) fn remove(self) {
        if flock::is_at(&self.file, &self.path) {
            // A lock file without a lock does no harm, and the next clean-up removes it.
            let _ = fs::remove_file(&self.path);
        }
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Returns the name of the lock file of a final name in a directory.
pub(crate) fn name_lock(directory: FileId, name: &HostBytes) -> String {
    let hash: String =
        Sha256::digest(name.as_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("target.{:x}.{}.{hash}", directory.device, directory.inode)
}

/// Returns the name of the lock file of the server with a data directory.
pub(crate) fn server_lock(data: FileId) -> String {
    format!("server.{:x}.{}", data.device, data.inode)
}

/// Returns the name of the lock file of a port.
pub(crate) fn port_lock(port: u16) -> String {
    format!("port.{port}")
}

/// Returns the description of the run that holds a lock; `None` if no run does. The lock is taken for a moment,
/// which disturbs no run: each waits for a second.
pub(crate) fn holder(directories: &Directories, name: &str) -> Option<Text> {
    state::open_owned(directories.runtime()).ok()?;
    let file = flock::options().open(directories.runtime().join(name)).ok()?;
    // A lock of the kernel that cannot be asked for is not held.
    let is_held = flock::lock(&file, Wait::No).is_ok_and(|locked| !locked);
    is_held.then(|| text(&file))
}

/// Removes a lock file, unless another run holds it by now.
pub(crate) fn free(path: &Path) {
    if let Some(lock) = Lock::of_existing(path) {
        lock.remove();
    }
}

/// Removes lock files of agents that died between the lock and its record.
pub(crate) fn remove_stale(directories: &Directories) {
    let Ok(entries) = fs::read_dir(directories.runtime()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_lock =
            [&b"port."[..], b"target.", b"server."].iter().any(|kind| name.as_bytes().starts_with(kind));
        if is_lock && entry.metadata().is_ok_and(|found| is_older(found.mtime(), STALE)) {
            free(&entry.path());
        }
    }
}

/// Returns whether a time, in seconds since the epoch, is longer ago than an age.
pub(crate) fn is_older(seconds: i64, age: Duration) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(seconds).is_ok_and(|seconds| Duration::from_secs(seconds) + age < now)
}

fn text(file: &File) -> Text {
    let mut bytes = Vec::new();
    // Without a text the message names no run.
    let _ = file.take(LONGEST).read_to_end(&mut bytes);
    Text::new(bytes)
}

#[cfg(test)]
mod tests;
