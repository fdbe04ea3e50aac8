//! SIGKILL of processes that would roll back: another process does it, or `transfer clean`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use transfer::proto::journal::{Header, Record, Undo, VERSION, encode};

use crate::support::local::holds::{Hold, Point};
use crate::support::local::processes::{names, staging};
use crate::support::local::runs::{LONG, Running, wait_until};
use crate::support::local::sandbox::Sandbox;
use crate::support::local::trees::assert_same;

/// Limit for agents, which notice at once, on a busy machine.
const SOON: Duration = Duration::from_secs(10);

/// A run that is held in mid-stream, until `hold` is dropped: also by a pattern that does not bind it.
struct Held {
    sandbox: Sandbox,
    hold: Hold,
    source: PathBuf,
    target: PathBuf,
    running: Running,
}

fn held() -> Option<Held> {
    let sandbox = Sandbox::new()?;
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    // The lease time is long: silence is not the cause of the rollback.
    let running = sandbox.spawn(&[&source, &target, &"--lease-time", &"600"]);
    hold.reached();
    assert_eq!(staging(&target).len(), 1);
    Some(Held { sandbox, hold, source, target, running })
}

#[test]
fn killed_controller_is_rolled_back_by_agents() {
    let Some(Held { sandbox, hold: _hold, target, running, .. }) = held() else { return };
    running.signal(Signal::SIGKILL);
    running.wait(SOON);
    sandbox.gets_clean(&[&target], SOON);
    assert_eq!(names(&target), Vec::<String>::new());
}

#[test]
fn silent_controller_is_rolled_back_after_lease_time() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let running = sandbox.spawn(&[&source, &target, &"--lease-time", &"2"]);
    hold.reached();
    running.signal(Signal::SIGSTOP);
    wait_until("the agents have undone", SOON, || {
        staging(&target).is_empty() && sandbox.journals().is_empty()
    });
    running.signal(Signal::SIGCONT);
    running.wait(SOON).expect_code(1);
    sandbox.is_clean(&[&target]);
    assert_eq!(names(&target), Vec::<String>::new());
}

#[test]
fn stalled_stream_outlasts_lease_time() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let running = sandbox.spawn(&[&source, &target, &"--lease-time", &"2"]);
    hold.reached();
    std::thread::sleep(Duration::from_secs(5));
    hold.open();
    running.wait(LONG).expect_success();
    assert_same(&source, &target.join("source"));
    sandbox.is_clean(&[&target]);
}

#[track_caller]
fn agent_killed(end: &str) {
    let Some(Held { sandbox, hold: _hold, target, running, .. }) = held() else { return };
    sandbox.agent(&running, end).signal(Signal::SIGKILL);
    running.wait(SOON).expect_code(1).says("lost contact with the agent");
    sandbox.is_clean(&[&target]);
    assert_eq!(names(&target), Vec::<String>::new());
}

#[test]
fn killed_target_agent_is_rolled_back_by_watchdog() {
    agent_killed("target1");
}

#[test]
fn killed_source_agent_is_rolled_back_by_watchdog() {
    agent_killed("source");
}

#[test]
fn watchdog_rolls_back_without_agent_and_controller() {
    let Some(Held { sandbox, hold: _hold, target, running, .. }) = held() else { return };
    let agent = sandbox.agent(&running, "target1");
    running.signal(Signal::SIGSTOP);
    agent.signal(Signal::SIGKILL);
    running.signal(Signal::SIGKILL);
    running.wait(SOON);
    sandbox.gets_clean(&[&target], SOON);
    assert_eq!(names(&target), Vec::<String>::new());
}

#[test]
fn controller_rolls_back_without_agent_and_watchdog() {
    let Some(Held { sandbox, hold: _hold, target, running, .. }) = held() else { return };
    sandbox.kill_keepers("target1");
    // Jobs that survive keep the agent's output open; then the next heartbeat notices the loss.
    running.wait(LONG).expect_code(1).says("lost contact with the agent");
    sandbox.is_clean(&[&target]);
    assert_eq!(names(&target), Vec::<String>::new());
}

