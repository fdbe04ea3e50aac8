//! Tests of the lab itself: its hosts have the properties that the other tests rely on.

use std::time::Duration;

use crate::support::hosts::Lab;
use crate::support::snapshots::Snapshot;

const SOON: Duration = Duration::from_secs(10);

#[test]
fn controller_reaches_every_host() {
    let Some(lab) = Lab::get() else { return };
    for name in ["ctl", "db1", "db2", "db3"] {
        assert_eq!(lab.host(name).sh("hostname"), format!("{name}\n"));
        assert_eq!(
            lab.host("ctl").run(&["ssh", name, "hostname"]).expect_success().stdout,
            format!("{name}\n")
        );
    }
}

#[test]
fn only_controller_can_log_in_elsewhere() {
    let Some(lab) = Lab::get() else { return };
    let output = lab.host("db1").run(&["ssh", "-o", "BatchMode=yes", "db2", "true"]).expect_code(255);
    assert!(output.stderr.contains("Permission denied"), "{output}");
}

#[test]
fn hosts_have_both_address_families() {
    let Some(lab) = Lab::get() else { return };
    for name in ["db1", "db16", "db146"] {
        lab.host("db2").sh(&format!("timeout 5 bash -c '</dev/tcp/{name}/22'"));
    }
}

#[test]
fn mysql_uid_differs_on_every_host() {
    let Some(lab) = Lab::get() else { return };
    for (name, id) in [("db1", "111:112"), ("db2", "121:122"), ("db3", "131:132")] {
        assert_eq!(lab.host(name).sh("stat -c %u:%g /var/lib/mysql").trim(), id);
    }
}

#[test]
fn status_output_input_and_account_pass_through() {
    let Some(lab) = Lab::get() else { return };
    let host = lab.host("db1");
    let output = host.command(&["sh", "-c", "cat; echo bad >&2; exit 7"]).stdin("in\n").run().expect_code(7);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("in\n", "bad\n"));
    let output =
        host.command(&["sh", "-c", r#"id -un; echo "$HOME $WORD""#]).user("dba").env("WORD", "a b").run();
    assert_eq!(output.stdout, "dba\n/home/dba a b\n");
    let many = vec![b'x'; 3_000_000];
    assert_eq!(host.command(&["cat"]).stdin(many).run().expect_success().stdout.len(), 3_000_000);
}

#[test]
fn signal_reaches_exactly_one_process() {
    let Some(lab) = Lab::get() else { return };
    let host = lab.host("db1");
    let mut trapping = host.spawn(&[
        "bash",
        "-c",
        "trap 'echo caught; exit 3' INT; echo ready; while :; do sleep 0.01; done",
    ]);
    trapping.wait_for("ready", SOON);
    trapping.signal("INT");
    assert_eq!(trapping.wait().expect_code(3).stdout, "ready\ncaught\n");

    let mut killed = host.spawn(&["sleep", "100"]);
    assert!(killed.is_running());
    killed.signal("STOP");
    killed.signal("CONT");
    killed.signal("KILL");
    let status = killed.wait_end(SOON);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));

    let dropped = host.spawn(&["sleep", "100"]);
    let pid = dropped.pid();
    drop(dropped);
    assert!(!host.run(&["test", "-e", &format!("/proc/{pid}")]).status.success());
}

#[test]
fn held_input_ends_on_close() {
    let Some(lab) = Lab::get() else { return };
    let mut reader = lab.host("db1").command(&["cat"]).hold_stdin().spawn();
    assert!(reader.is_running());
    reader.close_stdin();
    assert!(reader.wait_end(SOON).success());
}

#[test]
fn program_under_test_runs_on_controller() {
    let Some(lab) = Lab::get() else { return };
    lab.transfer(&["--version"]).expect_success();
    lab.transfer_spawn(&["--version"]).wait().expect_success();
}

#[test]
fn scratch_removal_includes_mounts() {
    let Some(lab) = Lab::get() else { return };
    let host = lab.host("db2");
    let scratch = lab.scratch(&["db1", "db2"]);
    let disk = scratch.small_disk(&host, "disk", 1 << 20);
    host.put(b"text", &scratch.join("file"), 0o640);
    assert_eq!(host.sh(&format!("stat -c %a:%s '{}'", scratch.join("file"))), "640:4\n");
    assert!(!host.run(&["dd", "if=/dev/zero", "bs=1M", "count=2", &format!("of={disk}/x")]).status.success());
    let path = scratch.path().to_owned();
    drop(scratch);
    for name in ["db1", "db2"] {
        assert!(!lab.host(name).run(&["test", "-e", &path]).status.success(), "{path} is left on {name}");
    }
}

