//! The stream itself: waits for the end of the sender and of every receiver, tells how far they are, and notices a
//! standstill.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::Lane;
use crate::error::Error;
use crate::host::guard::{GuardError, Job};
use crate::lease::End;
use crate::pipeline::build::{READ, WIRE, sink_name};
use crate::plan::Plan;
use crate::progress::Progress;

/// How often the progress is looked at; the hosts tell it once a second.
const LOOK: Duration = Duration::from_millis(500);

/// Waits until all have ended. A lane has failed afterwards when its guard was lost or its sink was dropped; the error
/// is one of the source or a standstill of all.
pub(super) async fn stream(
    plan: &Plan,
    source: &End,
    lanes: &mut [Lane<'_>],
    progress: &Progress,
) -> Result<Job, Error> {
    let receivers = join_all(lanes.iter().map(|lane| async {
        if lane.is_live() { lane.end.guard.ended("receiver").await.map(drop) } else { Ok(()) }
    }));
    let ends = async { tokio::join!(source.guard.ended("sender"), receivers) };
    let (sender, receivers) = tokio::select! {
        ends = ends => ends,
        error = watch(plan, source, lanes, progress) => return Err(error),
    };
    report(plan, source, progress);
    let sender = sender?;
    for (lane, receiver) in lanes.iter_mut().zip(receivers) {
        if !lane.is_live() {
            continue;
        }
        if let Some(reason) = sender.dropped.get(&sink_name(lane.plan.number)) {
            let receiver = lane.end.guard.job("receiver");
            // A receiver that failed by itself says why; one that took nothing has no more to say.
            if reason == "stalled" || receiver.exit == Some(0) {
                lane.fail(Error::Failed(format!(
                    "{}: dropped from the stream: {}",
                    lane.plan.endpoint.host,
                    match reason.as_str() {
                        "stalled" => format!("it took nothing for {} s", plan.idle_timeout.as_secs()),
                        _ => "its connection was closed".to_owned(),
                    }
                )));
            }
        }
        if let Err(error) = receiver {
            lane.fail(error.into());
        }
    }
    Ok(sender)
}

/// Never ends well: returns when nothing has moved for the idle timeout, or the source's guard is lost.
async fn watch(plan: &Plan, source: &End, lanes: &[Lane<'_>], progress: &Progress) -> Error {
    let mut last = (0, 0);
    let mut since = Instant::now();
    let mut look = tokio::time::interval(LOOK);
    loop {
        tokio::select! {
            lost = source.guard.lost() => return lost.into(),
            _ = look.tick() => {}
        }
        report(plan, source, progress);
        let guards =
            lanes.iter().filter(|lane| lane.is_live()).map(|lane| &lane.end.guard).chain([&source.guard]);
        // The end of one is a movement, too: what is left may now begin to flow.
        let now = guards.fold((0, 0), |(moved, ended), guard| {
            let over = ["sender", "receiver"].iter().filter(|job| guard.job(job).exit.is_some()).count();
            (moved + guard.moved(), ended + over)
        });
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > plan.idle_timeout {
            return Error::Failed(format!(
                "no byte has moved for {} s (--idle-timeout) between {} and its targets",
                plan.idle_timeout.as_secs(),
                source.guard.host()
            ));
        }
        // All lanes may have lost their guards while the sender waits for them.
        let mut lost = 0;
        let mut live = 0;
        for lane in lanes.iter().filter(|lane| lane.is_live()) {
            live += 1;
            lost += usize::from(lane.end.guard.is_lost());
        }
        if live > 0 && lost == live {
            let host = lanes
                .iter()
                .find(|lane| lane.is_live())
                .map_or_else(String::new, |lane| lane.end.guard.host().into());
            return GuardError::Lost { host }.into();
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
