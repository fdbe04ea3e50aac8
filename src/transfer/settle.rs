//! After the stream: compares what lies on the disks, and publishes what is proven.

use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::judge::said;
use super::stream::bytes_read;
use super::{Copied, Lane};
use crate::error::Error;
use crate::host::guard::{GuardError, Job};
use crate::host::wire::printable;
use crate::lease::{self, End};
use crate::pipeline::build::{self, CIPHER_HEADER, WIRE};
use crate::plan::Plan;
use crate::verify;

/// Verifies and publishes every live lane; returns their copies in order. The error is the source's own.
pub(super) async fn settle(
    plan: &Plan,
    source: &End,
    lanes: &mut [Lane<'_>],
    sender: &Job,
    began: Instant,
) -> Result<Vec<Copied>, Error> {
    let of_source = async { manifests(source, "manifest").await };
    let of_targets = join_all(lanes.iter().filter(|lane| lane.is_live()).map(|lane| async {
        let script = build::target_manifest(plan, lane.plan);
        lease::job(&lane.end.guard, "verify", &script, "").await?;
        manifests(lane.end, "verify").await
    }));
    let (of_source, of_targets) = tokio::join!(of_source, of_targets);
    let of_source = of_source?;
    let results = join_all(lanes.iter_mut().filter(|lane| lane.is_live()).zip(of_targets).map(
        |(lane, of_target)| async {
            match publish(plan, source, lane, &of_source, of_target).await {
                Ok(listed) => Some(copied(plan, &listed, sender, lane, began.elapsed())),
                Err(error) => {
                    lane.fail(error);
                    None
                }
            }
        },
    ))
    .await;
    Ok(results.into_iter().flatten().collect())
}

/// Compares one target with the source and gives its copy the final name. Returns what was listed there.
async fn publish(
    plan: &Plan,
    source: &End,
    lane: &Lane<'_>,
    of_source: &Job,
    of_target: Result<Job, Error>,
) -> Result<Job, Error> {
    let of_target = of_target?;
    let lists: &[&str] = if plan.compare_files { &["entries", "digests"] } else { &["entries"] };
    for list in lists {
        let (there, here) = (of_source.manifests.get(*list), of_target.manifests.get(*list));
        if there.is_none() || there != here {
            let differences = verify::differences(source, lane.end, list).await?;
            return Err(Error::Verification(format!("{}: {differences}", lane.plan.endpoint.host)));
        }
    }
    let staged = lane.plan.staging.join(&plan.source.name);
    let name = lane.plan.final_path.as_os_str().as_bytes();
    let published = lane.end.guard.call("publish", &[staged.as_os_str().as_bytes(), name]).await;
    match published {
        Ok(_) => Ok(of_target),
        // It is proven and has its name; what failed came after that.
        Err(_) if lane.end.guard.published() => Ok(of_target),
        Err(GuardError::Failed { host, code, .. }) if code == "exists" => Err(Error::Failed(format!(
            "{host}: {} was made by somebody else meanwhile and is left as it is",
            printable(name)
        ))),
        Err(error) => Err(error.into()),
    }
}

/// Waits for a job that lists and digests.
async fn manifests(end: &End, job: &str) -> Result<Job, Error> {
    let ended = end.guard.ended(job).await?;
    if ended.exit != Some(0) {
        return Err(Error::Failed(format!(
            "{}: cannot list and digest the files{}",
            end.guard.host(),
            said(&ended)
        )));
    }
    Ok(ended)
}

fn copied(plan: &Plan, listed: &Job, sender: &Job, lane: &Lane<'_>, took: Duration) -> Copied {
    let entries = listed.manifests.get("entries").cloned().unwrap_or_default();
    let receiver = lane.end.guard.job("receiver");
    let header = if plan.encrypt { CIPHER_HEADER } else { 0 };
    Copied {
        entries: entries.records,
        bytes: entries.bytes,
        read_bytes: bytes_read(sender),
        wire_bytes: receiver.meters.get(WIRE).copied().unwrap_or_default() + header,
        took,
        streamed: Duration::ZERO,
        stream_digest: plan.stream_digest.map(|digest| digest.to_string()),
        files_compared: listed.manifests.get("digests").map(|digests| digests.records),
        remarks: sender.complaints.iter().chain(&receiver.complaints).cloned().collect(),
    }
}
