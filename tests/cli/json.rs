//! `--json`: every line is an event as in docs/json.md, the last line is the report, and there is no other
//! output.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::local::holds::{Point, Role};
use crate::support::local::runs::LONG;
use crate::support::local::sandbox::{Sandbox, Words};
use crate::support::output::Output;
use crate::support::schema::expect_valid;

/// Returns rows of docs/json.md: of the table of an event, or of all tables that are not of events.
fn documented(event: &str) -> BTreeSet<String> {
    let text = include_str!("../../docs/json.md");
    let mut fields = BTreeSet::new();
    let (mut of_events, mut is_record, mut current) = (false, false, String::new());
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect::<Vec<_>>();
    for line in text.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        match cells[0] {
            "event" => of_events = true,
            "field" => of_events = false,
            // Records have tables of the same form.
            "record" => {
                if event == "record" {
                    fields.clear();
                    (of_events, is_record) = (false, true);
                } else {
                    break;
                }
            }
            first if first.starts_with("---") => {}
            first if of_events => {
                if let Some(name) = names(first).pop() {
                    current = name;
                } else if current == event {
                    fields.extend(names(cells[1].trim_start_matches('|')));
                }
            }
            first if event == "report" || is_record => fields.extend(names(first)),
            _ => {}
        }
    }
    assert!(!fields.is_empty(), "docs/json.md does not know {event}");
    fields
}

/// Returns the names of all fields, with the names of their parents. Entries of a list have the name of the
/// list.
fn fields(value: &Value, prefix: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                // Documented elsewhere: fields of the event of that name, and names of phases.
                if !matches!(name.as_str(), "findings" | "phases") {
                    fields(value, &name, found);
                }
                found.insert(name);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| fields(value, prefix, found)),
        _ => {}
    }
}

/// Asserts that a line of `transfer history --json` matches docs/json.md and the schema.
#[track_caller]
pub(crate) fn expect_record(record: &Value) {
    expect_valid(record);
    let mut found = BTreeSet::new();
    let mut own = record.clone();
    // Documented separately.
    own["end"]["report"] = Value::Null;
    fields(&own, "", &mut found);
    let known = documented("record");
    assert_eq!(known.difference(&found).collect::<Vec<_>>(), Vec::<&String>::new(), "{record}");
    assert_eq!(found.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "docs/json.md: {record}");
}

/// Returns the events of a run, after checking each, and its report.
#[track_caller]
fn events(ended: &Output) -> (Vec<Value>, Value) {
    let mut events: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for event in &events {
        assert_eq!(event["version"], 2, "{event}");
        expect_valid(event);
        let name = event["event"].as_str().unwrap();
        let mut found = BTreeSet::new();
        fields(event, "", &mut found);
        assert!(found.remove("version") && found.remove("event"));
        let documented = documented(name);
        let unknown: Vec<_> = found.difference(&documented).collect();
        assert!(unknown.is_empty(), "docs/json.md does not tell of {unknown:?}: {event}");
        // Null values have no fields.
        let is_null = |field: &str| {
            let pointer = |field: &str| format!("/{}", field.replace('.', "/"));
            field.match_indices('.').any(|(at, _)| {
                let holder = &field[..at];
                event
                    .pointer(&pointer(holder))
                    .is_none_or(|value| value.is_null() || *value == Value::Array(vec![]))
            })
        };
        let missing: Vec<_> = documented.difference(&found).filter(|field| !is_null(field)).collect();
        assert!(missing.is_empty(), "{missing:?} should be in {event}");
    }
    let report = events.pop().expect("no line at all");
    assert_eq!(report["event"], "report");
    assert!(events.iter().all(|event| event["event"] != "report"));
    assert_eq!(report["exit"].as_i64(), ended.status.code().map(Into::into), "{ended}");
    (events, report)
}

#[track_caller]
fn run(sandbox: &Sandbox, words: Words<'_>, code: i32) -> (Vec<Value>, Value) {
    let mut all = words.to_vec();
    all.push(&"--json");
    events(&sandbox.run(&all).expect_code(code))
}

