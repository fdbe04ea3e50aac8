//! Jobs: programs and work of an agent in processes of their own, which end with the agent at the latest.

use std::time::Duration;

use tokio::time::Instant;

use super::End;
use crate::error::Error;
use crate::host::agent::{Agent, Job};
use crate::host::conversation::AgentError;
use crate::pipeline::messages::{cannot_read, said};
use crate::proto::command::Command;
use crate::proto::job::JobName;
use crate::proto::secret::Secret;
use crate::proto::task::Task;

/// Interval of progress checks; the hosts report once a second.
const LOOK: Duration = Duration::from_millis(500);

/// Starts a job. A key reaches it encrypted.
pub(crate) async fn start(
    agent: &Agent,
    job: JobName,
    task: Task,
    key: Option<&Secret>,
) -> Result<(), AgentError> {
    agent.forget(job);
    let key = key.map(|key| agent.conversation().seal(key.as_bytes())).transpose()?;
    agent.order(Command::StartJob { job, task, key }).await
}

/// Runs a job and requires it to succeed. `what` names its action in the error.
pub(crate) async fn run(end: &End, name: JobName, task: Task, what: &str) -> Result<Job, Error> {
    start(&end.agent, name, task, None).await?;
    ended_well(end, name, what).await
}

/// Waits for a job that computes digests and requires it to succeed. Fails if it reads nothing for the idle
/// timeout. `what` names its action in the error.
pub(crate) async fn digested(
    end: &End,
    job: JobName,
    idle_timeout: Duration,
    what: &str,
) -> Result<Job, Error> {
    let ended = tokio::select! {
        ended = ended_well(end, job, what) => ended?,
        () = stands_still(&end.agent, job, idle_timeout) => {
            return Err(Error::Failed(format!(
                "{}: cannot {what}: nothing was read for {} s (--idle-timeout)",
                end.agent.host(),
                idle_timeout.as_secs()
            )));
        }
    };
    match cannot_read(&ended) {
        Some(files) => Err(Error::Failed(format!("{}: cannot {what}: {files}", end.agent.host()))),
        None => Ok(ended),
    }
}

/// Waits for a job and requires it to succeed. `what` names its action in the error.
async fn ended_well(end: &End, job: JobName, what: &str) -> Result<Job, Error> {
    let ended = end.agent.ended(job).await?;
    if ended.exit != Some(0) {
        return Err(Error::Failed(format!("{}: cannot {what}{}", end.agent.host(), said(&ended))));
    }
    Ok(ended)
}

/// Returns when a job has made no progress for the idle timeout. Time in which it reports that it waits does
/// not count.
async fn stands_still(agent: &Agent, job: JobName, idle_timeout: Duration) {
    let mut last = 0;
    let mut since = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let seen = agent.job(job);
        let moved = seen.moved();
        if moved != last || seen.waits.is_some() || seen.exit.is_some() || agent.is_cut_off() {
            (last, since) = (moved, Instant::now());
        } else if since.elapsed() > idle_timeout {
            return;
        }
    }
}
