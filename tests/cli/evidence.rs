//! Evidence of a good copy: digests of the files that were listed, never a program's exit status.

use std::time::{Duration, Instant};

use crate::support::local::processes::names;
use crate::support::local::sandbox::Sandbox;

/// Runs the rest of the shim after the files for the digests were listed, and before they are opened.
const LISTED: &str = r#"[[ $* == *%D:%i*%p* && $PWD != *.transfer-* ]] || exec "$real" "$@"
list=$(mktemp); "$real" "$@" >"$list""#;

#[test]
fn file_turned_fifo_is_named_without_blocking() {
    for ignored in [false, true] {
        let Some(sandbox) = Sandbox::new() else { return };
        let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
        let file = sandbox.file(source.join("victim"), "data");
        let path = file.display();
        sandbox.shim(
            "find",
            &format!("{LISTED}; rm -f {path}; mkfifo {path}; cat \"$list\"; rm -f \"$list\"; exit"),
        );
        let words = if ignored { "--ignore-changed" } else { "--ignore-changed=false" };
        let ended = sandbox.run(&[&source, &target, &words]);
        if ignored {
            ended.expect_success().says("victim");
        } else {
            ended.expect_code(1).says("victim was replaced while its digest was taken");
            assert_eq!(names(&target), Vec::<String>::new());
        }
        sandbox.is_clean(&[&target]);
    }
}

#[test]
fn hanging_digest_hits_idle_timeout() {
    for side in ["!=", "=="] {
        let Some(sandbox) = Sandbox::new() else { return };
        let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
        sandbox.shim("md5sum", &format!("[[ $PWD {side} *.transfer-* ]] && kill -STOP $$"));
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
    // Reads something every second.
    sandbox.shim(
        "md5sum",
        "for ((n = 0; n < 5; n++)); do head -c 1000 /dev/zero >/dev/null; read -r -t 1 < <(sleep 1.1); done",
    );
    sandbox.run(&[&source, &target, &"--idle-timeout", &"3"]).expect_success();
    sandbox.is_clean(&[&target]);
}

#[test]
fn unreadable_file_is_no_change() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    sandbox.file(source.join("victim"), "data");
    let fail = r#"for last; do [[ $(readlink -- "$last") == */victim ]] && { echo "md5sum: $last: Input/output error" >&2; exit 1; }; done"#;
    sandbox.shim("md5sum", fail);
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
