//! Output: help, plans, reports; and terminals that are gone.

use std::process::Stdio;

use crate::support::local::processes::names;
use crate::support::local::runs::{LONG, Running};
use crate::support::local::sandbox::Sandbox;
use crate::support::local::trees::{assert_same, walk};

/// Returns every long option in the help.
fn options() -> Vec<String> {
    let help = Sandbox::own().run(&[&"--help"]).expect_success().stdout;
    let words = help.split(|c: char| c.is_whitespace() || ",;:[<".contains(c));
    words.filter(|word| word.starts_with("--") && !word.ends_with('-')).map(ToOwned::to_owned).collect()
}

#[test]
fn help_lists_exit_codes_and_commands() {
    let sandbox = Sandbox::own();
    let ended = sandbox.run(&[&"--help"]).expect_success();
    let text = ended.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for code in
        ["0 done", "1 failed", "2 usage", "3 verif", "4 refused", "5 busy", "6 not everything", "128+N"]
    {
        assert!(text.contains(code), "{code}: {ended}");
    }
    ended.says("transfer status HOST").says("transfer clean HOST").says("4400-4500");
}

/// `-h` fits into one screen of 80 columns and leads to the rest.
#[test]
fn short_help_is_one_screen() {
    let sandbox = Sandbox::own();
    for command in [&[&"-h" as &dyn AsRef<std::ffi::OsStr>][..], &[&"replica", &"-h"]] {
        let ended = sandbox.run(command).expect_success();
        let lines: Vec<&str> = ended.stdout.lines().collect();
        assert!(lines.len() <= 29, "{} lines: {ended}", lines.len());
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{ended}");
        assert_eq!(lines.iter().filter(|line| line.starts_with("  transfer ")).count(), 3, "{ended}");
        ended.says("--help").says("--dry-run");
    }
}

#[test]
fn reference_lists_every_option() {
    let reference = include_str!("../../docs/reference.md");
    for option in options().iter().filter(|option| *option != "--help" && *option != "--version") {
        let row = |line: &str| {
            line.starts_with("| ") && line.contains(&format!("`{option}")) && line.matches(" | ").count() >= 2
        };
        assert!(reference.lines().any(row), "{option} is in no row of the table");
    }
}

#[test]
fn dry_run_prints_steps_and_undos() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let before = walk(&sandbox.path(""));
    let ended = sandbox.run(&[&source, &target, &"--dry-run"]).expect_success();
    let mut after = walk(&sandbox.path(""));
    // The login's directory for states of programs stays.
    after.retain(|path| path != std::path::Path::new("state"));
    assert_eq!(after, before, "neither staging nor state");
    let undos = ended.stdout.matches("\n    rollback  ").count();
    assert!(undos >= 4, "{ended}");
    let staging = format!("rm -rf {}/.transfer-", target.display());
    let publish = format!("to {}/source, never over an existing one", target.display());
    ended
        .says("localhost (target, agent ")
        .says("localhost (source, agent ")
        .says(&staging)
        .says(&publish)
        .says("the first free port of 4400-4500")
        .says("tar --create")
        .says("tar --extract")
        .says("2 files, 2097158 bytes")
        .says("dry run: nothing was changed");
    sandbox.is_clean(&[&target]);
    // A dry run refuses the same as the run.
    sandbox.run(&[&source, &sandbox.path("missing"), &"--dry-run"]).expect_code(4);
}

#[test]
fn good_run_prints_three_lines() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let ended = sandbox.run(&[&source, &target]).expect_success();
    let line = format!("localhost:{}/source: done: 2.00 MiB in 3 entries, ", target.display());
    assert!(ended.stdout.starts_with(&line) && ended.stdout.lines().count() == 4, "{ended}");
    assert!(!ended.stderr.contains("DEBUG") && !ended.stderr.contains('\x1b'), "{ended}");
    let verbose = sandbox.run(&[&source, &sandbox.dir("another"), &"-v"]).expect_success();
    assert!(verbose.stderr.contains("create the staging directory"), "{verbose}");
}

#[test]
fn closed_outputs_end_no_run() {
    for script in ["exec \"$@\" >&- 2>&-", "exec \"$@\" <&- >&- 2>&-"] {
        let Some(sandbox) = Sandbox::new() else { return };
        let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
        Running::start(sandbox.scripted(script, &[&source, &target, &"-v"])).wait(LONG).expect_success();
        assert_same(&source, &target.join("source"));
        sandbox.is_clean(&[&target]);
    }
}

/// Returns a pipe without a reader.
fn broken() -> Stdio {
    let mut reader = std::process::Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
    let pipe = reader.stdin.take().unwrap();
    reader.wait().unwrap();
    pipe.into()
}

/// Runs the program with both outputs broken.
#[track_caller]
fn copies_into_the_void(options: &[&str]) {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let mut command = sandbox.command(&[&source, &target]);
    Running::unread(command.args(options).stdout(broken()).stderr(broken())).wait(LONG).expect_success();
    assert_same(&source, &target.join("source"));
    sandbox.is_clean(&[&target]);
}

#[test]
fn broken_output_pipes_end_no_run() {
    copies_into_the_void(&[]);
}

#[test]
fn broken_log_pipe_ends_no_run() {
    copies_into_the_void(&["--verbose"]);
}

#[test]
fn exit_codes_survive_broken_pipes() {
    let Some(sandbox) = Sandbox::new() else { return };
    let source = sandbox.source("source");
    let dry = [source.to_str().unwrap(), "/var/tmp", "--dry-run"];
    let missing = ["/nowhere", "/var/tmp"];
    for (words, code) in [
        (&["--help"][..], 0),
        (&["--version"], 0),
        (&dry, 0),
        (&["status", "localhost"], 0),
        (&["--nonsense"], 2),
        (&["/etc/hostname", "/tmp", "--type", "tape"], 2),
        (&missing, 4),
    ] {
        let mut command = sandbox.command(&[]);
        Running::unread(command.args(words).stdout(broken()).stderr(broken())).wait(LONG).expect_code(code);
    }
}

#[test]
fn host_output_cannot_control_the_terminal() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) =
        (sandbox.dir("esc\x1b[2J\nlocalhost: done"), sandbox.dir("target\x1b]0;title\x07"));
    sandbox.dir(target.join("esc\x1b[2J\nlocalhost: done"));
    let refused = sandbox.run(&[&source, &target]).expect_code(4);
    assert!(!refused.stderr.contains(['\x1b', '\x07']), "{refused}");
    assert!(!refused.stderr.lines().any(|line| line.starts_with("localhost: done")), "{refused}");
    std::fs::remove_dir(target.join("esc\x1b[2J\nlocalhost: done")).unwrap();
    for dry in [&["--dry-run"][..], &["--verbose"]] {
        let mut command = sandbox.command(&[&source, &target]);
        command.args(dry);
        let ended = Running::start(command).wait(LONG).expect_success();
        let text = ended.stdout.clone() + &ended.stderr;
        assert!(!text.contains(['\x1b', '\x07']), "{ended}");
        assert!(!text.lines().any(|line| line.starts_with("localhost: done")), "{ended}");
    }
    assert_eq!(names(&target).len(), 1);
}
