//! After the stream: compares what lies on the disks, and publishes what is proven.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
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
    if plan.ignore_changed {
        lease::job(&source.guard, "changed", &build::changed(plan), "").await?;
        ended_well(source, "changed", "list what has changed").await?;
    }
    let results = join_all(lanes.iter_mut().filter(|lane| lane.is_live()).zip(of_targets).map(
        |(lane, of_target)| async {
            match publish(plan, source, lane, &of_source, of_target).await {
                Ok(published) => Some(copied(plan, published, sender, lane, began.elapsed())),
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

/// A copy that has its name.
struct Published {
    /// What was listed there.
    listed: Job,
    /// Where what had the name before is now.
    old: Option<PathBuf>,
    /// What changed on the source meanwhile.
    changes: Vec<String>,
}

/// Compares one target with the source and gives its copy the final name.
async fn publish(
    plan: &Plan,
    source: &End,
    lane: &Lane<'_>,
    of_source: &Job,
    of_target: Result<Job, Error>,
) -> Result<Published, Error> {
    let listed = of_target?;
    let mut changes = Vec::new();
    let lists: &[&str] = if plan.file_digest.is_some() { &["entries", "digests"] } else { &["entries"] };
    for list in lists {
        let (there, here) = (of_source.manifests.get(*list), listed.manifests.get(*list));
        if there.is_some() && there == here {
            continue;
        }
        let differences = verify::differences(source, lane.end, list).await?;
        let explained = if plan.ignore_changed {
            verify::explained(source, "changed", &differences).await?
        } else {
            None
        };
        match explained {
            Some(change) => changes.push(change),
            None => {
                return Err(Error::Verification(format!("{}: {differences}", lane.plan.endpoint.host)));
            }
        }
    }
    if let Some(script) = build::chown(plan, lane.plan) {
        lease::job(&lane.end.guard, "chown", &script, "").await?;
        ended_well(lane.end, "chown", "give the copy to its owner").await?;
    }
    let staged = lane.plan.staging.join(&plan.source.name);
    let name = lane.plan.final_path.as_os_str().as_bytes();
    let how = plan.replace.word();
    let old = lane.plan.old_path.as_os_str().as_bytes();
    let sync: &[u8] = if plan.fsync { b"sync" } else { b"no-sync" };
    let seen = lane.plan.old.as_deref().unwrap_or_default().as_bytes();
    let arguments = [staged.as_os_str().as_bytes(), name, how, old, sync, seen];
    let reply = lane.end.guard.call("publish", &arguments).await;
    match reply {
        Err(GuardError::Failed { host, code, .. }) if code == "exists" => Err(Error::Failed(format!(
            "{host}: {} was made by somebody else meanwhile and is left as it is",
            printable(name)
        ))),
        Err(GuardError::Failed { host, code, text, .. }) if code == "sync" => {
            let name = printable(name);
            let state = if lane.end.guard.published() {
                "is there and may not outlast a power cut"
            } else {
                "would not outlast a power cut, and is as it was before"
            };
            Err(Error::Failed(format!("{host}: {name} {state}: {text}")))
        }
        Err(error) if !lane.end.guard.published() => Err(error.into()),
        // It is proven and has its name; what failed, if anything, came after that.
        _ => {
            let old = lane.end.guard.old_kept().then(|| lane.plan.old_path.clone());
            Ok(Published { listed, old, changes })
        }
    }
}

/// Waits for a job that lists and digests.
async fn manifests(end: &End, job: &str) -> Result<Job, Error> {
    ended_well(end, job, "list and digest the files").await
}

/// Waits for a job that must end well; `what` it could not do otherwise.
async fn ended_well(end: &End, job: &str, what: &str) -> Result<Job, Error> {
    let ended = end.guard.ended(job).await?;
    if ended.exit != Some(0) {
        return Err(Error::Failed(format!("{}: cannot {what}{}", end.guard.host(), said(&ended))));
    }
    Ok(ended)
}

fn copied(plan: &Plan, published: Published, sender: &Job, lane: &Lane<'_>, took: Duration) -> Copied {
    let Published { listed, old, changes } = published;
    let entries = listed.manifests.get("entries").cloned().unwrap_or_default();
    let receiver = lane.end.guard.job("receiver");
    let header = if plan.encrypt { CIPHER_HEADER } else { 0 };
    Copied {
        entries: entries.records,
        bytes: entries.bytes,
        read_bytes: bytes_read(sender),
        wire_bytes: receiver.meters.get(WIRE).copied().unwrap_or_default().saturating_add(header),
        took,
        streamed: Duration::ZERO,
        stream_digest: plan.stream_digest.map(|digest| digest.to_string()),
        stream_value: plan.stream_digest.and(receiver.digest),
        files_compared: plan.file_digest.zip(listed.manifests.get("digests").map(|digests| digests.records)),
        entries_digest: entries.digest,
        old,
        synced: plan.fsync,
        changed: !changes.is_empty(),
        remarks: changes
            .into_iter()
            .chain(sender.complaints.iter().chain(&receiver.complaints).cloned())
            .collect(),
    }
}
