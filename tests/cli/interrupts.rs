//! SIGINT, SIGTERM, SIGHUP: 128 plus the signal's number, and a rollback within the documented time.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::local::agents::{LISTING_RUNS, PROBING, REMOVING};
use crate::support::local::holds::Point;
use crate::support::local::processes::{is_listening, names, staging};
use crate::support::local::runs::{LONG, Running, wait_until};
use crate::support::local::sandbox::Sandbox;
use crate::support::local::trees::assert_same;

/// Limit for pipelines, port and firewall rule to be gone.
const PROMISE: Duration = Duration::from_secs(5);

#[track_caller]
fn interrupted_in_mid_stream(signal: Signal) {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let running = sandbox.spawn(&[&source, &target]);
    hold.reached();
    assert_eq!(staging(&target).len(), 1);
    assert_eq!(sandbox.journals().len(), 2);
    running.signal(signal);
    running.wait(PROMISE).expect_code(128 + signal as i32).says(&format!("interrupted by {signal}"));
    assert_eq!(names(&target), Vec::<String>::new());
    sandbox.is_clean(&[&target]);
}

#[test]
fn sigint_in_mid_stream_rolls_back_everything() {
    interrupted_in_mid_stream(Signal::SIGINT);
}

#[test]
fn sigterm_in_mid_stream_rolls_back_everything() {
    interrupted_in_mid_stream(Signal::SIGTERM);
}

#[test]
fn sighup_in_mid_stream_rolls_back_everything() {
    interrupted_in_mid_stream(Signal::SIGHUP);
}

#[test]
fn signal_before_the_stream_closes_the_port() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Connect);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let port = Sandbox::port();
    let running = sandbox.spawn(&[&source, &target, &"--port", &port.to_string()]);
    hold.reached();
    wait_until("the target listens", LONG, || is_listening(port));
    running.signal(Signal::SIGTERM);
    running.wait(PROMISE).expect_code(143);
    assert!(!is_listening(port));
    sandbox.is_clean(&[&target]);
}

#[test]
fn signal_during_preflight_changes_nothing() {
    let Some(sandbox) = Sandbox::new() else { return };
    let probing = sandbox.trace(PROBING);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let running = sandbox.spawn(&[&source, &target]);
    probing.reached();
    running.signal(Signal::SIGINT);
    running.wait(PROMISE).expect_code(130);
    assert_eq!(names(&target), Vec::<String>::new());
}

#[test]
fn second_signal_leaves_rollback_to_agents() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (streaming, removing) = (sandbox.hold(Point::Archive), sandbox.trace(REMOVING));
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let running = sandbox.spawn(&[&source, &target]);
    streaming.reached();
    running.signal(Signal::SIGINT);
    removing.reached();
    running.signal(Signal::SIGTERM);
    let ended = running.wait(PROMISE).expect_code(143).says("the hosts continue to roll back");
    ended.says("transfer status localhost").says("transfer clean localhost");
    assert_eq!(staging(&target).len(), 1);
    removing.open();
    sandbox.gets_clean(&[&target], PROMISE);
}

#[test]
fn slow_rollback_is_awaited() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (streaming, removing) = (sandbox.hold(Point::Archive), sandbox.trace(REMOVING));
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    // More than the lease time, which must not end the run.
    let running = sandbox.spawn(&[&source, &target, &"--lease-time", &"2"]);
    streaming.reached();
    running.signal(Signal::SIGINT);
    removing.reached();
    std::thread::sleep(Duration::from_secs(3));
    removing.open();
    running.wait(PROMISE).expect_code(130).says("rolling back");
    sandbox.is_clean(&[&target]);
}

#[test]
fn ignored_hangup_stays_ignored() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let running = Running::start(sandbox.scripted("trap '' HUP; exec \"$@\"", &[&source, &target]));
    hold.reached();
    running.signal(Signal::SIGHUP);
    hold.open();
    running.wait(LONG).expect_success();
    assert_same(&source, &target.join("source"));
    sandbox.is_clean(&[&target]);
}

#[test]
fn terminal_hangup_does_not_reach_agents() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let running = Running::start(sandbox.scripted("trap '' HUP; exec \"$@\"", &[&source, &target]));
    hold.reached();
    // Signals the process group of the controller, and no other, as ^C and the loss of a terminal do.
    for process in sandbox.processes() {
        // Processes start and end during this.
        let Ok(group) = nix::unistd::getpgid(Some(nix::unistd::Pid::from_raw(process.pid))) else { continue };
        assert!(process.pid == running.pid() || group.as_raw() != running.pid(), "{process:?}");
        assert_ne!(Some(group), nix::unistd::getpgid(None).ok().filter(|_| process.pid != running.pid()));
    }
    hold.open();
    running.wait(LONG).expect_success();
}

#[test]
fn status_and_clean_can_be_interrupted() {
    let Some(sandbox) = Sandbox::new() else { return };
    let asked = sandbox.trace(LISTING_RUNS);
    let running = sandbox.spawn(&[&"status", &"localhost"]);
    asked.reached();
    running.signal(Signal::SIGINT);
    let ended = running.wait(PROMISE);
    assert_eq!((ended.status.code(), ended.status.signal()), (Some(130), None), "{ended}");
}
