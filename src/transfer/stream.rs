//! The stream itself: waits for the end of the sender and of every receiver, tells how far they are, and notices a
//! standstill.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::Lane;
use crate::error::Error;
use crate::host::agent::{AgentError, Job};
use crate::lease::End;
use crate::pipeline::build::{READ, WIRE, sink_name};
use crate::plan::Plan;
use crate::progress::Progress;

/// How often the progress is looked at; the hosts tell it once a second.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// How long a sender may go on when all of its receivers are gone.
const GRACE: Duration = Duration::from_secs(1);
/// How long a receiver that gets nothing more may take to end and to say why.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// By how much the source's own patience with one of several targets comes first.
const DROP_MARGIN: Duration = Duration::from_secs(10);

/// How the watch over a stream ended.
enum Verdict {
    /// Nobody receives any more.
    Futile,
    /// It stands still.
    Still,
    /// The source's agent is gone.
    Lost(AgentError),
}

/// Waits until all have ended, or those that have not are given up. A lane has failed afterwards when its agent was lost,
/// when its sink was dropped or when it has not ended; the error is one of the source or a standstill of all.
pub(super) async fn stream(
    plan: &Plan,
    source: &End,
    lanes: &mut [Lane<'_>],
    progress: &Progress,
) -> Result<Job, Error> {
    let receivers = join_all(lanes.iter().filter(|lane| lane.is_live()).map(|lane| async {
        let sink = sink_name(lane.plan.number);
        tokio::select! {
            _ = lane.end.agent.ended("receiver") => {}
            // The one that was dropped may never end by itself.
            _ = source.agent.until("sender", |job| job.dropped.contains_key(&sink)) => {
                let _ = tokio::time::timeout(LAST_WORDS, lane.end.agent.ended("receiver")).await;
            }
        }
    }));
    let ends = async { tokio::join!(source.agent.ended("sender"), receivers) };
    tokio::pin!(ends);
    let verdict = tokio::select! {
        _ = &mut ends => None,
        verdict = watch(plan, source, lanes, progress) => Some(verdict),
    };
    match &verdict {
        Some(Verdict::Lost(error)) => return Err(error.clone().into()),
        Some(Verdict::Futile) => {
            source.agent.call("stop_job", &[b"sender"]).await?;
            // What still runs on the targets then is ended by their release.
            let _ = tokio::time::timeout(LAST_WORDS, ends).await;
        }
        // Where the sender has sent everything, targets that have all of it may be done.
        Some(Verdict::Still) | None => {}
    }
    report(plan, source, progress);
    if source.agent.is_lost() {
        return Err(source.agent.lost().await.into());
    }
    let sender = source.agent.job("sender");
    for lane in lanes.iter_mut().filter(|lane| lane.is_live()) {
        // Whose receiver went with it.
        if lane.end.agent.is_lost() {
            lane.fail(lane.end.agent.lost().await.into());
            continue;
        }
        let host = &lane.plan.endpoint.host;
        let told = lane.end.agent.job("receiver");
        match sender.dropped.get(&sink_name(lane.plan.number)).map(String::as_str) {
            Some("stalled") => lane.fail(Error::Failed(format!(
                "{host}: dropped from the stream: it took nothing for {} s (--idle-timeout)",
                plan.idle_timeout.as_secs()
            ))),
            // A receiver that failed by itself says why.
            Some(_) if told.exit.is_none_or(|status| status == 0) => lane
                .fail(Error::Failed(format!("{host}: dropped from the stream: its connection was closed"))),
            _ => {}
        }
        if told.exit.is_none() || sender.exit.is_none() {
            lane.fail(Error::Failed(match &verdict {
                Some(Verdict::Still) => format!(
                    "no byte has moved for {} s (--idle-timeout) between {} and {host}",
                    plan.idle_timeout.as_secs(),
                    plan.source.endpoint.host
                ),
                _ => format!("{host}: the receiver does not end"),
            }));
        }
    }
    Ok(sender)
}

/// Never ends well: returns when nothing has moved for the idle timeout, when nobody receives any more, or when the
/// source's agent is lost.
async fn watch(plan: &Plan, source: &End, lanes: &[Lane<'_>], progress: &Progress) -> Verdict {
    let live: Vec<&Lane<'_>> = lanes.iter().filter(|lane| lane.is_live()).collect();
    // With several targets the source drops the one that stalls, so that the others go on.
    let patience = if live.len() > 1 { plan.idle_timeout + DROP_MARGIN } else { plan.idle_timeout };
    let mut last = (0, 0);
    let mut since = Instant::now();
    let mut futile_since = None;
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            lost = source.agent.lost() => return Verdict::Lost(lost),
            _ = look.tick() => {}
        }
        report(plan, source, progress);
        let sender = source.agent.job("sender");
        // Of the stream alone: digests that are taken beside it keep nobody waiting.
        let moved = live
            .iter()
            .map(|lane| lane.end.agent.job("receiver"))
            .fold(sender.moved(), |sum, job| sum.saturating_add(job.moved()));
        // The end of one is a movement, too: what is left may now begin to flow.
        let ended = live.iter().filter(|lane| lane.end.agent.job("receiver").exit.is_some()).count()
            + usize::from(sender.exit.is_some())
            + sender.dropped.len();
        // A server may let a backup wait for a lock as long as its longest statement runs.
        if (moved, ended) != last || sender.waits.is_some() && sender.exit.is_none() {
            (last, since) = ((moved, ended), Instant::now());
        } else if since.elapsed() > patience {
            return Verdict::Still;
        }
        let gone = |lane: &&&Lane<'_>| {
            lane.end.agent.is_lost()
                || lane.end.agent.job("receiver").exit.is_some_and(|status| status != 0)
                || sender.dropped.contains_key(&sink_name(lane.plan.number))
        };
        // A job whose shell was killed may have stages that go on.
        let headless = sender.exit.is_some() && sender.stages.is_empty();
        let unheard = sender.exit.is_none() && live.iter().filter(gone).count() == live.len();
        if headless || unheard {
            // A moment for the sender to notice by itself, and to tell the statuses of its stages.
            if futile_since.get_or_insert_with(Instant::now).elapsed() > GRACE {
                return Verdict::Futile;
            }
        }
    }
}

fn report(plan: &Plan, source: &End, progress: &Progress) {
    let sender = source.agent.job("sender");
    progress.moved(bytes_read(&sender), plan.expected_bytes(), sender.waits.as_deref());
}

/// What tar has written: before the compression, where there is one.
pub(super) fn bytes_read(sender: &Job) -> u64 {
    sender.meters.get(READ).or_else(|| sender.meters.get(WIRE)).copied().unwrap_or_default()
}
