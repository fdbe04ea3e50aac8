//! Verification of the copies after the stream, and publication of those that passed.

use futures_util::future::join_all;

use super::arrive::{Arrived, LIST, arrive};
use super::jobs;
use super::lane::{Completing, Goal, Lane};
use crate::base::printable::printable;
use crate::config::settings::Replace;
use crate::engine::Received;
use crate::error::{Error, chain};
use crate::host::agent::Job;
use crate::host::conversation::AgentError;
use crate::lease::{self, End, job};
use crate::mariadb::replicate::{Caught, Compared, Comparison, Replica};
use crate::plan::Plan;
use crate::proto::HostBytes;
use crate::proto::command::{Code, Command};
use crate::proto::files::{FillTask, PublishTask};
use crate::proto::job::{JobName, List};
use crate::report::outcome::{Copied, Followed};
use crate::shape::{Consumer, Publication};
use crate::verify;

/// Lane whose data has arrived.
pub(super) struct Arrival<'a, 'b> {
    pub(super) lane: &'a Lane<'b>,
    pub(super) received: Received,
}

/// A verified copy, before or after its publication.
struct Proven {
    arrived: Arrived,
    /// Files that changed on the source during the copy.
    changes: Vec<String>,
    /// Remarks about the target.
    notes: Vec<String>,
    /// Facts about a replica.
    followed: Option<Followed>,
}

/// Verifies and publishes every copy, and returns the results in order. Fails only if the source does.
pub(super) async fn complete(
    context: &Completing<'_>,
    arrivals: Vec<Arrival<'_, '_>>,
) -> Result<Vec<Result<Copied, Error>>, Error> {
    let (of_source, of_targets) = tokio::join!(
        list_source(context),
        join_all(arrivals.iter().map(|arrival| arrive(context, arrival.lane)))
    );
    let of_source: Job = of_source?;
    let published = join_all(arrivals.iter().zip(of_targets).map(|(Arrival { lane, .. }, arrived)| async {
        let copy = prove(context, lane, &of_source, arrived?).await?;
        match &lane.goal {
            Goal::Publish => publish(context.plan, lane, copy).await,
            Goal::Replicate(replica) => follow(context, lane, replica, copy).await,
        }
    }))
    .await;
    let published = compare_tables(context, &arrivals, published).await;
    Ok(arrivals
        .into_iter()
        .zip(published)
        .map(|(arrival, copy)| Ok(copied(context, arrival, copy?)))
        .collect())
}

/// Returns the lists of the source, as soon as it has been read.
async fn list_source(Completing { plan, source, quiesced, .. }: &Completing<'_>) -> Result<Job, Error> {
    if !plan.shape.compares_files() {
        return Ok(Job::default());
    }
    let listed = async {
        let listed = job::digested(source, JobName::Manifest, plan.idle_timeout, LIST).await?;
        // Before the source's server runs again and changes files.
        if plan.ignore_changed {
            job::run(source, JobName::Changed, jobs::changed(plan), "list what has changed").await?;
        }
        Ok(listed)
    };
    let listed = listed.await;
    // In any case before the targets are done: the server must not stay down for them.
    quiesced.end().await?;
    listed
}

/// Compares one target with the source, and changes the owner of the copy if requested.
async fn prove(
    Completing { plan, source, .. }: &Completing<'_>,
    lane: &Lane<'_>,
    of_source: &Job,
    arrived: Arrived,
) -> Result<Proven, Error> {
    lease::check_source(plan, source).await?;
    let changes = compare(plan, source, lane, of_source, &arrived.listed).await?;
    if let Some(owner) = lane.plan.new_owner(plan) {
        job::run(lane.end, JobName::Chown, jobs::chown(plan, owner), "give the copy to its owner").await?;
    }
    let mut notes = Vec::new();
    if plan.shape.consumer == Consumer::File {
        let name = printable(lane.plan.final_path.as_os_str().as_encoded_bytes());
        notes.push(format!("the archive is {name}, with its digest beside it"));
    }
    Ok(Proven { arrived, changes, notes, followed: None })
}

/// Gives a copy its final name.
async fn publish(plan: &Plan, lane: &Lane<'_>, mut copy: Proven) -> Result<Proven, Error> {
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
    Completing { plan, progress, .. }: &Completing<'_>,
    lane: &Lane<'_>,
    replica: &Replica<'_>,
    mut copy: Proven,
) -> Result<Proven, Error> {
    let commits = !plan.compares_tables();
    let followed = async {
        lease::stop_servers(lane.end, &lane.plan.servers).await?;
        replica.publish_provisionally().await?;
        give_name(plan, lane).await?;
        let followed = replica.follow(copy.arrived.backup.as_ref(), progress).await?;
        if commits {
            replica.commit().await?;
        }
        Ok(followed)
    };
    match followed.await {
        Ok(followed) => copy.followed = Some(followed),
        Err(error) => {
            replica.give_back().await;
            return Err(error);
        }
    }
    if commits {
        drop_old(plan, lane, &mut copy).await;
    }
    Ok(copy)
}

