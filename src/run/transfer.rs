//! Transfer from one source to its targets, from the first lease to the last publication.
//!
//! Stage on every target → the engine connects, copies and judges ([`Stream`]) → per target arrive, prove and
//! publish or replicate ([`complete`](super::complete)). A target that fails keeps its error, and the others go on.
//! Nothing is rolled back here: this happens when `run` releases the agents, as it always does.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::agents::Replication;
use super::complete::{Arrival, complete};
use super::jobs;
use super::lane::{Completing, Ended, Goal, Lane};
use crate::engine::{Sent, Stream, StreamTarget, Verdict};
use crate::error::Error;
use crate::lease::{self, End, job};
use crate::mariadb::plan::ReplicaPlan;
use crate::mariadb::quiesce::Quiesced;
use crate::mariadb::replicate::{Credentials, Replica, Setup};
use crate::plan::Plan;
use crate::progress::{Phase, Progress};
use crate::proto::job::JobName;
use crate::report::outcome::{Copied, Outcome};

/// Ends of a transfer: the agents that have started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ends<'a> {
    /// The source.
    pub(super) source: &'a End,
    /// One of each target, in the order of the plan.
    pub(super) targets: &'a [End],
    /// Replication, if the targets become replicas.
    pub(super) replication: Option<Replication<'a>>,
}

/// Lanes that go on, and the results of those that have ended.
#[derive(Debug, Default)]
struct Lanes<'a> {
    live: Vec<Lane<'a>>,
    /// Position in the plan, and the end.
    ended: Vec<(usize, Ended)>,
}

impl<'a> Lanes<'a> {
    /// Takes one result per live lane, in order. Lanes with an error, or without a result, end; returns the values of
    /// the others.
    fn keep<T>(&mut self, results: Vec<Result<T, Error>>) -> Vec<T> {
        let mut values = Vec::new();
        let mut results = results.into_iter();
        for lane in std::mem::take(&mut self.live) {
            match results.next().unwrap_or_else(|| Err(Error::Failed("no result".into()))) {
                Ok(value) => {
                    values.push(value);
                    self.live.push(lane);
                }
                Err(error) => self.end(&lane, Outcome::Failed(error)),
            }
        }
        values
    }

    /// Ends all live lanes with the first error; the others get its text.
    fn fail(&mut self, error: Error) {
        let text = error.chain();
        let mut error = Some(error);
        for lane in std::mem::take(&mut self.live) {
            let error = error.take().unwrap_or_else(|| Error::Failed(text.clone()));
            self.end(&lane, Outcome::Failed(error));
        }
    }

    /// Ends all live lanes with their results.
    fn complete(&mut self, results: Vec<Result<Copied, Error>>) {
        let copies = self.keep(results);
        for (lane, copied) in std::mem::take(&mut self.live).into_iter().zip(copies) {
            self.end(&lane, Outcome::Done(copied));
        }
    }

    fn end(&mut self, lane: &Lane<'a>, outcome: Outcome) {
        if let Outcome::Failed(error) = &outcome {
            tracing::debug!(target = %lane.plan.endpoint, error = error.chain(), "target failed");
        }
        self.ended.push((lane.index, Ended { port: lane.port, outcome }));
    }
}

/// Copies the source to all targets and, for replicas, starts replication from the primary. Returns the ends in the
/// order of the plan's targets.
pub(super) async fn transfer(plan: &Plan, ends: Ends<'_>, progress: &Progress) -> Vec<Ended> {
    let targets = plan.targets.iter().zip(ends.targets).enumerate();
    let lane = |(index, (plan, end))| Lane { index, plan, end, goal: Goal::Publish, port: 0 };
    let mut lanes = Lanes { live: targets.map(lane).collect(), ended: Vec::new() };
    if let Err(error) = copy(plan, ends, &mut lanes, progress).await {
        // An error that ends all targets, such as a failed source, is reported for each of them.
        lanes.fail(error);
    }
    lanes.ended.sort_by_key(|(index, ..)| *index);
    lanes.ended.into_iter().map(|(_, ended)| ended).collect()
}

