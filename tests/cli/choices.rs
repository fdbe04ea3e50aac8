//! Options that choose the state of the copy, what is left out, and how it is transferred.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use nix::errno::Errno;
use nix::libc::{SYS_fdatasync, SYS_fsync, SYS_ioctl, SYS_syncfs};
use nix::sys::signal::Signal;

use crate::support::holder::{Call, OPEN, Point, Role, Spec};
use crate::support::local::agents::{
    PUBLISHED, PUBLISHING, READ, SYNC, failing, is_staged, job, opens_in_copy, opens_in_source, serve,
};
use crate::support::local::holds;
use crate::support::local::processes::{names, staging};
use crate::support::local::runs::LONG;
use crate::support::local::sandbox::Sandbox;
use crate::support::local::trees::{assert_same, walk};

/// The small file of the source cannot be read.
const UNREADABLE: Spec = failing(
    READ,
    |call| call.descriptor(0).ends_with("source/small") && !is_staged(&call.descriptor(0)),
    Errno::EIO,
);
/// Request for the flags of a file.
const GETFLAGS: u64 = 0x8008_6601;
/// Flag of a directory whose names ignore case.
const CASEFOLD: u32 = 0x4000_0000;
/// Every sync of an agent, with the number of its call.
static SYNCS: Mutex<Vec<(i64, PathBuf)>> = Mutex::new(Vec::new());
/// Holds nothing, and notes syncs.
const NOTING_SYNCS: Spec =
    Spec { roles: Role::ALL, point: Point::Before(&[SYS_fsync, SYS_fdatasync, SYS_syncfs], note_sync) };

fn note_sync(call: &Call) -> bool {
    SYNCS.lock().unwrap().push((call.number, call.descriptor(0)));
    false
}

#[test]
fn every_compressor_and_level_preserves_bytes() {
    let Some(sandbox) = Sandbox::new() else { return };
    let source = sandbox.source("source");
    for (n, (words, stage)) in [
        (&["--compress=zstd", "--compress-level", "3", "--threads", "2"][..], "zstd -q -3 -T2 -c"),
        (&["--compress=pigz", "--compress-level=9", "--threads=1"], "pigz -9 -p 1 -c"),
        (&["--compress=gzip"], "gzip -1 -c"),
        (&["--compress=lz4", "--compress-level", "12"], "lz4 -12 -c"),
    ]
    .into_iter()
    .enumerate()
    {
        let target = sandbox.dir(format!("target{n}"));
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&source, &target];
        all.extend(words.iter().map(|word| word as &dyn AsRef<std::ffi::OsStr>));
        sandbox.run(&all).expect_success();
        assert_same(&source, &target.join("source"));
        all.push(&"--dry-run");
        all.push(&"--as=other");
        sandbox.run(&all).expect_success().says(stage);
        sandbox.is_clean(&[&target]);
    }
}

#[test]
fn files_are_compared_by_requested_digest() {
    let Some(sandbox) = Sandbox::new() else { return };
    let source = sandbox.source("source");
    for (algorithm, name) in [("md5", "MD5"), ("sha256", "SHA-256"), ("blake2b", "BLAKE2b")] {
        let target = sandbox.dir(algorithm);
        let says = format!("{name} of 2 files (read back from both disks)");
        sandbox.run(&[&source, &target, &"--checksum-algorithm", &algorithm]).expect_success().says(&says);
    }
}

#[test]
fn host_programs_run_with_requested_niceness() {
    let Some(sandbox) = Sandbox::new() else { return };
    sandbox.shim("tar", "echo \"$(nice) $(ionice)\" >>\"${0%/*}/../niceness\"");
    let (source, one, two) = (sandbox.source("source"), sandbox.dir("one"), sandbox.dir("two"));
    sandbox.run(&[&source, &one]).expect_success();
    sandbox.run(&[&source, &two, &"--nice=7"]).expect_success();
    let niceness = fs::read_to_string(sandbox.path("niceness")).unwrap();
    let runs: Vec<&str> = niceness.lines().filter(|line| line.contains(' ')).collect();
    // The tests may have been started by `nice`.
    let own = String::from_utf8(Command::new("nice").output().unwrap().stdout).unwrap();
    let own: u8 = own.trim().parse().unwrap();
    assert!(runs.iter().any(|line| line.starts_with(&format!("{own} "))), "{niceness}");
    let stood_back = format!("{} best-effort: prio 7", (own + 7).min(19));
    assert!(runs.contains(&stood_back.as_str()), "{niceness}");
}

