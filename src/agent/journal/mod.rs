//! The journal of a run: undos, each synced before the change that it takes back.

pub(crate) mod contents;
pub(crate) mod lock;

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::flock::{self, Wait};
use super::state::{self, Directories, StateError};
use crate::proto::journal::{Header, Record, Undo, encode};
use crate::proto::name::AgentName;

use lock::JournalLock;

/// Attempts to create a directory that other runs may remove while it is empty.
const ATTEMPTS: u32 = 5;
/// Maximum time to wait for the lock of a new journal, which a clean-up may hold for a moment.
const PATIENCE: Duration = Duration::from_secs(2);

/// Error of a journal that cannot be created or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JournalError {
    /// The directory of journals cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The journal cannot be created.
    #[error("cannot create the journal in {}: {source}", directory.display())]
    Create {
        /// Directory.
        directory: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A record cannot be written or synced.
    #[error("cannot write to the journal in {}: {source}; nothing more is changed", directory.display())]
    Write {
        /// Directory.
        directory: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// An earlier record could not be written.
    #[error("cannot write to the journal in {} after an earlier failure", directory.display())]
    Failed {
        /// Directory.
        directory: PathBuf,
    },
    /// The record is too long.
    #[error("a record is too long for the journal in {}", directory.display())]
    TooLong {
        /// Directory.
        directory: PathBuf,
    },
}

/// Journal of this agent, with its lock.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    directory: PathBuf,
    has_failed: bool,
}

impl Journal {
    /// Creates and locks the journal of a run. `prepare` puts further files into its directory. The directory
    /// gets its name when everything in it is synced; if the creation fails, nothing remains.
    pub(crate) fn create(
        directories: &Directories,
        agent: &AgentName,
        header: Header,
        prepare: impl FnOnce(&Path) -> io::Result<()>,
    ) -> Result<Self, JournalError> {
        let above = directories.above().to_owned();
        let mut journal = Self::begin(directories, agent)?;
        let created = journal.publish(directories, agent, header, prepare, &above);
        if created.is_err() {
            // The lock is still held, so no clean-up is in it.
            let _ = state::remove(&journal.directory);
            let _ = directories.forget(agent);
        }
        created.map(|()| journal)
    }

    /// Creates the locked file in a directory that is not taken for a run yet.
    fn begin(directories: &Directories, agent: &AgentName) -> Result<Self, JournalError> {
        let directory = directories.new_run(agent);
        let mut attempt = 0;
        loop {
            attempt += 1;
            // Another run may remove the empty parent in between, and a clean-up a journal that is not locked yet.
            match Self::try_begin(directories, &directory) {
                Ok(Some(file)) => return Ok(Self { file, directory, has_failed: false }),
                Ok(None) if attempt < ATTEMPTS => {}
                Ok(None) => {
                    let source = ErrorKind::ResourceBusy.into();
                    return Err(JournalError::Create { directory, source });
                }
                Err(error) if attempt >= ATTEMPTS => return Err(error),
                Err(_) => {}
            }
        }
    }

    fn try_begin(directories: &Directories, directory: &Path) -> Result<Option<File>, JournalError> {
        let failed = |source| JournalError::Create { directory: directory.to_owned(), source };
        state::create(directories.state()).map_err(failed)?;
        state::open_owned(directories.state())?;
        state::create(directory).map_err(failed)?;
        let path = directory.join(state::JOURNAL);
        let mut options = flock::options();
        let file = options.append(true).create(true).mode(0o600).open(&path).map_err(failed)?;
        let is_ours = flock::lock(&file, Wait::For(PATIENCE)).map_err(failed)? && flock::is_at(&file, &path);
        if is_ours && file.metadata().map_err(failed)?.len() != 0 {
            return Err(failed(ErrorKind::AlreadyExists.into()));
        }
        Ok(is_ours.then_some(file))
    }

    fn publish(
        &mut self,
        directories: &Directories,
        agent: &AgentName,
        header: Header,
        prepare: impl FnOnce(&Path) -> io::Result<()>,
        above: &Path,
    ) -> Result<(), JournalError> {
        self.append(&Record::Header(header))?;
        let directory = directories.run(agent);
        let publish = || {
            prepare(&self.directory)?;
            state::sync(&self.directory)?;
            fs::rename(&self.directory, &directory)?;
            self.directory.clone_from(&directory);
            state::sync(directories.state())?;
            // The entry of that directory, too, which goes with the last run and is created again, and those of
            // new directories above it.
            for parent in directories.state().ancestors().skip(1) {
                match state::sync(parent) {
                    Err(error) if error.kind() != ErrorKind::PermissionDenied => return Err(error),
                    _ => {}
                }
                if parent == above || !parent.starts_with(above) {
                    break;
                }
            }
            Ok(())
        };
        publish().map_err(|source| JournalError::Create { directory, source })
    }

    /// Returns the directory of the run.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns the locked file. Programs that make a change keep it open (`tool::hold`), so that no rollback
    /// overtakes them; jobs never do.
    pub(crate) fn lock(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Writes and syncs an undo. The change may only be made after that.
    pub(crate) fn lease(&mut self, undo: &Undo) -> Result<(), JournalError> {
        self.append(&Record::Lease(undo.clone()))
    }

    /// Takes back the newest equal lease, which was undone or must stay.
    pub(crate) fn close(&mut self, undo: &Undo) -> Result<(), JournalError> {
        self.append(&Record::Closed(undo.clone()))
    }

    /// Writes the result of the run.
    pub(crate) fn conclude(&mut self, done: bool) -> Result<(), JournalError> {
        self.append(&Record::Concluded { done })
    }

    /// Commits provisional data. Whoever reads the journal from now on reads the commit, whether or not it is on
    /// the disk: so a failed sync does not fail the commit, but only further records.
    pub(crate) fn commit(&mut self) -> Result<(), JournalError> {
        self.write(&Record::Committed)?;
        self.has_failed = self.file.sync_data().is_err();
        Ok(())
    }

    /// Returns the lock, for the rollback.
    pub(crate) fn into_lock(self) -> JournalLock {
        JournalLock::of(self.file)
    }

    fn append(&mut self, record: &Record) -> Result<(), JournalError> {
        self.write(record)?;
        let synced = self.file.sync_data();
        self.checked(synced)
    }

    fn write(&mut self, record: &Record) -> Result<(), JournalError> {
        let directory = self.directory.clone();
        if self.has_failed {
            return Err(JournalError::Failed { directory });
        }
        let bytes = encode(record).map_err(|_| JournalError::TooLong { directory })?;
        let written = self.file.write_all(&bytes);
        self.checked(written)
    }

    /// Remembers a failure: readers stop at a torn record, so none may follow it.
    fn checked(&mut self, result: io::Result<()>) -> Result<(), JournalError> {
        self.has_failed |= result.is_err();
        result.map_err(|source| JournalError::Write { directory: self.directory.clone(), source })
    }
}

#[cfg(test)]
mod tests;
