//! Signals and deaths of the processes of a run.

use super::{Fault, cold, fault, few, has_agent, plain};
use crate::damage::experiment::Experiment;
use crate::damage::moments::End;
use crate::damage::variants::Variant;
use crate::support::processes;

pub(super) fn signals() -> Vec<Fault> {
    vec![
        fault("sigint", |experiment| experiment.run().signal("INT"))
            .by(few)
            .ends(&[130], &["interrupted by SIGINT"]),
        fault("sigterm", |experiment| experiment.run().signal("TERM"))
            .by(plain)
            .ends(&[143], &["interrupted by SIGTERM"]),
        fault("sighup", |experiment| experiment.run().signal("HUP"))
            .by(plain)
            .ends(&[129], &["interrupted by SIGHUP"]),
        fault("sigkill", |experiment| experiment.run().signal("KILL")).ends(&[-9], &[]).vanishes(),
    ]
}

/// Kills processes of a run on a host, which are stopped first so that none can act for another one. A sudo
/// that is the parent of one of them stops with it, and has to be continued.
fn end(experiment: &Experiment, end: End, whom: &str) {
    let script = format!(
        "found=$({whom}); behind=$(for pid in ${{found:?}}; do parent $pid; done)
         kill -STOP $found || :; kill -KILL $found || :; kill -CONT $behind || :"
    );
    processes::sh(&experiment.host(end), &script);
}

#[expect(clippy::too_many_lines, reason = "a table of faults")]
pub(super) fn deaths() -> Vec<Fault> {
    // The agent last: the kernel continues a stopped watchdog when its parent dies, and it would start to
    // act.
    const ALL: &str = "watchdog; agent";
    vec![
        fault("master-of-target", |experiment| experiment.kill_master("db2"))
            .by(plain)
            .at(|moment| moment.is_from("probing"))
            .ends(&[1, 4], &["db2"]),
        fault("master-of-source", |experiment| experiment.kill_master("db1"))
            .at(|moment| moment.is_from("probing"))
            .by(cold)
            .of_source()
            .ends(&[1, 4], &["db1"]),
        fault("session-of-target", |experiment| experiment.kill_session("db2"))
            .by(few)
            .at(|moment| moment.is_from("probing"))
            .ends(&[1, 4], &["db2"]),
        fault("session-of-source", |experiment| experiment.kill_session("db1"))
            .at(|moment| moment.is_from("probing"))
            .by(cold)
            .of_source()
            .ends(&[1, 4], &["db1"]),
        fault("agent-of-target", |experiment| end(experiment, End::Target, "agent"))
            .at(has_agent)
            .ends(&[1], &["db2: lost contact with the agent of this run"]),
        fault("agent-of-source", |experiment| end(experiment, End::Source, "agent"))
            .at(|moment| has_agent(moment) && moment.name != "releasing")
            .of_source()
            .ends(&[1], &["lost contact with the agent of this run"]),
        fault("keepers-of-target", |experiment| end(experiment, End::Target, ALL))
            .by(few)
            .at(has_agent)
            .ends(&[1], &["db2: lost contact with the agent of this run"]),
        fault("keepers-of-source", |experiment| end(experiment, End::Source, ALL))
            .by(cold)
            .at(|moment| has_agent(moment) && moment.name != "releasing")
            .of_source()
            .ends(&[1], &["lost contact with the agent of this run"]),
        fault("agent-and-controller", |experiment| {
            experiment.run().signal("STOP");
            end(experiment, End::Target, "agent");
            experiment.run().signal("KILL");
        })
        .by(few)
        .at(has_agent)
        .ends(&[-9], &[])
        .vanishes(),
        fault("everybody-at-source", |experiment| {
            experiment.run().signal("STOP");
            end(experiment, End::Source, ALL);
            experiment.run().signal("KILL");
        })
        .by(Variant::stops_something)
        .at(has_agent)
        .ends(&[-9], &[])
        .vanishes()
        .orphans(|_| vec!["db1"]),
        fault("everybody", |experiment| {
            experiment.run().signal("STOP");
            end(experiment, End::Target, ALL);
            experiment.run().signal("KILL");
        })
        .at(has_agent)
        .ends(&[-9], &[])
        .vanishes()
        .orphans(|_| vec!["db2"]),
    ]
}

/// Programs of pipelines: job, program, a word of its arguments, and the name of its stage.
const STAGES: [(End, &str, &str, &str, &str); 8] = [
    (End::Source, "sender", "tar", "--create", "tar"),
    (End::Source, "sender", "zstd", "-c", "compress"),
    (End::Source, "sender", "openssl", "enc", "encrypt"),
    (End::Source, "sender", "nc", "-N", "netcat"),
    (End::Target, "receiver", "nc", "-l", "netcat"),
    (End::Target, "receiver", "openssl", "enc", "decrypt"),
    (End::Target, "receiver", "zstd", "-c", "decompress"),
    (End::Target, "receiver", "tar", "--extract", "tar"),
];

pub(super) fn stages() -> Vec<Fault> {
    let stage = |(host, job, program, word, name): (End, &'static str, &'static str, &'static str, &str)| {
        fault(&format!("stage-{job}-{name}"), move |experiment| {
            end(experiment, host, &format!("process {job} {program} '{word}'"));
        })
        .at(|moment| moment.is_from("first") && !moment.is_from("closing"))
        .by(|variant| ["plain", "two-targets"].contains(&variant.name))
        .ends(&[1], &["db2"])
    };
    let mut faults: Vec<Fault> = STAGES.map(stage).into();
    for (host, job) in [(End::Source, "sender"), (End::Target, "receiver")] {
        let kill = move |experiment: &mut Experiment| end(experiment, host, &format!("job {job}"));
        faults.push(
            fault(&format!("process-of-{job}"), kill)
                .at(|moment| moment.is_from("listening") && !moment.is_from("restarting"))
                .by(few)
                // Before the connection, the run tries another port.
                .ends(&[0, 1], &["its processes were killed from outside"]),
        );
    }
    faults
}