#[test]
fn excluded_files_are_neither_sent_nor_compared() {
    let Some(sandbox) = Sandbox::new() else { return };
    let source = sandbox.dir("source");
    for file in ["keep", "a.log", "logs/b.log", "logs/keep", "tmp/x", "deep/tmp/y", "deep/a b[1]", "star*x"] {
        let path = source.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, file).unwrap();
    }
    let target = sandbox.dir("target");
    let words = ["--exclude", "*.log", "--exclude=/tmp", "--exclude", "a b\\[1]", "--exclude", "star\\*x"];
    sandbox
        .run(&[&source, &target, &words[0], &words[1], &words[2], &words[3], &words[4], &words[5], &words[6]])
        .expect_success()
        .says("3 files (read back from both disks)");
    let mut arrived = walk(&target.join("source"));
    arrived.sort();
    let expected = ["", "deep", "deep/tmp", "deep/tmp/y", "keep", "logs", "logs/keep"].map(PathBuf::from);
    assert_eq!(arrived, expected);
    // No pattern matches the source itself, and the source's own name is not part of a pattern.
    let odd = sandbox.dir("odd [name]*");
    sandbox.file(odd.join("x"), "");
    sandbox.run(&[&odd, &target, &"--exclude", &"odd*", &"--exclude", &"/y"]).expect_success();
    assert_same(&odd, &target.join("odd [name]*"));
}

#[test]
fn requested_name_is_checked_and_published() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    sandbox.run(&[&source, &target, &"--as", &"new name"]).expect_success();
    assert_same(&source, &target.join("new name"));
    sandbox.run(&[&source, &target, &"--as", &"new name"]).expect_code(4).says("new name already exists");
    sandbox.run(&[&source, &target, &"--as", &"a/b"]).expect_code(2).says("no slash");
    sandbox.is_clean(&[&target]);
}

#[test]
fn old_data_is_replaced_and_removed_or_kept() {
    let Some(sandbox) = Sandbox::new() else { return };
    let source = sandbox.source("source");
    for old in ["file", "directory", "link"] {
        let target = sandbox.dir(format!("target of {old}"));
        let name = target.join("source");
        let make = || match old {
            "file" => drop(sandbox.file(&name, "old")),
            "directory" => {
                sandbox.dir(&name);
                sandbox.file(name.join("old"), "old");
            }
            _ => symlink("/nowhere", &name).unwrap(),
        };
        make();
        sandbox.run(&[&source, &target, &"--replace"]).expect_success();
        assert_same(&source, &name);
        assert_eq!(names(&target), ["source"]);
        fs::remove_dir_all(&name).unwrap();
        make();
        let inode = fs::symlink_metadata(&name).unwrap().ino();
        let ended = sandbox.run(&[&source, &target, &"--replace", &"--keep-old"]).expect_success();
        assert_same(&source, &name);
        let all = names(&target);
        let kept = all.iter().find(|name| name.starts_with("source.old-")).unwrap();
        assert_eq!((all.len(), fs::symlink_metadata(target.join(kept)).unwrap().ino()), (2, inode));
        ended.says(&format!("the old data is now {}/{kept}", target.display()));
        sandbox.is_clean(&[&target]);
    }
    // --replace without an old copy.
    let target = sandbox.dir("empty");
    sandbox.run(&[&source, &target, &"--replace", &"--keep-old"]).expect_success();
    assert_eq!(names(&target), ["source"]);
}

