//! After the stream: compares what lies on the disks, and publishes what is proven.

use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::arrive::{Arrived, arrive, ended_well, run};
use super::rest::Rest;
use super::stream::bytes_read;
use super::{Copied, Lane};
use crate::error::{Error, chain};
use crate::host::guard::{GuardError, Job};
use crate::host::wire::printable;
use crate::lease::{self, End};
use crate::pipeline::build::{CIPHER_HEADER, WIRE};
use crate::pipeline::jobs;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::settings::Replace;
use crate::shape::{Consumer, Publication};
use crate::verify;

/// Verifies and publishes every live lane; returns their copies in order. The error is the source's own.
pub(super) async fn settle(
    plan: &Plan,
    source: &End,
    lanes: &mut [Lane<'_>],
    sender: &Job,
    (began, progress, rest): (Instant, &Progress, &Rest<'_>),
) -> Result<Vec<Copied>, Error> {
    let of_source = async {
        if !plan.shape.compares_files() {
            return Ok::<Job, Error>(Job::default());
        }
        let listed = async {
            let listed = ended_well(source, "manifest", "list and digest the files").await?;
            // What has changed before its server is at work again.
            if plan.ignore_changed {
                run(source, "changed", &jobs::changed(plan), "list what has changed").await?;
            }
            Ok(listed)
        };
        let listed = listed.await;
        // Whatever became of that, nobody waits for the targets.
        rest.end().await?;
        listed
    };
    let live = lanes.iter().filter(|lane| lane.is_live());
    let of_targets = join_all(live.map(|lane| arrive(plan, lane, sender, progress)));
    let (of_source, of_targets) = tokio::join!(of_source, of_targets);
    let of_source: Job = of_source?;
    let results = join_all(lanes.iter_mut().filter(|lane| lane.is_live()).zip(of_targets).map(
        |(lane, arrived)| async {
            match publish(plan, source, lane, &of_source, arrived).await {
                Ok(mut published) => {
                    published.notes.extend(rest.remark());
                    Some(copied(plan, published, sender, lane, began.elapsed()))
                }
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
    arrived: Arrived,
    /// What changed on the source meanwhile.
    changes: Vec<String>,
    /// What else is to be known.
    notes: Vec<String>,
}

/// Compares one target with the source and gives its copy the final name.
async fn publish(
    plan: &Plan,
    source: &End,
    lane: &Lane<'_>,
    of_source: &Job,
    arrived: Result<Arrived, Error>,
) -> Result<Published, Error> {
    let arrived = arrived?;
    let changes = compare(plan, source, lane, of_source, &arrived.listed).await?;
    if let Some(script) = jobs::chown(plan, lane.plan) {
        run(lane.end, "chown", &script, "give the copy to its owner").await?;
    }
    let named = async {
        lease::stop_servers(lane.end, &lane.plan.servers).await?;
        give_name(plan, lane).await
    };
    let named = named.await;
    let mut notes = Vec::new();
    if plan.shape.consumer == Consumer::File {
        let name = printable(lane.plan.final_path.as_os_str().as_bytes());
        notes.push(format!("it is {name}, with its digest beside it"));
    }
    if !lane.plan.servers.is_empty() {
        let restarted = lease::restart(&lane.end.guard).await;
        match (&named, restarted) {
            (Ok(()), Err(error)) => return Err(without_server(lane, &error)),
            (Ok(()), Ok(already)) => {
                notes.push("the server runs with the new data; what it replicates rests".into());
                notes.extend(already.iter().map(|unit| format!("{unit} was started by somebody else")));
            }
            (Err(_), Err(error)) => tracing::warn!("{}", chain(&error)),
            (Err(_), Ok(_)) => {}
        }
    }
    named?;
    if plan.replace == Replace::Remove && lane.end.guard.old_kept() {
        lane.end.guard.call("drop_old", &[lane.plan.old_path.as_os_str().as_bytes()]).await?;
    }
    Ok(Published { arrived, changes, notes })
}

/// What becomes of a copy that has its name, and whose server does not run: the old one is kept.
fn without_server(lane: &Lane<'_>, error: &GuardError) -> Error {
    let old = printable(lane.plan.old_path.as_os_str().as_bytes());
    let old = if lane.end.guard.old_kept() { format!("; the old one is {old}") } else { String::new() };
    let name = printable(lane.plan.final_path.as_os_str().as_bytes());
    Error::Failed(format!(
        "{}; {name} is the copy, complete and verified, but its server does not run{old}",
        chain(error)
    ))
}

/// Compares the lists of both sides. Returns what changed meanwhile, where that may be; anything else is an error.
async fn compare(
    plan: &Plan,
    source: &End,
    lane: &Lane<'_>,
    of_source: &Job,
    of_target: &Job,
) -> Result<Vec<String>, Error> {
    let mut changes = Vec::new();
    let lists: &[&str] = match plan.file_digest {
        _ if !plan.shape.compares_files() => &[],
        Some(_) => &["entries", "digests"],
        None => &["entries"],
    };
    for list in lists {
        let (there, here) = (of_source.manifests.get(*list), of_target.manifests.get(*list));
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
    Ok(changes)
}

/// An error unless the copy has its name, whatever came after that.
async fn give_name(plan: &Plan, lane: &Lane<'_>) -> Result<(), Error> {
    let guard = &lane.end.guard;
    let staged = lane.plan.staging.join(&plan.staged);
    let staged = staged.as_os_str().as_bytes();
    let name = lane.plan.final_path.as_os_str().as_bytes();
    let sync: &[u8] = if plan.fsync { b"sync" } else { b"no-sync" };
    let directory = lane.plan.endpoint.path.as_os_str().as_bytes();
    let reply = match plan.shape.publication {
        Publication::Name => {
            let old = lane.plan.old_path.as_os_str().as_bytes();
            let seen = lane.plan.old.as_deref().unwrap_or_default().as_bytes();
            // Under a server the old one goes when the new one has shown that it runs.
            let how = match plan.replace {
                Replace::Remove if lane.plan.keeps_old_until_it_runs() => Replace::Keep,
                how => how,
            };
            guard.call("publish", &[staged, name, how.word(), old, sync, seen]).await
        }
        Publication::Fill => guard.call("fill", &[staged, directory, sync, b"empty"]).await,
        Publication::Add => guard.call("fill", &[staged, directory, sync, b"beside"]).await,
    };
    match reply {
        Err(GuardError::Failed { host, code, .. }) if code == "exists" => Err(Error::Failed(format!(
            "{host}: {} was {} by somebody else meanwhile and is left as it is",
            printable(name),
            if plan.shape.publication == Publication::Fill { "filled" } else { "made" }
        ))),
        Err(GuardError::Failed { host, code, text, .. }) if code == "sync" => {
            let name = printable(name);
            let state = if guard.published() {
                "is there and may not outlast a power cut"
            } else {
                "would not outlast a power cut, and is as it was before"
            };
            Err(Error::Failed(format!("{host}: {name} {state}: {text}")))
        }
        Err(error) if !guard.published() => Err(error.into()),
        _ => Ok(()),
    }
}

fn copied(plan: &Plan, published: Published, sender: &Job, lane: &Lane<'_>, took: Duration) -> Copied {
    let Published { arrived: Arrived { listed, backup }, changes, notes } = published;
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
        synced: plan.fsync,
        changed: !changes.is_empty(),
        listed: plan.shape.compares_files(),
        backup: backup.map(Box::new),
        remarks: changes
            .into_iter()
            .chain(notes)
            .chain(sender.complaints.iter().chain(&receiver.complaints).cloned())
            .collect(),
    }
}