#[test]
fn orphaned_run_is_listed_and_cleaned() {
    let Some(Held { sandbox, hold: _hold, target, running, .. }) = held() else { return };
    running.signal(Signal::SIGSTOP);
    sandbox.kill_keepers("");
    running.signal(Signal::SIGKILL);
    running.wait(SOON);
    assert!(!sandbox.processes().is_empty() && !staging(&target).is_empty());

    let status = sandbox.run(&[&"status", &"localhost"]).expect_success();
    let status = status.says(": source of /").says(&format!(": target of {}", target.display()));
    assert_eq!(status.stdout.matches("localhost: orphaned ").count(), 2, "{status}");
    status
        .says("; to clean up: transfer clean localhost")
        .says(&format!("  holds staging directory {}", staging(&target)[0].display()))
        .says("  holds processes of job ")
        .says("  holds port 4");

    let clean = sandbox
        .run(&[&"clean", &"localhost"])
        .expect_success()
        .says("rolled back: processes of job ")
        .says("rolled back: staging directory ");
    assert!(!clean.stdout.contains("NOT ROLLED BACK"), "{clean}");
    sandbox.is_clean(&[&target]);
    sandbox.run(&[&"status", &"localhost"]).expect_success().says("localhost: no runs");
    sandbox.run(&[&"clean", &"localhost"]).expect_success().says("localhost: nothing to roll back");
}

#[test]
fn next_run_rolls_back_orphaned_run() {
    let Some(Held { sandbox, hold, source, target, running }) = held() else { return };
    running.signal(Signal::SIGSTOP);
    sandbox.kill_keepers("");
    running.signal(Signal::SIGKILL);
    running.wait(SOON);
    hold.open();
    sandbox.run(&[&source, &target]).expect_success();
    assert_same(&source, &target.join("source"));
    // During its own work, and maybe after it.
    sandbox.gets_clean(&[&target], SOON);
    assert_eq!(names(&target), ["source"]);
}

#[test]
fn active_run_is_shown_but_not_cleaned() {
    let Some(Held { sandbox, hold, source, target, running }) = held() else { return };
    let status = sandbox.run(&[&"status", &"localhost"]).expect_success();
    assert_eq!(status.stdout.matches("localhost: live ").count(), 2, "{status}");
    let pid = format!("(pid {})", running.pid());
    status.says(&pid).says("  holds staging directory ");
    sandbox.run(&[&"clean", &"localhost"]).expect_success().says("-target1 was not touched");
    // Nor does another run of the same user.
    hold.open();
    let beside = sandbox.dir("beside");
    sandbox.run(&[&source, &beside]).expect_success();
    running.wait(LONG).expect_success();
    assert_same(&source, &target.join("source"));
    sandbox.is_clean(&[&target, &beside]);
}

#[test]
fn intact_part_of_torn_journal_is_rolled_back() {
    let Some(sandbox) = Sandbox::new() else { return };
    if sandbox.is_root() {
        return;
    }
    let (target, precious) = (sandbox.dir("target"), sandbox.dir("precious"));
    let agent = "20200101-000000-000000-target1";
    let directory = sandbox.state().join(agent);
    std::fs::create_dir_all(&directory).unwrap();
    for path in [sandbox.path("state"), sandbox.state(), directory.clone()] {
        sandbox.own_it(&path);
    }
    let staged = sandbox.dir(format!("target/.transfer-{agent}"));
    let header = Record::Header(Header {
        version: VERSION,
        program: "1".into(),
        boot: "another-boot".into(),
        role: "target".into(),
        controller: "ctl (pid 1)".into(),
        started: 1_700_000_000,
        path: "/srv".into(),
    });
    let staging = |path: &Path| Record::Lease(Undo::Staging { path: path.into(), keep: false });
    let job = Record::Lease(Undo::Job { lock: "/etc/passwd".into() });
    let records = [header, staging(&staged), job, staging(&precious)].map(|record| encode(&record).unwrap());
    let mut journal = records.concat();
    journal.truncate(journal.len() - 1);
    sandbox.file(directory.join("journal.bin"), journal);
    sandbox.run(&[&"status", &"localhost"]).expect_success().says("from before a reboot").says("2023-11-14");
    sandbox.run(&[&"clean", &"localhost"]).expect_success().says("rolled back: staging directory");
    assert_eq!(names(&target), Vec::<String>::new());
    assert!(precious.exists());
    sandbox.is_clean(&[&target]);
}
