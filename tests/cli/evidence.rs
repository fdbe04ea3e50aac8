//! Evidence of a good copy: digests of the files that were listed, never a program's exit status.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::support::holder::{Call, OPEN, Point};
use crate::support::local::agents::{READ, failing, is_staged, job, opens_in_copy, opens_in_source};
use crate::support::local::processes::names;
use crate::support::local::runs::LONG;
use crate::support::local::sandbox::Sandbox;

#[test]
fn file_turned_fifo_is_named_without_blocking() {
    for ignored in [false, true] {
        let Some(sandbox) = Sandbox::new() else { return };
        let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
        let file = sandbox.file(source.join("victim"), "data");
        let words = if ignored { "--ignore-changed" } else { "--ignore-changed=false" };
        let digesting = sandbox.trace(job(Point::Before(OPEN, |call| opens_in_source(call, "victim"))));
        let running = sandbox.spawn(&[&source, &target, &words]);
        digesting.reached();
        std::fs::remove_file(&file).unwrap();
        sandbox.fifo(&file);
        digesting.open();
        let ended = running.wait(LONG);
        if ignored {
            ended.expect_success().says("victim");
        } else {
            ended.expect_code(1).says("victim was replaced while its digest was computed");
            assert_eq!(names(&target), Vec::<String>::new());
        }
        sandbox.is_clean(&[&target]);
    }
}

#[test]
fn hanging_digest_hits_idle_timeout() {
    let of_source = job(Point::Before(OPEN, |call| opens_in_source(call, "small")));
    let of_copy = job(Point::Before(OPEN, |call| opens_in_copy(call, "small")));
    for side in [of_source, of_copy] {
        let Some(sandbox) = Sandbox::new() else { return };
        let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
        let _hanging = sandbox.trace(side);
        let began = Instant::now();
        let ended = sandbox.run(&[&source, &target, &"--idle-timeout", &"2"]);
        ended.expect_code(1).says("nothing was read for 2 s (--idle-timeout)");
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        assert_eq!(names(&target), Vec::<String>::new());
        sandbox.is_clean(&[&target]);
    }
}

#[test]
fn slow_digest_outlasts_idle_timeout() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    for name in ["slow1", "slow2", "slow3", "slow4", "slow5"] {
        sandbox.file(source.join(name), name);
    }
    let is_slow =
        |call: &Call| call.opened().to_string_lossy().starts_with("slow") && !is_staged(&call.descriptor(0));
    let _slow = sandbox.trace(job(Point::Slow(OPEN, is_slow, Duration::from_millis(1100))));
    // The tracer delays one thread at a time, so there is one.
    let ended = sandbox.run(&[&source, &target, &"--idle-timeout", &"3", &"--threads=1"]).expect_success();
    assert!(ended.took > Duration::from_secs(5), "{ended}");
    sandbox.is_clean(&[&target]);
}

#[test]
fn unreadable_file_is_no_change() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    sandbox.file(source.join("victim"), "data");
    let in_source =
        |call: &Call| call.descriptor(0).ends_with("source/victim") && !is_staged(&call.descriptor(0));
    let _failing = sandbox.trace(failing(READ, in_source, Errno::EIO));
    let ended = sandbox.run(&[&source, &target, &"--ignore-changed"]);
    ended.expect_code(1).says("victim: Input/output error");
    assert_eq!(names(&target), Vec::<String>::new());
    sandbox.is_clean(&[&target]);
}

#[test]
fn shrunk_file_is_always_compared() {
    for words in [&["--ignore-changed"][..], &["--ignore-changed", "--parallel-checksum"]] {
        let Some(sandbox) = Sandbox::new() else { return };
        let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
        sandbox.file(source.join("victim"), vec![b'x'; 100_000]);
        // As tar does when the second half of a file cannot be read.
        let shrank = r#"if [[ $* == *--create* ]]; then
            mkdir -p "${0%/*}/padded" && cp -a . "${0%/*}/padded/" && cd "${0%/*}/padded"
            time=$(stat -c %y victim); truncate -s 50000 victim; truncate -s 100000 victim; touch -d "$time" victim
            "$real" "$@"; echo "tar: ./victim: File shrank by 50000 bytes; padding with zeros" >&2; exit 1; fi"#;
        sandbox.shim("tar", shrank);
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&source, &target];
        all.extend(words.iter().map(|word| word as &dyn AsRef<std::ffi::OsStr>));
        let ended = sandbox.run(&all);
        ended.expect_code(3).says("victim (different contents)");
        assert_eq!(names(&target), Vec::<String>::new());
        sandbox.is_clean(&[&target]);
    }
}

#[test]
fn ignore_changed_requires_digests() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let ended = sandbox.run(&[&source, &target, &"--ignore-changed", &"--no-checksum"]);
    ended.expect_code(2).says("--ignore-changed cannot be used with --no-checksum");
}

#[test]
fn unset_attributes_fail_the_run_unless_dropped() {
    let lose = r#"[[ $* == *--extract* ]] && { for n in 1 2 3 4 5; do
        echo "tar: setxattrat: Cannot set 'user.a' extended attribute for file './source/$n': Operation not supported" >&2
        echo "tar: setxattrat: Cannot set 'user.b' extended attribute for file './source/$n': Operation not supported" >&2
        done; for n in {1..60}; do echo "tar: line $n" >&2; done
        echo "tar: setxattrat: Cannot set 'system.posix_acl_access' extended attribute for file './source/1': Operation not supported" >&2; }"#;
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    sandbox.shim("tar", lose);
    let ended = sandbox.run(&[&source, &target, &"--drop-attributes=acls"]);
    ended
        .expect_code(1)
        .says("tar cannot set extended attributes of 5 files (./source/1: Operation not supported, ");
    assert_eq!(names(&target), Vec::<String>::new());
    sandbox.is_clean(&[&target]);
    let ended = sandbox.run(&[&source, &target, &"--drop-attributes=acls,xattrs"]);
    ended.expect_success().says("dropped: extended attributes of 5 files, ACLs of 1 file");
    sandbox.run(&[&source, &target, &"--drop-attributes=all"]).expect_code(2).says("expected xattrs, acls");
}
