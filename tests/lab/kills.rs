//! SIGKILL of the controller, also at random moments, and in mid-stream of agents, watchdogs, connections,
//! and stages of the data path. `damage/` has all other moments.

use std::thread;
use std::time::{Duration, SystemTime};

use nix::libc;
use nix::sys::signal::{Signal, kill};
use transfer::proto::journal::Record;

use crate::support::agents::Found;
use crate::support::holder::{Call, Point, Role};
use crate::support::hosts::Host;
use crate::support::midstream::{LEASE, MidStream, PROMPTLY, expect_end};
use crate::support::roots;
use crate::support::waiting::eventually;
use crate::support::{agents, processes};

#[test]
fn exclusive_killed_controller_leaves_nothing() {
    let Some(scene) = MidStream::set() else { return };
    let run = scene.start_stream(&[]);
    run.signal("KILL");
    scene.expect_as_before(LEASE);
}

#[test]
fn exclusive_killed_agent_fails_the_run_cleanly() {
    let Some(scene) = MidStream::set() else { return };
    for (host, name) in [(&scene.db1, "db1"), (&scene.db2, "db2")] {
        let run = scene.start_stream(&[]);
        Found::of(host, &["agent"]).signal("KILL");
        let said = expect_end(run, 1, PROMPTLY);
        assert!(said.contains(&format!("{name}: lost contact with the agent of this run")), "{said}");
        scene.expect_as_before(LEASE);
    }
}

#[test]
fn exclusive_controller_rolls_back_without_agent_and_watchdog() {
    let Some(scene) = MidStream::set() else { return };
    for (host, name) in [(&scene.db1, "db1"), (&scene.db2, "db2")] {
        let run = scene.start_stream(&[]);
        Found::of(host, &["watchdog", "agent"]).signal("KILL");
        let said = expect_end(run, 1, PROMPTLY);
        assert!(said.contains(&format!("{name}: lost contact with the agent of this run")), "{said}");
        scene.expect_as_before(LEASE);
    }
}

#[test]
fn exclusive_watchdog_rolls_back_without_agent_and_controller() {
    let Some(scene) = MidStream::set() else { return };
    for host in [&scene.db1, &scene.db2] {
        let run = scene.start_stream(&[]);
        // A stopped agent cannot act in between.
        let agent = Found::of(host, &["agent"]);
        agent.signal("STOP");
        run.signal("KILL");
        agent.signal("KILL");
        scene.expect_as_before(LEASE);
    }
}

#[test]
fn exclusive_orphaned_run_is_listed_and_cleaned() {
    let Some(scene) = MidStream::set() else { return };
    scene.orphan(&[&scene.db1, &scene.db2]);
    let (source, target) = (agents::name(&scene.db1), agents::name(&scene.db2));
    // Jobs end with their agent.
    for (host, job) in [(&scene.db1, "sender tar --create"), (&scene.db2, "receiver tar --extract")] {
        let ended = || processes::sh(host, &format!("process {job}")).is_empty();
        assert!(eventually(PROMPTLY, ended), "{job} goes on");
    }

    let status = scene.lab.transfer(&["status", "db1", "db2"]).expect_success().stdout;
    let staging = scene.at(&format!("in/.transfer-{target}"));
    for expected in [
        format!("db1: orphaned {source}: source of {}, by ctl (pid ", scene.at("data")),
        format!("db2: orphaned {target}: target of {}, by ctl (pid ", scene.at("in")),
        "; to clean up: transfer clean db1\n".into(),
        "; to clean up: transfer clean db2\n".into(),
        format!("  holds staging directory {staging}\n"),
        format!("  holds nftables IPv4 rules transfer-{target}\n"),
    ] {
        assert!(status.contains(&expected), "no '{expected}' in\n{status}");
    }

    let cleaned = scene.lab.transfer(&["clean", "db1", "db2"]).expect_success().stdout;
    assert!(
        cleaned.contains(&format!("db2: rolled back: staging directory {staging} (run {target})\n")),
        "{cleaned}"
    );
    scene.expect_as_before(PROMPTLY);
    let status = scene.lab.transfer(&["status", "db1", "db2"]).expect_success().stdout;
    assert_eq!(status, "db1: no runs\ndb2: no runs\n");
}

