//! `--hook`: commands of the user before and after the work, however the run ends.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use transfer::proto::journal::{Record, Undo, encode};

use crate::support::local::agents::{UNLINK, failing, removes_staged};
use crate::support::local::holds::Point;
use crate::support::local::processes::names;
use crate::support::local::runs::{LONG, wait_until};
use crate::support::local::sandbox::Sandbox;

const SOON: Duration = Duration::from_secs(10);

/// A hook that adds a line to a file: its phase, and how the run has ended.
fn note(sandbox: &Sandbox, phase: &str) -> String {
    let file = sandbox.path("noted");
    let script = "$TRANSFER_HOOK_PHASE-$TRANSFER_HOOK_END $TRANSFER_HOOK_STATUS";
    format!("--hook={phase}=echo \"{script}\" >>'{}'", file.display())
}

fn noted(sandbox: &Sandbox) -> Vec<String> {
    let text = fs::read_to_string(sandbox.path("noted")).unwrap_or_default();
    text.lines().map(|line| line.trim_end().to_owned()).collect()
}

/// All phases.
fn all(sandbox: &Sandbox) -> Vec<String> {
    ["controller", "source", "target"]
        .iter()
        .flat_map(|end| ["before", "after"].map(|phase| note(sandbox, &format!("{phase}-{end}"))))
        .collect()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort_unstable();
    lines
}

#[test]
fn hooks_run_before_and_after_with_run_facts() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let hooks = all(&sandbox);
    let facts = sandbox.path("facts");
    let tell = format!("--hook=after-source=env | grep ^TRANSFER_HOOK | sort >'{}'; pwd", facts.display());
    let mut words: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&source, &target, &tell];
    words.extend(hooks.iter().map(|hook| hook as &dyn AsRef<std::ffi::OsStr>));
    sandbox.run(&words).expect_success();
    let lines = noted(&sandbox);
    assert_eq!(lines.first().unwrap(), "before-controller", "it is the first");
    assert_eq!(lines.last().unwrap(), "after-controller done", "and the last");
    assert_eq!(sorted(lines[1..3].to_vec()), ["before-source", "before-target"]);
    assert_eq!(sorted(lines[3..5].to_vec()), ["after-source done", "after-target done"]);
    let facts = fs::read_to_string(facts).unwrap();
    for fact in [
        "TRANSFER_HOOK_END=source",
        "TRANSFER_HOOK_PHASE=after",
        "TRANSFER_HOOK_RUN=20",
        &format!("TRANSFER_HOOK_SOURCE=localhost:{}", source.display()),
        "TRANSFER_HOOK_STATUS=done",
        &format!("TRANSFER_HOOK_TARGETS=localhost:{}", target.display()),
    ] {
        assert!(facts.contains(fact), "no {fact} in {facts}");
    }
    sandbox.is_clean(&[&target]);
}

#[test]
fn failed_before_hook_still_runs_after_hooks() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let (after_source, after_target) = (note(&sandbox, "after-source"), note(&sandbox, "after-target"));
    let fail = "--hook=before-target=echo nothing; echo 'it is pooled' >&2; exit 7";
    sandbox
        .run(&[&source, &target, &after_source, &fail, &after_target])
        .expect_code(1)
        .says("localhost: before-target hook failed with exit status 7: it is pooled");
    assert_eq!(sorted(noted(&sandbox)), ["after-source failed", "after-target failed"]);
    assert_eq!(names(&target), Vec::<String>::new());
    sandbox.is_clean(&[&target]);
}

#[test]
fn failed_after_hook_can_be_rerun() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let count = sandbox.path("count");
    let ready = sandbox.path("ready");
    let fail = format!(
        "--hook=after-target=echo again >>'{}'; [[ -e '{}' ]] || {{ echo not ready; exit 3; }}",
        count.display(),
        ready.display()
    );
    sandbox
        .run(&[&source, &target, &fail])
        .expect_code(6)
        .says("failed (exit status 3): not ready")
        .says(": done: ");
    assert_eq!(names(&target), ["source"]);
    assert_eq!(fs::read_to_string(&count).unwrap(), "again\n", "it was not repeated");
    sandbox
        .run(&[&"clean", &"localhost"])
        .expect_code(6)
        .says("NOT DONE: after-target hook `echo again")
        .says(" has failed, or was ended (run ")
        .says("); to run it: ")
        .says("clean --start-servers localhost");
    sandbox.file("ready", "");
    sandbox.run(&[&"clean", &"--start-servers", &"localhost"]).expect_success();
    assert_eq!(fs::read_to_string(&count).unwrap(), "again\nagain\n");
    sandbox.is_clean(&[&target]);
    // A hook that fails again stays until it has succeeded, or a user gives it up.
    fs::remove_file(&ready).unwrap();
    sandbox.run(&[&source, &target, &fail, &"--as", &"other"]).expect_code(6);
    for _ in 0..2 {
        let run = sandbox.run(&[&"clean", &"--start-servers", &"localhost"]).expect_code(6);
        run.says("failed (exit status 3): not ready (run ").says("clean --forget-hooks localhost");
    }
    sandbox.run(&[&"clean", &"localhost"]).expect_code(6).says(" has failed, or was ended (run ");
    let forgotten = sandbox.run(&[&"clean", &"--forget-hooks", &"localhost"]).expect_success();
    forgotten.says("forgotten: hook `echo again");
    assert_eq!(fs::read_to_string(&count).unwrap(), "again\n".repeat(5));
    sandbox.is_clean(&[&target]);
}

