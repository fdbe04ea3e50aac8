use super::*;
use crate::config::values::DigestAlgorithm;
use crate::host::agent::Held;
use crate::lease::Remains;
use crate::proto::Text;
use crate::proto::journal::{Family, Layer, Undo};
use std::ffi::OsStr;
use std::time::Duration;

fn end(outcome: Outcome) -> TargetReport {
    let addresses = Some(("10.77.0.12".parse().unwrap(), "10.77.0.11".parse().unwrap()));
    TargetReport {
        endpoint: endpoint(),
        final_path: Some("/srv/sqldata".into()),
        addresses,
        port: Some(4400),
        outcome,
        kept: Vec::new(),
        log: Vec::new(),
        old: OldData::Unknown,
        published: true,
        is_uncertain: false,
        servers: Vec::new(),
    }
}

fn endpoint() -> Endpoint {
    Endpoint::parse(OsStr::new("db2:/srv")).unwrap()
}

fn copied() -> Outcome {
    Outcome::Done(Copied {
        entries: 12,
        bytes: 1 << 30,
        read_bytes: 1 << 30,
        wire_bytes: 1 << 29,
        took: Duration::from_millis(9_800),
        streamed: Duration::from_secs(8),
        stream_digest: Some("sha256".into()),
        stream_value: Some("ab".into()),
        files_compared: Some((DigestAlgorithm::Md5, 10)),
        entries_digest: "cd".into(),
        synced: true,
        changed: false,
        listed: true,
        backup: None,
        replica: None,
        dropped: [].into(),
        source_remarks: vec!["tar: ./d/s: socket ignored".into()],
        remarks: Vec::new(),
    })
}

#[test]
fn dropped_attributes_are_counted() {
    let Outcome::Done(mut copy) = copied() else { unreachable!("a good copy") };
    copy.dropped = [(AttributeKind::Acls, 3), (AttributeKind::Xattrs, 1)].into();
    let report = Report { targets: vec![end(Outcome::Done(copy))], ..Report::default() };
    let text = report.to_string();
    assert!(text.contains("\n  dropped: extended attributes of 1 file, ACLs of 3 files\n"), "{text}");
}

#[test]
fn good_copy_prints_summary_facts_and_notes() {
    let report = Report { targets: vec![end(copied())], ..Report::default() };
    assert_eq!(
        report.to_string(),
        "db2:/srv/sqldata: done: 1.00 GiB in 12 entries, 9.8 s\n  \
         sent: 512.00 MiB, 128.00 MiB/s, 10.77.0.11 to 10.77.0.12 port 4400\n  \
         verified: names and sizes, SHA-256 of the stream, MD5 of 10 files (read back from both disks)\n  \
         note: tar: ./d/s: socket ignored"
    );
    assert_eq!(report.exit(), Exit::Done);
}

#[test]
fn failed_targets_claim_only_what_is_known() {
    let failed = || Outcome::Failed(Error::Failed("db2: no such luck".into()));
    let report = |target: TargetReport| Report {
        run: Some(RunFacts {
            id: "r".into(),
            source: endpoint(),
            entries: 0,
            files: 0,
            bytes: 0,
            disk_bytes: 0,
            compression: None,
            encrypted: true,
            stream_digest: None,
            exclude: Vec::new(),
            log: Vec::new(),
        }),
        targets: vec![target],
        ..Report::default()
    };
    let restored = TargetReport {
        published: false,
        old: OldData::Unchanged,
        servers: vec![("mariadb.service".into(), ServerState::Restored)],
        ..end(failed())
    };
    let text = report(restored).to_string();
    assert!(text.contains("db2:/srv/sqldata: the old data is in place\n"), "{text}");
    assert!(text.contains("db2: mariadb.service was stopped and is running again\n"), "{text}");
    assert!(
        text.ends_with("rolled back; once the cause is corrected, it is safe to run the transfer again"),
        "{text}"
    );

    let not_started = TargetReport { published: false, addresses: None, ..end(failed()) };
    assert!(report(not_started).to_string().ends_with("it is safe to run the transfer again"));

    let uncertain = TargetReport { published: false, is_uncertain: true, ..end(failed()) };
    let text = report(uncertain).to_string();
    assert!(text.contains("contact was lost before the result was known"), "{text}");
    assert!(text.ends_with("all other changes were rolled back; check the paths named above"), "{text}");

    let published = TargetReport { published: true, old: OldData::Removed, ..end(failed()) };
    let text = report(published).to_string();
    assert!(text.contains("the old data was removed") && !text.contains("safe to run"), "{text}");
}

#[test]
fn silent_host_is_cleaned_when_it_can_be_reached() {
    let silent = |host: &str| Leftover { host: host.into(), what: Remains::Unconfirmed("silence".into()) };
    let failed =
        || TargetReport { published: false, ..end(Outcome::Failed(Error::Failed("db2: lost".into()))) };
    let one = Report { targets: vec![failed()], leftovers: vec![silent("db2")], ..Report::default() };
    assert!(
        one.to_string().ends_with(
            "\ntransfer: once db2 can be reached, run the command below, and those that it names, until it says \"nothing to roll back\"; then it is safe to \
             run the transfer again\nto roll back: transfer clean db2"
        ),
        "{one}"
    );
    let leftovers = vec![silent("db3"), silent("db2")];
    let two = Report { targets: vec![failed(), failed()], leftovers, ..Report::default() };
    assert!(two.to_string().contains("transfer: once db2 and db3 can be reached"), "{two}");
}

#[test]
fn leftovers_are_listed_with_clean_command() {
    let report = Report {
        targets: vec![end(copied()), end(Outcome::Failed(Error::Verification("db3: bad".into())))],
        leftovers: vec![Leftover {
            host: "db2".into(),
            what: Remains::Lease(Held {
                lease: Undo::Rules {
                    layer: Layer::Nftables,
                    family: Family::V4,
                    tag: "transfer-r-target1".into(),
                },
                reason: Text::default(),
            }),
        }],
        ..Report::default()
    };
    let text = report.to_string();
    assert!(text.contains("db2:/srv: FAILED: db3: bad"), "{text}");
    assert!(
        text.ends_with("transfer: run the command below, and those that it names, until it says \"nothing to roll back\"\nto roll back: transfer clean db2"),
        "{text}"
    );
    assert_eq!(report.exit(), Exit::Leftovers, "6 whatever else happened");
}
