//! Tests of the replay, on real journals and locks.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use command_fds::CommandFdExt as _;

use super::fake::{current, done, hook, host, left, mode, name, provisional, server, staging};
use super::orphans::Settled;
use super::replay::Replayed;
use super::status::list;
use super::*;
use crate::agent::flock::Wait;
use crate::agent::journal::lock::{JournalLock, LockError, UnlockedJournal};
use crate::agent::locks::{self, Lock};
use crate::agent::{processes, state};
use crate::proto::HostBytes;
use crate::proto::journal::Header;
use crate::proto::journal::samples::header;
use crate::proto::journal::{Family, Layer};
use crate::proto::status::{Condition, Foreign, StatusEntry};

fn rules() -> Undo {
    Undo::Rules { layer: Layer::Nftables, family: Family::V4, tag: "t".into() }
}

fn lefts(events: &[RollbackEvent]) -> Vec<String> {
    let left = |event: &RollbackEvent| match event {
        RollbackEvent::Left { undo, reason, .. } => Some(format!("{undo}: {reason}")),
        _ => None,
    };
    events.iter().filter_map(left).collect()
}

/// Makes a file or directory an hour old.
fn age(path: &Path) {
    File::open(path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
}

#[test]
fn leases_are_undone_by_scope_and_the_newest_first() {
    let host = host();
    host.orphan(
        "r-target1",
        &[hook(), staging("/1"), server(), mode("/a"), mode("/b"), rules(), staging("/2")],
    );
    let events = host.clean(Policy::OWN, done);
    let kinds: Vec<_> = host.log().iter().map(|line| line.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(kinds, ["nftables", "original", "original", "stopped", "staging", "staging", "after-target"]);
    assert!(
        matches!(&events[1], RollbackEvent::Undone { undo: Undo::Mode { path, .. }, .. } if path.as_bytes() == b"/b")
    );
    assert_eq!(events.len(), 7);
    assert!(!host.directories.state().exists());
}

#[test]
fn failed_undo_is_repeated_before_the_next_group() {
    let host = host();
    host.orphan("r-target1", &[hook(), staging("/1"), rules()]);
    let results = |context: &Context<'_>, undo: &Undo| match (undo, context.attempt) {
        (Undo::Staging { .. }, Attempt::Last) => done(context, undo),
        _ => left(context, undo),
    };
    let events = host.clean(Policy::OWN, results);
    let log = host.log();
    let attempts: Vec<_> = log.iter().map(|line| line.rsplit(' ').nth(1).unwrap()).collect();
    assert_eq!(attempts, ["First", "Last", "First", "Last", "First"], "{log:?}");
    assert!(log[0].contains("rules") && log[1].contains("rules") && log[4].contains("hook"), "{log:?}");
    assert_eq!(lefts(&events), ["nftables IPv4 rules t: busy", "after-target hook `true`: busy"]);
    assert!(matches!(events[1], RollbackEvent::Undone { .. }));
    assert!(host.directories.run(&name("r-target1")).exists());
    let events = host.clean(Policy::OWN, done);
    assert!(lefts(&events).is_empty() && !host.directories.state().exists());
}

#[test]
fn after_a_reboot_changes_of_the_old_boot_are_gone() {
    let host = host();
    drop(host.journal("r-target1", header(), &[rules(), Undo::Port(1), mode("/a"), server()]));
    let results = |context: &Context<'_>, undo: &Undo| {
        assert!(context.is_rebooted && !context.may_start());
        done(context, undo)
    };
    let events = host.clean(Policy::OWN, results);
    assert_eq!((host.log().len(), events.len()), (2, 2));
    assert!(!host.directories.state().exists());
}

#[test]
fn only_own_or_requested_servers_may_start() {
    let allowed = |policy: Policy, boot: Header| {
        let host = host();
        drop(host.journal("r-target1", boot, &[server()]));
        let results = |context: &Context<'_>, undo: &Undo| {
            if context.may_start() { done(context, undo) } else { left(context, undo) }
        };
        lefts(&host.clean(policy, results)).is_empty()
    };
    let all = Policy { may_start: MayStart::All, ..Policy::OWN };
    assert!(allowed(Policy::OWN, current()) && allowed(all, current()) && allowed(all, header()));
    assert!(!allowed(Policy::OWN, header()) && !allowed(Policy::OTHERS, current()));
}

#[test]
fn server_does_not_start_while_its_data_is_provisional() {
    let host = host();
    host.orphan("r-target1", &[server(), provisional()]);
    let events = host.clean(Policy::OWN, left);
    assert!(host.log().iter().all(|line| line.contains("provisional")));
    let provisional = "provisional data of mariadb.service in /d: busy";
    let server = "stopped server mariadb.service: its provisional data was not rolled back";
    assert_eq!(lefts(&events), [provisional, server]);
    let second = |context: &Context<'_>, undo: &Undo| match context.attempt {
        Attempt::First => left(context, undo),
        Attempt::Last => done(context, undo),
    };
    let events = host.clean(Policy::OWN, second);
    assert_eq!((host.log().len(), lefts(&events).len()), (3, 0));
}