#[test]
fn directory_mode_is_restored_after_any_kill() {
    for all in [false, true] {
        let Some(sandbox) = Sandbox::new() else { return };
        let closed = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o555)).unwrap();
        let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
        let name = sandbox.dir("target/source");
        sandbox.file(name.join("old"), "old");
        closed(&source);
        closed(&name);
        // An operation that was completed is not taken back.
        let hold = sandbox.trace(if all { PUBLISHING } else { PUBLISHED });
        let running = sandbox.spawn(&[&source, &target, &"--replace"]);
        hold.reached();
        assert_eq!(fs::metadata(&name).unwrap().mode() & 0o777, 0o755, "or the test shows nothing");
        if all {
            sandbox.kill_keepers("target1");
        } else {
            sandbox.agent(&running, "target1").signal(Signal::SIGKILL);
        }
        running.wait(LONG).expect_code(1).says("lost contact with the agent");
        assert_eq!(fs::metadata(&name).unwrap().mode() & 0o777, 0o555);
        assert_eq!((names(&target).len(), name.join("old").exists()), (1, all));
        if !all {
            assert_same(&source, &name);
        }
        sandbox.is_clean(&[&target]);
    }
}

#[test]
fn failed_copy_keeps_the_old_data() {
    let Some(sandbox) = Sandbox::new() else { return };
    let _failing = sandbox.trace(UNREADABLE);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let name = sandbox.file("target/source", "old");
    for words in [&["--replace"][..], &["--replace", "--keep-old"]] {
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&source, &target];
        all.extend(words.iter().map(|word| word as &dyn AsRef<std::ffi::OsStr>));
        sandbox.run(&all).expect_code(1);
        assert_eq!((fs::read_to_string(&name).unwrap().as_str(), names(&target).len()), ("old", 1));
        sandbox.is_clean(&[&target]);
    }
}

#[test]
fn source_is_never_replaced() {
    let Some(sandbox) = Sandbox::new() else { return };
    let source = sandbox.source("source");
    let link = sandbox.path("link");
    symlink(sandbox.path(""), &link).unwrap();
    for directory in [sandbox.path(""), link] {
        sandbox.run(&[&source, &directory, &"--replace"]).expect_code(4).says("is or contains the source");
    }
    let (inner, outer) = (sandbox.source("source/inner"), sandbox.path(""));
    sandbox
        .run(&[&inner, &outer, &"--replace", &"--as", &"source"])
        .expect_code(4)
        .says("is or contains the source");
    assert!(inner.exists());
}

#[test]
fn keep_staging_keeps_only_failed_copies() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    sandbox.run(&[&source, &target, &"--keep-staging"]).expect_success();
    assert_eq!(names(&target), ["source"], "the empty staging directory went");
    fs::remove_dir_all(target.join("source")).unwrap();
    let failing = sandbox.trace(UNREADABLE);
    let ended = sandbox
        .run(&[&source, &target, &"--keep-staging"])
        .expect_code(1)
        .says("partial copy kept (--keep-staging): ");
    let staging = names(&target);
    assert!(staging.len() == 1 && staging[0].starts_with(".transfer-"), "{staging:?}");
    assert_same(&source, &target.join(&staging[0]).join("copy/source"));
    ended.says(&staging[0]);
    drop(failing);
    sandbox.run(&[&"status", &"localhost"]).expect_success().says("no runs");
}

#[test]
fn no_fsync_skips_data_syncs() {
    let Some(sandbox) = Sandbox::new() else { return };
    let _syncs = sandbox.trace(NOTING_SYNCS);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    sandbox.run(&[&source, &target, &"--no-fsync"]).expect_success();
    let syncs = SYNCS.lock().unwrap().clone();
    let is_of_data = |(number, path): &(i64, PathBuf)| *number == SYS_syncfs || path.starts_with(&target);
    assert!(!syncs.iter().any(is_of_data), "{syncs:?}");
    assert!(syncs.iter().any(|(_, path)| path.ends_with("journal.bin")), "{syncs:?}");
    assert_same(&source, &target.join("source"));
}

