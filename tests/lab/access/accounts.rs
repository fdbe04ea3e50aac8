//! Accounts without privileges, and sudo.

use super::*;
use crate::support::changes::Changed;
use crate::support::copies::{assert_same, make_random};
use crate::support::every_kind::make_every_kind;
use crate::support::held::{Held, MORE_THAN_BUFFERS};
use crate::support::hosts::Host;
use crate::support::scenes::{SOON, Scene};
use crate::support::trees::names;
use crate::support::waiting::eventually;

#[test]
fn exclusive_sudo_account_works_like_root() {
    let Some(scene) = Scene::with_file(1) else { return };
    let Scene { lab, db1, db2, scratch, .. } = &scene;
    let _root = [db1, db2].map(|host| sudoers(host, "NOPASSWD: ALL"));
    let _closed = closed(db2);
    let tree = scratch.join("tree");
    make_every_kind(db1, &tree);
    make_random(db1, &format!("{tree}/large"), MORE_THAN_BUFFERS);
    // Only root can read it, or write to the target.
    db1.sh(&format!("chmod 0700 '{tree}'"));
    let args = [&format!("dba@db1:{tree}"), &format!("dba@db2:{}", scratch.path()), "--sudo"];
    let held = Held::start(lab, &args, db2, scratch.path());
    let port = held.port();
    let hole = format!("ip saddr 10.77.0.11 tcp dport {port} accept");
    assert!(db2.sh("nft list ruleset").contains(&hole), "no hole: {}", db2.sh("nft list ruleset"));
    for host in [db1, db2] {
        assert_eq!(names(host, "/var/lib/transfer").len(), 1);
        assert!(!host.run(&["test", "-e", "/home/dba/.local/state/transfer"]).status.success());
    }
    let status = lab.transfer(&["--sudo", "status", "dba@db1", "dba@db2"]).expect_success().stdout;
    assert!(
        status.contains("dba@db1: live ") && status.contains(&format!("  holds port {port}\n")),
        "{status}"
    );
    // dba's own state is separate.
    assert_eq!(lab.transfer(&["status", "dba@db2"]).expect_success().stdout, "dba@db2: no runs\n");
    let clean = lab.transfer(&["--sudo", "clean", "dba@db2"]).expect_success().stdout;
    assert!(clean.contains("was not touched; see: transfer --sudo status dba@db2\n"), "{clean}");

    held.go().expect_success();
    assert_same((db1, &tree), (db2, &tree));
    assert!(!db2.sh("nft list ruleset").contains("4400"));
    let status = lab.transfer(&["--sudo", "status", "dba@db1", "dba@db2"]).expect_success().stdout;
    assert_eq!(status, "dba@db1: no runs\ndba@db2: no runs\n");
}

#[test]
fn exclusive_sudo_run_is_rolled_back_after_any_signal() {
    let Some(scene) = Scene::with_file(MORE_THAN_BUFFERS) else { return };
    let Scene { db1, db2, scratch, .. } = &scene;
    let _root = [db1, db2].map(|host| sudoers(host, "NOPASSWD: ALL"));
    let _closed = closed(db2);
    let rules = db2.sh("nft list ruleset");
    for signal in ["INT", "TERM", "HUP", "KILL"] {
        let mut held = scene.held_between(["dba@db1", "dba@db2"], &["--sudo"]);
        held.port();
        held.transfer.signal(signal);
        held.transfer.wait_end(SOON);
        let rolled_back = || {
            let gone = |host: &Host| {
                let left = "ps -C tar,zstd,openssl,nc -o args=; ls -d /var/lib/transfer /run/transfer";
                !host.run(&["bash", "-c", left]).stdout.contains(|c: char| c.is_ascii_graphic())
            };
            gone(db1)
                && gone(db2)
                && names(db2, scratch.path()).is_empty()
                && db2.sh("nft list ruleset") == rules
        };
        assert!(eventually(SOON, rolled_back), "after {signal}");
    }
}

