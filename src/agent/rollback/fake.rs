//! A host for tests of the rollback: journals, and undos that only write a log.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;

use super::{Context, Policy, Rollback, Undoer, Undone};
use crate::agent::journal::Journal;
use crate::agent::state::{self, Directories};
use crate::proto::HostBytes;
use crate::proto::journal::samples::{header, login};
use crate::proto::journal::{Header, Hook, Undo};
use crate::proto::name::AgentName;
use crate::proto::server::{DataDirectory, StartState};
use crate::proto::status::RollbackEvent;

/// Result of each undo.
pub(super) type Results = fn(&Context<'_>, &Undo) -> Undone;

/// Undoes nothing, but writes each attempt to a log.
pub(super) struct Fake {
    log: PathBuf,
    results: Results,
}

pub(super) fn undoer(log: PathBuf, results: Results) -> Fake {
    Fake { log, results }
}

impl Undoer for Fake {
    fn undo(&mut self, context: &Context<'_>, undo: &Undo) -> Undone {
        let undone = (self.results)(context, undo);
        let mut log = File::options().append(true).create(true).open(&self.log).unwrap();
        let line = format!("{} {undo} {:?} {undone:?}\n", context.agent, context.attempt);
        log.write_all(line.as_bytes()).unwrap();
        undone
    }
}

/// Host whose directories are temporary.
pub(super) struct Host {
    pub(super) scratch: tempfile::TempDir,
    pub(super) directories: Directories,
}

pub(super) fn host() -> Host {
    let scratch = tempfile::tempdir().unwrap();
    let directories = Directories::at(scratch.path().join("state"), scratch.path().join("run"));
    Host { scratch, directories }
}

pub(super) fn name(name: &str) -> AgentName {
    AgentName::new(name).unwrap()
}

/// Returns the header of an agent that started since the last boot.
pub(super) fn current() -> Header {
    Header { boot: state::boot_id().unwrap().into(), ..header() }
}

impl Host {
    /// Creates a journal with leases, and returns it locked.
    pub(super) fn journal(&self, agent: &str, header: Header, undos: &[Undo]) -> Journal {
        let mut journal = Journal::create(&self.directories, &name(agent), header, |_| Ok(())).unwrap();
        for undo in undos {
            journal.lease(undo).unwrap();
        }
        journal
    }

    /// Creates the journal of an orphaned run.
    pub(super) fn orphan(&self, agent: &str, undos: &[Undo]) {
        drop(self.journal(agent, current(), undos));
    }

    /// Runs a rollback and returns its result and events.
    pub(super) fn rollback<T>(
        &self,
        policy: Policy,
        results: Results,
        work: impl FnOnce(&mut Rollback<'_>) -> T,
    ) -> (T, Vec<RollbackEvent>) {
        let mut events = Vec::new();
        let result = work(&mut Rollback {
            directories: &self.directories,
            policy,
            undoer: &mut Fake { log: self.log_file(), results },
            observer: &mut |event| events.push(event),
        });
        (result, events)
    }

    /// Rolls back orphaned runs and returns the events.
    pub(super) fn clean(&self, policy: Policy, results: Results) -> Vec<RollbackEvent> {
        self.rollback(policy, results, |rollback| rollback.clean().unwrap()).1
    }

    /// Returns the attempts since the last call.
    pub(super) fn log(&self) -> Vec<String> {
        let log = fs::read_to_string(self.log_file()).unwrap_or_default();
        let _ = fs::remove_file(self.log_file());
        log.lines().map(ToOwned::to_owned).collect()
    }

    fn log_file(&self) -> PathBuf {
        self.scratch.path().join("log")
    }
}

pub(super) fn done(_: &Context<'_>, _: &Undo) -> Undone {
    Undone::Done
}

pub(super) fn left(_: &Context<'_>, _: &Undo) -> Undone {
    Undone::Left("busy".to_owned().into())
}

pub(super) fn staging(path: &str) -> Undo {
    Undo::Staging { path: path.into(), keep: false }
}

pub(super) fn data() -> DataDirectory {
    DataDirectory { path: "/d".into(), inode: 3 }
}

pub(super) fn server() -> Undo {
    let unit = "mariadb.service".to_owned();
    Undo::Server { unit, server: login("/run/s"), start: StartState::Configured, data: data() }
}

pub(super) fn provisional() -> Undo {
    let (unit, aside) = ("mariadb.service".to_owned(), HostBytes::from("/d.old"));
    Undo::Provisional { unit, data: data(), old: Some(2), aside, seconds: 60 }
}

pub(super) fn hook() -> Undo {
    Undo::Hook(Hook {
        end: "target".into(),
        number: 0,
        command: "true".into(),
        source: "a".into(),
        targets: "b".into(),
    })
}

pub(super) fn mode(path: &str) -> Undo {
    Undo::Mode { path: path.into(), inode: 1, mode: 0o500 }
}