#[test]
fn max_duration_rolls_the_run_back() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(holds::Point::Connect);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    // More than the time until it is held, even on a busy machine.
    let running = sandbox.spawn(&[&source, &target, &"--max-duration", &"8"]);
    hold.reached();
    let ended = running.wait(LONG).expect_code(1);
    hold.open();
    ended.says("not done within 8 s (--max-duration)");
    sandbox.is_clean(&[&target]);
}

#[test]
fn second_run_to_same_name_is_busy() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let link = sandbox.path("link");
    symlink(&target, &link).unwrap();
    let hold = sandbox.hold(holds::Point::Connect);
    let first = sandbox.spawn(&[&source, &target]);
    hold.reached();
    for path in [&target, &link] {
        let busy = sandbox.run(&[&source, path]).expect_code(5);
        busy.says("another run writes to")
            .says(" of ")
            .says("(pid ")
            .says(", since 20")
            .says("transfer status localhost");
    }
    let busy = sandbox.run(&[&source, &target, &"--replace"]).expect_code(5);
    busy.says("another run writes to");
    // Another name in the same directory is free.
    hold.open();
    sandbox.run(&[&source, &link, &"--as", &"other"]).expect_success();
    first.wait(LONG).expect_success();
    assert_eq!(names(&target), ["other", "source"]);
    sandbox.is_clean(&[&target]);
}

#[test]
fn ports_locked_by_transferpy_are_not_used() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let port = Sandbox::port();
    let lock = Path::new("/tmp").join(format!("trnsfr_test-{port}_{port}.lock"));
    fs::create_dir(&lock).unwrap();
    let ended = sandbox.run(&[&source, &target, &"--port", &port.to_string()]);
    fs::remove_dir(&lock).unwrap();
    ended.expect_code(5).says(&format!("port {port} is taken"));
    sandbox.run(&[&source, &target, &"--port-range", &port.to_string()]).expect_success();
}

#[test]
fn changes_during_copy_fail_unless_ignored() {
    for ignored in [false, true] {
        let Some(sandbox) = Sandbox::new() else { return };
        let source = sandbox.source("source");
        for file in ["grows", "goes", "stays"] {
            fs::write(source.join(file), vec![b'x'; 1000]).unwrap();
        }
        // Between the stream and the digests: tar has read something else than what is there now.
        let digesting = sandbox.trace(job(Point::Before(OPEN, |call| opens_in_source(call, "grows"))));
        let target = sandbox.dir("target");
        let words = if ignored { "--ignore-changed" } else { "--ignore-changed=false" };
        let running = sandbox.spawn(&[&source, &target, &words]);
        digesting.reached();
        fs::write(source.join("grows"), vec![b'x'; 1005]).unwrap();
        fs::remove_file(source.join("goes")).unwrap();
        sandbox.file(source.join("new"), "new");
        digesting.open();
        let ended = running.wait(LONG);
        if ignored {
            ended.expect_success().says("changed during the copy");
            assert_eq!(fs::read(target.join("source/stays")).unwrap().len(), 1000);
        } else {
            assert!(matches!(ended.status.code(), Some(1 | 3)), "{ended}");
            assert_eq!(names(&target), Vec::<String>::new());
        }
        sandbox.is_clean(&[&target]);
    }
}

#[test]
fn vanishing_directory_fails_unless_ignored() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let vanishes = |ignored: &str| {
        let vanishing = sandbox.dir("source/vanishing");
        let listing = sandbox.trace(job(Point::Before(OPEN, |call| opens_in_source(call, "vanishing"))));
        let running = sandbox.spawn(&[&source, &target, &ignored]);
        listing.reached();
        fs::remove_dir(vanishing).unwrap();
        listing.open();
        running.wait(LONG)
    };
    vanishes("--ignore-changed=false").expect_code(1).says("cannot list and digest the files");
    sandbox.is_clean(&[&target]);
    vanishes("--ignore-changed").expect_success();
    sandbox.is_clean(&[&target]);
}

#[test]
fn unexplained_difference_is_never_ignored() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    // The copy differs from what was sent, and the source has not changed.
    let digesting = sandbox.trace(job(Point::Before(OPEN, |call| opens_in_copy(call, "small"))));
    let running = sandbox.spawn(&[&source, &target, &"--ignore-changed"]);
    digesting.reached();
    fs::write(staging(&target)[0].join("copy/source/small"), "other\n").unwrap();
    digesting.open();
    running.wait(LONG).expect_code(3).says("differ");
    assert_eq!(names(&target), Vec::<String>::new());
}