/// Copies the source until every lane has ended. An error is that of all lanes that are live.
async fn copy<'a>(
    plan: &'a Plan,
    ends: Ends<'a>,
    lanes: &mut Lanes<'a>,
    progress: &Progress,
) -> Result<(), Error> {
    let began = Instant::now();
    progress.phase(Phase::Preparing);
    let source = ends.source;
    let staging = join_all(lanes.live.iter().map(|lane| lease::staging(plan, lane.end, lane.plan)));
    let (held, staged) = tokio::join!(lease::hold_source(plan, source), staging);
    lanes.keep(staged);
    held?;
    if let Some(Replication { plan: replica, credentials }) = ends.replication {
        make_replicas(plan, replica, credentials, lanes).await;
    }
    let targets = lanes.live.iter().map(|lane| StreamTarget { plan: lane.plan, end: lane.end }).collect();
    let mut stream = plan.engine.stream(plan, source, targets);
    let streamed = run_stream(plan, source, &mut stream, progress).await;
    let mut results = Vec::new();
    for (lane, Verdict { port, result }) in lanes.live.iter_mut().zip(stream.verdicts()) {
        lane.port = port;
        results.push(result);
    }
    let received = lanes.keep(results);
    let Some(Streamed { quiesced, sent, took }) = streamed? else { return Ok(()) };
    if lanes.live.is_empty() {
        return Ok(());
    }
    let context =
        Completing { plan, source, sent: &sent, quiesced: &quiesced, progress, began, streamed: took };
    let arrivals = lanes.live.iter().zip(received).map(|(lane, received)| Arrival { lane, received });
    let copies = complete(&context, arrivals.collect()).await?;
    lanes.complete(copies);
    Ok(())
}

/// Provides a replication account for each lane whose copy becomes a replica.
async fn make_replicas<'a>(
    plan: &'a Plan,
    replica: &'a ReplicaPlan,
    credentials: Credentials<'a>,
    lanes: &mut Lanes<'a>,
) {
    let mut goals = Vec::new();
    for lane in &lanes.live {
        goals.push(match &lane.plan.follow {
            Some(how) => {
                let setup = Setup { plan, replica, target: lane.plan, how, end: lane.end };
                let replica = Replica::with_account(setup, credentials).await;
                replica.map(|replica| Goal::Replicate(Box::new(replica)))
            }
            None => Ok(Goal::Publish),
        });
    }
    let goals = lanes.keep(goals);
    for (lane, goal) in lanes.live.iter_mut().zip(goals) {
        lane.goal = goal;
    }
}

/// Result of a stream that has ended.
struct Streamed<'a> {
    quiesced: Quiesced<'a>,
    sent: Sent,
    took: Duration,
}

/// Connects and copies. Returns `None` if no target is left before any data is read. Fails if the source does.
async fn run_stream<'a>(
    plan: &'a Plan,
    source: &'a End,
    stream: &mut Stream<'_>,
    progress: &Progress,
) -> Result<Option<Streamed<'a>>, Error> {
    stream.connect().await?;
    if !stream.is_live() {
        return Ok(None);
    }
    // As late as possible: servers are down only for the copy itself.
    let quiesced = Quiesced::begin(plan, source).await?;
    progress.phase(Phase::Copying);
    let clock = Instant::now();
    if plan.shape.compares_files() {
        job::start(&source.agent, JobName::Manifest, jobs::source_list(plan), None).await?;
    }
    stream.copy(progress).await?;
    let took = clock.elapsed();
    // If files are compared, they are still being read.
    if !plan.shape.compares_files() {
        quiesced.end().await?;
    }
    let sent = stream.close().await;
    Ok(Some(Streamed { quiesced, sent, took }))
}
