//! A copy that cannot be identical fails, names the reason, and leaves nothing.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::support::local::agents::LOCKED;
use crate::support::local::holds::Point;
use crate::support::local::processes::{is_listening, names};
use crate::support::local::runs::{LONG, wait_until};
use crate::support::local::sandbox::Sandbox;
use crate::support::local::trees::{assert_same, noise};

#[test]
fn unreadable_file_fails_the_run_by_name() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    fs::set_permissions(source.join("small"), fs::Permissions::from_mode(0o000)).unwrap();
    let ended = sandbox.run(&[&source, &target]);
    if nix::unistd::geteuid().is_root() || ended.status.code() != Some(0) {
        ended.expect_code(1).says("./source/small").says("Permission denied");
        assert_eq!(names(&target), Vec::<String>::new());
        sandbox.is_clean(&[&target]);
    }
}

#[test]
fn growing_file_fails_the_run_by_name() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.dir("source"), sandbox.dir("target"));
    let growing = sandbox.file("source/growing", noise(2 << 20));
    let running = sandbox.spawn(&[&source, &target]);
    hold.reached();
    OpenOptions::new().append(true).open(growing).unwrap().write_all(&noise(1 << 20)).unwrap();
    hold.open();
    running.wait(LONG).expect_code(1).says("./source/growing").says("changed");
    assert_eq!(names(&target), Vec::<String>::new());
    sandbox.is_clean(&[&target]);
}

#[test]
fn shrinking_file_fails_the_run_by_name() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let target = sandbox.dir("target");
    let shrinking = sandbox.file("shrinking", noise(2 << 20));
    let running = sandbox.spawn(&[&shrinking, &target]);
    hold.reached();
    OpenOptions::new().write(true).open(shrinking).unwrap().set_len(1 << 20).unwrap();
    hold.open();
    running.wait(LONG).expect_code(1).says("./shrinking");
    assert_eq!(names(&target), Vec::<String>::new());
    sandbox.is_clean(&[&target]);
}

#[test]
fn vanished_file_fails_the_run_by_name() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.dir("source"), sandbox.dir("target"));
    // The run is held while one of them is read; the other one is gone when tar gets to it.
    let files = ["one", "two"].map(|name| sandbox.file(source.join(name), noise(2 << 20)));
    let running = sandbox.spawn(&[&source, &target]);
    hold.reached();
    for file in &files {
        fs::remove_file(file).unwrap();
    }
    hold.open();
    let ended = running.wait(LONG);
    assert!(ended.stderr.contains("source/one") || ended.stderr.contains("source/two"), "{ended}");
    ended.expect_code(1);
    assert_eq!(names(&target), Vec::<String>::new());
    sandbox.is_clean(&[&target]);
}

#[test]
fn file_created_during_read_fails_the_run() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let running = sandbox.spawn(&[&source, &target]);
    hold.reached();
    sandbox.file(source.join("late"), "late");
    hold.open();
    // tar has listed the directory by then, and notices that it has changed.
    running.wait(LONG).expect_code(1).says("changed");
    assert_eq!(names(&target), Vec::<String>::new());
    sandbox.is_clean(&[&target]);
}

#[test]
fn name_taken_during_copy_is_left_alone() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let running = sandbox.spawn(&[&source, &target]);
    hold.reached();
    // A plain rename would replace an empty directory.
    let theirs = sandbox.dir("target/source");
    hold.open();
    running.wait(LONG).expect_code(1).says("created by another process during the copy and is left as it is");
    assert_eq!(names(&theirs), Vec::<String>::new());
    assert_eq!(names(&target), ["source"]);
    sandbox.is_clean(&[&target]);
}

#[test]
fn target_removed_during_copy_fails_the_run() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let running = sandbox.spawn(&[&source, &target]);
    hold.reached();
    fs::remove_dir_all(&target).unwrap();
    hold.open();
    running.wait(LONG).expect_code(1);
    assert!(!target.exists());
    sandbox.is_clean(&[]);
}

#[test]
fn port_in_use_is_busy() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
        let Ok(theirs) = TcpListener::bind(address) else { continue };
        let port = theirs.local_addr().unwrap().port().to_string();
        let ended = sandbox.run(&[&source, &target, &"--port", &port]).expect_code(5);
        ended.says(&format!("port {port} is taken (in use); choose another --port, or 0 for any"));
        assert_eq!(names(&target), Vec::<String>::new());
        sandbox.is_clean(&[&target]);
    }
}

#[test]
fn port_lost_after_locking_leaves_no_lock() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.trace(LOCKED);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let port = Sandbox::port();
    let running = sandbox.spawn(&[&source, &target, &"--port", &port.to_string()]);
    hold.reached();
    let _theirs = TcpListener::bind(("127.0.0.1", port)).unwrap();
    hold.open();
    running.wait(LONG).expect_code(5).says(&format!("port {port} was taken"));
    assert_eq!(names(&target), Vec::<String>::new());
    sandbox.is_clean(&[&target]);
}

#[test]
fn privileged_port_fails_with_the_reason() {
    let Some(sandbox) = Sandbox::new() else { return };
    let unprivileged =
        fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if unprivileged.trim().parse::<u32>().unwrap_or(1024) <= 77 {
        println!("skipped: every user may listen on any port here");
        return;
    }
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    sandbox
        .run(&[&source, &target, &"--port", &"77"])
        .expect_code(1)
        .says("port 77")
        .says("ermission denied");
    sandbox.is_clean(&[&target]);
}

#[test]
fn unreachable_target_fails_before_idle_timeout() {
    let Some(sandbox) = Sandbox::new() else { return };
    // As behind a firewall that drops packets: netcat keeps trying.
    sandbox.shim("nc", "[[ \" $* \" == *' -l '* || $1 == -h ]] || { sleep 1000; exit; }");
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let ended = sandbox.run(&[&source, &target]).expect_code(1).says("cannot connect to 127.0.0.1:44");
    assert!(ended.took < Duration::from_secs(60), "{ended}");
    assert_eq!(names(&target), Vec::<String>::new());
    sandbox.is_clean(&[&target]);
}

#[test]
fn unexpected_peer_gets_nothing_and_costs_one_retry() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Connect);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let port = Sandbox::port();
    let running = sandbox.spawn(&[&source, &target, &"--port", &port.to_string()]);
    hold.reached();
    wait_until("the target listens", LONG, || is_listening(port));
    let peer = TcpStream::connect(("127.0.0.1", port)).unwrap();
    hold.open();
    running.wait(LONG).expect_success().says("another client").says("trying again");
    assert_same(&source, &target.join("source"));
    let mut got = Vec::new();
    let _ = std::io::Read::read_to_end(&mut &peer, &mut got);
    assert_eq!(got, b"");
    sandbox.is_clean(&[&target]);
}

#[test]
fn unwritable_state_fails_before_any_change() {
    let Some(sandbox) = Sandbox::new() else { return };
    if sandbox.is_root() {
        return;
    }
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    sandbox.file("state", "this is not a directory");
    let ended = sandbox.run(&[&source, &target]).expect_code(1);
    assert!(
        ended.stderr.contains("cannot create the journal in ") && ended.stderr.contains("/state/transfer/"),
        "{ended}"
    );
    assert_eq!(names(&target), Vec::<String>::new());
    sandbox.is_clean(&[&target]);
}
