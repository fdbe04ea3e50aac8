//! Every screen that a user may see, word for word. Words in brackets replace what differs between runs and
//! machines. To accept changes: `INSTA_UPDATE=always cargo nextest run -E 'test(screens::)'`, and read the
//! difference.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use crate::support::local::agents::{REMOVING, UNLINK, failing, removes_staged};
use crate::support::local::holds::{Hold, Point, Role};
use crate::support::local::processes::staging;
use crate::support::local::runs::{LONG, Running, wait_until};
use crate::support::local::sandbox::{Sandbox, Words};
use crate::support::output::Output;

/// Regular expressions of what differs between runs, and their replacements.
const VARYING: [(&str, &str); 17] = [
    (r"\b\d{8}-\d{6}-[0-9a-f]{6}", "[RUN]"),
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+Z| UTC| [+-]\d\d:\d\d)?", "[TIME]"),
    (r"\b(by|of) \S+ \(pid \d+\)", "$1 [CONTROLLER] (pid [PID])"),
    (r"port 4[45]\d\d\b", "port [PORT]"),
    (r"127\.0\.0\.1 4[45]\d\d\b", "127.0.0.1 [PORT]"),
    (r"\b2\d{4}\b", "[OWN PORT]"),
    (r"[\d.]+ [KMG]?i?B/s", "[RATE]"),
    (r"sent: [\d.]+ (B|[KMG]iB)", "sent: [SIZE]"),
    (r"entries, [\d.]+ s\b", "entries, [SECONDS] s"),
    (r"\[DIR\]/state/transfer/\.locks/|\[DIR\]/run/transfer-\d+/|/run/transfer/", "[LOCKS]/"),
    (r"target\.[0-9a-f.]+", "target.[NAME]"),
    (r"/var/lib/transfer/|\[DIR\]/state/transfer/", "[STATE]/"),
    (r"\b[0-9a-f]{32,64}\b", "[DIGEST]"),
    (r"-T\d+ ", "-T[CORES] "),
    (r"uid \d+", "uid [UID]"),
    // A port that another test had taken is held, too.
    (r"(  holds port \[PORT\]\n  holds processes of job receiver\n){2,}", "$1"),
    (
        r"(localhost: rolled back: processes of job receiver .*\n\S+ rolled back: port \[PORT\] .*\n){2,}",
        "$1",
    ),
];

/// Compares an output with the snapshot of that name.
#[track_caller]
fn shows(sandbox: &Sandbox, name: &str, ended: &Output) {
    let directory = sandbox.path("").display().to_string();
    let directory = directory.trim_end_matches('/');
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.set_snapshot_path("snapshots");
    for (pattern, word) in VARYING {
        settings.add_filter(pattern, word);
    }
    let code = ended.status.code().unwrap();
    let text = format!(
        "exit code {code}\n--- standard output\n{}--- standard error\n{}",
        ended.stdout, ended.stderr
    );
    let text = text.replace(directory, "[DIR]");
    settings.bind(|| insta::assert_snapshot!(name, text));
}

/// Returns a sandbox of the account of the tests, without progress: timing decides which phases are shown.
#[track_caller]
fn shows_run(sandbox: &Sandbox, name: &str, code: i32, words: Words<'_>) {
    let mut all = words.to_vec();
    all.push(&"--progress=none");
    shows(sandbox, name, &sandbox.run(&all).expect_code(code));
}

/// Starts a run without progress, which is held in mid-stream.
fn held() -> Option<(Sandbox, Hold, Running)> {
    let sandbox = Sandbox::new()?;
    let (hold, running) = held_in(&sandbox);
    Some((sandbox, hold, running))
}

fn held_in(sandbox: &Sandbox) -> (Hold, Running) {
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let running = sandbox.spawn(&[&source, &target, &"--progress=none", &"--lease-time=600"]);
    hold.reached();
    (hold, running)
}

