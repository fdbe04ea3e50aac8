//! Outages in mid-stream: of hosts, of the network between two of them, of the disk with the journal.

use std::time::Duration;

use transfer::proto::journal::{Record, Undo, encode};

use crate::support::agents;
use crate::support::midstream::{LEASE, MidStream, PROMPTLY, expect_end};

/// More than the controller takes to give up a host: three keepalives, and one more attempt to log in.
const GIVEN_UP: Duration = Duration::from_secs(40);

#[test]
fn exclusive_crashed_target_is_reported_with_clean_command() {
    let Some(scene) = MidStream::set() else { return };
    let run = scene.start_stream(&[]);
    let staging = scene.at(&format!("in/.transfer-{}", agents::name(&scene.db2)));
    scene.db2.crash();
    let said = expect_end(run, 6, GIVEN_UP);
    assert!(said.ends_with("to roll back: transfer clean db2\n"), "{said}");
    scene.expect_rolled_back(&[&scene.db1], LEASE);

    scene.db2.boot();
    scene.db2.sh(&format!("test -d '{staging}'"));
    let status = scene.lab.transfer(&["status", "db2"]).expect_success().stdout;
    assert!(status.contains(", from before a reboot; to clean up: transfer clean db2\n"), "{status}");
    let cleaned = scene.lab.transfer(&["clean", "db2"]).expect_success().stdout;
    assert!(cleaned.contains(&format!("db2: rolled back: staging directory {staging} (run ")), "{cleaned}");
    scene.restore_firewall();
    scene.expect_as_before(PROMPTLY);
}

#[test]
fn exclusive_next_run_cleans_crashed_target() {
    let Some(scene) = MidStream::set() else { return };
    let run = scene.start_stream(&[]);
    scene.db2.crash();
    drop(run);
    scene.db2.boot();
    scene.restore_firewall();
    scene.expect_rolled_back(&[&scene.db1], 2 * LEASE);
    scene.open_throttle();
    scene.start(&[]).end_within(PROMPTLY).expect_success();
    scene.expect_copied();
    scene.expect_as_before(PROMPTLY);
}

#[test]
fn exclusive_rebooted_source_is_cleaned() {
    let Some(scene) = MidStream::set() else { return };
    let run = scene.start_stream(&[]);
    scene.db1.crash();
    scene.expect_rolled_back(&[&scene.db2], 2 * LEASE);
    scene.db1.boot();
    let output = run.end_within(GIVEN_UP);
    assert!(output.stderr.contains("FAILED: db1: lost contact with the agent of this run"), "{output}");
    // Timing decides whether it is asked again before or after it is back.
    if output.status.code() == Some(6) {
        assert!(output.stderr.ends_with("to roll back: transfer clean db1\n"), "{output}");
        scene.lab.transfer(&["clean", "db1"]).expect_success();
    } else {
        output.expect_code(1);
    }
    scene.expect_as_before(PROMPTLY);
}

#[test]
fn exclusive_crashed_controller_leaves_nothing() {
    let Some(scene) = MidStream::set() else { return };
    let run = scene.start_stream(&[]);
    scene.ctl.crash();
    drop(run);
    scene.expect_rolled_back(&[&scene.db1, &scene.db2], 2 * LEASE);
    scene.ctl.boot();
    scene.expect_as_before(PROMPTLY);
}

#[test]
fn exclusive_cut_off_target_rolls_back_on_its_own() {
    let Some(scene) = MidStream::set() else { return };
    let run = scene.start_stream(&[]);
    let cut = scene.lab.cut("ctl", "db2");
    scene.expect_rolled_back(&[&scene.db2], 2 * LEASE);
    let said = expect_end(run, 6, GIVEN_UP);
    assert!(said.contains("db2: NOT ROLLED BACK: rollback not confirmed"), "{said}");
    assert!(said.ends_with("to roll back: transfer clean db2\n"), "{said}");
    drop(cut);
    let cleaned = scene.lab.transfer(&["clean", "db2"]).expect_success().stdout;
    assert_eq!(cleaned, "db2: nothing to roll back\n");
    scene.expect_as_before(PROMPTLY);
}