#[test]
fn kept_and_forgotten_leases_are_not_left() {
    let host = host();
    host.orphan("r-target1", &[hook(), Undo::Staging { path: "/1".into(), keep: true }]);
    let results = |_: &Context<'_>, undo: &Undo| match undo {
        Undo::Hook(_) => Undone::Forgotten,
        _ => Undone::Kept,
    };
    let events = host.clean(Policy::OWN, results);
    assert!(
        matches!(&events[..], [RollbackEvent::Kept { path, .. }, RollbackEvent::Forgotten { .. }] if path.as_bytes() == b"/1")
    );
    assert!(!host.directories.state().exists());
}

#[test]
fn processes_and_locks_go_with_the_journal() {
    let host = host();
    let mut journal = host.journal("r-target1", current(), &[]);
    let job = journal.directory().join("receiver.job");
    let file = processes::create_lock(&job).unwrap();
    let mut command = Command::new("sleep");
    command.arg("100").process_group(0).stdout(Stdio::null()).preserved_fds(vec![file.into()]);
    let mut child = command.spawn().unwrap();
    drop(command);
    let take = |name| Lock::take(&host.directories, name, Wait::No).unwrap();
    let (port, target, server_lock) = (take("port.7"), take("target.1"), take("server.1"));
    let lock = |lock: &Lock| HostBytes::from(lock.path());
    for undo in [
        Undo::Port(7),
        Undo::Name { lock: lock(&target) },
        Undo::ServerLock { lock: lock(&server_lock) },
        Undo::Job { lock: HostBytes::from(&job) },
        server(),
    ] {
        journal.lease(&undo).unwrap();
    }
    drop((port, target));
    let results = |context: &Context<'_>, undo: &Undo| {
        let runtime = context.directory.ancestors().nth(2).unwrap().join("run");
        // Until the server runs again, no other run takes it for one that does not.
        assert!(runtime.join("server.1").exists() && !runtime.join("port.7").exists());
        assert!(locks::holder(&Directories::at("/nonexistent", runtime), "server.1").is_some());
        done(context, undo)
    };
    let (released, events) = host.rollback(Policy::OWN, results, |rollback| {
        rollback.release(&name("r-target1"), journal.into_lock(), vec![server_lock])
    });
    assert!(matches!(released, Ok(Replayed::Clean)), "{released:?}");
    assert_eq!(events.len(), 5);
    assert!(!child.wait().unwrap().success());
    assert!(!host.directories.runtime().exists() && !host.directories.state().exists());
}

#[test]
fn quiesced_server_is_locked_by_any_rollback() {
    let host = host();
    let lock = Lock::take(&host.directories, "server.1", Wait::No).unwrap();
    let path = HostBytes::from(lock.path());
    drop(lock);
    host.orphan("r-target1", &[Undo::ServerLock { lock: path }, server()]);
    let results = |context: &Context<'_>, undo: &Undo| {
        let runtime = context.directory.ancestors().nth(2).unwrap().join("run");
        assert!(locks::holder(&Directories::at("/nonexistent", runtime), "server.1").is_some());
        done(context, undo)
    };
    host.clean(Policy::OWN, results);
    assert_eq!(host.log().len(), 1);
    assert!(!host.directories.runtime().exists());
}

#[test]
fn tried_rollback_is_marked() {
    let host = host();
    let journal = host.journal("r-target1", current(), &[rules()]);
    let release =
        |rollback: &mut Rollback<'_>| rollback.release(&name("r-target1"), journal.into_lock(), Vec::new());
    let (released, events) = host.rollback(Policy::OWN, left, release);
    assert!(matches!(released, Ok(Replayed::Remains)) && lefts(&events).len() == 1);
    assert!(replay::was_tried(&host.directories.run(&name("r-target1"))));
}

#[test]
fn live_run_is_not_touched() {
    let host = host();
    let journal = host.journal("r-target1", current(), &[rules()]);
    let events = host.clean(Policy::OWN, done);
    assert_eq!(events, [RollbackEvent::Live { agent: name("r-target1") }]);
    let settle = |rollback: &mut Rollback<'_>| rollback.settle(&name("r-target1"), Duration::ZERO);
    assert!(matches!(host.rollback(Policy::OWN, done, settle).0, Settled::Held));
    assert!(host.log().is_empty());
    drop(journal);
    let settled = host.rollback(Policy::OWN, done, settle).0;
    assert!(matches!(settled, Settled::Replayed(Ok(Replayed::Clean))), "{settled:?}");
    fs::create_dir_all(host.directories.old_run(&name("r-target1"))).unwrap();
    assert!(matches!(host.rollback(Policy::OWN, done, settle).0, Settled::Gone));
    assert!(!host.directories.state().exists());
}

