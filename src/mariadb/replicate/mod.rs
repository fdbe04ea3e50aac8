//! Setup of a replica from a published copy: starts its server, starts replication, waits until it has caught
//! up, and compares tables. Until the commit the new data is provisional, and any failure restores the old
//! server.

mod account;
mod contents;
mod donor;
mod error;
mod follow;
mod moment;
mod patience;
mod position;
mod status;
mod tables;
#[cfg(test)]
mod tests;
mod watch;

use std::time::{Duration, Instant};

use super::plan::{Account, Follow, ReplicaPlan};
use super::sql::{RemoteServer, Server};
use crate::base::printable::printable;
use crate::error::{Error, chain};
use crate::host::conversation::AgentError;
use crate::lease::{self, End};
use crate::plan::{Plan, TargetPlan};
use crate::progress::{Phase, Progress};
use crate::proto::server::Remote;
use crate::report::outcome::{BackupFacts, Followed};
pub(crate) use account::{Creation, Credentials};
use error::Trouble;
use follow::Following;
use position::position;
pub(crate) use tables::{Caught, Compared, Comparison};
use watch::Limits;

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
    pub(crate) async fn publish_provisionally(&self) -> Result<(), Error> {
        let Setup { plan, end, target, how, .. } = self.setup;
        Ok(lease::publish_provisionally(plan, end, target, how).await?)
    }

    /// Starts the server with its copy, starts replication, and waits until it has caught up.
    pub(crate) async fn follow(
        &self,
        backup: Option<&BackupFacts>,
        progress: &Progress,
    ) -> Result<Followed, Error> {
        let Setup { replica, target, how, end, .. } = self.setup;
        let began = position(replica.position, backup)?;
        progress.phase(Phase::Starting);
        let clock = Instant::now();
        lease::start_server(end, target, how, &replica.defaults_file).await?;
        let started = clock.elapsed();
        progress.phase(Phase::CatchingUp);
        Box::pin(self.following().start(&began)).await.map_err(|trouble| self.failed(trouble))?;
        let (gtid, lag) = self.wait(progress).await?;
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

    /// Waits until the replica has caught up. Returns its GTID position and its lag.
    async fn wait(&self, progress: &Progress) -> Result<(String, Duration), Error> {
        let report =
            |behind: Option<u64>| progress.waits(behind.map(|seconds| format!("{seconds} s behind")));
        Box::pin(self.following().wait(report)).await.map_err(|trouble| self.failed(trouble))
    }

    fn following(&self) -> Following<'_> {
        let Setup { plan, replica, how, .. } = self.setup;
        Following {
            server: self.setup.server(),
            upstream: self.setup.upstream(&self.account),
            limits: Limits { max_lag: replica.max_lag, idle: plan.idle_timeout, whose: replica.position },
            events: how.events,
        }
    }

    fn failed(&self, trouble: Trouble) -> Error {
        let Setup { replica, end, .. } = self.setup;
        let what = format!("replication from {} failed", replica.primary);
        trouble.of_account(end.agent.host(), &what, self.account.password())
    }

    /// Commits the provisional data and the account. The account first: a replica cannot work without one.
    pub(crate) async fn commit(&self) -> Result<(), Error> {
        let Setup { how, end, .. } = self.setup;
        if let Some(created) = &self.created {
            created.keep(&self.account, how).await?;
        }
        match (lease::commit(end).await, &self.created) {
            // The agent's event counts, even if its reply was lost.
            (Err(_), _) if end.agent.published() => Ok(()),
            // Only if the agent denies the commit. If it was lost, the state is unknown, and a replica would
            // need its account.
            (Err(error @ AgentError::Failed { .. }), Some(created)) => {
                created.give_up(&self.account, how).await?;
                Err(error.into())
            }
            (committed, _) => Ok(committed?),
        }
    }

    /// Restores the old server now, before the release of all agents. The release retries what fails here.
    pub(crate) async fn give_back(&self) {
        let Setup { target, end, .. } = self.setup;
        match lease::restart(&end.agent).await {
            Ok(_) => {}
            Err(error) => {
                let name = printable(target.final_path.as_os_str().as_encoded_bytes());
                tracing::warn!("the old server of {name} is not running again yet: {}", chain(&error));
            }
        }
    }
}

impl<'a> Setup<'a> {
    /// Returns the server of the target.
    fn server(&self) -> Server<'a> {
        let login = lease::login(self.how.socket.as_ref(), &self.replica.defaults_file);
        let unit = Some(self.how.unit.clone()).filter(|unit| !unit.is_empty());
        Server { agent: self.end.agent.conversation(), login, unit }
    }

    /// Returns the upstream, as the target reaches it.
    fn upstream<'b>(&self, account: &'b Account) -> RemoteServer<'b>
    where
        'a: 'b,
    {
        let Setup { replica, how, end, .. } = *self;
        let remote = Remote { host: how.host.clone(), port: replica.port, tls: replica.ssl };
        RemoteServer { agent: end.agent.conversation(), remote, account }
    }
}