#[test]
fn exclusive_crash_keeps_only_the_disk() {
    let Some(lab) = Lab::get() else { return };
    let host = lab.host("db3");
    let boot_id = || host.sh("cat /proc/sys/kernel/random/boot_id");
    let scratch = lab.scratch(&["db3"]);
    host.put("disk", &scratch.join("kept"), 0o600);
    host.sh(
        "touch /run/lost; iptables -A INPUT -p tcp --dport 1 -j DROP; iptables-legacy -A INPUT -j ACCEPT",
    );
    let before = boot_id();
    host.crash();
    assert!(!host.run(&["true"]).status.success());
    host.boot();
    assert_ne!(boot_id(), before);
    assert_eq!(host.sh(&format!("cat '{}'", scratch.join("kept"))), "disk");
    host.sh("! test -e /run/lost; test -z \"$(nft list ruleset; iptables-legacy-save)\"");
}

#[test]
fn exclusive_cut_hosts_cannot_reach_each_other() {
    let Some(lab) = Lab::get() else { return };
    let reaches = |from: &str, to: &str| {
        lab.host(from).run(&["timeout", "2", "bash", "-c", &format!("</dev/tcp/{to}/22")]).status.success()
    };
    let before = Snapshot::of(&lab.host("db1"), &[]);
    let cut = lab.cut("db1", "db2");
    assert!(!reaches("db1", "db2") && !reaches("db2", "db1"));
    assert!(reaches("db1", "db3") && reaches("ctl", "db1") && reaches("ctl", "db2"));
    assert_eq!(before.remaining(&lab.host("db1"), SOON), Vec::<String>::new());
    drop(cut);
    assert!(reaches("db1", "db2") && reaches("db2", "db1"));
}

#[test]
fn exclusive_snapshot_shows_additions_and_removals() {
    let Some(lab) = Lab::get() else { return };
    let host = lab.host("db1");
    let scratch = lab.scratch(&["db1"]);
    host.put("x", &scratch.join("old"), 0o600);
    let before = Snapshot::of(&host, &[scratch.path()]);
    assert_eq!(before.remaining(&host, Duration::ZERO), Vec::<String>::new());

    let listener = host.spawn(&["nc", "-l", "7777"]);
    host.sh(&format!(
        "rm '{}'; touch /run/lock/mine; mkdir '{}'
         iptables -A INPUT -p tcp --dport 7777 -j ACCEPT
         ip6tables-legacy -A INPUT -p tcp --dport 7778 -j ACCEPT
         nft add table inet mine; nft add chain inet mine input '{{ type filter hook input priority 0; }}'
         nft add rule inet mine input tcp dport 7779 accept",
        scratch.join("old"),
        scratch.join("new")
    ));
    let lines = Snapshot::diff(&before, &Snapshot::of(&host, &[scratch.path()])).join("\n");
    for expected in [
        "+ process: nc nc -l 7777",
        "+ listening: tcp 0.0.0.0:7777",
        &format!("- file: {} f 600 0:0 1 ", scratch.join("old")),
        &format!("+ file: {} d 755 0:0", scratch.join("new")),
        "+ file: /run/lock/mine f 644 0:0 0",
        "+ iptables-nft: filter -A INPUT -p tcp -m tcp --dport 7777 -j ACCEPT",
        "+ ip6tables-legacy: filter -A INPUT -p tcp -m tcp --dport 7778 -j ACCEPT",
        "+ nft: table inet mine",
        "+ nft: inet mine chain input: tcp dport 7779 accept",
    ] {
        assert!(lines.contains(expected), "no '{expected}' in\n{lines}");
    }

    drop(listener);
    host.sh(&format!(
        "rm /run/lock/mine; rmdir '{}'; nft delete table inet mine
         iptables -D INPUT -p tcp --dport 7777 -j ACCEPT
         ip6tables-legacy -D INPUT -p tcp --dport 7778 -j ACCEPT",
        scratch.join("new")
    ));
    let lines = before.remaining(&host, Duration::from_secs(1));
    assert_eq!(lines.len(), 1, "only the removed file may be missing: {lines:?}");
    assert!(lines[0].starts_with("- file: "), "{lines:?}");
}
