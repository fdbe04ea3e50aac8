//! Several targets, and several runs, at once.

use std::fs;

use crate::support::local::holds::{Point, Role};
use crate::support::local::processes::names;
use crate::support::local::runs::LONG;
use crate::support::local::sandbox::Sandbox;
use crate::support::local::trees::{assert_same, odd_tree};

#[test]
fn several_targets_are_fed_from_one_read() {
    let Some(sandbox) = Sandbox::new() else { return };
    let reads = sandbox.path("reads");
    sandbox.replace(Role::Pack, &format!("echo read >>'{}'; exec \"$real\" \"$@\"", reads.display()));
    let source = odd_tree(&sandbox, "tree".as_ref());
    let targets = ["one", "two", "three"].map(|name| sandbox.dir(name));
    let ended = sandbox.run(&[&source, &targets[0], &targets[1], &targets[2]]).expect_success();
    assert_eq!(ended.stdout.matches(": done: ").count(), 3, "{ended}");
    for target in &targets {
        assert_same(&source, &target.join("tree"));
        sandbox.is_clean(&[target]);
    }
    assert_eq!(fs::read_to_string(reads).unwrap(), "read\n");
}

#[test]
fn several_targets_work_with_every_encoding() {
    let Some(sandbox) = Sandbox::new() else { return };
    let source = sandbox.source("source");
    for (compress, encrypt) in
        [("--compress", "--no-encrypt"), ("--no-compress", "--encrypt"), ("--no-compress", "--no-encrypt")]
    {
        let targets = ["one", "two"].map(|name| sandbox.dir(format!("{name}{compress}{encrypt}")));
        sandbox.run(&[&source, &targets[0], &targets[1], &compress, &encrypt]).expect_success();
        for target in &targets {
            assert_same(&source, &target.join("source"));
            sandbox.is_clean(&[target]);
        }
    }
}

#[test]
fn failed_target_spares_the_others() {
    let Some(sandbox) = Sandbox::new() else { return };
    let script = r#"[[ $PWD == */broken/* ]] || exec "$real" "$@"; echo "no space left" >&2; exit 2"#;
    sandbox.replace(Role::Unpack, script);
    let source = sandbox.source("source");
    let (first, broken, last) = (sandbox.dir("first"), sandbox.dir("broken"), sandbox.dir("last"));
    let ended = sandbox.run(&[&source, &first, &broken, &last]).expect_code(1);
    assert_eq!(format!("{ended}").matches(": done: ").count(), 2, "{ended}");
    ended.says("broken: FAILED: ").says("no space left");
    assert_same(&source, &first.join("source"));
    assert_same(&source, &last.join("source"));
    assert_eq!(names(&broken), Vec::<String>::new());
    sandbox.is_clean(&[&first, &broken, &last]);
}

#[test]
fn target_without_listener_spares_the_others() {
    let Some(sandbox) = Sandbox::new() else { return };
    sandbox.replace(
        Role::Receive,
        r#"[[ $PWD == */deaf/* ]] || exec "$real" "$@"; echo "no listening today" >&2; exit 1"#,
    );
    let source = sandbox.source("source");
    let (deaf, good) = (sandbox.dir("deaf"), sandbox.dir("good"));
    let ended = sandbox.run(&[&source, &deaf, &good]).expect_code(1).says("good/source: done: ");
    ended.says("deaf: FAILED: localhost: the receiver did not listen on port").says("no listening today");
    assert_same(&source, &good.join("source"));
    assert_eq!(names(&deaf), Vec::<String>::new());
    sandbox.is_clean(&[&deaf, &good]);
}

#[test]
fn verification_failure_outranks_other_failures() {
    let Some(sandbox) = Sandbox::new() else { return };
    sandbox.replace(Role::Unpack, r#"[[ $PWD == */altered/* ]] || exit 2; "$real" "$@" && rm source/small"#);
    let source = sandbox.source("source");
    let (broken, altered) = (sandbox.dir("broken"), sandbox.dir("altered"));
    let ended = sandbox.run(&[&source, &broken, &altered]).expect_code(3);
    ended.says("broken: FAILED: ").says("altered: FAILED: ").says("source/small is missing on the target");
    sandbox.is_clean(&[&broken, &altered]);
}

#[test]
fn failed_source_is_reported_for_every_target() {
    let Some(sandbox) = Sandbox::new() else { return };
    sandbox.replace(Role::Pack, r#""$real" "$@" | head -c 600000; exit 2"#);
    let source = sandbox.source("source");
    let targets = ["one", "two"].map(|name| sandbox.dir(name));
    let ended = sandbox.run(&[&source, &targets[0], &targets[1]]).expect_code(1);
    assert_eq!(ended.stderr.matches("FAILED: localhost: tar ended with status 2").count(), 2, "{ended}");
    for target in &targets {
        assert_eq!(names(target), Vec::<String>::new());
        sandbox.is_clean(&[target]);
    }
}

#[test]
fn concurrent_runs_do_not_collide() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let source = sandbox.source("source");
    let targets = ["one", "two", "three", "four"].map(|name| sandbox.dir(name));
    let runs = targets.each_ref().map(|target| sandbox.spawn(&[&source, target]));
    hold.reached_by(runs.len());
    assert_eq!(sandbox.journals().len(), 2 * runs.len());
    // One each; a port that was lost to another process stays locked until the end.
    let locks = names(&sandbox.runtime()).iter().filter(|name| name.starts_with("port.")).count();
    assert!(locks >= runs.len(), "{locks}");
    hold.open();
    for (run, target) in runs.into_iter().zip(&targets) {
        let _ = run.wait(LONG).expect_success();
        assert_same(&source, &target.join("source"));
    }
    for target in &targets {
        sandbox.is_clean(&[target]);
    }
}