#[test]
fn exclusive_sudo_works_on_localhost() {
    let Some(scene) = Scene::with_file(1) else { return };
    let Scene { lab, db2, scratch, .. } = &scene;
    let ctl = &lab.host("ctl");
    let _target = sudoers(db2, "NOPASSWD: ALL");
    let source = scratch.join("closed");
    ctl.sh(&format!("umask 077; head -c 1M /dev/urandom >'{source}'; chown 111:112 '{source}'"));
    let target = format!("dba@db2:{}", scratch.path());
    let as_dba = || lab.program(&[&source, &target, "--sudo"]).user("dba").run();
    let output = as_dba().expect_code(4);
    let reported = "localhost: start of the agent: sudo did not start a root shell (output: sudo: a password is required)";
    assert!(output.stderr.contains(reported), "{output}");
    let _own = sudoers(ctl, "NOPASSWD: ALL");
    as_dba().expect_success();
    assert_same((ctl, &source), (db2, &source));
    let status = lab.program(&["status", "localhost", "--sudo"]).user("dba").run().expect_success();
    assert_eq!(status.stdout, "localhost: no runs\n");
}

#[test]
fn exclusive_sudo_clean_removes_leftovers_of_crash() {
    let Some(scene) = Scene::with_file(MORE_THAN_BUFFERS) else { return };
    let Scene { lab, db2, scratch, .. } = &scene;
    let _root = [&scene.db1, db2].map(|host| sudoers(host, "NOPASSWD: ALL"));
    let held = scene.held_between(["dba@db1", "dba@db2"], &["--sudo"]);
    held.port();
    db2.crash();
    held.transfer.signal("KILL");
    db2.boot();
    let left = names(db2, scratch.path());
    assert!(left.len() == 1 && left[0].starts_with(".transfer-"), "{left:?}");
    let status = lab.transfer(&["status", "dba@db2", "--sudo"]).expect_success().stdout;
    assert!(status.contains("dba@db2: orphaned "), "{status}");
    assert!(
        status.contains("from before a reboot; to clean up: transfer --sudo clean dba@db2\n"),
        "{status}"
    );
    assert_eq!(
        lab.transfer(&["clean", "dba@db2"]).expect_success().stdout,
        "dba@db2: nothing to roll back\n"
    );
    let clean = lab.transfer(&["--sudo", "clean", "dba@db2"]).expect_success().stdout;
    assert!(clean.contains("dba@db2: rolled back: staging directory "), "{clean}");
    assert!(names(db2, scratch.path()).is_empty());
}

#[test]
fn exclusive_refused_or_missing_sudo_suggests_a_fix() {
    let Some(scene) = Scene::with_file(1) else { return };
    let _source = sudoers(&scene.db1, "NOPASSWD: ALL");
    let fix = "install sudo and let the account use it without a password \
               (ACCOUNT ALL=(root) NOPASSWD: ALL in a file in /etc/sudoers.d), or log in as root";
    let refused = |said: &str| {
        let output = scene.transfer_between(["dba@db1", "dba@db2"], &["--sudo"]).expect_code(4);
        let reported =
            format!("dba@db2: start of the agent: sudo did not start a root shell (output: {said}); {fix}");
        assert!(output.stderr.contains(&reported), "{output}");
        assert!(output.stderr.contains("refused, nothing was changed"), "{output}");
    };
    refused("sudo: a password is required");
    {
        let _target = sudoers(&scene.db2, "ALL");
        refused("sudo: a password is required");
    }
    {
        let _target = sudoers(&scene.db2, "NOPASSWD: /usr/bin/true");
        refused("sudo: a password is required");
    }
    {
        let _target = Changed::without(&scene.db2, &["sudo"]);
        refused("sudo: 1: sudo: not found");
        let output = scene.lab.transfer(&["--sudo", "status", "dba@db2"]).expect_code(1);
        assert!(
            output.stdout.contains("dba@db2: start of the agent: sudo did not start a root shell"),
            "{output}"
        );
    }
    {
        let noise = "cp -a /home/dba/.bashrc /home/dba/.before; printf 'printf Welcome' >/home/dba/.bashrc";
        let _noise = Changed::new(&scene.db2, noise, "mv /home/dba/.before /home/dba/.bashrc");
        refused("sudo: a password is required");
    }
    // An account that may run bash as root needs no other permission.
    let _target = sudoers(&scene.db2, "NOPASSWD: /usr/bin/bash");
    scene.transfer_between(["dba@db1", "dba@db2"], &["--sudo"]).expect_success();
    scene.take_copy();
}
