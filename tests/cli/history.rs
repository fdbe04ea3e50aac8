//! Records of past runs on this machine: `transfer history`, `transfer show`, `--metrics`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::json::expect_record;
use crate::support::local::holds::Point;
use crate::support::local::runs::{LONG, Running};
use crate::support::local::sandbox::{Sandbox, Words};

/// Returns the records of `transfer history --json`, after checking each.
fn records(sandbox: &Sandbox) -> Vec<Value> {
    let reported = sandbox.run(&[&"history", &"--json"]).expect_success().stdout;
    let records: Vec<Value> = reported.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    records.iter().filter(|record| !record["end"].is_null()).for_each(expect_record);
    records
}

#[test]
fn each_run_is_recorded_listed_and_shown() {
    let Some(sandbox) = Sandbox::new() else { return };
    let directory = sandbox.path("state/transfer-history");
    sandbox.run(&[&"history"]).expect_success().says("no runs in ").says(&directory.display().to_string());
    let (source, target) = (sandbox.source("the source"), sandbox.dir("target"));
    let plan: Words<'_> = &[&source, &target, &"--dry-run"];
    sandbox.run(plan).expect_success();
    assert!(!directory.exists(), "a dry run is no run");
    let done = sandbox.run(&[&source, &target, &"--no-compress"]).expect_success();
    sandbox.run(&[&source, &target]).expect_code(4);
    let all = records(&sandbox);
    let exits: Vec<_> = all.iter().map(|record| record["end"]["exit"].as_u64().unwrap()).collect();
    assert_eq!(exits, [0, 4]);
    let of_target = &all[0]["targets"][0];
    let name = format!("localhost:{}", target.display());
    assert_eq!((&of_target["target"], &of_target["bytes"]), (&name.into(), &((2 << 20) + 6).into()));
    assert_eq!(all[1]["targets"][0]["exit"], 4, "a run that was refused has no report of its targets");
    assert_eq!(all[0]["command"].as_array().unwrap().last().unwrap(), "--no-compress");
    let table = sandbox.run(&[&"history"]).expect_success().stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines.len() == 3 && lines[0].starts_with("RUN") && lines[0].ends_with("WHAT"), "{table}");
    let quoted = format!("'{}' {} --no-compress", source.display(), target.display());
    assert!(lines[1].ends_with(&quoted), "what was typed can be typed again: {table}");
    let one = sandbox.run(&[&"history", &"--last", &"1"]).expect_success().stdout;
    assert_eq!(one.lines().nth(1), Some(lines[2]));
    let run = all[0]["run"].as_str().unwrap();
    sandbox
        .run(&[&"show", &run])
        .expect_success()
        .says("with exit code 0")
        .says(done.stdout.trim_end())
        .says(&quoted);
    let shown: Value =
        serde_json::from_str(&sandbox.run(&[&"show", &run, &"--json"]).expect_success().stdout).unwrap();
    assert_eq!(shown, all[0]);
    sandbox.run(&[&"show", &"1999"]).expect_code(2).says("no record of a run 1999").says("transfer history");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&directory), 0o700);
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{path:?}");
        assert!(path.extension().is_some_and(|extension| extension == "json"), "{path:?}");
    }
}

#[test]
fn running_and_killed_runs_are_distinguished() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let running: Running = sandbox.spawn(&[&source, &target]);
    hold.reached();
    sandbox.run(&[&"history"]).expect_success().says(" running  ");
    let record = &records(&sandbox)[0];
    assert_eq!((&record["end"], &record["state"]), (&Value::Null, &"running".into()));
    sandbox.run(&[&"show", &record["run"].as_str().unwrap()]).expect_success().says("still running");
    running.signal(Signal::SIGKILL);
    hold.open();
    running.wait(LONG);
    sandbox.run(&[&"history"]).expect_success().says(" lost  ");
    assert_eq!(records(&sandbox)[0]["state"], "lost");
    sandbox.run(&[&"show", &"2"]).expect_success().says("no end recorded: killed").says("transfer status");
}

#[test]
fn history_size_limits_the_records() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let run = |size: &str| {
        drop(sandbox.run(&[&source, &target, &"--replace", &"--history-size", &size]).expect_success());
    };
    run("0");
    assert!(!sandbox.path("state/transfer-history").exists());
    (0..4).for_each(|_| run("2"));
    assert_eq!(records(&sandbox).len(), 2);
}