#[test]
fn help_shows_groups_defaults_and_units() {
    let sandbox = Sandbox::own();
    for (name, words) in [
        ("help", &[&"--help" as _][..]),
        ("help_status", &[&"status" as _, &"--help" as _]),
        ("help_short", &[&"-h" as _]),
        ("help_clean", &[&"clean" as _, &"--help" as _]),
        ("help_replica", &[&"replica" as _, &"--help" as _]),
        ("help_replica_short", &[&"replica" as _, &"-h" as _]),
        ("help_history", &[&"history" as _, &"--help" as _]),
        ("help_show", &[&"show" as _, &"--help" as _]),
        ("version", &[&"--version" as _]),
    ] {
        shows(&sandbox, name, &sandbox.run(words).expect_success());
    }
}

#[test]
fn usage_errors_name_the_wrong_word() {
    let sandbox = Sandbox::own();
    let wrong: [(&str, Words<'_>); 12] = [
        ("usage_nothing", &[]),
        ("usage_no_target", &[&"db1:/srv/sqldata"]),
        ("usage_unknown_option", &[&"db1:/a", &"db2:/b", &"--nonsense"]),
        ("usage_misspelt_option", &[&"db1:/a", &"db2:/b", &"--compres-leve=3"]),
        ("usage_ambiguous_prefix", &[&"db1:/a", &"db2:/b", &"--co"]),
        ("usage_bad_source", &[&"sqldata", &"db2:/b"]),
        ("usage_relative_path", &[&"db1:srv", &"db2:/b"]),
        ("usage_bad_level", &[&"db1:/a", &"db2:/b", &"--compress-level=99"]),
        ("usage_bad_time", &[&"db1:/a", &"db2:/b", &"--lease-time=1"]),
        ("usage_bad_kind", &[&"db1:/a", &"db2:/b", &"--progress=fancy"]),
        ("usage_bad_switch", &[&"db1:/a", &"db2:/b", &"--replace=maybe"]),
        ("usage_two_commands", &[&"db1:/a", &"status", &"db2"]),
    ];
    for (name, words) in wrong {
        shows(&sandbox, name, &sandbox.run(words).expect_code(2));
    }
    let file = sandbox.file("conf", "lease_tim = 30\n");
    shows(
        &sandbox,
        "usage_bad_configuration",
        &sandbox.run(&[&"db1:/a", &"db2:/b", &"--config", &file]).expect_code(2),
    );
}

#[test]
fn dry_run_prints_one_stage_per_line() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    shows_run(&sandbox, "dry_run", 0, &[&source, &target, &"--dry-run", &"--threads=1"]);
    let words: Words<'_> = &[
        &source,
        &target,
        &sandbox.dir("second"),
        &"--dry-run",
        &"--replace",
        &"--keep-old",
        &"--keep-staging",
        &"--port-range=4567-4568",
        &"--no-encrypt",
        &"--compress=gzip",
        &"--no-checksum",
        &"--parallel-checksum",
    ];
    shows_run(&sandbox, "dry_run_of_much", 0, words);
}

#[test]
fn good_run_reports_copy_and_comparison() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    shows_run(&sandbox, "done", 0, &[&source, &target]);
    let _socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    sandbox.own_it(&source.join("socket"));
    shows_run(
        &sandbox,
        "done_with_notes",
        0,
        &[&source, &target, &"--replace", &"--keep-old", &"--stop-slave"],
    );
    let bare: Words<'_> =
        &[&source, &sandbox.dir("bare"), &"--no-compress", &"--no-encrypt", &"--no-checksum"];
    shows_run(&sandbox, "done_without_checks", 0, bare);
}

#[test]
fn refusal_lists_all_findings_with_fixes() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    sandbox.dir("target/source");
    shows_run(&sandbox, "refused", 4, &[&source, &target]);
    let words: Words<'_> =
        &[&sandbox.path("gone"), &target, &target, &sandbox.path("missing"), &"--stop-slave"];
    shows_run(&sandbox, "refused_for_much", 4, words);
    shows_run(&sandbox, "left_out", 1, &[&source, &target, &sandbox.dir("good"), &"--skip-refused"]);
}

#[test]
fn failure_names_host_and_program() {
    let Some(sandbox) = Sandbox::new() else { return };
    sandbox.replace(Role::Unpack, "echo 'tar: no such luck' >&2; cat >/dev/null; exit 2");
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    shows_run(&sandbox, "failed", 1, &[&source, &target]);
}

