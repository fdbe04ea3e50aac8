//! What goes down as a whole in mid-stream: hosts, the network between two of them, the disk under the journal.

use std::time::Duration;

use crate::processes;
use crate::scene::{LEASE, SOON, Scene, expect_end, finish};

/// More than the controller takes to give up a host: three keepalives, and a login that is tried once more.
const GIVEN_UP: Duration = Duration::from_secs(40);

#[test]
fn exclusive_a_crashed_target_is_left_with_a_command_that_cleans_it() {
    let Some(scene) = Scene::set() else { return };
    let run = scene.start_stream(&[]);
    let staging = scene.join(&format!("in/.transfer-{}", processes::agent(&scene.target)));
    scene.target.crash();
    let said = expect_end(run, 6, GIVEN_UP);
    assert!(said.ends_with("to remove what is left: transfer clean db2\n"), "{said}");
    scene.expect_undone(&[&scene.source], LEASE);

    scene.target.boot();
    scene.target.sh(&format!("test -d '{staging}'"));
    let status = scene.lab.transfer(&["status", "db2"]).expect_success().stdout;
    assert!(status.contains(", from before a reboot; remove it: transfer clean db2\n"), "{status}");
    let cleaned = scene.lab.transfer(&["clean", "db2"]).expect_success().stdout;
    assert!(cleaned.contains(&format!("db2: undone: staging {staging} (run ")), "{cleaned}");
    scene.restore_firewall();
    scene.expect_as_before(SOON);
}

#[test]
fn exclusive_the_next_run_cleans_a_target_that_crashed() {
    let Some(scene) = Scene::set() else { return };
    let run = scene.start_stream(&[]);
    scene.target.crash();
    drop(run);
    scene.target.boot();
    scene.restore_firewall();
    scene.expect_undone(&[&scene.source], 2 * LEASE);
    scene.open_throttle();
    finish(scene.start(&[]), SOON).expect_success();
    scene.expect_copied();
    scene.expect_as_before(SOON);
}

#[test]
fn exclusive_a_crashed_source_that_is_back_is_cleaned_by_the_run_or_by_the_command_that_it_names() {
    let Some(scene) = Scene::set() else { return };
    let run = scene.start_stream(&[]);
    scene.source.crash();
    scene.expect_undone(&[&scene.target], 2 * LEASE);
    scene.source.boot();
    let output = finish(run, GIVEN_UP);
    assert!(output.stderr.contains("FAILED: db1: lost the agent of this run"), "{output}");
    // Whether it is asked again before or after it is back is the luck of the moment.
    if output.status.code() == Some(6) {
        assert!(output.stderr.ends_with("to remove what is left: transfer clean db1\n"), "{output}");
        scene.lab.transfer(&["clean", "db1"]).expect_success();
    } else {
        output.expect_code(1);
    }
    scene.expect_as_before(SOON);
}

#[test]
fn exclusive_a_crashed_controller_leaves_nothing() {
    let Some(scene) = Scene::set() else { return };
    let run = scene.start_stream(&[]);
    scene.controller.crash();
    drop(run);
    scene.expect_undone(&[&scene.source, &scene.target], 2 * LEASE);
    scene.controller.boot();
    scene.expect_as_before(SOON);
}

#[test]
fn exclusive_a_target_cut_off_from_the_controller_undoes_everything_by_itself() {
    let Some(scene) = Scene::set() else { return };
    let run = scene.start_stream(&[]);
    let cut = scene.lab.cut("ctl", "db2");
    scene.expect_undone(&[&scene.target], 2 * LEASE);
    let said = expect_end(run, 6, GIVEN_UP);
    assert!(said.contains("db2: LEFT BEHIND: cannot be asked whether it has undone everything"), "{said}");
    assert!(said.ends_with("to remove what is left: transfer clean db2\n"), "{said}");
    drop(cut);
    let cleaned = scene.lab.transfer(&["clean", "db2"]).expect_success().stdout;
    assert_eq!(cleaned, "db2: nothing to undo\n");
    scene.expect_as_before(SOON);
}

