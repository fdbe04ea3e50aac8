//! Setup of a replica from a published copy: starts its server, starts replication, waits until it has caught
//! up, and compares tables. Until the commit the new data is provisional, and any failure restores the old
//! server.

mod account;
mod position;
mod tables;

use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::jobs;
use super::plan::{Account, Follow, ReplicaPlan};
use crate::error::{Error, chain};
use crate::host::agent::{AgentError, Command, Job, JobName};
use crate::host::wire::printable;
use crate::lease::{self, End, job};
use crate::plan::{Plan, TargetPlan};
use crate::progress::{Phase, Progress};
use crate::report::outcome::{BackupFacts, Followed};
pub(crate) use account::{Creation, Credentials};
use position::position;
pub(crate) use tables::{Caught, Compared, Comparison};

/// Interval of progress reports.
const LOOK: Duration = Duration::from_millis(250);

/// Target that becomes a replica.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    /// Plan of the run.
    pub(crate) plan: &'a Plan,
    /// Plan of the replication.
    pub(crate) replica: &'a ReplicaPlan,
    /// Plan of the target.
    pub(crate) target: &'a TargetPlan,
    /// Replication settings of the target.
    pub(crate) how: &'a Follow,
    /// Agent and connection of the target.
    pub(crate) end: &'a End,
}

/// Target that becomes a replica, with its replication account.
#[derive(Debug)]
pub(crate) struct Replica<'a> {
    setup: Setup<'a>,
    account: Account,
    /// Server on which the run created the account.
    created: Option<Creation<'a>>,
}

impl<'a> Replica<'a> {
    /// Provides the replication account of a target, and checks it.
    pub(crate) async fn with_account(setup: Setup<'a>, credentials: Credentials<'a>) -> Result<Self, Error> {
        let (account, created) = account::provide(setup, credentials).await?;
        Ok(Self { setup, account, created })
    }

    /// Makes the rollback restore the old data of the server, until [`Replica::commit`].
    pub(crate) async fn put_on_trial(&self) -> Result<(), Error> {
        let Setup { plan, end, target, how, .. } = self.setup;
        Ok(lease::put_on_trial(plan, end, target, how).await?)
    }

    /// Starts the server with its copy, starts replication, and waits until it has caught up.
    pub(crate) async fn follow(
        &self,
        backup: Option<&BackupFacts>,
        progress: &Progress,
    ) -> Result<Followed, Error> {
        let Setup { plan, replica, target, how, end } = self.setup;
        let began = position(replica.position, backup)?;
        progress.phase(Phase::Starting);
        let clock = Instant::now();
        lease::start_server(end, target, how, &replica.defaults_file).await?;
        let started = clock.elapsed();
        progress.phase(Phase::CatchingUp);
        let (gtid, lag) = self.wait(&jobs::follow(plan, replica, how, &began), progress).await?;
        Ok(Followed {
            primary: replica.primary.clone(),
            place: format!("{}:{}", how.host, replica.port),
            user: self.account.user.clone(),
            made: self.created.is_some(),
            began,
            gtid,
            lag,
            tables: None,
            steps: vec![("starting", started), ("catching up", clock.elapsed().saturating_sub(started))],
        })
    }

    /// Waits once more until the replica has caught up.
    async fn follow_again(&self, progress: &Progress) -> Result<(String, Duration), Error> {
        let Setup { plan, replica, how, .. } = self.setup;
        self.wait(&jobs::follow_again(plan, replica, how), progress).await
    }

    /// Runs a job that ends when the replica has caught up. Returns the replica's GTID position and lag.
    async fn wait(&self, script: &[u8], progress: &Progress) -> Result<(String, Duration), Error> {
        let Setup { replica, end, .. } = self.setup;
        let key = Zeroizing::new(format!("{}\n{}", self.account.user, self.account.password()));
        job::start(&end.agent, JobName::Follow, script, &key).await?;
        let job = loop {
            tokio::select! {
                ended = end.agent.ended(JobName::Follow) => break ended?,
                () = tokio::time::sleep(LOOK) => {
                    let behind = end.agent.job(JobName::Follow).facts.behind;
                    progress.waits(behind.map(|seconds| format!("{seconds} s behind")));
                }
            }
        };
        match job.facts.lag {
            Some(lag) if job.exit == Some(0) => Ok((job.facts.gtid.unwrap_or_default(), lag)),
            _ => Err(reported(end, &job, &format!("replication from {} failed", replica.primary))),
        }
    }

    /// Commits the provisional data and the account. The account first: a replica cannot work without one.
    pub(crate) async fn commit(&self) -> Result<(), Error> {
        let Setup { target, how, end, .. } = self.setup;
        if let Some(created) = &self.created {
            created.keep(&self.account, how).await?;
        }
        match (lease::accept(end, target).await, &self.created) {
            // The agent's event counts, even if its reply was lost.
            (Err(_), _) if end.agent.published() => Ok(()),
            // Only if the agent denies the commit. If it was lost, the state is unknown, and a replica would
            // need its account.
            (Err(error @ AgentError::Failed { .. }), Some(created)) => {
                created.give_up(&self.account, how).await?;
                Err(error.into())
            }
            (accepted, _) => Ok(accepted?),
        }
    }

    /// Restores the old server now, before the release of all agents. The release retries what fails here.
    pub(crate) async fn give_back(&self) {
        let Setup { target, end, .. } = self.setup;
        // Jobs that use the new server would delay this.
        for job in [JobName::Follow, JobName::Tables] {
            if end.agent.job(job).exit.is_none() {
                let _ = end.agent.call(Command::StopJob(job)).await;
            }
        }
        match lease::restart(&end.agent).await {
            Ok(_) => {}
            Err(error) => {
                let name = printable(target.final_path.as_os_str().as_encoded_bytes());
                tracing::warn!("the old server of {name} is not running again yet: {}", chain(&error));
            }
        }
    }
}

/// Returns the error that a job reported as a fact.
fn reported(end: &End, job: &Job, what: &str) -> Error {
    let why = job.facts.error.as_deref().unwrap_or("the job was killed");
    Error::Failed(format!("{}: {what}: {why}", end.agent.host()))
}