/// Compares the tables of replicas that have caught up, if requested, and commits those that agree.
async fn compare_tables(
    Completing { plan, source, progress, .. }: &Completing<'_>,
    arrivals: &[Arrival<'_, '_>],
    copies: Vec<Result<Proven, Error>>,
) -> Vec<Result<Proven, Error>> {
    let check = plan.replica.as_ref().and_then(|replica| Some((replica, replica.tables?)));
    let Some((replica, check)) = check else { return copies };
    let mut caught = Vec::new();
    let mut done = Vec::new();
    for (index, (Arrival { lane, .. }, copy)) in arrivals.iter().zip(copies).enumerate() {
        match (&lane.goal, copy) {
            (Goal::Replicate(replica), Ok(Proven { followed: Some(followed), arrived, changes, notes })) => {
                let copy = Proven { arrived, changes, notes, followed: None };
                caught.push(Caught { replica, followed, copy: (index, *lane, copy) });
            }
            (_, copy) => done.push((index, copy)),
        }
    }
    if !caught.is_empty() {
        let comparison = Comparison { plan, replica, source, check };
        let compared = comparison.run(caught, progress).await;
        let committed = compared.into_iter().map(|Compared { replica, followed, copy }| async move {
            let (index, lane, copy) = copy;
            (index, commit(plan, lane, replica, copy, followed).await)
        });
        done.extend(join_all(committed).await);
    }
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, copy)| copy).collect()
}

/// Commits a replica whose tables were compared, or restores the old server.
async fn commit(
    plan: &Plan,
    lane: &Lane<'_>,
    replica: &Replica<'_>,
    mut copy: Proven,
    compared: Result<Followed, Error>,
) -> Result<Proven, Error> {
    let agreed = async {
        let followed = compared?;
        replica.commit().await?;
        Ok(followed)
    };
    match agreed.await {
        Ok(followed) => {
            drop_old(plan, lane, &mut copy).await;
            Ok(Proven { followed: Some(followed), ..copy })
        }
        Err(error) => {
            replica.give_back().await;
            Err(error)
        }
    }
}

/// Removes old data that was kept only until the copy was committed. A failure is only a remark: the copy is
/// good.
async fn drop_old(plan: &Plan, lane: &Lane<'_>, copy: &mut Proven) {
    if plan.replace == Replace::Remove && lane.end.agent.old_kept() {
        if let Err(error) = lease::drop_old(lane.end, lane.plan).await {
            copy.notes.push(format!("the old data was not removed: {}", chain(&error)));
        }
    }
}

/// Returns the error for a published copy whose server did not start: the old data is kept.
fn without_server(lane: &Lane<'_>, error: &AgentError) -> Error {
    let old = printable(lane.plan.old_path.as_os_str().as_encoded_bytes());
    let old = if lane.end.agent.old_kept() { format!("; the old data is {old}") } else { String::new() };
    let name = printable(lane.plan.final_path.as_os_str().as_encoded_bytes());
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
    let lists: &[List] = match plan.file_digest {
        _ if !plan.shape.compares_files() => &[],
        Some(_) => &[List::Entries, List::Digests],
        None => &[List::Entries],
    };
    for list in lists {
        let (there, here) = (of_source.manifests.get(list), of_target.manifests.get(list));
        if there.is_some() && there == here {
            continue;
        }
        let differences = verify::differences(source, lane.end, *list).await?;
        let explained =
            if plan.ignore_changed { verify::explained(source, &differences).await? } else { None };
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
    let staged = HostBytes::from(&plan.staged);
    let path = &lane.plan.final_path;
    let name = path.as_os_str().as_encoded_bytes();
    let fill = |beside: bool| Command::Fill(FillTask { staged: staged.clone(), durable: plan.fsync, beside });
    let command = match plan.shape.publication {
        Publication::Name => {
            // The old data of a server is removed only after the server has started with the new data.
            let replace = match plan.replace {
                Replace::Remove if lane.plan.keeps_old_until_it_runs() => Replace::Keep,
                how => how,
            };
            Command::Publish(PublishTask {
                staged: staged.clone(),
                name: HostBytes::from(path.file_name().unwrap_or_default()),
                replace,
                aside: HostBytes::from(lane.plan.old_path.file_name().unwrap_or_default()),
                durable: plan.fsync,
                seen: lane.plan.old,
            })
        }
        Publication::Fill => fill(false),
        Publication::Add => fill(true),
    };
    match agent.order(command).await {
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

fn copied(context: &Completing<'_>, arrival: Arrival<'_, '_>, copy: Proven) -> Copied {
    let Completing { plan, sent, quiesced, began, streamed, .. } = context;
    let Proven { arrived: Arrived { listed, backup }, changes, notes, followed } = copy;
    let Received { wire_bytes, digest, dropped, complaints } = arrival.received;
    let entries = listed.manifests.get(&List::Entries).cloned().unwrap_or_default();
    Copied {
        entries: entries.records,
        bytes: entries.bytes,
        read_bytes: sent.read_bytes,
        wire_bytes,
        took: began.elapsed(),
        streamed: *streamed,
        stream_digest: plan.stream_digest.map(|digest| digest.name().to_owned()),
        stream_value: plan.stream_digest.and(digest),
        files_compared: plan
            .file_digest
            .zip(listed.manifests.get(&List::Digests).map(|digests| digests.records)),
        entries_digest: entries.digest,
        synced: plan.fsync,
        changed: !changes.is_empty(),
        listed: plan.shape.compares_files(),
        backup: backup.map(Box::new),
        replica: followed.map(Box::new),
        dropped,
        source_remarks: quiesced.remark().into_iter().chain(sent.complaints.iter().cloned()).collect(),
        remarks: changes.into_iter().chain(notes).chain(complaints).collect(),
    }
}