#[test]
fn forgotten_hook_never_runs_again() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let count = sandbox.path("count");
    let fail = format!("--hook=after-target=echo again >>'{}'; exit 3", count.display());
    sandbox.run(&[&source, &target, &fail]).expect_code(6);
    // A lease that cannot be undone, either.
    let journal = sandbox.journals().remove(0);
    let run = journal.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
    let staged = sandbox.dir(format!("target/.transfer-{run}"));
    let lease = encode(&Record::Lease(Undo::Staging { path: (&staged).into(), keep: false })).unwrap();
    fs::File::options().append(true).open(&journal).unwrap().write_all(&lease).unwrap();
    let failing = sandbox.trace(failing(UNLINK, removes_staged, Errno::EIO));
    let forgotten = sandbox.run(&[&"clean", &"--forget-hooks", &"localhost"]).expect_code(6);
    forgotten.says("forgotten: hook `echo again").says("NOT ROLLED BACK: staging directory ");
    let left = sandbox.run(&[&"clean", &"--start-servers", &"localhost"]).expect_code(6);
    left.says("NOT ROLLED BACK: staging directory ");
    drop(failing);
    assert_eq!(fs::read_to_string(&count).unwrap(), "again\n", "it ran once, in the run");
    sandbox.run(&[&"clean", &"localhost"]).expect_success();
}

/// Starts a run with hooks for afterwards, which is held in mid-stream.
fn held(
    sandbox: &Sandbox,
) -> (crate::support::local::holds::Hold, crate::support::local::runs::Running, PathBuf) {
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let hooks = all(sandbox);
    let mut words: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&source, &target];
    words.extend(hooks.iter().map(|hook| hook as &dyn AsRef<std::ffi::OsStr>));
    let running = sandbox.spawn(&words);
    hold.reached();
    (hold, running, target)
}

#[test]
fn after_hooks_run_when_controller_is_lost() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (_hold, running, target) = held(&sandbox);
    running.signal(Signal::SIGKILL);
    running.wait(SOON);
    wait_until("all hooks have run", LONG, || noted(&sandbox).len() == 6);
    let after = sorted(noted(&sandbox)[3..].to_vec());
    assert_eq!(after, ["after-controller lost", "after-source lost", "after-target lost"]);
    sandbox.gets_clean(&[&target], SOON);
}

#[test]
fn after_hooks_run_when_run_is_interrupted() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (_hold, running, target) = held(&sandbox);
    running.signal(Signal::SIGTERM);
    running.wait(SOON).expect_code(143);
    let after = sorted(noted(&sandbox)[3..].to_vec());
    assert_eq!(after, ["after-controller failed", "after-source failed", "after-target failed"]);
    sandbox.is_clean(&[&target]);
}

#[test]
fn before_hook_ends_with_interrupted_run() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let (begun, done) = (sandbox.path("begun"), sandbox.path("done"));
    let slow = format!("--hook=before-source=:>'{}'; sleep 61.375; :>'{}'", begun.display(), done.display());
    let running = sandbox.spawn(&[&source, &target, &slow, &note(&sandbox, "after-source")]);
    wait_until("the hook runs", LONG, || begun.exists());
    running.signal(Signal::SIGINT);
    running.wait(SOON).expect_code(130);
    assert_eq!(noted(&sandbox), ["after-source failed"]);
    let sleeps = std::process::Command::new("pgrep").args(["-f", "^sleep 61.375$"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&sleeps.stdout), "", "a process of the hook still runs");
    sandbox.is_clean(&[&target]);
}

#[test]
fn dry_run_lists_hooks_without_running_them() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let hooks = all(&sandbox);
    let mut words: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&source, &target, &"--dry-run"];
    words.extend(hooks.iter().map(|hook| hook as &dyn AsRef<std::ffi::OsStr>));
    sandbox
        .run(&words)
        .expect_success()
        .says("localhost (controller, agent ")
        .says("after everything else, however the run ends: echo");
    assert_eq!(noted(&sandbox), Vec::<String>::new());
}
