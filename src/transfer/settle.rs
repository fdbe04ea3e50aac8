//! Verification of the copies after the stream, and publication of those that passed.

use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::arrive::{Arrived, LIST, arrive, digested, run};
use super::follow::{self, Followed};
use super::judge::dropped;
use super::rest::Rest;
use super::stream::bytes_read;
use super::{Copied, Lane};
use crate::error::{Error, chain};
use crate::host::agent::{AgentError, Code, Command, Job};
use crate::host::wire::printable;
use crate::lease::{self, End};
use crate::pipeline::build::{CIPHER_HEADER, WIRE};
use crate::pipeline::jobs;
use crate::plan::Plan;
use crate::progress::Progress;
use crate::settings::Replace;
use crate::shape::{Consumer, Publication};
use crate::verify;

/// Verifies and publishes every live lane, and returns the copies in order. Fails only if the source does.
pub(super) async fn settle(
    plan: &Plan,
    (source, primary): (&End, Option<&End>),
    lanes: &mut [Lane<'_>],
    sender: &Job,
    (began, progress, rest): (Instant, &Progress, &Rest<'_>),
) -> Result<Vec<Copied>, Error> {
    let of_source = async {
        if !plan.shape.compares_files() {
            return Ok::<Job, Error>(Job::default());
        }
        let listed = async {
            let listed = digested(plan, source, "manifest", LIST).await?;
            // Before the source's server runs again and changes files.
            if plan.ignore_changed {
                run(source, "changed", &jobs::changed(plan), "list what has changed").await?;
            }
            Ok(listed)
        };
        let listed = listed.await;
        // In any case before the targets are done: the server must not stay down for them.
        rest.end().await?;
        listed
    };
    let live = lanes.iter().filter(|lane| lane.is_live());
    let of_targets = join_all(live.map(|lane| arrive(plan, lane, sender, progress)));
    let (of_source, of_targets) = tokio::join!(of_source, of_targets);
    let of_source: Job = of_source?;
    let live: Vec<&Lane<'_>> = lanes.iter().filter(|lane| lane.is_live()).collect();
    let published = join_all(live.iter().zip(of_targets).map(|(lane, arrived)| async {
        let arrived = prove(plan, source, lane, &of_source, arrived?).await?;
        if plan.replica.is_some() {
            follow(plan, primary, lane, arrived, progress).await
        } else {
            publish(plan, lane, arrived).await
        }
    }));
    let published = compare_tables(plan, (source, primary), &live, published.await, progress).await;
    let copies = live.iter().zip(published).map(|(lane, published)| {
        let mut published = published?;
        published.of_source.extend(rest.remark());
        Ok(copied(plan, published, sender, lane, began.elapsed()))
    });
    let copies: Vec<Result<Copied, Error>> = copies.collect();
    let mut good = Vec::new();
    for (lane, copy) in lanes.iter_mut().filter(|lane| lane.is_live()).zip(copies) {
        match copy {
            Ok(copy) => good.push(copy),
            Err(error) => lane.fail(error),
        }
    }
    Ok(good)
}

/// A verified copy, before or after its publication.
struct Published {
    arrived: Arrived,
    /// Files that changed on the source during the copy.
    changes: Vec<String>,
    /// Remarks about the source.
    of_source: Vec<String>,
    /// Other remarks.
    notes: Vec<String>,
    /// Facts about a replica.
    followed: Option<Followed>,
}

/// Compares one target with the source, and changes the owner of the copy if requested.
async fn prove(
    plan: &Plan,
    source: &End,
    lane: &Lane<'_>,
    of_source: &Job,
    arrived: Arrived,
) -> Result<Published, Error> {
    lease::check_source(plan, source).await?;
    let changes = compare(plan, source, lane, of_source, &arrived.listed).await?;
    if let Some(script) = jobs::chown(plan, lane.plan) {
        run(lane.end, "chown", &script, "give the copy to its owner").await?;
    }
    let mut notes = Vec::new();
    if plan.shape.consumer == Consumer::File {
        let name = printable(lane.plan.final_path.as_os_str().as_bytes());
        notes.push(format!("the archive is {name}, with its digest beside it"));
    }
    Ok(Published { arrived, changes, of_source: Vec::new(), notes, followed: None })
}

/// Gives a copy its final name.
async fn publish(plan: &Plan, lane: &Lane<'_>, mut copy: Published) -> Result<Published, Error> {
    let named = async {
        lease::stop_servers(lane.end, &lane.plan.servers).await?;
        give_name(plan, lane).await
    };
    let named = named.await;
    if !lane.plan.servers.is_empty() {
        let restarted = lease::restart(&lane.end.agent).await;
        match (&named, restarted) {
            (Ok(()), Err(error)) => return Err(without_server(lane, &error)),
            (Ok(()), Ok(already)) => {
                copy.notes.push("the server runs with the new data; its replication is stopped".into());
                copy.notes
                    .extend(already.iter().map(|unit| format!("{unit} was started from outside this run")));
            }
            (Err(_), Err(error)) => tracing::warn!("{}", chain(&error)),
            (Err(_), Ok(_)) => {}
        }
    }
    named?;
    drop_old(plan, lane, &mut copy).await;
    Ok(copy)
}

/// Publishes a copy provisionally and makes it a replica. On failure the old server is restored.
async fn follow(
    plan: &Plan,
    primary: Option<&End>,
    lane: &Lane<'_>,
    mut copy: Published,
    progress: &Progress,
) -> Result<Published, Error> {
    let (Some(replica), Some(how), Some(backup)) = (&plan.replica, &lane.plan.follow, &copy.arrived.backup)
    else {
        return Err(Error::Failed("no replica was planned".into()));
    };
    let followed = async {
        lease::stop_servers(lane.end, &lane.plan.servers).await?;
        lease::put_on_trial(plan, lane.end, lane.plan, how).await?;
        give_name(plan, lane).await?;
        let followed = follow::follow(plan, lane, (replica, how), backup, progress).await?;
        if replica.tables.is_none() {
            follow::accept(plan, primary, lane).await?;
        }
        Ok(followed)
    };
    match followed.await {
        Ok(followed) => copy.followed = Some(followed),
        Err(error) => {
            follow::give_back(lane).await;
            return Err(error);
        }
    }
    if replica.tables.is_none() {
        drop_old(plan, lane, &mut copy).await;
    }
    Ok(copy)
}

/// Compares the tables of replicas that have caught up, if requested, and commits those that agree.
async fn compare_tables(
    plan: &Plan,
    (source, primary): (&End, Option<&End>),
    live: &[&Lane<'_>],
    mut copies: Vec<Result<Published, Error>>,
    progress: &Progress,
) -> Vec<Result<Published, Error>> {
    let Some((replica, check)) = plan.replica.as_ref().and_then(|replica| Some((replica, replica.tables?)))
    else {
        return copies;
    };
    let caught = live.iter().zip(&mut copies).filter_map(|(lane, copy)| {
        Some(follow::Caught { lane, followed: copy.as_mut().ok()?.followed.take()? })
    });
    let caught: Vec<_> = caught.collect();
    if caught.is_empty() {
        return copies;
    }
    let mut compared =
        follow::compare_tables(plan, source, (replica, check), caught, progress).await.into_iter();
    let results = copies.into_iter().map(|copy| {
        let compared = if copy.is_ok() { compared.next() } else { None };
        (copy, compared)
    });
    let results: Vec<_> = results.collect();
    join_all(
        live.iter().zip(results).map(|(lane, (copy, compared))| async move {
            accept(plan, primary, lane, copy?, compared).await
        }),
    )
    .await
}

async fn accept(
    plan: &Plan,
    primary: Option<&End>,
    lane: &Lane<'_>,
    mut copy: Published,
    compared: Option<Result<Followed, Error>>,
) -> Result<Published, Error> {
    let agreed = async {
        let followed =
            compared.unwrap_or_else(|| Err(Error::Failed("its tables were not compared".into())))?;
        follow::accept(plan, primary, lane).await?;
        Ok(followed)
    };
    match agreed.await {
        Ok(followed) => {
            drop_old(plan, lane, &mut copy).await;
            Ok(Published { followed: Some(followed), ..copy })
        }
        Err(error) => {
            follow::give_back(lane).await;
            Err(error)
        }
    }
}

/// Removes old data that was kept only until the copy was committed. A failure is only a remark: the copy is
/// good.
async fn drop_old(plan: &Plan, lane: &Lane<'_>, copy: &mut Published) {
    if plan.replace == Replace::Remove && lane.end.agent.old_kept() {
        if let Err(error) = lease::drop_old(lane.end, lane.plan).await {
            copy.notes.push(format!("the old data was not removed: {}", chain(&error)));
        }
    }
}

/// Returns the error for a published copy whose server did not start: the old data is kept.
fn without_server(lane: &Lane<'_>, error: &AgentError) -> Error {
    let old = printable(lane.plan.old_path.as_os_str().as_bytes());
    let old = if lane.end.agent.old_kept() { format!("; the old data is {old}") } else { String::new() };
    let name = printable(lane.plan.final_path.as_os_str().as_bytes());
    Error::Failed(format!(
        "{}; {name} is the copy, complete and verified, but its server is not running{old}",
        chain(error)
    ))
}

/// Compares the lists of both sides. Returns differences that are explained by changes on the source, if
/// these are allowed; others are errors.
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

/// Gives the copy its final name. Succeeds if the name was given, even if a later step of the publication
/// failed.
async fn give_name(plan: &Plan, lane: &Lane<'_>) -> Result<(), Error> {
    let agent = &lane.end.agent;
    let staged = lane.plan.inbox().join(&plan.staged);
    let path = &lane.plan.final_path;
    let name = path.as_os_str().as_bytes();
    let fill = |beside: bool| Command::Fill {
        staged: &staged,
        directory: &lane.plan.endpoint.path,
        durable: plan.fsync,
        beside,
    };
    let command = match plan.shape.publication {
        Publication::Name => {
            // The old data of a server is removed only after the server has started with the new data.
            let replace = match plan.replace {
                Replace::Remove if lane.plan.keeps_old_until_it_runs() => Replace::Keep,
                how => how,
            };
            let seen = lane.plan.old.as_deref().unwrap_or_default();
            Command::Publish {
                staged: &staged,
                path,
                replace,
                old: &lane.plan.old_path,
                durable: plan.fsync,
                seen,
            }
        }
        Publication::Fill => fill(false),
        Publication::Add => fill(true),
    };
    match agent.call(command).await {
        Err(AgentError::Failed { host, code: Code::Exists, .. }) => Err(Error::Failed(format!(
            "{host}: {} was {} by another process during the copy and is left as it is",
            printable(name),
            if plan.shape.publication == Publication::Fill { "filled" } else { "created" }
        ))),
        Err(AgentError::Failed { host, code: Code::Sync, text, .. }) => {
            let name = printable(name);
            let state = if agent.published() {
                "was published, but may not survive a power cut"
            } else {
                "would not survive a power cut and is left as it was"
            };
            Err(Error::Failed(format!("{host}: {name} {state}: {text}")))
        }
        Err(error) if !agent.published() => Err(error.into()),
        _ => Ok(()),
    }
}

fn copied(plan: &Plan, published: Published, sender: &Job, lane: &Lane<'_>, took: Duration) -> Copied {
    let Published { arrived: Arrived { listed, backup }, changes, of_source, notes, followed } = published;
    let entries = listed.manifests.get("entries").cloned().unwrap_or_default();
    let receiver = lane.end.agent.job("receiver");
    let header = if plan.encrypt { CIPHER_HEADER } else { 0 };
    Copied {
        entries: entries.records,
        bytes: entries.bytes,
        read_bytes: bytes_read(sender),
        wire_bytes: receiver.meters.get(WIRE).copied().unwrap_or_default().saturating_add(header),
        took,
        streamed: Duration::ZERO,
        stream_digest: plan.stream_digest.map(|digest| digest.to_string()),
        stream_value: plan.stream_digest.and(receiver.digest.clone()),
        files_compared: plan.file_digest.zip(listed.manifests.get("digests").map(|digests| digests.records)),
        entries_digest: entries.digest,
        synced: plan.fsync,
        changed: !changes.is_empty(),
        listed: plan.shape.compares_files(),
        backup: backup.map(Box::new),
        replica: followed.map(Box::new),
        dropped: dropped(lane.plan, &receiver),
        source_remarks: of_source.into_iter().chain(sender.complaints.iter().cloned()).collect(),
        remarks: changes.into_iter().chain(notes).chain(receiver.complaints.iter().cloned()).collect(),
    }
}
