//! The stream itself: waits for the end of the sender and of every receiver, tells how far they are, and notices a
//! standstill.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::Lane;
use crate::error::Error;
use crate::host::guard::Job;
use crate::lease::End;
use crate::pipeline::build::{READ, WIRE, sink_name};
use crate::plan::Plan;
use crate::progress::Progress;

/// How often the progress is looked at; the hosts tell it once a second.
const LOOK: Duration = Duration::from_millis(500);
/// How long a sender may go on when all of its receivers are gone.
const GRACE: Duration = Duration::from_secs(1);
/// By how much the source's own patience with one of several targets comes first.
const DROP_MARGIN: Duration = Duration::from_secs(10);

/// How the watch over a stream ended.
enum Verdict {
    /// Nobody receives any more.
    Futile,
    /// It stands still, or the source's guard is gone.
    Dead(Error),
}

/// Waits until all have ended. A lane has failed afterwards when its guard was lost or its sink was dropped; the error
/// is one of the source or a standstill of all.
pub(super) async fn stream(
    plan: &Plan,
    source: &End,
    lanes: &mut [Lane<'_>],
    progress: &Progress,
) -> Result<Job, Error> {
    let receivers = join_all(lanes.iter().filter(|lane| lane.is_live()).map(|lane| async {
        let sink = sink_name(lane.plan.number);
        tokio::select! {
            ended = lane.end.guard.ended("receiver") => ended.map(drop),
            // The one that took nothing may never end by itself.
            dropped = source.guard.until("sender", |job| job.dropped.get(&sink).is_some_and(|why| why == "stalled")) =>
                dropped.map(drop),
        }
    }));
    let ends = async { tokio::join!(source.guard.ended("sender"), receivers) };
    tokio::pin!(ends);
    let verdict = tokio::select! {
        ends = &mut ends => Ok(ends),
        verdict = watch(plan, source, lanes, progress) => Err(verdict),
    };
    let (sender, receivers) = match verdict {
        Ok(ends) => ends,
        Err(Verdict::Dead(error)) => return Err(error),
        Err(Verdict::Futile) => {
            source.guard.call("stop_job", &[b"sender"]).await?;
            ends.await
        }
    };
    report(plan, source, progress);
    let sender = sender?;
    for (lane, receiver) in lanes.iter_mut().filter(|lane| lane.is_live()).zip(receivers) {
        let told = lane.end.guard.job("receiver");
        match sender.dropped.get(&sink_name(lane.plan.number)).map(String::as_str) {
            Some("stalled") => lane.fail(Error::Failed(format!(
                "{}: dropped from the stream: it took nothing for {} s (--idle-timeout)",
                lane.plan.endpoint.host,
                plan.idle_timeout.as_secs()
            ))),
            // A receiver that failed by itself says why.
            Some(_) if told.exit == Some(0) => lane.fail(Error::Failed(format!(
                "{}: dropped from the stream: its connection was closed",
                lane.plan.endpoint.host
            ))),
            _ => {}
        }
        if let Err(error) = receiver {
            lane.fail(error.into());
        }
    }
    Ok(sender)
}

/// Never ends well: returns when nothing has moved for the idle timeout, when nobody receives any more, or when the
/// source's guard is lost.
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
            lost = source.guard.lost() => return Verdict::Dead(lost.into()),
            _ = look.tick() => {}
        }
        report(plan, source, progress);
        let sender = source.guard.job("sender");
        let moved: u64 = live.iter().map(|lane| lane.end.guard.moved()).sum::<u64>() + source.guard.moved();
        // The end of one is a movement, too: what is left may now begin to flow.
        let ended = live.iter().filter(|lane| lane.end.guard.job("receiver").exit.is_some()).count()
            + usize::from(sender.exit.is_some())
            + sender.dropped.len();
        if (moved, ended) != last {
            (last, since) = ((moved, ended), Instant::now());
        } else if since.elapsed() > patience {
            return Verdict::Dead(Error::Failed(format!(
                "no byte has moved for {} s (--idle-timeout) between {} and its targets",
                patience.as_secs(),
                source.guard.host()
            )));
        }
        let gone = |lane: &&&Lane<'_>| {
            lane.end.guard.is_lost()
                || lane.end.guard.job("receiver").exit.is_some_and(|status| status != 0)
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
    progress.moved(bytes_read(&source.guard.job("sender")), plan.expected_bytes());
}

/// What tar has written: before the compression, where there is one.
pub(super) fn bytes_read(sender: &Job) -> u64 {
    sender.meters.get(READ).or_else(|| sender.meters.get(WIRE)).copied().unwrap_or_default()
}
