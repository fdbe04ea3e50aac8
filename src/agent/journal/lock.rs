//! The lock of a journal: held by the agent and its changes in flight, or by the one that rolls back instead.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::agent::flock::{self, Wait};
use crate::agent::state::{JOURNAL, SHELL_JOURNAL};

/// Reason why the lock of a journal cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// A process holds it.
    #[error("the journal is in use")]
    Held,
    /// There is no journal any more.
    #[error("there is no journal")]
    Gone,
    /// The journal cannot be opened.
    #[error("cannot open the journal: {0}")]
    Open(#[from] io::Error),
}

/// Journal that is open but not locked.
#[derive(Debug)]
pub(crate) struct UnlockedJournal {
    file: File,
    path: PathBuf,
}

/// Lock of a journal.
#[derive(Debug)]
pub(crate) struct JournalLock {
    file: File,
}

impl UnlockedJournal {
    /// Opens the journal in the directory of a run, or that of the shell version. Never creates one: its owner may
    /// be removing it.
    pub(crate) fn open(directory: &Path) -> Result<Self, LockError> {
        match Self::open_file(directory.join(JOURNAL)) {
            Err(LockError::Gone) => Self::open_file(directory.join(SHELL_JOURNAL)),
            opened => opened,
        }
    }

    fn open_file(path: PathBuf) -> Result<Self, LockError> {
        match flock::options().open(&path) {
            Ok(file) if file.metadata()?.is_file() => Ok(Self { file, path }),
            Ok(_) => Err(io::Error::other("it is no regular file").into()),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                Err(LockError::Gone)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Locks the journal, unless its owner removes it.
    pub(crate) fn lock(self, wait: Wait) -> Result<JournalLock, LockError> {
        if !flock::lock(&self.file, wait)? {
            Err(LockError::Held)
        } else if flock::is_at(&self.file, &self.path) {
            Ok(JournalLock { file: self.file })
        } else {
            Err(LockError::Gone)
        }
    }

    /// Returns the file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Returns the path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl JournalLock {
    /// Locks the journal in the directory of a run.
    pub(crate) fn take(directory: &Path, wait: Wait) -> Result<Self, LockError> {
        UnlockedJournal::open(directory)?.lock(wait)
    }

    /// Wraps a file that is locked.
    pub(super) fn of(file: File) -> Self {
        Self { file }
    }

    /// Returns the file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }
}

impl AsFd for JournalLock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
