//! Runs in a systemd unit log to journald, with fields.

use serde_json::Value;

use crate::support::hosts::Lab;

#[test]
fn exclusive_journald_finds_runs_by_fields() {
    let Some(lab) = Lab::get() else { return };
    let scratch = lab.scratch(&["db1", "db2"]);
    let path = scratch.path();
    lab.host("db1").sh(&format!("mkdir {path}/data; echo 1 >{path}/data/one"));
    lab.transfer(&["--version"]).expect_success();
    let ctl = lab.host("ctl");
    let unit = |name: &str| {
        let transfer = format!("/usr/local/bin/transfer db1:{path}/data db2:{path}");
        ctl.run(&[
            "bash",
            "--norc",
            "-c",
            &format!("systemd-run --quiet --wait --collect --unit={name} --setenv=HOME=/root {transfer}"),
        ])
    };
    let entries = |name: &str| -> Vec<Value> {
        let reported = ctl
            .sh(&format!("journalctl --sync; journalctl --output=json --unit={name} _TRANSPORT=journal SYSLOG_IDENTIFIER=transfer"));
        reported.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    // Another run of the tests may have used this journal.
    let name = |which: &str| format!("{which}-{}", std::process::id());
    unit(&name("first")).expect_success();
    assert_eq!(unit(&name("second")).status.code(), Some(4));
    let first = entries(&name("first"));
    let run = first[0]["TRANSFER_RUN"].as_str().unwrap();
    assert!(first.iter().all(|entry| entry["TRANSFER_RUN"] == run), "{first:?}");
    assert_eq!(first[0]["MESSAGE"], "run started");
    let end = first.iter().find(|entry| entry["MESSAGE"] == "run finished successfully").unwrap();
    // Then the report.
    let reported = first.last().unwrap();
    assert!(reported["MESSAGE"].as_str().unwrap().starts_with("run 20"), "{first:?}");
    assert_eq!((&reported["TRANSFER_RUN"], &reported["PRIORITY"]), (&first[0]["TRANSFER_RUN"], &"6".into()));
    assert_eq!((&end["TRANSFER_EXIT"], &end["SYSLOG_IDENTIFIER"]), (&"0".into(), &"transfer".into()));
    assert_eq!(end["TRANSFER_SOURCE"], format!("db1:{path}/data"));
    assert_eq!(end["TRANSFER_TARGETS"], format!("db2:{path}"));
    assert!(end["TRANSFER_SECONDS"].as_str().unwrap().parse::<f64>().unwrap() > 0.0);
    let second = entries(&name("second"));
    let end = second.iter().find(|entry| entry["TRANSFER_EXIT"] == "4").unwrap();
    assert_eq!(end["PRIORITY"], "3", "{second:?}");
    let refused = end["TRANSFER_RUN"].as_str().unwrap();
    let why = ctl.sh(&format!("journalctl --output=cat TRANSFER_RUN={refused}"));
    assert!(why.contains(&format!("db2: {path}/data already exists; ")), "{why}");
    // Once, and not as lines of standard error.
    let all = ctl.sh(&format!("journalctl --output=cat --unit={}", name("second")));
    assert_eq!(all.matches("already exists; ").count(), 1, "{all}");
    let by_field = ctl.sh(&format!("journalctl --output=cat TRANSFER_RUN={run}"));
    assert!(by_field.contains("run started") && by_field.contains("finished successfully"), "{by_field}");
    ctl.sh("rm -rf /var/lib/transfer-history");
}
