//! Copies are identical to their source in every respect, or absent; nothing else in the target changes.

use crate::support::copies::{assert_same, make_random};
use crate::support::every_kind::{allocated, make_every_kind};
use crate::support::held::{Held, MORE_THAN_BUFFERS, being_read};
use crate::support::hosts::Lab;
use crate::support::trees::names;

/// Copies a tree with every kind of entry into a directory whose defaults set another group and ACL, and
/// compares everything.
fn copies_every_kind_of_entry(options: &[&str]) {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    let source = scratch.join("source");
    let target = scratch.join("target");
    let copy = scratch.join("target/source");
    make_every_kind(&db1, &source);
    let of_target = format!("cd '{}'; stat -c '%u:%g %a' target; getfacl -np target", scratch.path());
    db2.sh(&format!(
        "cd '{}'; mkdir target; chown 1234:5678 target; chmod 2751 target; setfacl -d -m u:99:rwx target",
        scratch.path()
    ));
    let before = db2.sh(&of_target);

    // A file of another account.
    let mut args = vec![format!("db1:{source}"), format!("db2:{target}"), "--allow-shared-path".to_owned()];
    args.extend(options.iter().map(ToString::to_string));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = lab.transfer(&args).expect_success();

    assert_same((&db1, &source), (&db2, &copy));
    for name in ["random", "sparse", "hole", "punched"] {
        let sizes =
            [(&db1, &source), (&db2, &copy)].map(|(host, path)| allocated(host, &format!("{path}/{name}")));
        assert!(sizes[0].abs_diff(sizes[1]) <= 64 << 10, "{name} takes {sizes:?} bytes");
    }
    assert_eq!(db2.sh(&of_target), before);
    assert_eq!(names(&db2, &target), ["source"]);
    // The only kind of entry that is not copied, because it would be useless.
    assert!(!db2.run(&["test", "-e", &format!("{copy}/socket")]).status.success());
    assert!(output.stdout.contains("socket") && output.stdout.contains("socket ignored"), "{output}");
    for host in ["ctl", "db1", "db2"] {
        let pwned = lab.host(host).sh("find / -xdev -name pwned; find /srv /run /tmp -name pwned");
        assert_eq!(pwned, "", "a name was run on {host}");
    }
}

#[test]
fn every_entry_kind_arrives_unchanged() {
    copies_every_kind_of_entry(&[]);
}

#[test]
fn plain_stream_preserves_every_entry_kind() {
    copies_every_kind_of_entry(&["--no-compress", "--no-encrypt", "--parallel-checksum"]);
}

#[test]
fn file_named_like_an_option_is_copied() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    for name in ["-rf", "a file: $(touch pwned)\n", "empty"] {
        let path = scratch.join(name);
        let script = r#"printf %s "${2#empty}" >"$1"; setfattr -n user.a -v b "$1"; touch -d '2001-02-03 04:05:06.7Z' "$1""#;
        db1.run(&["bash", "-c", script, "bash", &path, name]).expect_success();
        lab.transfer(&[&format!("db1:{path}"), &format!("db2:{}", scratch.path())]).expect_success();
        assert_same((&db1, &path), (&db2, &path));
    }
}

#[test]
fn host_names_accept_ipv6_and_users() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    let source = scratch.join("source");
    make_random(&db1, &source, 1);
    for (number, [from, to]) in
        [["db16", "db26"], ["root@db1", "root@db2"], ["[fd77::11]", "root@[fd77::12]"], ["db16", "db2"]]
            .iter()
            .enumerate()
    {
        let target = scratch.join(&number.to_string());
        db2.run(&["mkdir", &target]).expect_success();
        lab.transfer(&[&format!("{from}:{source}"), &format!("{to}:{target}")]).expect_success();
        assert_same((&db1, &source), (&db2, &format!("{target}/source")));
    }
}

#[test]
fn unprivileged_account_copies_readable_files() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    let source = scratch.join("source");
    let [from, to] = ["db1", "db2"].map(|host| format!("dba@{host}:"));
    db1.sh(&format!(
        "mkdir '{source}'; cd '{source}'; echo open >open; setfattr -n user.a -v b open; ln -s open link; mkfifo fifo
         mkdir -m 1750 dir; touch -d '2001-02-03 04:05:06.7Z' dir open; setfacl -m u:4711:rx dir; chown -R dba:dba ."
    ));
    db2.sh(&format!("chown dba '{}'", scratch.path()));
    lab.transfer(&[&format!("{from}{source}"), &format!("{to}{}", scratch.path())]).expect_success();
    assert_same((&db1, &source), (&db2, &source));

    // An entry that root has closed is reported as missing, by name.
    db1.put("secret", &format!("{source}/secret"), 0o600);
    db2.run(&["mkdir", &scratch.join("other")]).expect_success();
    db2.run(&["chown", "dba", &scratch.join("other")]).expect_success();
    let output =
        lab.transfer(&[&format!("{from}{source}"), &format!("{to}{}", scratch.join("other"))]).expect_code(1);
    assert!(
        output.stderr.contains("source/secret") && output.stderr.contains("Permission denied"),
        "{output}"
    );
    assert!(names(&db2, &scratch.join("other")).is_empty());
    let output =
        lab.transfer(&[&format!("{from}{source}/secret"), &format!("{to}{}", scratch.join("other"))]);
    let reported = output.expect_code(4).stderr;
    assert!(reported.contains(&format!(" cannot read {source}/secret; ")), "{reported}");
}

/// Changes a file while it or another one is read, and asserts that the copy fails.
fn fails_by_name_when(change_what_is_read: bool, change: &str, complaint: &str) {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    let source = scratch.join("source");
    db1.run(&["mkdir", &source]).expect_success();
    for name in ["one", "two"] {
        make_random(&db1, &format!("{source}/{name}"), MORE_THAN_BUFFERS);
    }
    let held = Held::start(
        &lab,
        &[&format!("db1:{source}"), &format!("db2:{}", scratch.path())],
        &db2,
        scratch.path(),
    );
    let read = being_read(&db1, scratch.path());
    let other = if read.ends_with("one") { "two" } else { "one" };
    let changed = if change_what_is_read { read } else { format!("{source}/{other}") };
    db1.run(&["bash", "-c", change, "bash", &changed]).expect_success();
    let output = held.go().expect_code(1);
    let name = format!("source/{}", changed.rsplit('/').next().expect("a name"));
    assert!(output.stderr.contains(&name) && output.stderr.contains(complaint), "{output}");
    assert!(names(&db2, scratch.path()).is_empty());
}

#[test]
fn growing_file_fails_the_run_by_name() {
    fails_by_name_when(true, r#"echo more >>"$1""#, "file changed as we read it");
}

#[test]
fn shrinking_file_fails_the_run_by_name() {
    fails_by_name_when(true, r#"truncate -s 20M "$1""#, "shrank");
}

#[test]
fn vanished_file_fails_the_run_by_name() {
    fails_by_name_when(false, r#"rm "$1""#, "removed before we read it");
}
