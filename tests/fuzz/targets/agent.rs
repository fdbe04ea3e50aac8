//! Reports of agents: answers, and events of the sender on a source and of the receiver on a target; and the
//! final messages about them.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use transfer::base::endpoint::MOST_TARGETS;
use transfer::base::printable::{LONGEST_PATH, LONGEST_TEXT};
use transfer::engine::netcat::judge;
use transfer::error::Error;
use transfer::host::agent::told::{MOST_COMPLAINTS, MOST_LOG, MOST_NAMED, MOST_STAGES, Shared};
use transfer::host::agent::{Held, Job};
use transfer::host::conversation::AgentError;
use transfer::host::facts::Facts;
use transfer::lease::{Leftover, Remains};
use transfer::plan::Plan;
use transfer::proto::command::{Event, FromAgent};
use transfer::proto::job::{JobName, List};
use transfer::proto::status::RollbackEvent;
use transfer::report::outcome::{Copied, Outcome};
use transfer::report::{OldData, Report, TargetReport};
use transfer_fuzz::{assert_line, assert_lines, messages, plan, settings};

static PLAN: LazyLock<Plan> = LazyLock::new(|| plan(&settings(&[]), &Facts::default(), &Facts::default()));

/// Limit for a text that is kept, including the mark of truncation.
const TEXT: usize = LONGEST_TEXT + 3;
const PATH: usize = LONGEST_PATH + 3;
/// All complaints of a job, and the messages that quote them.
const SAID: usize = 2 * MOST_COMPLAINTS * (TEXT + 2) + 2 * MOST_STAGES * TEXT + 1000;

fn assert_bounded(job: &Job) {
    let texts = job.complaints.iter().chain(&job.digest).chain(&job.waits).chain(&job.stuck);
    let digests = job.manifests.values().map(|manifest| &manifest.digest);
    texts.chain(digests).chain(&job.log).chain(&job.unconfined).for_each(|text| assert_line(text, TEXT));
    for fault in job.faults.values() {
        assert!(fault.named.len() <= MOST_NAMED);
        fault.named.iter().for_each(|file| assert_line(file, TEXT));
    }
    if let Some(backup) = &job.backup {
        [&backup.gtid, &backup.source_position].into_iter().for_each(|text| assert_line(text, PATH));
    }
    job.stages.iter().for_each(|(stage, _)| assert_line(&stage.to_string(), TEXT));
    assert!(job.complaints.len() <= MOST_COMPLAINTS && job.log.len() <= MOST_LOG);
    assert!(job.meters.len() <= MOST_STAGES && job.unconfined.len() <= MOST_NAMED);
    assert!(job.stages.len() <= MOST_STAGES && job.dropped.len() <= MOST_TARGETS);
    assert!(job.meters.values().all(|bytes| *bytes <= job.moved()));
}

fn copied(sender: &Job, receiver: &Job) -> Copied {
    let entries = receiver.manifests.get(&List::Entries).cloned().unwrap_or_default();
    Copied {
        entries: entries.records,
        bytes: entries.bytes,
        read_bytes: sender.moved(),
        wire_bytes: receiver.moved(),
        took: Duration::from_secs(2),
        streamed: Duration::from_secs(1),
        stream_digest: Some("sha256".into()),
        stream_value: receiver.digest.clone(),
        files_compared: None,
        entries_digest: entries.digest,
        synced: true,
        changed: false,
        listed: true,
        backup: None,
        replica: None,
        dropped: Default::default(),
        source_remarks: sender.complaints.clone(),
        remarks: sender.complaints.iter().chain(&receiver.complaints).cloned().collect(),
    }
}

fuzz_target!(|data: &[u8]| {
    let [there, here] = [Shared::default(), Shared::default()];
    let (mut errors, mut kept, mut leftovers) = (Vec::new(), Vec::new(), Vec::new());
    for (is_target, message) in messages::<(bool, FromAgent)>(data) {
        let event = match message {
            FromAgent::Event(event) => event,
            FromAgent::Reply { result: Ok(_), .. } => continue,
            FromAgent::Reply { result: Err(failure), .. } => {
                let text = failure.text.to_string();
                errors.push(AgentError::Failed { host: "db1".into(), code: failure.code, text });
                continue;
            }
        };
        match &event {
            Event::Ending(ending) => {
                errors.push(AgentError::Lost { host: "db1".into(), ending: Some(*ending) });
            }
            Event::Rollback(RollbackEvent::Kept { path, .. }) => kept.push(path.to_string()),
            Event::Rollback(RollbackEvent::Left { undo, reason, .. }) => {
                let held = Held { lease: undo.clone(), reason: reason.clone() };
                leftovers.push(Leftover { host: "db2".into(), what: Remains::Lease(held) });
            }
            _ => {}
        }
        (if is_target { &here } else { &there }).take(event);
    }
    [&there, &here].iter().for_each(|shared| JobName::ALL.iter().for_each(|name| assert_bounded(&shared.job(*name))));
    // The controller keeps as many.
    errors.truncate(64);
    kept.truncate(64);
    leftovers.truncate(64);

    let (sender, receiver) = (there.job(JobName::Sender), here.job(JobName::Receiver));
    let outcome = match judge(&PLAN, &PLAN.targets[0], &sender, &receiver) {
        Ok(()) => Outcome::Done(copied(&sender, &receiver)),
        Err(error) => Outcome::Failed(error),
    };
    let target = |outcome| TargetReport {
        endpoint: PLAN.targets[0].endpoint.clone(),
        final_path: Some("/srv/data".into()),
        addresses: None,
        port: Some(4400),
        outcome,
        kept: kept.clone(),
        published: false,
        is_uncertain: true,
        old: OldData::Unchanged,
        servers: Vec::new(),
        log: receiver.log.clone(),
    };
    let targets = errors.into_iter().map(|error| Outcome::Failed(Error::from(error))).chain([outcome]);
    let report = Report { targets: targets.map(target).collect(), leftovers, ..Report::default() };
    let most = 66 * (SAID + 64 * (PATH + 200)) + 64 * (3 * PATH + 1000);
    assert_lines(&report.to_string(), most);
    assert_line(&report.to_json(), 2 * most);
});