#[test]
fn exclusive_active_run_is_not_cleaned() {
    let Some(scene) = MidStream::set() else { return };
    let run = scene.start_stream(&[]);
    let cleaned = scene.lab.transfer(&["clean", "db1", "db2"]).expect_success().stdout;
    for host in ["db1", "db2"] {
        let reported = format!(" was not touched; see: transfer status {host}");
        assert!(cleaned.lines().any(|line| line.starts_with(host) && line.ends_with(&reported)), "{cleaned}");
    }
    scene.open_throttle();
    run.end_within(PROMPTLY).expect_success();
    scene.expect_copied();
    scene.expect_as_before(PROMPTLY);
}

#[test]
fn exclusive_killed_watchdog_fails_no_run() {
    let Some(scene) = MidStream::set() else { return };
    let run = scene.start_stream(&[]);
    Found::of(&scene.db1, &["watchdog"]).signal("KILL");
    Found::of(&scene.db2, &["watchdog"]).signal("KILL");
    scene.open_throttle();
    run.end_within(PROMPTLY).expect_success();
    scene.expect_copied();
    scene.expect_as_before(PROMPTLY);
}

#[test]
fn exclusive_late_watchdog_spares_the_next_run() {
    let Some(scene) = MidStream::set() else { return };
    let run = scene.start_stream(&[]);
    let [agent, watchdog] = ["agent", "watchdog"].map(|who| Found::of(&scene.db2, &[who]));
    watchdog.freeze();
    agent.signal("STOP");
    run.signal("KILL");
    agent.signal("KILL");
    let dead = agents::name(&scene.db2);

    // The next run rolls it back during its own work or after it; the one after that gets its port.
    scene.lab.transfer(&["db1:/etc/hostname", "db2:/tmp"]).expect_success();
    scene.db2.sh(&format!(
        "rm /tmp/hostname
         for try in {{1..200}}; do [[ ! -e /var/lib/transfer/{dead} ]] && exit; sleep 0.02; done; exit 1"
    ));
    let next = scene.start_stream(&[]);
    assert_ne!(agents::name(&scene.db2), dead);
    let status = scene.lab.transfer(&["status", "db2"]).expect_success().stdout;
    assert!(status.contains("  holds port 4400\n"), "the same port, or the test shows nothing: {status}");
    watchdog.thaw();
    assert!(eventually(PROMPTLY, || watchdog.are_gone()), "the late watchdog does not end");
    scene.open_throttle();
    next.end_within(PROMPTLY).expect_success();
    scene.expect_copied();
    scene.expect_as_before(PROMPTLY);
}

#[test]
fn exclusive_killed_connection_fails_the_run_cleanly() {
    let Some(scene) = MidStream::set() else { return };
    for name in ["db1", "db2"] {
        let run = scene.start_stream(&[]);
        scene.ctl.sh(&format!("pkill -KILL -P {} -f ' {name}$'", run.pid()));
        let said = expect_end(run, 1, PROMPTLY);
        assert!(said.contains(&format!("{name}: lost contact with the agent of this run")), "{said}");
        scene.expect_as_before(LEASE);
    }
}

#[test]
fn exclusive_killed_sshd_session_fails_the_run_cleanly() {
    let Some(scene) = MidStream::set() else { return };
    let run = scene.start_stream(&[]);
    Found::of(&scene.db2, &["session"]).signal("KILL");
    let said = expect_end(run, 1, PROMPTLY);
    assert!(said.contains("db2: lost contact with the agent of this run"), "{said}");
    scene.expect_as_before(LEASE);
}

