//! Runs that have a journal on this host, and journals that need people.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::agent::flock::Wait;
use crate::agent::journal::contents::{Contents, ReadError};
use crate::agent::journal::lock::{JournalLock, LockError, UnlockedJournal};
use crate::agent::state::{self, Directories, PROGRAM, StateError};
use crate::proto::name::AgentName;
use crate::proto::status::{Condition, Foreign, ForeignJournal, RunStatus, StatusEntry};
use crate::proto::{HostBytes, Text};

/// Lists all runs and their leases. Changes nothing.
pub(crate) fn list(
    directories: &Directories,
    observer: &mut dyn FnMut(StatusEntry),
) -> Result<(), StateError> {
    let Some(names) = runs(directories)? else { return Ok(()) };
    let boot = state::boot_id()
        .map_err(|source| StateError::Open { path: "/proc/sys/kernel/random/boot_id".into(), source })?;
    for name in names {
        let directory = directories.state().join(&name);
        // The lock is taken for a moment only: whoever waits for it gets it.
        let condition = match JournalLock::take(&directory, Wait::No) {
            Ok(_) => Condition::Orphaned,
            Err(LockError::Held) => Condition::Live,
            Err(LockError::Gone) => continue,
            Err(LockError::Open(error)) => {
                let reason = Foreign::Damaged(Text::from(&error));
                observer(StatusEntry::Foreign(foreign(&directory, Condition::Orphaned, reason)));
                continue;
            }
        };
        let contents = match UnlockedJournal::open(&directory) {
            Ok(journal) => Contents::read(journal.file()),
            Err(LockError::Open(error)) => Err(ReadError::Read(error)),
            // It was rolled back in between.
            Err(LockError::Held | LockError::Gone) => continue,
        };
        match (contents, agent(&name)) {
            (Ok(contents), Ok(agent)) => {
                let is_rebooted = contents.header.boot.as_str() != boot;
                let run = RunStatus { agent, condition, is_rebooted, header: contents.header };
                observer(StatusEntry::Run(run));
                contents.undos.into_iter().for_each(|undo| observer(StatusEntry::Lease(undo)));
            }
            (Err(error), _) => {
                observer(StatusEntry::Foreign(foreign(&directory, condition, Foreign::from(&error))));
            }
            (_, Err(reason)) => observer(StatusEntry::Foreign(foreign(&directory, condition, reason))),
        }
    }
    Ok(())
}

/// Returns the names of directories of runs, in order; `None` if there is no directory of journals.
pub(super) fn runs(directories: &Directories) -> Result<Option<Vec<OsString>>, StateError> {
    match state::open_owned(directories.state()) {
        Err(StateError::Open { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        opened => opened?,
    };
    let failed = |source| StateError::Open { path: directories.state().to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(directories.state()).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if !name.as_bytes().starts_with(b".") {
            names.push(name);
        }
    }
    names.sort();
    Ok(Some(names))
}

/// Returns the name of the agent with a directory.
pub(super) fn agent(name: &OsString) -> Result<AgentName, Foreign> {
    let found = name.to_str().and_then(AgentName::new);
    found.ok_or_else(|| Foreign::Damaged(Text::new("its directory does not have the name of an agent")))
}

/// Describes a journal that is not touched.
pub(super) fn foreign(directory: &Path, condition: Condition, reason: Foreign) -> ForeignJournal {
    let program: PathBuf = directory.join(PROGRAM);
    ForeignJournal { directory: HostBytes::from(directory), condition, reason, has_agent: program.is_file() }
}