fn phases(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .filter(|event| event["event"] == "phase")
        .map(|event| event["phase"].as_str().unwrap())
        .collect()
}

#[test]
fn good_run_reports_all_facts_of_two_targets() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, one, two) = (sandbox.source("source"), sandbox.dir("one"), sandbox.dir("two"));
    std::fs::write(one.join("source"), "old").unwrap();
    sandbox.own_it(&one.join("source"));
    let words: Words<'_> = &[&source, &one, &two, &"--replace", &"--keep-old"];
    let (events, report) = run(&sandbox, words, 0);
    assert_eq!(phases(&events), ["connecting", "preparing", "copying", "verifying", "releasing"]);
    assert_eq!(report["error"], Value::Null);
    let of_source = &report["source"];
    assert_eq!(of_source["host"], "localhost");
    assert_eq!(of_source["path"], source.to_str().unwrap());
    assert_eq!((of_source["files"].as_u64(), of_source["entries"].as_u64()), (Some(2), Some(3)));
    assert_eq!(of_source["bytes"].as_u64(), Some((2 << 20) + 6));
    assert!(of_source["bytes_on_disk"].as_u64().unwrap() > 2 << 20);
    assert_eq!(report["encrypted"], true);
    let targets = report["targets"].as_array().unwrap();
    assert_eq!(targets.len(), 2);
    for target in targets {
        let directory = target["path"].as_str().unwrap();
        assert_eq!(target["final_path"], format!("{directory}/source"));
        assert_eq!((&target["status"], &target["exit"]), (&"done".into(), &0.into()));
        assert_eq!(
            (&target["address"], &target["source_address"]),
            (&"127.0.0.1".into(), &"127.0.0.1".into())
        );
        assert!((4400..=4500).contains(&target["port"].as_u64().unwrap()));
        let copy = &target["copy"];
        assert_eq!((&copy["entries"], &copy["bytes"]), (&3.into(), &of_source["bytes"]));
        assert!(copy["bytes_read"].as_u64() > copy["bytes"].as_u64(), "tar adds to random bytes");
        assert!(copy["bytes_on_wire"].as_u64() > Some(2 << 20));
        assert!(copy["compression_ratio"].as_f64().is_some_and(|ratio| ratio > 0.5 && ratio < 2.0));
        assert_eq!(copy["stream_digest"]["value"].as_str().unwrap().len(), 64);
        assert_eq!(copy["files_compared"]["files"], 2);
        assert_eq!(copy["entries_sha256"].as_str().unwrap().len(), 64);
    }
    let old = |target: &Value| target["old"].is_string();
    assert_eq!(targets.iter().filter(|target| old(target)).count(), 1, "only one had an old one");
    let sum: f64 = report["phases"].as_object().unwrap().values().map(|value| value.as_f64().unwrap()).sum();
    assert!((report["seconds"].as_f64().unwrap() - sum).abs() < 0.01, "{report}");
}

#[test]
fn disabled_features_have_null_fields() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let bare: Words<'_> = &[&source, &target, &"--no-compress", &"--no-encrypt", &"--no-checksum"];
    let (_, report) = run(&sandbox, bare, 0);
    assert_eq!((&report["compression"], &report["encrypted"]), (&Value::Null, &false.into()));
    let copy = &report["targets"][0]["copy"];
    assert_eq!((&copy["stream_digest"], &copy["files_compared"]), (&Value::Null, &Value::Null));
}

#[test]
fn long_run_reports_progress() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let running = sandbox.spawn(&[&source, &target, &"--json"]);
    hold.reached();
    std::thread::sleep(std::time::Duration::from_secs(3));
    hold.open();
    let (events, _) = events(&running.wait(LONG).expect_success());
    let progress: Vec<&Value> = events.iter().filter(|event| event["event"] == "progress").collect();
    assert!(!progress.is_empty());
    assert!(
        progress.iter().all(|event| event["bytes"].as_u64() <= event["expected_bytes"].as_u64()),
        "{events:?}"
    );
}

