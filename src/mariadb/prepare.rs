//! Work on a received backup: its preparation, so that a server can start with it, and its metadata.

use super::backup::choose;
use super::backup::log::{completed, last_words};
use super::jobs;
use crate::error::Error;
use crate::lease::{End, job};
use crate::pipeline::messages::said;
use crate::plan::{Plan, Prepare, TargetPlan};
use crate::progress::{Phase, Progress};
use crate::proto::command::Command;
use crate::proto::job::{self as reported, JobName};
use crate::report::outcome::BackupFacts;
use crate::shape::Producer;

/// Action of the job that reads a backup's metadata, for error messages.
const INSPECT: &str = "read the metadata of the backup";

/// Prepares a received backup, if requested, and returns its metadata.
pub(crate) async fn receive(
    plan: &Plan,
    target: &TargetPlan,
    end: &End,
    progress: &Progress,
) -> Result<BackupFacts, Error> {
    if let Some(how) = &target.prepare {
        prepare(plan, target, how, end, progress).await?;
    }
    inspect(plan, target, end).await
}

/// Prepares a backup.
async fn prepare(
    plan: &Plan,
    target: &TargetPlan,
    how: &Prepare,
    end: &End,
    progress: &Progress,
) -> Result<(), Error> {
    progress.phase(Phase::Recovering);
    // The server version of a backup from an archive is known only now.
    let server = if plan.shape.producer == Producer::File {
        metadata(plan, end).await?.server_version.to_string()
    } else {
        String::new()
    };
    let host = &target.endpoint.host;
    let tool = choose(&how.tools, &server)
        .map_err(|problem| Error::Failed(format!("{host}: cannot prepare the backup: {problem}")))?;
    job::start(&end.agent, JobName::Prepare, jobs::prepare(plan, how, &tool.program), None).await?;
    let seen = end.agent.until(JobName::Prepare, |job| job.exit.is_some() || job.stuck.is_some()).await?;
    if seen.exit.is_none() {
        end.agent.order(Command::StopJob { job: JobName::Prepare }).await?;
    }
    let ended = end.agent.ended(JobName::Prepare).await?;
    if ended.exit == Some(0) && completed(&ended.log) {
        return Ok(());
    }
    let words = last_words(&ended.log);
    Err(Error::Failed(format!("{host}: cannot prepare the backup{words}{}", said(&ended))))
}

/// Returns the metadata of a backup.
async fn inspect(plan: &Plan, target: &TargetPlan, end: &End) -> Result<BackupFacts, Error> {
    let facts = metadata(plan, end).await?;
    let state = facts.state;
    let prepared = ["log-applied", "full-prepared"].contains(&state.as_str());
    if target.prepare.is_some() && !prepared {
        let host = &target.endpoint.host;
        return Err(Error::Verification(format!(
            "{host}: the backup was prepared, but reports the state '{state}'"
        )));
    }
    let binlog_file = Some(facts.binlog_file.to_string()).filter(|file| !file.is_empty());
    Ok(BackupFacts {
        tool: format!("{} {}", facts.tool_name, facts.tool_version),
        server_version: facts.server_version.to_string(),
        prepared,
        gtid: facts.gtid,
        binlog: binlog_file.zip(facts.binlog_position),
        source_position: Some(facts.source_position).filter(|position| !position.is_empty()),
    })
}

/// Returns the metadata as the backup's files give them.
async fn metadata(plan: &Plan, end: &End) -> Result<reported::BackupFacts, Error> {
    let job = job::run(end, JobName::Inspect, jobs::inspect(plan), INSPECT).await?;
    Ok(job.backup.unwrap_or_default())
}
