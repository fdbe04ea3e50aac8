//! The stream: waits for the sender and all receivers, reports the progress, and detects stalls.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::Receiver;
use crate::error::Error;
use crate::host::agent::Job;
use crate::host::conversation::AgentError;
use crate::lease::End;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::proto::command::Command;
use crate::proto::job::{Dropped, JobName, Meter};

/// Interval of progress checks; the hosts report once a second.
const LOOK: Duration = Duration::from_millis(500);
/// Time for a sender to end by itself once all of its receivers are gone.
const GRACE: Duration = Duration::from_secs(1);
/// Time for a receiver that gets no more data to end and report why.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Margin by which the source drops a stalled target before we declare the whole stream stalled.
const DROP_MARGIN: Duration = Duration::from_secs(10);

/// Reason why the watch over a stream ended.
enum Trouble {
    /// No receiver is left.
    Futile,
    /// The stream has stalled.
    Still,
    /// The source's agent is gone.
    Lost(AgentError),
}

/// Waits until all jobs have ended or are given up. Marks receivers as failed whose agent was lost, whose sink
/// was dropped or which did not end. Fails only if the source does.
pub(super) async fn stream(
    plan: &Plan,
    source: &End,
    receivers: &mut [Receiver<'_>],
    progress: &Progress,
) -> Result<Job, Error> {
    let receiving = join_all(receivers.iter().filter(|receiver| receiver.is_live()).map(|receiver| async {
        let sink = receiver.plan.number;
        tokio::select! {
            _ = receiver.end.agent.ended(JobName::Receiver) => {}
            // The receiver of a dropped sink may never end by itself.
            _ = source.agent.until(JobName::Sender, |job| job.dropped.contains_key(&sink)) => {
                let _ = tokio::time::timeout(LAST_WORDS, receiver.end.agent.ended(JobName::Receiver)).await;
            }
        }
    }));
    let ends = async { tokio::join!(source.agent.ended(JobName::Sender), receiving) };
    tokio::pin!(ends);
    let trouble = tokio::select! {
        _ = &mut ends => None,
        trouble = watch(plan, source, receivers, progress) => Some(trouble),
    };
    match &trouble {
        Some(Trouble::Lost(error)) => return Err(error.clone().into()),
        Some(Trouble::Futile) => {
            source.agent.order(Command::StopJob { job: JobName::Sender }).await?;
            // Receivers that still run after that are ended by the release of their agents.
            let _ = tokio::time::timeout(LAST_WORDS, ends).await;
        }
        // Some targets may still be complete: those that have ended are judged as usual.
        Some(Trouble::Still) | None => {}
    }
    report(plan, source, progress);
    if source.agent.is_lost() {
        return Err(source.agent.lost().await.into());
    }
    let sender = source.agent.job(JobName::Sender);
    for receiver in receivers.iter_mut().filter(|receiver| receiver.is_live()) {
        // Its receiver is lost, too.
        if receiver.end.agent.is_lost() {
            receiver.fail(receiver.end.agent.lost().await.into());
            continue;
        }
        let host = &receiver.plan.endpoint.host;
        let job = receiver.end.agent.job(JobName::Receiver);
        match sender.dropped.get(&receiver.plan.number) {
            Some(Dropped::Stalled) => receiver.fail(Error::Failed(format!(
                "{host}: dropped from the stream: it accepted no data for {} s (--idle-timeout)",
                plan.idle_timeout.as_secs()
            ))),
            // A receiver that failed by itself has a better reason.
            Some(Dropped::Closed) if job.exit.is_none_or(|status| status == 0) => receiver
                .fail(Error::Failed(format!("{host}: dropped from the stream: its connection was closed"))),
            _ => {}
        }
        if job.exit.is_none() || sender.exit.is_none() {
            receiver.fail(Error::Failed(match &trouble {
                Some(Trouble::Still) => format!(
                    "no byte has moved for {} s (--idle-timeout) between {} and {host}",
                    plan.idle_timeout.as_secs(),
                    plan.source.endpoint.host
                ),
                _ => format!("{host}: the receiver did not end"),
            }));
        }
    }
    Ok(sender)
}

/// Watches a stream and returns only on trouble: nothing has moved for the idle timeout, no receiver is left,
/// or the source's agent is lost.
async fn watch(plan: &Plan, source: &End, receivers: &[Receiver<'_>], progress: &Progress) -> Trouble {
    let live: Vec<&Receiver<'_>> = receivers.iter().filter(|receiver| receiver.is_live()).collect();
    // With several targets the source drops the one that stalls, so that the others go on.
    let patience = if live.len() > 1 { plan.idle_timeout + DROP_MARGIN } else { plan.idle_timeout };
    let mut last = (0, 0);
    let mut since = Instant::now();
    let mut futile_since = None;
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            lost = source.agent.lost() => return Trouble::Lost(lost),
            _ = look.tick() => {}
        }
        report(plan, source, progress);
        let sender = source.agent.job(JobName::Sender);
        // Only the stream counts: progress of the digests beside it does not mean that the stream moves.
        let moved = live
            .iter()
            .map(|receiver| receiver.end.agent.job(JobName::Receiver))
            .fold(sender.moved(), |sum, job| sum.saturating_add(job.moved()));
        // The end of a job is progress, too: the rest of the data may begin to flow now.
        let ended =
            live.iter().filter(|receiver| receiver.end.agent.job(JobName::Receiver).exit.is_some()).count()
                + usize::from(sender.exit.is_some())
                + sender.dropped.len();
        // A server may let a backup wait for a lock as long as its longest statement runs.
        let is_cut_off =
            source.agent.is_cut_off() || live.iter().any(|receiver| receiver.end.agent.is_cut_off());
        if (moved, ended) != last || is_cut_off || sender.waits.is_some() && sender.exit.is_none() {
            (last, since) = ((moved, ended), Instant::now());
        } else if since.elapsed() > patience {
            return Trouble::Still;
        }
        let gone = |receiver: &&&Receiver<'_>| {
            receiver.end.agent.is_lost()
                || receiver.end.agent.job(JobName::Receiver).exit.is_some_and(|status| status != 0)
                || sender.dropped.contains_key(&receiver.plan.number)
        };
        // Stages may go on after the shell of their job was killed.
        let headless = sender.exit.is_some() && sender.stages.is_empty();
        let unheard = sender.exit.is_none() && live.iter().filter(gone).count() == live.len();
        if headless || unheard {
            // The sender gets a moment to notice this by itself and to report the statuses of its stages.
            if futile_since.get_or_insert_with(Instant::now).elapsed() > GRACE {
                return Trouble::Futile;
            }
        }
    }
}

fn report(plan: &Plan, source: &End, progress: &Progress) {
    let sender = source.agent.job(JobName::Sender);
    progress.moved(bytes_read(&sender), plan.expected_bytes(), sender.waits.as_deref());
}

/// Returns the number of bytes that tar has written, before compression.
pub(super) fn bytes_read(sender: &Job) -> u64 {
    sender.meters.get(&Meter::Read).or_else(|| sender.meters.get(&Meter::Wire)).copied().unwrap_or_default()
}
