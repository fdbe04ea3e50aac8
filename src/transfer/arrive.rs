//! Work on one target after the stream: prepares the received data, syncs and lists it, and compares it with
//! the data that was sent, as far as this is possible on the target alone.

use std::os::unix::ffi::OsStrExt;

use super::judge::{cannot_read, said};
use super::{BackupFacts, Lane, idle};
use crate::backup::choose;
use crate::backup::log::{completed, last_words};
use crate::error::Error;
use crate::host::agent::{Command, Job};
use crate::host::wire::printable;
use crate::lease::{self, End};
use crate::pipeline::jobs;
use crate::plan::{Plan, Prepare, StreamDigest};
use crate::progress::{Phase, Progress};
use crate::shape::{Consumer, Producer};

/// Action of the jobs that list and digest files, for error messages.
pub(super) const LIST: &str = "list and digest the files";
/// Action of the job that reads a backup's metadata, for error messages.
const INSPECT: &str = "read the metadata of the backup";

/// Received data, ready to be compared.
pub(super) struct Arrived {
    /// Job that listed the files.
    pub(super) listed: Job,
    /// Metadata, if the data is a backup.
    pub(super) backup: Option<BackupFacts>,
}

/// Prepares, syncs and lists the received data. Fails if it is not as expected.
pub(super) async fn arrive(
    plan: &Plan,
    lane: &Lane<'_>,
    sender: &Job,
    progress: &Progress,
) -> Result<Arrived, Error> {
    let mut backup = None;
    match plan.shape.consumer {
        Consumer::Tree => {}
        Consumer::Archive => {
            run(lane.end, "strip", &jobs::strip(plan), "leave out the top directory").await?;
        }
        Consumer::Backup => {
            if let Some(how) = &lane.plan.prepare {
                prepare(plan, lane, how, progress).await?;
            }
            backup = Some(inspect(plan, lane).await?);
        }
        Consumer::File => digest(plan, lane, sender).await?,
    }
    progress.phase(Phase::Verifying);
    let script = jobs::target_manifest(plan, lane.plan);
    lease::job(&lane.end.agent, "verify", &script, "").await?;
    let listed = digested(plan, lane.end, "verify", LIST).await?;
    Ok(Arrived { listed, backup })
}

/// Prepares a backup, so that a server can start with it.
async fn prepare(plan: &Plan, lane: &Lane<'_>, how: &Prepare, progress: &Progress) -> Result<(), Error> {
    progress.phase(Phase::Recovering);
    // The server version of a backup from an archive is known only now.
    let server = if plan.shape.producer == Producer::File {
        let script = jobs::inspect(plan);
        let facts = run(lane.end, "inspect", &script, INSPECT).await?.facts;
        facts.get("server_version").cloned().unwrap_or_default()
    } else {
        String::new()
    };
    let host = &lane.plan.endpoint.host;
    let tool = choose(&how.tools, &server)
        .map_err(|problem| Error::Failed(format!("{host}: cannot prepare the backup: {problem}")))?;
    let script = jobs::prepare(plan, how, &tool.program);
    lease::job(&lane.end.agent, "prepare", &script, "").await?;
    let seen = lane.end.agent.until("prepare", |job| job.exit.is_some() || job.stuck.is_some()).await?;
    if seen.exit.is_none() {
        lane.end.agent.call(Command::StopJob("prepare")).await?;
    }
    let ended = lane.end.agent.ended("prepare").await?;
    if ended.exit == Some(0) && completed(&ended.log) {
        return Ok(());
    }
    let words = last_words(&ended.log);
    Err(Error::Failed(format!("{host}: cannot prepare the backup{words}{}", said(&ended))))
}

async fn inspect(plan: &Plan, lane: &Lane<'_>) -> Result<BackupFacts, Error> {
    let script = jobs::inspect(plan);
    let facts = run(lane.end, "inspect", &script, INSPECT).await?.facts;
    let fact = |key: &str| facts.get(key).cloned().unwrap_or_default();
    let state = fact("state");
    let prepared = ["log-applied", "full-prepared"].contains(&state.as_str());
    if lane.plan.prepare.is_some() && !prepared {
        let host = &lane.plan.endpoint.host;
        return Err(Error::Verification(format!(
            "{host}: the backup was prepared, but reports the state '{state}'"
        )));
    }
    let (name, version) = (fact("tool_name"), fact("tool_version"));
    Ok(BackupFacts {
        tool: format!("{name} {version}"),
        server_version: fact("server_version"),
        prepared,
        gtid: fact("gtid"),
        binlog: facts.get("binlog_file").cloned().zip(fact("binlog_position").parse().ok()),
        source_position: facts.get("source_position").cloned(),
    })
}

/// Reads an archive back from disk, compares its digest with that of the sent data, and writes a digest file
/// beside it.
async fn digest(plan: &Plan, lane: &Lane<'_>, sender: &Job) -> Result<(), Error> {
    let program = match plan.stream_digest {
        Some(StreamDigest::Md5) => "md5sum",
        _ => "sha256sum",
    };
    let script = jobs::digest_archive(plan, lane.plan, program);
    lease::job(&lane.end.agent, "archive", &script, "").await?;
    let here = digested(plan, lane.end, "archive", "read the archive back from disk").await?.digest;
    if here.is_some() && here == sender.digest {
        return Ok(());
    }
    Err(Error::Verification(format!(
        "{}: {} on disk differs from the data that was sent: its digest was {} on the source and is {} here",
        lane.plan.endpoint.host,
        printable(lane.plan.final_path.as_os_str().as_bytes()),
        sender.digest.as_deref().unwrap_or("unknown"),
        here.as_deref().unwrap_or("unknown")
    )))
}

/// Runs a job and requires it to succeed. `what` names its action in the error.
pub(super) async fn run(end: &End, job: &'static str, script: &[u8], what: &str) -> Result<Job, Error> {
    lease::job(&end.agent, job, script, "").await?;
    ended_well(end, job, what).await
}

/// Waits for a job that computes digests and requires it to succeed. Fails if it reads nothing for the idle
/// timeout. `what` names its action in the error.
pub(super) async fn digested(plan: &Plan, end: &End, job: &str, what: &str) -> Result<Job, Error> {
    let ended = tokio::select! {
        ended = ended_well(end, job, what) => ended?,
        () = idle::stands_still(&end.agent, job, plan.idle_timeout) => {
            return Err(Error::Failed(format!(
                "{}: cannot {what}: nothing was read for {} s (--idle-timeout)",
                end.agent.host(),
                plan.idle_timeout.as_secs()
            )));
        }
    };
    match cannot_read(&ended) {
        Some(files) => Err(Error::Failed(format!("{}: cannot {what}: {files}", end.agent.host()))),
        None => Ok(ended),
    }
}

/// Waits for a job and requires it to succeed. `what` names its action in the error.
async fn ended_well(end: &End, job: &str, what: &str) -> Result<Job, Error> {
    let ended = end.agent.ended(job).await?;
    if ended.exit != Some(0) {
        return Err(Error::Failed(format!("{}: cannot {what}{}", end.agent.host(), said(&ended))));
    }
    Ok(ended)
}