#[test]
fn unwritable_record_is_only_a_warning() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    fs::create_dir_all(sandbox.path("state")).unwrap();
    sandbox.own_it(&sandbox.path("state"));
    sandbox.file(sandbox.path("state/transfer-history"), "in the way");
    let metrics = sandbox.file("transfer.prom", "");
    sandbox.own_it(&sandbox.path(""));
    let ended = sandbox.run(&[&source, &target, &"--metrics", &metrics]).expect_success();
    // Without former metrics there are no counts of earlier runs.
    ended
        .says("this run will not be recorded")
        .says("--history-size 0")
        .says("metrics of this run were not written (--metrics)");
    assert_eq!(fs::read_to_string(metrics).unwrap(), "");
}

#[test]
fn unwritable_metrics_file_is_only_a_warning() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let missing = sandbox.path("missing/transfer.prom");
    sandbox.run(&[&source, &target, &"--metrics", &missing]).expect_success().says("(--metrics)");
}

#[test]
fn history_works_with_broken_configuration() {
    let Some(sandbox) = Sandbox::new() else { return };
    sandbox.run(&[&"--config", &"/nonexistent", &"history"]).expect_success().says("no runs in ");
    sandbox.run(&[&"--json", &"history"]).expect_success();
    sandbox.run(&[&"history", &"--last", &"0"]).expect_code(2);
}

#[test]
fn metrics_report_last_run_of_each_pair() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, one, two) = (sandbox.source("source"), sandbox.dir("one"), sandbox.dir("two"));
    // In a directory that a collector may read, outside of the account's own.
    let file = sandbox.path("transfer.prom");
    sandbox.own_it(&sandbox.path(""));
    let value = |name: &str, target: &std::path::Path| {
        let text = fs::read_to_string(&file).unwrap();
        let labels = format!(
            "{{source=\"localhost:{}\",target=\"localhost:{}\"}} ",
            source.display(),
            target.display()
        );
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(&labels));
        line.map(|value| value.parse::<f64>().unwrap())
    };
    let words: Words<'_> = &[&source, &one, &two, &"--metrics", &file];
    // Whatever the umask is.
    Running::start(sandbox.scripted(r#"umask 077; exec "$@""#, words)).wait(LONG).expect_success();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    let bytes = f64::from((2 << 20) + 6);
    for target in [&one, &two] {
        assert_eq!(value("transfer_last_run_exit_code", target), Some(0.0));
        assert_eq!(value("transfer_last_run_bytes", target), Some(bytes));
    }
    let first = value("transfer_last_success_timestamp_seconds", &one).unwrap();
    assert_eq!(value("transfer_last_run_timestamp_seconds", &one), Some(first));
    sandbox.run(&[&source, &one, &"--metrics", &file]).expect_code(4);
    assert_eq!(value("transfer_last_run_exit_code", &one), Some(4.0));
    assert_eq!(value("transfer_last_run_bytes", &one), None);
    assert_eq!(
        value("transfer_last_success_timestamp_seconds", &one),
        Some(first),
        "it is as long ago as it is"
    );
    assert!(value("transfer_last_run_timestamp_seconds", &one).unwrap() > first);
    assert_eq!(value("transfer_last_run_exit_code", &two), Some(0.0), "of a run before this one");
    // What was counted before is unknown: that is reported, and the file is kept.
    let kept = sandbox.path("state/transfer-history/last-runs.json");
    fs::write(&kept, "torn").unwrap();
    let ended = sandbox.run(&[&source, &one, &"--replace", &"--metrics", &file]).expect_success();
    ended.says("the metrics of other runs are lost");
    assert_eq!(fs::read_to_string(kept.with_extension("json.bad")).unwrap(), "torn");
    assert_eq!(value("transfer_last_run_exit_code", &one), Some(0.0));
    assert_eq!(value("transfer_last_run_exit_code", &two), None);
    let left: Vec<_> = fs::read_dir(sandbox.path(""))
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok())
        .collect();
    assert!(!left.iter().any(|name| name.starts_with('.')), "{left:?}");
}