#[test]
fn refused_run_reports_findings() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, missing) = (sandbox.source("source"), sandbox.path("missing"));
    let (events, report) = run(&sandbox, &[&source, &missing, &"--stop-slave"], 4);
    let found: Vec<&Value> = events.iter().filter(|event| event["event"] == "finding").collect();
    assert_eq!(found.len(), 2, "{events:?}");
    let findings = report["findings"].as_array().unwrap();
    for (event, finding) in found.iter().zip(findings) {
        for field in ["host", "weight", "problem", "fix", "kind"] {
            assert_eq!(event[field], finding[field]);
        }
    }
    assert_eq!(report["source"], Value::Null);
    sandbox
        .run(&[&"show", &report["run"].as_str().unwrap()])
        .expect_success()
        .says("refused, nothing was changed");
    assert!(report["error"].as_str().unwrap().starts_with("refused, nothing was changed"));
}

#[test]
fn existing_name_has_its_own_finding_kind() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    std::fs::write(target.join("source"), "old").unwrap();
    let (_, report) = run(&sandbox, &[&source, &target, &"--dry-run"], 4);
    let kinds: Vec<&Value> =
        report["findings"].as_array().unwrap().iter().map(|finding| &finding["kind"]).collect();
    assert_eq!(kinds, [&Value::from("exists")]);
}

#[test]
fn busy_port_and_busy_name_exit_with_5() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let running = sandbox.spawn(&[&source, &target]);
    hold.reached();
    let (_, report) = run(&sandbox, &[&source, &target], 5);
    assert!(report["error"].as_str().unwrap().contains("localhost"), "{report}");
    let port = Sandbox::port();
    let _taken = std::net::TcpListener::bind(("0.0.0.0", port)).unwrap();
    let (_, report) = run(&sandbox, &[&source, &sandbox.dir("other"), &"--port", &port.to_string()], 5);
    let target = &report["targets"][0];
    assert_eq!((&target["status"], &target["exit"]), (&"failed".into(), &5.into()), "{report}");
    hold.open();
    running.wait(LONG).expect_success();
}

#[test]
fn interrupted_run_ends_with_its_report() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let running = sandbox.spawn(&[&source, &target, &"--json"]);
    hold.reached();
    running.signal(Signal::SIGINT);
    let (events, report) = events(&running.wait(LONG).expect_code(130));
    assert_eq!(phases(&events).last(), Some(&"releasing"));
    assert_eq!(report["error"], "interrupted by SIGINT");
    assert_eq!(report["leftovers"], Value::Array(vec![]));
    assert_eq!(report["targets"][0]["copy"], Value::Null);
}

#[test]
fn failed_target_is_reported() {
    let Some(sandbox) = Sandbox::new() else { return };
    sandbox.replace(Role::Unpack, "echo no such luck >&2; cat >/dev/null; exit 2");
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let (_, report) = run(&sandbox, &[&source, &target, &"--keep-staging"], 1);
    let target = &report["targets"][0];
    assert_eq!((&target["status"], &target["exit"]), (&"failed".into(), &1.into()));
    assert!(target["error"].as_str().unwrap().contains("no such luck"), "{report}");
}

#[test]
fn dry_run_plan_is_structured_data() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let (_, report) = run(&sandbox, &[&source, &target, &"--dry-run"], 0);
    let hosts = report["plan"]["hosts"].as_array().unwrap();
    assert_eq!((&hosts[0]["role"], &hosts[1]["role"]), (&"target".into(), &"source".into()));
    let kinds: Vec<&str> =
        hosts[0]["steps"].as_array().unwrap().iter().map(|step| step["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["name", "stage", "port", "firewall", "receive", "verify", "publish"]);
    assert_eq!(report["targets"], Value::Array(vec![]));
}

#[test]
fn invalid_configuration_yields_a_report() {
    let sandbox = Sandbox::own();
    let file = sandbox.file("conf", "nonsense = 1\n");
    let (events, report) = run(&sandbox, &[&"/etc/hostname", &"/tmp", &"--config", &file], 2);
    assert_eq!(events.len(), 0);
    assert!(report["error"].as_str().unwrap().contains("nonsense"), "{report}");
}