#[test]
fn exclusive_a_target_that_comes_back_in_time_is_asked_and_nothing_is_left() {
    let Some(scene) = Scene::set() else { return };
    let run = scene.start_stream(&[]);
    let cut = scene.lab.cut("ctl", "db2");
    scene.expect_undone(&[&scene.target], 2 * LEASE);
    drop(cut);
    let said = expect_end(run, 1, GIVEN_UP);
    assert!(said.contains("db2: lost the agent of this run"), "{said}");
    scene.expect_as_before(SOON);
}

#[test]
fn exclusive_a_target_cut_off_from_the_source_ends_the_run_after_the_idle_timeout() {
    let Some(scene) = Scene::set() else { return };
    let run = scene.start_stream(&["--idle-timeout", "4"]);
    let cut = scene.lab.cut("db1", "db2");
    let said = expect_end(run, 1, SOON);
    assert!(said.contains("no byte has moved for 4 s (--idle-timeout)"), "{said}");
    scene.expect_as_before(LEASE);
    drop(cut);
}

/// What puts a file system of its own, too small for something, at a path.
fn small(path: &str, options: &str) -> String {
    format!("mkdir -p {path}; mount -t tmpfs -o {options},mode=0700 lab {path}")
}

#[test]
fn exclusive_an_agent_that_cannot_write_its_journal_changes_nothing() {
    for options in ["nr_inodes=1", "size=4k"] {
        let Some(scene) = Scene::set_with(&small("/var/lib/transfer", options)) else { return };
        scene.open_throttle();
        let said = expect_end(scene.start(&[]), 1, SOON);
        assert!(said.contains("db2") && said.contains("/var/lib/transfer/"), "{options}: {said}");
        scene.expect_as_before(SOON);
    }
}

#[test]
fn exclusive_a_disk_that_is_full_later_fails_the_run_and_leaves_nothing() {
    let Some(scene) = Scene::set_with(&small("/var/lib/transfer", "size=20k")) else { return };
    scene.open_throttle();
    let said = expect_end(scene.start(&[]), 1, SOON);
    assert!(said.contains("FAILED: db2: "), "{said}");
    scene.expect_as_before(SOON);
}

#[test]
fn exclusive_a_port_that_cannot_be_locked_fails_the_run_and_leaves_nothing() {
    let Some(scene) = Scene::set_with(&small("/run/transfer", "nr_inodes=1")) else { return };
    scene.open_throttle();
    let said = expect_end(scene.start(&[]), 1, SOON);
    assert!(said.contains("db2: ") && said.contains("/run/transfer"), "{said}");
    scene.expect_as_before(SOON);
}

#[test]
fn exclusive_nothing_is_removed_that_does_not_carry_the_name_of_the_run() {
    let Some(scene) = Scene::set() else { return };
    scene.orphan(&[&scene.source, &scene.target]);
    let agent = processes::agent(&scene.target);
    let journal = format!("/var/lib/transfer/{agent}/journal");
    let precious = scene.join("precious");
    let others = scene.join(".transfer-20200101-000000-000000-target1");
    let torn = scene.join(&format!(".transfer-{agent}"));
    // The last record was torn: its effect was never made.
    scene.target.sh(&format!(
        r#"mkdir '{precious}' '{others}' '{torn}'
        for path in '{precious}' '{others}' '{torn}/../precious' '{torn}/' ''; do
            printf '\nlease\tdisk\tstaging\t%s\t.\n' "$path" >>'{journal}'
        done
        printf '\nlease\tdisk\tstaging\t%s' '{torn}' >>'{journal}'"#
    ));
    scene.lab.transfer(&["clean", "db1"]).expect_success();
    let output = scene.lab.transfer(&["clean", "db2"]).expect_code(6);
    for left in [&precious, &others] {
        assert!(
            output.stdout.contains(&format!("db2: LEFT BEHIND: staging {left} (run {agent})\n")),
            "{output}"
        );
    }
    scene.target.sh(&format!(
        "rmdir '{precious}' '{others}' '{torn}'; rm -r '/var/lib/transfer/{agent}'; rmdir /var/lib/transfer"
    ));
    scene.expect_as_before(SOON);
}
