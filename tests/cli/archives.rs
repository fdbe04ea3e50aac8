//! Archives between two directories of this machine: `--type decompress` and `--type compress`.

use std::fs;
use std::process::Command;

use crate::support::holder::Point;
use crate::support::local::agents::{READ, job};
use crate::support::local::holds;
use crate::support::local::processes::names;
use crate::support::local::runs::LONG;
use crate::support::local::sandbox::Sandbox;
use crate::support::local::trees::assert_same;

/// Creates an archive of a tree, by a command that runs in its parent directory.
fn archive(sandbox: &Sandbox, script: &str) -> std::path::PathBuf {
    let made = Command::new("bash").args(["-c", script]).current_dir(sandbox.path("")).status().unwrap();
    assert!(made.success());
    sandbox.own_it(&sandbox.path("archive"));
    sandbox.path("archive")
}

#[test]
fn archive_fills_empty_or_named_directory() {
    let Some(sandbox) = Sandbox::new() else { return };
    let source = sandbox.source("source");
    let archive = archive(&sandbox, "tar --format=posix -czf archive source");
    let (filled, named) = (sandbox.dir("filled"), sandbox.dir("named"));
    sandbox
        .run(&[&"--type=decompress", &archive, &filled])
        .expect_success()
        .says("number of bytes, SHA-256 of the stream");
    assert_eq!(names(&filled), names(&source));
    assert_eq!(fs::read(filled.join("large")).unwrap(), fs::read(source.join("large")).unwrap());
    sandbox.run(&[&"--type=decompress", &archive, &named, &"--as", &"tree"]).expect_success();
    assert_same(&source, &named.join("tree"));
    sandbox.run(&[&"--type=decompress", &archive, &named, &"--as=tree", &"--replace"]).expect_success();
    sandbox.run(&[&"--type=decompress", &archive, &filled]).expect_code(4).says("is not empty: it contains");
    sandbox.is_clean(&[&filled, &named]);
}

#[test]
fn archive_with_several_top_entries_is_unpacked() {
    let Some(sandbox) = Sandbox::new() else { return };
    sandbox.source("source");
    let archive = archive(&sandbox, "mkdir source/.hidden; tar -cf archive -C source .");
    let target = sandbox.dir("target");
    sandbox.run(&[&"--type=decompress", &archive, &target]).expect_success();
    assert_eq!(names(&target), [".hidden", "large", "small"]);
}

#[test]
fn directory_filled_during_copy_is_left_alone() {
    let Some(sandbox) = Sandbox::new() else { return };
    sandbox.source("source");
    let archive = archive(&sandbox, "tar -cf archive source");
    let target = sandbox.dir("target");
    let hold = sandbox.hold(holds::Point::Connect);
    let running = sandbox.spawn(&[&"--type=decompress", &archive, &target]);
    hold.reached();
    sandbox.file(target.join("theirs"), "theirs");
    hold.open();
    running
        .wait(LONG)
        .expect_code(1)
        .says("was filled by another process during the copy and is left as it is");
    assert_eq!(names(&target), ["theirs"]);
    sandbox.is_clean(&[]);
}

#[test]
fn changing_archive_fails_the_run() {
    let Some(sandbox) = Sandbox::new() else { return };
    sandbox.source("source");
    let archive = archive(&sandbox, "tar -cf archive source");
    let target = sandbox.dir("target");
    let reading = sandbox.trace(job(Point::Before(READ, |call| call.descriptor(0).ends_with("archive"))));
    let running = sandbox.spawn(&[&"--type=decompress", &archive, &target]);
    reading.reached();
    std::fs::File::options().write(true).open(&archive).unwrap().set_len(1 << 20).unwrap();
    reading.open();
    running.wait(LONG).expect_code(1).says("changed while it was read");
    assert_eq!(names(&target), Vec::<String>::new());
    sandbox.is_clean(&[&target]);
}

#[test]
fn tree_becomes_archive_with_digest_file() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    sandbox.file(target.join("other"), "other");
    sandbox.run(&[&"--type=compress", &source, &target, &"--compress=gzip"]).expect_success();
    assert_eq!(names(&target), ["other", "source.tar.gz", "source.tar.gz.sha256"]);
    let checked =
        Command::new("sha256sum").args(["-c", "source.tar.gz.sha256"]).current_dir(&target).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    sandbox
        .run(&[&"--type=compress", &source, &target, &"--compress=gzip"])
        .expect_code(4)
        .says("source.tar.gz or its digest file already exists");
    sandbox.is_clean(&[&target]);
}

#[test]
fn options_without_effect_are_refused() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    sandbox
        .run(&[&source, &target, &"--prepare"])
        .expect_code(2)
        .says("--prepare has no effect with --type file");
    sandbox
        .run(&[&"--type=mariabackup", &source, &target])
        .expect_code(4)
        .says("give the socket of a server");
}
