//! Reports of agents: replies, and events of the sender on a source and of the receiver on a target; and the
//! final messages about them.

#![no_main]

use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use transfer::base::endpoint::MOST_TARGETS;
use transfer::engine::netcat::judge;
use transfer::error::Error;
use transfer::host::agent::AgentError;
use transfer::host::agent::event::MOST_STAGES;
use transfer::host::agent::told::{MOST_COMPLAINTS, Shared, State};
use transfer::host::agent::{Job, JobName, List};
use transfer::host::facts::Facts;
use transfer::host::wire::{LONGEST_PATH, LONGEST_TEXT, MAX_LINE};
use transfer::lease::{Leftover, Remains};
use transfer::plan::Plan;
use transfer::report::outcome::{Copied, Outcome};
use transfer::report::{OldData, Report, TargetReport};
use transfer_fuzz::{answer, assert_line, assert_lines, parts, plan, settings};

static PLAN: LazyLock<Plan> = LazyLock::new(|| plan(&settings(&[]), &Facts::default(), &Facts::default()));

/// Limit for a text that is kept, including the mark of truncation.
const TEXT: usize = LONGEST_TEXT + 3;
const PATH: usize = LONGEST_PATH + 3;
/// All complaints of a job, and the messages that quote them.
const SAID: usize = 2 * MOST_COMPLAINTS * (TEXT + 2) + 2 * MOST_STAGES * TEXT + 1000;

fn assert_bounded(job: &Job) {
    let facts = &job.facts;
    let texts =
        job.complaints.iter().chain(&job.digest).chain(&job.waits).chain(&job.stuck).chain(&facts.error);
    let digests = job.manifests.values().map(|manifest| &manifest.digest);
    texts.chain(digests).for_each(|text| assert_line(text, TEXT));
    facts.gtid.iter().chain(&facts.file).chain(&facts.state).for_each(|text| assert_line(text, PATH));
    job.stages.iter().for_each(|(stage, _)| assert_line(&stage.to_string(), TEXT));
    assert!(job.complaints.len() <= MOST_COMPLAINTS);
    assert!(job.meters.len() <= MOST_STAGES);
    assert!(job.stages.len() <= MOST_STAGES && job.dropped.len() <= MOST_TARGETS);
    assert!(job.meters.values().all(|bytes| *bytes <= job.moved()));
}

fn assert_state_bounded(state: &State) {
    assert!(state.left.len() <= MOST_COMPLAINTS);
    assert!(state.kept.len() <= MOST_COMPLAINTS);
    state.refused.iter().for_each(|text| assert_line(text, TEXT));
    state.jobs.values().for_each(assert_bounded);
    for (agent, held) in &state.left {
        assert_line(agent, TEXT);
        assert_line(&held.to_string(), PATH);
    }
    state.kept.iter().for_each(|path| assert_line(path, PATH));
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
    let agents = parts::<2>(data).map(|part| {
        let shared = Shared::default();
        let replies: Vec<_> = (0..3).filter_map(|_| shared.expect_reply()).collect();
        answer(part).iter().for_each(|message| shared.take(message));
        (shared, replies)
    });
    let mut errors = Vec::new();
    for (shared, replies) in
        agents.iter().map(|(shared, _)| shared).zip(agents.iter().map(|(_, replies)| replies))
    {
        let state = shared.state();
        assert_state_bounded(&state);
        errors.push(AgentError::Lost { host: "db1".into(), ending: state.ending });
        assert!(replies.len() == 3);
    }
    let [(there, of_source), (here, of_target)] = agents;
    for (_, mut reply) in of_source.into_iter().chain(of_target) {
        match reply.try_recv() {
            Ok(Ok(fields)) => assert!(fields.iter().map(Vec::len).sum::<usize>() <= MAX_LINE),
            Ok(Err((code, text))) => {
                errors.push(AgentError::Failed { host: "db1".into(), action: "publish", code, text });
            }
            Err(_) => {}
        }
    }

    let job = |shared: &Shared, name: JobName| shared.state().jobs.get(&name).cloned().unwrap_or_default();
    let (sender, receiver) = (job(&there, JobName::Sender), job(&here, JobName::Receiver));
    let kept = here.state().kept.clone();
    let outcome = match judge(&PLAN, &PLAN.targets[0], &sender, &receiver) {
        Ok(()) => Outcome::Done(copied(&sender, &receiver)),
        Err(error) => Outcome::Failed(error),
    };
    let left = here.state().left.clone();
    let leftovers = left
        .into_iter()
        .map(|(_, held)| Leftover { host: "db2".into(), what: Remains::Lease(held) })
        .collect();
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
    let most = 10 * (SAID + 64 * (PATH + 200)) + 64 * (PATH + 200);
    assert_lines(&report.to_string(), most);
    assert_line(&report.to_json(), 2 * most);
});