#[test]
fn parallel_rollbacks_undo_each_lease_once() {
    let host = host();
    for number in 0..20 {
        host.orphan(&format!("r-target{number}"), &[staging("/1"), mode("/a"), server()]);
    }
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| host.clean(Policy::OWN, done));
        }
        scope.spawn(|| {
            let limit = Duration::from_secs(10);
            host.rollback(Policy::OWN, done, |rollback| rollback.settle(&name("r-target7"), limit)).0
        });
    });
    let mut log = host.log();
    log.sort();
    let attempts = log.len();
    log.dedup();
    assert_eq!((attempts, log.len()), (60, 60));
    assert!(!host.directories.state().exists());
}

#[test]
fn foreign_journals_are_reported_and_not_touched() {
    let host = host();
    let at = |agent: &str| host.directories.state().join(agent);
    for agent in ["r-damaged", "r-newer", "r.odd"] {
        state::create(&at(agent)).unwrap();
    }
    state::create(&at("r-shell")).unwrap();
    fs::write(at("r-shell").join("journal"), "transfer-journal 1\tboot\t.\n").unwrap();
    fs::write(at("r-damaged").join(state::JOURNAL), "garbage").unwrap();
    fs::write(at("r.odd").join(state::JOURNAL), "garbage").unwrap();
    let mut body = postcard::to_stdvec(&(0u32, 9u16, "7.0")).unwrap();
    let mut newer = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
    newer.extend(&blake3::hash(&body).as_bytes()[..8]);
    newer.append(&mut body);
    fs::write(at("r-newer").join(state::JOURNAL), &newer).unwrap();
    fs::write(at("r-newer").join(state::PROGRAM), "").unwrap();
    state::create(&at("r-none")).unwrap();
    let events = host.clean(Policy::OWN, done);
    let found: Vec<_> = events
        .iter()
        .map(|event| match event {
            RollbackEvent::Foreign(foreign) => (foreign.reason.clone(), foreign.has_agent),
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(matches!(&found[0], (Foreign::Damaged(_), false)));
    let program = Text::new("7.0");
    assert_eq!(found[1], (Foreign::Version { format: 9, program }, true));
    assert_eq!(found[2], (Foreign::Shell { leases: Vec::new() }, false));
    assert!(matches!(&found[3], (Foreign::Damaged(_), false)) && found.len() == 4);
    let mut listed = 0;
    list(&host.directories, &mut |entry| {
        listed += 1;
        assert!(matches!(entry, StatusEntry::Foreign(foreign) if foreign.condition == Condition::Orphaned));
    })
    .unwrap();
    assert_eq!((listed, fs::read(at("r-newer").join(state::JOURNAL)).unwrap()), (4, newer));
}

#[test]
fn runs_are_listed_with_their_leases() {
    let host = host();
    let listed = || {
        let mut entries = Vec::new();
        list(&host.directories, &mut |entry| entries.push(entry)).unwrap();
        entries
    };
    assert!(listed().is_empty());
    let live = host.journal("r-source", current(), &[Undo::Port(1), mode("/a")]);
    drop(host.journal("r-target1", header(), &[rules()]));
    let entries = listed();
    let run = |at: usize| match &entries[at] {
        StatusEntry::Run(run) => (run.agent.as_str(), run.condition, run.is_rebooted),
        other => panic!("{other:?}"),
    };
    assert_eq!(run(0), ("r-source", Condition::Live, false));
    assert_eq!(run(3), ("r-target1", Condition::Orphaned, true));
    let lease = StatusEntry::Lease;
    assert_eq!(entries[1..3], [lease(Undo::Port(1)), lease(mode("/a"))]);
    assert_eq!(entries[4..], [lease(rules())]);
    drop(live);
}

#[test]
fn remains_of_killed_agents_are_removed() {
    let host = host();
    let at = |name: &str| host.directories.state().join(name);
    let live = host.journal("r-live", current(), &[]);
    for directory in [".new-dead", ".new-old", ".new-young", ".old-r", ".agent-dead", ".agent-young"] {
        state::create(&at(directory)).unwrap();
    }
    File::create(at(".new-dead").join(state::JOURNAL)).unwrap();
    for directory in [".agent-dead", ".agent-young"] {
        File::create(at(directory).join("transfer-agent")).unwrap();
    }
    for path in [".new-old", ".agent-dead/transfer-agent", ".agent-dead"] {
        age(&at(path));
    }
    let lock = Lock::take(&host.directories, "port.1", Wait::No).unwrap();
    age(lock.path());
    drop(lock);
    host.clean(Policy::OTHERS, done);
    let mut left: Vec<_> = fs::read_dir(host.directories.state())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, [".agent-young", ".new-young", "r-live"]);
    assert!(!host.directories.runtime().exists());
    drop(live);
}

#[test]
fn lock_of_the_journal_is_held_during_the_replay() {
    let host = host();
    host.orphan("r-target1", &[mode("/a")]);
    let results = |context: &Context<'_>, undo: &Undo| {
        let second = UnlockedJournal::open(context.directory).unwrap();
        assert!(matches!(second.lock(Wait::No), Err(LockError::Held)));
        done(context, undo)
    };
    host.clean(Policy::OWN, results);
    assert!(JournalLock::take(&host.directories.run(&name("r-target1")), Wait::No).is_err());
    assert_eq!(host.log().len(), 1);
}
