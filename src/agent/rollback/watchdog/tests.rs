//! Tests of the watchdog as a process: an agent, its watchdog and the test are the test binary.

use std::io::{BufRead as _, BufReader};
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use super::super::Policy;
use super::super::fake::{Host, current, done, host, left, mode, name, staging};
use super::*;
use crate::agent::scenes;
use crate::agent::state::Directories;

/// Path of the test that plays the parts.
const PARTS: &str = "agent::rollback::watchdog::tests::parts";
/// Variable with the directory of the host.
const SCRATCH: &str = "TRANSFER_TEST_SCRATCH";
/// Line by which the agent reports the number of its watchdog.
const STARTED: &str = "watchdog ";

/// Returns a host in a directory of the test.
fn of_test(scratch: &Path) -> (Directories, std::path::PathBuf) {
    (Directories::at(scratch.join("state"), scratch.join("run")), scratch.join("log"))
}

/// Plays the agent or the watchdog, in a process that a test has started.
#[test]
#[expect(clippy::zombie_processes, reason = "the watchdog outlives its agent")]
fn parts() {
    let (Some(part), Some(scratch)) = (scenes::part(), std::env::var_os(SCRATCH)) else { return };
    let (directories, log) = of_test(Path::new(&scratch));
    let agent = name("r-target1");
    if part == "watchdog" {
        let mut undoer = super::super::fake::undoer(log, done);
        let mut rollback = Rollback {
            directories: &directories,
            policy: Policy::OWN,
            undoer: &mut undoer,
            observer: &mut |_| {},
        };
        rollback.watch(&agent, &mut io::stdout()).unwrap();
        return;
    }
    let mut journal =
        crate::agent::journal::Journal::create(&directories, &agent, current(), |_| Ok(())).unwrap();
    journal.lease(&staging("/1")).unwrap();
    let mut command = scenes::play(PARTS, "watchdog");
    command.env(SCRATCH, &scratch);
    let watchdog = start(command).unwrap();
    journal.lease(&mode("/a")).unwrap();
    println!("\n{STARTED}{}", watchdog.id());
    // Until the test ends its input or kills this process.
    let _ = io::stdin().read(&mut [0]);
    let mut undoer = super::super::fake::undoer(log, if part == "successful agent" { done } else { left });
    let mut rollback = Rollback {
        directories: &directories,
        policy: Policy::OWN,
        undoer: &mut undoer,
        observer: &mut |_| {},
    };
    rollback.release(&agent, journal.into_lock(), Vec::new()).unwrap();
}

/// Starts an agent, and returns it and its watchdog.
fn agent(host: &Host, part: &str) -> (Child, Pid) {
    let mut command = scenes::play(PARTS, part);
    command.env(SCRATCH, host.scratch.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut agent = command.spawn().unwrap();
    let lines = BufReader::new(agent.stdout.take().unwrap()).lines();
    let number = lines.map_while(Result::ok).find_map(|line| line.strip_prefix(STARTED)?.parse().ok());
    (agent, number.and_then(Pid::from_raw).unwrap())
}

/// Waits until a process has ended.
fn await_end(pid: Pid) {
    let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return };
    let timeout = Timespec { tv_sec: 20, tv_nsec: 0 };
    assert_eq!(
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout)),
        Ok(1),
        "the watchdog does not end"
    );
}

#[test]
fn killed_agent_is_rolled_back() {
    let host = host();
    let (mut agent, watchdog) = agent(&host, "killed agent");
    for signal in [Signal::HUP, Signal::INT, Signal::TERM] {
        kill_process(watchdog, signal).unwrap();
    }
    assert!(host.log().is_empty());
    agent.kill().unwrap();
    agent.wait().unwrap();
    await_end(watchdog);
    let log = host.log();
    assert_eq!(log.len(), 2, "{log:?}");
    assert!(log[0].contains("mode") && log[1].contains("staging"), "{log:?}");
    assert!(!host.directories.state().exists());
}

#[test]
fn nothing_is_left_to_the_watchdog_of_a_successful_agent() {
    let host = host();
    let (mut agent, watchdog) = agent(&host, "successful agent");
    drop(agent.stdin.take());
    agent.wait().unwrap();
    await_end(watchdog);
    assert_eq!(host.log().len(), 2);
    assert!(!host.directories.state().exists());
}

#[test]
fn rollback_that_the_agent_has_tried_is_not_repeated() {
    let host = host();
    let (mut agent, watchdog) = agent(&host, "failing agent");
    drop(agent.stdin.take());
    agent.wait().unwrap();
    await_end(watchdog);
    // Two attempts for each lease, all of the agent's.
    assert_eq!(host.log().len(), 4);
    assert!(host.directories.run(&name("r-target1")).exists());
}

#[test]
fn watchdog_that_does_not_wait_is_an_error() {
    assert!(matches!(start(Command::new("true")), Err(WatchdogError::NotReady)));
    assert!(matches!(start(Command::new("/nonexistent")), Err(WatchdogError::Start(_))));
}
