use super::record::took;
use super::*;
use crate::base::endpoint::Endpoint;
use crate::error::Error;
use crate::host::command::typable;
use crate::report::outcome::Outcome;
use crate::report::{Report, TargetReport};
use std::os::unix::fs::PermissionsExt as _;

fn history(name: &str) -> History {
    let directory = std::env::temp_dir().join(format!("transfer-history-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    History { directory }
}

fn record(run: &str) -> Record {
    let command = ["transfer", "db1:/srv/it's", "db2:/srv"].map(|word| typable(word.as_bytes())).to_vec();
    let id = RunId::new().unwrap();
    Record { run: run.into(), ..Record::new(&id, command, "db1:/srv/it's".into(), vec!["db2:/srv".into()]) }
}

fn begin(history: &History, keep: usize, run: &str) -> Recording {
    Recording::begin(history.clone(), keep, &record(run)).unwrap()
}

fn finish(recording: Recording, run: &str) {
    let mut record = record(run);
    record.finish(&Report::default(), 1.0, place);
    assert_eq!(record.targets[0].exit, Some(0));
    recording.finish(&record).unwrap();
}

#[test]
fn states_follow_the_record_and_the_process() {
    let history = history("states");
    let going = begin(&history, 10, "20260101-000000-aaaaaa");
    drop(begin(&history, 10, "20260102-000000-bbbbbb"));
    finish(begin(&history, 10, "20260103-000000-cccccc"), "20260103-000000-cccccc");
    let states: Vec<State> = history.records().unwrap().0.into_iter().map(|(_, state)| state).collect();
    assert_eq!(states, [State::Running, State::Lost, State::Ended]);
    let table = history.list(2, false).unwrap();
    assert!(table.starts_with("RUN ") && table.lines().count() == 3, "{table}");
    assert!(table.contains("lost") && table.contains(r"'db1:/srv/it'\''s' db2:/srv"), "{table}");
    assert!(history.show("20260101", false).unwrap().contains("still running"));
    assert!(history.show("20260102", false).unwrap().contains("no end recorded: killed"));
    assert!(history.show("20260103-000000-c", false).unwrap().contains("with exit code 0"));
    assert!(history.show("2026", false).unwrap_err().to_string().contains("matches 3 runs"));
    assert_eq!(history.show("\u{1b}[", false).unwrap_err().exit(), Exit::Usage);
    assert!(!history.show("\u{1b}[", false).unwrap_err().to_string().contains('\u{1b}'));
    drop(going);
    fs::remove_dir_all(history.directory).unwrap();
}

#[test]
fn rotation_keeps_running_records_and_other_files() {
    let history = history("rotation");
    let going = begin(&history, 2, "20260101-000000-aaaaaa");
    for name in ["notes.json", ".notes.json", "20250101-000000-aaaaaa.txt"] {
        fs::write(history.path(name), "not ours").unwrap();
    }
    for day in 2..=5 {
        let run = format!("2026010{day}-000000-aaaaaa");
        finish(begin(&history, 2, &run), &run);
    }
    let runs: Vec<String> = history.records().unwrap().0.into_iter().map(|(record, _)| record.run).collect();
    assert_eq!(runs, ["20260101-000000-aaaaaa", "20260104-000000-aaaaaa", "20260105-000000-aaaaaa"]);
    assert_eq!(fs::read_dir(&history.directory).unwrap().count(), 6);
    drop(going);
    fs::remove_dir_all(history.directory).unwrap();
}

#[test]
fn foreign_files_neither_block_nor_reach_the_terminal() {
    let history = history("hostile");
    drop(begin(&history, 10, "20260101-000000-aaaaaa"));
    nix::unistd::mkfifo(&history.path("20260102-000000-aaaaaa.json"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    std::os::unix::fs::symlink("/dev/zero", history.path("20260103-000000-aaaaaa.json")).unwrap();
    fs::write(history.path("20260104-000000-aaaaaa.json"), "{}").unwrap();
    let mut other = record("20260105-000000-aaaaaa");
    other.command.push("\u{1b}[31m".into());
    other.finish(&Report::default(), 1.0, place);
    other.end.as_mut().unwrap().text = "\u{1b}]0;title\u{7}\nline".into();
    fs::write(history.path("20260105-000000-aaaaaa.json"), line(&other)).unwrap();
    let table = history.list(20, false).unwrap();
    assert!(table.contains("3 records in ") && !table.contains('\u{1b}'), "{table}");
    let shown = history.show("20260105", false).unwrap();
    assert!(shown.contains("title") && shown.ends_with("\nline\n") && !shown.contains('\u{1b}'), "{shown}");
    fs::set_permissions(&history.directory, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(history.list(20, false).unwrap_err().exit(), Exit::Failed);
    assert!(
        Recording::begin(history.clone(), 10, &record("20260106-000000-aaaaaa"))
            .unwrap_err()
            .to_string()
            .contains("chmod")
    );
    fs::remove_dir_all(history.directory).unwrap();
}

#[test]
fn listing_creates_no_directory() {
    let history = history("none");
    assert!(history.list(20, false).unwrap().starts_with("no runs in "));
    assert_eq!(history.list(20, true).unwrap(), "");
    assert!(!history.directory.exists());
}

#[test]
fn long_durations_have_hours() {
    assert_eq!([0.04, 99.94, 100.0, 3725.4].map(took), ["0.0 s", "99.9 s", "0:01:40", "1:02:05"]);
}

#[test]
fn nested_targets_have_their_own_results() {
    let named = |word: &str| Endpoint::parse(word.as_ref()).unwrap();
    let end = |word: &str, outcome| TargetReport {
        endpoint: named(word),
        final_path: None,
        addresses: None,
        port: None,
        outcome,
        kept: Vec::new(),
        old: crate::report::OldData::Unknown,
        published: false,
        is_uncertain: false,
        servers: Vec::new(),
        log: Vec::new(),
    };
    let failed = || Outcome::Failed(Error::Verification("x".into()));
    let report = Report {
        targets: vec![end("db2:/srv", Outcome::Published), end("db2:/srv/backup", failed())],
        ..Report::default()
    };
    let targets = ["db2:/srv", "db2:/srv/backup"].map(|word| place(&named(word))).to_vec();
    let mut record = Record::new(&RunId::new().unwrap(), Vec::new(), "db1:/srv/x".into(), targets);
    record.finish(&report, 1.0, place);
    assert_eq!(record.targets.iter().map(|target| target.exit).collect::<Vec<_>>(), [Some(0), Some(3)]);
}
