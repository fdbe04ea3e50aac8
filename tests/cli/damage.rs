//! Damage without a failing status: a byte on the wire, a byte on the disk, an incomplete list.

use crate::support::local::holds::Role;
use crate::support::local::processes::names;
use crate::support::local::sandbox::Sandbox;

/// Receives the stream and changes one byte of it.
const FLIP: &str = r#""$real" "$@" |
    { head -c 5000; head -c 1 | LC_ALL=C tr '\000-\377' '\001-\377\000'; exec cat; }"#;

#[test]
fn byte_flipped_on_wire_fails_verification() {
    for encryption in ["--encrypt", "--no-encrypt"] {
        let Some(sandbox) = Sandbox::new() else { return };
        sandbox.replace(Role::Receive, FLIP);
        let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
        let ended = sandbox
            .run(&[&source, &target, &"--no-compress", &"--parallel-checksum", &encryption])
            .expect_code(3);
        ended.says("the stream was altered on its way");
        assert_eq!(names(&target), Vec::<String>::new());
        sandbox.is_clean(&[&target]);
    }
}

#[test]
fn byte_flipped_in_compressed_stream_fails_the_run() {
    let Some(sandbox) = Sandbox::new() else { return };
    sandbox.replace(Role::Receive, FLIP);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let ended = sandbox.run(&[&source, &target]);
    // Which stage sees it first is a race; that the run fails is certain.
    assert!(matches!(ended.status.code(), Some(1 | 3)), "{ended}");
    assert_eq!(names(&target), Vec::<String>::new());
    sandbox.is_clean(&[&target]);
}

#[test]
fn byte_flipped_on_target_disk_names_the_file() {
    let Some(sandbox) = Sandbox::new() else { return };
    sandbox
        .replace(Role::Unpack, r#""$real" "$@" && printf S | dd of=source/small conv=notrunc status=none"#);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    sandbox
        .run(&[&source, &target])
        .expect_code(3)
        .says("1 entry differs: source/small (different contents)");
    assert_eq!(names(&target), Vec::<String>::new());
    sandbox.is_clean(&[&target]);
    // The digest of the stream does not cover this, and the output does not claim so.
    let reported = sandbox.run(&[&source, &target, &"--parallel-checksum"]).expect_success();
    assert!(!reported.stdout.contains("both disks"), "{reported}");
}

#[test]
fn missing_file_is_named_without_digests() {
    let Some(sandbox) = Sandbox::new() else { return };
    sandbox.replace(Role::Unpack, r#""$real" "$@" && rm source/small"#);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let plain = ["--no-checksum", "--no-encrypt"];
    let ended = sandbox.run(&[&source, &target, &plain[0], &plain[1]]).expect_code(3);
    ended.says("1 entry differs: source/small is missing on the target");
    assert_eq!(names(&target), Vec::<String>::new());
    sandbox.is_clean(&[&target]);
}

#[test]
fn truncated_stream_publishes_nothing() {
    let Some(sandbox) = Sandbox::new() else { return };
    // The connection ends in the middle, and every status is 0.
    sandbox.replace(Role::Receive, r#""$real" "$@" | { head -c 1000000; cat >/dev/null; }"#);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    for compression in ["--compress", "--no-compress"] {
        let ended = sandbox.run(&[&source, &target, &compression]);
        assert!(matches!(ended.status.code(), Some(1 | 3)), "{ended}");
        assert_eq!(names(&target), Vec::<String>::new());
        sandbox.is_clean(&[&target]);
    }
}

#[test]
fn failed_stage_is_named_with_status_and_message() {
    let Some(sandbox) = Sandbox::new() else { return };
    sandbox.replace(Role::Unpack, r#""$real" "$@"; echo "the disk is on fire" >&2; exit 7"#);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let ended = sandbox.run(&[&source, &target]).expect_code(1);
    ended.says("tar ended with status 7").says("the disk is on fire");
    assert_eq!(names(&target), Vec::<String>::new());
    sandbox.is_clean(&[&target]);
}