#[test]
fn exclusive_reconnected_target_confirms_its_rollback() {
    let Some(scene) = MidStream::set() else { return };
    let run = scene.start_stream(&[]);
    let cut = scene.lab.cut("ctl", "db2");
    scene.expect_rolled_back(&[&scene.db2], 2 * LEASE);
    drop(cut);
    let said = expect_end(run, 1, GIVEN_UP);
    assert!(said.contains("db2: lost contact with the agent of this run"), "{said}");
    scene.expect_as_before(PROMPTLY);
}

#[test]
fn exclusive_cut_between_hosts_hits_idle_timeout() {
    let Some(scene) = MidStream::set() else { return };
    let run = scene.start_stream(&["--idle-timeout", "4"]);
    let cut = scene.lab.cut("db1", "db2");
    let said = expect_end(run, 1, PROMPTLY);
    assert!(said.contains("no byte has moved for 4 s (--idle-timeout)"), "{said}");
    scene.expect_as_before(LEASE);
    drop(cut);
}

/// Mounts a file system at a path that is too small in one respect.
fn small(path: &str, options: &str) -> String {
    format!("mkdir -p {path}; mount -t tmpfs -o {options},mode=0700 lab {path}")
}

#[test]
fn exclusive_unwritable_journal_changes_nothing() {
    for options in ["nr_inodes=1", "size=4k"] {
        let Some(scene) = MidStream::set_with(&small("/var/lib/transfer", options)) else { return };
        scene.open_throttle();
        let said = expect_end(scene.start(&[]), 1, PROMPTLY);
        assert!(said.contains("db2") && said.contains("/var/lib/transfer/"), "{options}: {said}");
        scene.expect_as_before(PROMPTLY);
    }
}

#[test]
fn exclusive_disk_filled_by_journal_leaves_nothing() {
    let Some(scene) = MidStream::set_with(&small("/var/lib/transfer", "size=20k")) else { return };
    scene.open_throttle();
    let said = expect_end(scene.start(&[]), 1, PROMPTLY);
    assert!(said.contains("FAILED: db2: "), "{said}");
    scene.expect_as_before(PROMPTLY);
}

#[test]
fn exclusive_unlockable_port_leaves_nothing() {
    let Some(scene) = MidStream::set_with(&small("/run/transfer", "nr_inodes=1")) else { return };
    scene.open_throttle();
    let said = expect_end(scene.start(&[]), 1, PROMPTLY);
    assert!(said.contains("db2: ") && said.contains("/run/transfer"), "{said}");
    scene.expect_as_before(PROMPTLY);
}

/// Returns the record of a staging directory.
fn staging(path: &str) -> Vec<u8> {
    encode(&Record::Lease(Undo::Staging { path: path.into(), keep: false })).expect("a record")
}

#[test]
fn exclusive_clean_removes_only_files_named_after_the_run() {
    let Some(scene) = MidStream::set() else { return };
    scene.orphan(&[&scene.db1, &scene.db2]);
    let agent = agents::name(&scene.db2);
    let precious = scene.at("precious");
    let others = scene.at(".transfer-20200101-000000-000000-target1");
    let torn = scene.at(&format!(".transfer-{agent}"));
    let paths = [&precious, &others, &format!("{torn}/../precious"), ""];
    let mut records: Vec<u8> = paths.iter().flat_map(|path| staging(path)).collect();
    // An incomplete last record: its change was never made.
    let mut last = staging(&torn);
    last.pop();
    records.extend(last);
    scene.db2.put(records, &scene.at("records"), 0o600);
    scene.db2.sh(&format!(
        "mkdir '{precious}' '{others}' '{torn}'; cat '{0}' >>'/var/lib/transfer/{agent}/journal.bin'; rm '{0}'",
        scene.at("records")
    ));
    scene.lab.transfer(&["clean", "db1"]).expect_success();
    let output = scene.lab.transfer(&["clean", "db2"]).expect_code(6);
    for left in [&precious, &others] {
        assert!(
            output
                .stdout
                .contains(&format!("db2: NOT ROLLED BACK: staging directory {left} ({left} does not have the name of this run) (run {agent})\n")),
            "{output}"
        );
    }
    scene.db2.sh(&format!(
        "rmdir '{precious}' '{others}' '{torn}'; rm -r '/var/lib/transfer/{agent}'; rmdir /var/lib/transfer"
    ));
    scene.expect_as_before(PROMPTLY);
}