#[test]
fn failed_directory_sync_keeps_the_old_data() {
    for words in [&[][..], &["--replace"], &["--replace", "--keep-old"]] {
        let Some(sandbox) = Sandbox::new() else { return };
        let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
        let before = if words.is_empty() { vec![] } else { vec!["source".to_owned()] };
        let old = if words.is_empty() { None } else { Some(sandbox.file("target/source", "old")) };
        let _failing =
            sandbox.trace(failing(SYNC, |call| call.descriptor(0).ends_with("target"), Errno::EIO));
        let mut all: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&source, &target];
        all.extend(words.iter().map(|word| word as &dyn AsRef<std::ffi::OsStr>));
        sandbox
            .run(&all)
            .expect_code(1)
            .says("would not survive a power cut and is left as it was: cannot sync ")
            .says(": Input/output error");
        assert_eq!(names(&target), before);
        assert!(old.is_none_or(|old| fs::read_to_string(old).unwrap() == "old"));
        sandbox.is_clean(&[&target]);
    }
}

#[test]
fn only_data_seen_by_preflight_is_replaced() {
    for existed in [false, true] {
        let Some(sandbox) = Sandbox::new() else { return };
        let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
        let name = target.join("source");
        if existed {
            sandbox.file(&name, "old");
        }
        let hold = sandbox.hold(holds::Point::Connect);
        let running = sandbox.spawn(&[&source, &target, &"--replace"]);
        hold.reached();
        // Another file with the same name, while the first one keeps its inode.
        let _ = fs::rename(&name, sandbox.path("old"));
        sandbox.file(&name, "precious");
        hold.open();
        running
            .wait(LONG)
            .expect_code(1)
            .says("was created by another process during the copy and is left as it is");
        assert_eq!(fs::read_to_string(&name).unwrap(), "precious");
        assert_eq!(names(&target), ["source"]);
    }
}

#[test]
fn replacing_syncs_the_copy_despite_no_fsync() {
    let Some(sandbox) = Sandbox::new() else { return };
    let _syncs = sandbox.trace(NOTING_SYNCS);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    sandbox.file("target/source", "old");
    sandbox.run(&[&source, &target, &"--replace", &"--no-fsync"]).expect_success();
    let syncs = SYNCS.lock().unwrap().clone();
    let of_copy = |(number, path): &(i64, PathBuf)| *number == SYS_syncfs && is_staged(path);
    assert!(syncs.iter().any(of_copy), "{syncs:?}");
    assert!(syncs.iter().any(|(_, path)| *path == target), "{syncs:?}");
}

#[test]
fn names_differing_only_in_case_are_refused() {
    let Some(sandbox) = Sandbox::new() else { return };
    // The file systems of both ends ignore case, says the kernel.
    let _ignoring = sandbox.trace(serve(Point::After(&[SYS_ioctl], |call| {
        if call.flags(1) == GETFLAGS {
            call.put(2, 0, &CASEFOLD.to_ne_bytes());
        }
        false
    })));
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    sandbox.run(&[&source, &target]).expect_success();
    sandbox.file(source.join("SMALL"), "");
    let reported = "another name differs from source/small only in case";
    sandbox.run(&[&source, &target, &"--as", &"other"]).expect_code(4).says(reported);
    sandbox
        .run(&[&source, &target, &"--as", &"other", &"--exclude", &"SMALL"])
        .expect_success()
        .says("excluded: SMALL");
}

#[test]
fn findings_are_reported_all_at_once() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (missing, target) = (sandbox.path("missing"), sandbox.path("nowhere"));
    let ended = sandbox.run(&[&missing, &target, &"--stop-slave"]).expect_code(4);
    ended
        .says("missing does not exist; check the path")
        .says("nowhere does not exist; mkdir ")
        .says("--stop-replication has no effect");
}