/// Kills each process of a job in a run of its own, and asserts that it is blamed.
fn kill_each(scene: &MidStream, (host, name): (&Host, &str), job: &str, stages: &[(&str, &str, &str)]) {
    let mut wrong = Vec::new();
    for (command, arguments, stage) in stages {
        let run = scene.start_stream(&[]);
        Found::of(host, &[&format!("process {job} {command} '{arguments}'")]).signal("KILL");
        // Data behind a stage that has ended may still arrive.
        scene.open_throttle();
        let said = expect_end(run, 1, PROMPTLY);
        let blamed = said.contains(&format!("FAILED: {name}: "))
            && said.contains(&format!("{stage} ended with status 137"));
        // The message has the cause, and not the shell's listing of the pipeline.
        if !blamed || said.contains("$home") || said.contains(" | ") {
            wrong.push(format!("{command} {arguments} of {name} was killed; said:\n{said}"));
        }
        scene.expect_as_before(LEASE);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn exclusive_killed_sender_stage_is_named() {
    let Some(scene) = MidStream::set() else { return };
    kill_each(
        &scene,
        (&scene.db1, "db1"),
        "sender",
        &[
            ("tar", "--create", "tar"),
            ("zstd", "-c", "compress"),
            ("openssl", "enc", "encrypt"),
            ("nc", "-N", "netcat1"),
        ],
    );
}

#[test]
fn exclusive_killed_receiver_stage_is_named() {
    let Some(scene) = MidStream::set() else { return };
    kill_each(
        &scene,
        (&scene.db2, "db2"),
        "receiver",
        &[
            ("nc", "-l", "netcat"),
            ("openssl", "enc", "decrypt"),
            ("zstd", "-c", "decompress"),
            ("tar", "--extract", "tar"),
        ],
    );
}

#[test]
fn exclusive_killed_job_ends_its_stages() {
    let Some(scene) = MidStream::set() else { return };
    for (host, job, name) in [(&scene.db1, "sender", "db1"), (&scene.db2, "receiver", "db2")] {
        let run = scene.start_stream(&[]);
        Found::of(host, &[&format!("job {job}")]).signal("KILL");
        let said = expect_end(run, 1, PROMPTLY);
        assert!(said.contains(&format!("{name}: its processes were killed from outside")), "{said}");
        scene.expect_as_before(LEASE);
    }
}

#[test]
fn exclusive_agent_killed_at_start_fails_the_run_cleanly() {
    let Some(scene) = MidStream::set() else { return };
    for (host, name) in [(&scene.db1, "db1"), (&scene.db2, "db2")] {
        let begins: fn(&Call) -> bool = |call| matches!(call.last_record(0), Some(Record::Header(_)));
        let syncs = &[libc::SYS_fdatasync, libc::SYS_fsync];
        let holder = roots::hold(host, &[Role::Serve], Point::After(syncs, begins));
        let mut run = scene.start(&[]);
        kill(holder.expect_held(&mut run).process, Signal::SIGKILL).expect("it is held");
        holder.open();
        let said = expect_end(run, 1, PROMPTLY);
        assert!(said.contains(&format!("{name}: lost contact with the agent of this run")), "{said}");
        scene.expect_as_before(PROMPTLY);
    }
}

#[test]
fn exclusive_agent_killed_at_journal_removal_leaves_nothing() {
    let Some(scene) = MidStream::set() else { return };
    let removal = Point::Before(&[libc::SYS_unlinkat], |call| call.text(1) == "journal.bin");
    let holder = roots::hold(&scene.db2, &[Role::Serve], removal);
    let mut run = scene.start(&[]);
    kill(holder.expect_held(&mut run).process, Signal::SIGKILL).expect("it is held");
    holder.open();
    run.end_within(PROMPTLY).expect_success();
    scene.expect_copied();
    scene.expect_as_before(PROMPTLY);
}

#[test]
fn exclusive_randomly_killed_controller_leaves_nothing() {
    let Some(scene) = MidStream::set() else { return };
    let seed = u64::from(SystemTime::UNIX_EPOCH.elapsed().expect("a clock").subsec_nanos());
    // One moment of every 35 milliseconds of the first 700.
    for step in 0..20 {
        let moment = Duration::from_millis(step * 35 + (seed >> step) % 35);
        println!("killing after {moment:?}");
        let run = scene.start(&[]);
        thread::sleep(moment);
        run.signal("KILL");
        scene.expect_as_before(LEASE);
    }
}
