//! Tests of journals on a real file system.

use std::io::Write as _;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::contents::{Conclusion, Contents};
use super::lock::{LockError, UnlockedJournal};
use super::*;
use crate::agent::scenes;
use crate::proto::journal::samples::header;

struct Host {
    scratch: tempfile::TempDir,
    directories: Directories,
    agent: AgentName,
}

fn host() -> Host {
    let scratch = tempfile::tempdir().unwrap();
    let directories = Directories::at(scratch.path().join("lib/state"), scratch.path().join("run"));
    Host { scratch, directories, agent: AgentName::new("r-target1").unwrap() }
}

impl Host {
    fn journal(&self) -> Journal {
        Journal::create(&self.directories, &self.agent, header(), |_| Ok(())).unwrap()
    }

    fn contents(&self) -> Contents {
        Contents::read(UnlockedJournal::open(&self.directories.run(&self.agent)).unwrap().file()).unwrap()
    }
}

#[test]
fn journal_gets_its_name_when_it_is_complete() {
    let host = host();
    let run = host.directories.run(&host.agent);
    let journal = Journal::create(&host.directories, &host.agent, header(), |directory| {
        assert!(directory.ends_with(".new-r-target1") && !run.exists());
        fs::write(directory.join("transfer-agent"), "program")
    })
    .unwrap();
    assert_eq!(journal.directory(), run);
    assert_eq!(fs::read(run.join("transfer-agent")).unwrap(), b"program");
    assert!(!host.directories.new_run(&host.agent).exists());
    let contents = host.contents();
    assert_eq!((contents.header, contents.undos, contents.torn), (header(), vec![], 0));
}

#[test]
fn failed_creation_leaves_nothing() {
    let host = host();
    let full = |_: &Path| Err(ErrorKind::StorageFull.into());
    let error = Journal::create(&host.directories, &host.agent, header(), full).unwrap_err();
    assert!(matches!(error, JournalError::Create { .. }), "{error}");
    assert!(!host.directories.state().exists());
    let first = host.journal();
    let error = Journal::create(&host.directories, &host.agent, header(), |_| Ok(())).unwrap_err();
    assert!(matches!(error, JournalError::Create { .. }), "{error}");
    assert!(host.directories.run(&host.agent).join(state::JOURNAL).exists());
    drop(first);
    assert!(host.scratch.path().join("lib").exists());
}

#[test]
fn records_are_read_back() {
    let host = host();
    let mut journal = host.journal();
    journal.lease(&Undo::Port(1)).unwrap();
    journal.lease(&Undo::Port(2)).unwrap();
    journal.close(&Undo::Port(1)).unwrap();
    journal.conclude(false).unwrap();
    let contents = host.contents();
    assert_eq!((contents.undos, contents.conclusion), (vec![Undo::Port(2)], Conclusion::Failed));
}

#[test]
fn lock_is_held_until_the_journal_is_dropped() {
    let host = host();
    let journal = host.journal();
    let run = host.directories.run(&host.agent);
    assert!(matches!(JournalLock::take(&run, Wait::No), Err(LockError::Held)));
    let waiting = UnlockedJournal::open(&run).unwrap();
    let lock = journal.into_lock();
    fs::remove_dir_all(&run).unwrap();
    drop(lock);
    assert!(matches!(waiting.lock(Wait::Forever), Err(LockError::Gone)));
    assert!(matches!(JournalLock::take(&run, Wait::No), Err(LockError::Gone)));
}

#[test]
fn pipe_or_link_is_no_journal() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join(state::JOURNAL);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(matches!(JournalLock::take(scratch.path(), Wait::No), Err(LockError::Open(_))));
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert!(matches!(JournalLock::take(scratch.path(), Wait::No), Err(LockError::Open(_))));
}

#[test]
fn torn_tail_is_ignored() {
    let host = host();
    let mut journal = host.journal();
    journal.lease(&Undo::Port(1)).unwrap();
    let whole = encode(&Record::Lease(Undo::Port(2))).unwrap();
    journal.file.write_all(&whole[..whole.len() - 1]).unwrap();
    let contents = host.contents();
    assert_eq!((contents.undos, contents.torn), (vec![Undo::Port(1)], whole.len() - 1));
}

#[test]
fn nothing_follows_a_record_that_failed() {
    // The limit holds for the whole process, so the test runs in one of its own.
    if scenes::part().is_none() {
        let test = "agent::journal::tests::nothing_follows_a_record_that_failed";
        let output = scenes::play(test, "writer").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let host = host();
    let mut journal = host.journal();
    journal.lease(&Undo::Port(1)).unwrap();
    let length = journal.file.metadata().unwrap().len();
    // The signal of that limit would end the process.
    signal_hook::flag::register(signal_hook::consts::SIGXFSZ, std::sync::Arc::default()).unwrap();
    let whole = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(length + 5), ..whole }).unwrap();
    assert!(matches!(journal.lease(&Undo::Port(2)), Err(JournalError::Write { .. })));
    setrlimit(Resource::Fsize, whole).unwrap();
    assert!(matches!(journal.lease(&Undo::Port(3)), Err(JournalError::Failed { .. })));
    assert!(matches!(journal.commit(), Err(JournalError::Failed { .. })));
    let contents = host.contents();
    assert_eq!((contents.undos, contents.torn), (vec![Undo::Port(1)], 5));
}
