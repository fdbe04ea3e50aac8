//! Work on a received backup: its preparation, so that a server can start with it, and its metadata.

use super::backup::choose;
use super::backup::log::{completed, last_words};
use super::jobs;
use crate::error::Error;
use crate::host::agent::{Command, JobName};
use crate::lease::{End, job};
use crate::pipeline::messages::said;
use crate::plan::{Plan, Prepare, TargetPlan};
use crate::progress::{Phase, Progress};
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
        let facts = job::run(end, JobName::Inspect, &jobs::inspect(plan), INSPECT).await?.facts;
        facts.server_version.unwrap_or_default()
    } else {
        String::new()
    };
    let host = &target.endpoint.host;
    let tool = choose(&how.tools, &server)
        .map_err(|problem| Error::Failed(format!("{host}: cannot prepare the backup: {problem}")))?;
    let script = jobs::prepare(plan, how, &tool.program);
    job::start(&end.agent, JobName::Prepare, &script, "").await?;
    let seen = end.agent.until(JobName::Prepare, |job| job.exit.is_some() || job.stuck.is_some()).await?;
    if seen.exit.is_none() {
        end.agent.call(Command::StopJob(JobName::Prepare)).await?;
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
    let facts = job::run(end, JobName::Inspect, &jobs::inspect(plan), INSPECT).await?.facts;
    let state = facts.state.unwrap_or_default();
    let prepared = ["log-applied", "full-prepared"].contains(&state.as_str());
    if target.prepare.is_some() && !prepared {
        let host = &target.endpoint.host;
        return Err(Error::Verification(format!(
            "{host}: the backup was prepared, but reports the state '{state}'"
        )));
    }
    let (name, version) = (facts.tool_name.unwrap_or_default(), facts.tool_version.unwrap_or_default());
    Ok(BackupFacts {
        tool: format!("{name} {version}"),
        server_version: facts.server_version.unwrap_or_default(),
        prepared,
        gtid: facts.gtid.unwrap_or_default(),
        binlog: facts.binlog_file.zip(facts.binlog_position),
        source_position: facts.source_position,
    })
}