#[test]
fn failed_verification_names_the_files() {
    let Some(sandbox) = Sandbox::new() else { return };
    sandbox.replace(Role::Unpack, "\"$real\" \"$@\" && echo other >source/small");
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    shows_run(&sandbox, "verification_failed", 3, &[&source, &target]);
}

#[test]
fn kept_staging_is_named() {
    let Some(sandbox) = Sandbox::new() else { return };
    sandbox.replace(Role::Unpack, "\"$real\" \"$@\"; exit 2");
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    shows_run(&sandbox, "kept", 1, &[&source, &target, &"--keep-staging"]);
}

#[test]
fn interruption_confirms_the_rollback() {
    let Some((sandbox, _hold, running)) = held() else { return };
    running.signal(Signal::SIGINT);
    shows(&sandbox, "interrupted", &running.wait(LONG).expect_code(130));
}

#[test]
fn second_signal_suggests_status_and_clean() {
    let Some(sandbox) = Sandbox::new() else { return };
    let removing = sandbox.trace(REMOVING);
    let (_hold, running) = held_in(&sandbox);
    running.signal(Signal::SIGINT);
    removing.reached();
    running.signal(Signal::SIGINT);
    shows(&sandbox, "interrupted_twice", &running.wait(LONG).expect_code(130));
    removing.open();
    sandbox.gets_clean(&[&sandbox.path("target")], LONG);
}

#[test]
fn busy_error_names_the_holder() {
    let Some((sandbox, hold, running)) = held() else { return };
    let (source, target) = (sandbox.path("source"), sandbox.path("target"));
    shows_run(&sandbox, "busy_name", 5, &[&source, &target]);
    let port = Sandbox::port();
    let _taken = std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
    let other = sandbox.dir("other");
    shows_run(&sandbox, "busy_port", 5, &[&source, &other, &"--port", &port.to_string()]);
    hold.open();
    running.wait(LONG).expect_success();
}

#[test]
fn suspended_controller_explains_the_failure() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let running = sandbox.spawn(&[&source, &target, &"--lease-time=2", &"--progress=none"]);
    hold.reached();
    running.signal(Signal::SIGSTOP);
    wait_until("the agents have undone", LONG, || {
        staging(&target).is_empty() && sandbox.journals().is_empty()
    });
    running.signal(Signal::SIGCONT);
    let ended = running.wait(LONG).expect_code(1);
    // Timing decides which of the agents is noticed first.
    shows(&sandbox, "suspended", &ended);
}

#[test]
fn status_and_clean_list_runs_and_leases() {
    let Some((sandbox, _hold, running)) = held() else { return };
    if sandbox.is_root() {
        return;
    }
    shows(&sandbox, "status_live", &sandbox.run(&[&"status", &"localhost"]).expect_success());
    shows(&sandbox, "clean_live", &sandbox.run(&[&"clean", &"localhost"]).expect_success());
    running.signal(Signal::SIGSTOP);
    sandbox.kill_keepers("");
    running.signal(Signal::SIGKILL);
    running.wait(Duration::from_secs(10));
    shows(&sandbox, "status_dead", &sandbox.run(&[&"status", &"localhost"]).expect_success());
    shows(&sandbox, "clean_dead", &sandbox.run(&[&"clean", &"localhost"]).expect_success());
    shows(&sandbox, "status_nothing", &sandbox.run(&[&"status", &"localhost"]).expect_success());
    shows(&sandbox, "clean_nothing", &sandbox.run(&[&"clean", &"localhost"]).expect_success());
}

#[test]
fn leftovers_are_listed_with_clean_command() {
    let Some(sandbox) = Sandbox::new() else { return };
    let failing = sandbox.trace(failing(UNLINK, removes_staged, Errno::EIO));
    let (_hold, running) = held_in(&sandbox);
    running.signal(Signal::SIGINT);
    shows(&sandbox, "leftovers", &running.wait(LONG).expect_code(6));
    drop(failing);
    sandbox.run(&[&"clean", &"localhost"]).expect_success();
}
