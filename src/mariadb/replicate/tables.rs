//! Comparison of the tables of new replicas with those of the donor, at one position of it.

use std::time::Instant;

use futures_util::future::join_all;

use super::{Replica, Setup, reported};
use crate::config::values::TableCheck;
use crate::error::Error;
use crate::host::agent::{Command, Job, JobName, List};
use crate::lease::{End, job};
use crate::mariadb::jobs;
use crate::mariadb::plan::{Position, ReplicaPlan, is_gtid};
use crate::plan::Plan;
use crate::progress::{Phase, Progress};
use crate::report::outcome::Followed;
use crate::verify;

/// Donor of the replicas, and how its tables are compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comparison<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) replica: &'a ReplicaPlan,
    pub(crate) source: &'a End,
    pub(crate) check: TableCheck,
}

/// Replica that has caught up.
#[derive(Debug)]
pub(crate) struct Caught<'a, 'b, T> {
    /// The replica.
    pub(crate) replica: &'a Replica<'b>,
    /// Facts about it.
    pub(crate) followed: Followed,
    /// Copy, for the caller.
    pub(crate) copy: T,
}

/// Replica whose tables were compared.
#[derive(Debug)]
pub(crate) struct Compared<'a, 'b, T> {
    /// The replica.
    pub(crate) replica: &'a Replica<'b>,
    /// Facts about it, if its tables agree.
    pub(crate) followed: Result<Followed, Error>,
    /// Copy.
    pub(crate) copy: T,
}

/// Result of reading the donor's tables. Text: an error of the donor is that of every replica.
type OfDonor = Result<Job, String>;

/// Returns the position at which the source has read its tables, in the form that the replica uses.
fn moment_of(job: &Job, began: &Position) -> Option<Position> {
    let facts = &job.facts;
    match began {
        Position::Gtid(_) => facts.gtid.clone().filter(|gtid| is_gtid(gtid)).map(Position::Gtid),
        Position::File(..) => Some(Position::File(facts.file.clone().unwrap_or_default(), facts.position?)),
    }
}

impl Comparison<'_> {
    /// Compares the tables of replicas that have caught up. Each replica has its own result.
    pub(crate) async fn run<'b, 'c, T>(
        &self,
        caught: Vec<Caught<'b, 'c, T>>,
        progress: &Progress,
    ) -> Vec<Compared<'b, 'c, T>> {
        progress.phase(Phase::Comparing);
        let clock = Instant::now();
        // The replicas stop before the position is chosen: none can be past it.
        let stopped = join_all(caught.iter().map(|caught| async {
            let Setup { plan, replica, how, end, .. } = caught.replica.setup;
            let script = jobs::rest_tables(plan, replica, how);
            run(end, &script, "cannot stop replication for the comparison").await
        }))
        .await;
        let (of_source, of_targets) = self.read_both(&caught, stopped).await;
        let of_source = &of_source;
        join_all(caught.into_iter().zip(of_targets).map(|(caught, here)| async move {
            let Caught { replica, followed, copy } = caught;
            let judged = async {
                let (here, there) = (here?, of_source.as_ref().map_err(|text| Error::Failed(text.clone()))?);
                self.judge(replica, followed, there, &here, clock, progress).await
            };
            Compared { replica, followed: judged.await, copy }
        }))
        .await
    }

    /// Reads the tables of the donor and of the replicas whose replication was stopped, all at one position.
    async fn read_both<T>(
        &self,
        caught: &[Caught<'_, '_, T>],
        stopped: Vec<Result<Job, Error>>,
    ) -> (OfDonor, Vec<Result<Job, Error>>) {
        // Without a replica to compare, the donor's writes must not be blocked.
        if stopped.iter().all(Result::is_err) {
            return (Err("no replica could be compared".into()), stopped);
        }
        let behind = stopped.iter().flatten().filter_map(|job| job.facts.gtid.clone());
        let behind: Vec<String> = behind.filter(|gtid| is_gtid(gtid)).collect();
        match self.begin(&behind).await {
            Ok(moment) => tokio::join!(
                async { self.end().await.map_err(|error| error.chain()) },
                self.read(caught, stopped, &moment)
            ),
            Err(error) => {
                // It may be running, and then blocks writes of the donor.
                let _ = self.source.agent.call(Command::StopJob(JobName::Tables)).await;
                let text = error.chain();
                let failed =
                    |stopped: Result<Job, Error>| stopped.and_then(|_| Err(Error::Failed(text.clone())));
                let of_targets = stopped.into_iter().map(failed).collect();
                (Err(text.clone()), of_targets)
            }
        }
    }

    /// Starts to read the tables of the donor, not before any of these GTIDs. Returns when it has reported the
    /// position at which it reads.
    async fn begin(&self, behind: &[String]) -> Result<Job, Error> {
        let script = jobs::source_tables(self.plan, self.replica, self.check, behind);
        let agent = &self.source.agent;
        job::start(agent, JobName::Tables, &script, "").await?;
        let job = agent.until(JobName::Tables, |job| job.facts.gtid.is_some() || job.exit.is_some()).await?;
        if job.facts.gtid.is_some() {
            return Ok(job);
        }
        Err(reported(self.source, &job, "cannot read its tables in one snapshot"))
    }

    /// Waits until the tables of the donor have been read.
    async fn end(&self) -> Result<Job, Error> {
        let job = self.source.agent.ended(JobName::Tables).await?;
        if job.exit == Some(0) { Ok(job) } else { Err(reported(self.source, &job, "cannot read its tables")) }
    }

    /// Reads the tables of the replicas at the position of the donor.
    async fn read<T>(
        &self,
        caught: &[Caught<'_, '_, T>],
        stopped: Vec<Result<Job, Error>>,
        moment: &Job,
    ) -> Vec<Result<Job, Error>> {
        let read = join_all(caught.iter().zip(stopped).map(|(caught, stopped)| async {
            stopped?;
            let moment = moment_of(moment, &caught.followed.began)
                .ok_or_else(|| Error::Failed("the source reported no position for the comparison".into()))?;
            let Setup { plan, replica, how, end, .. } = caught.replica.setup;
            let script = jobs::target_tables(plan, replica, how, self.check, &moment);
            run(end, &script, "cannot read its tables at the position of the source").await
        }))
        .await;
        if read.iter().all(Result::is_err) {
            // A failure to stop the job shows where its end is waited for.
            let _ = self.source.agent.call(Command::StopJob(JobName::Tables)).await;
        }
        read
    }

    /// Compares the lists of the donor and of one replica, which then catches up again.
    async fn judge(
        &self,
        replica: &Replica<'_>,
        mut followed: Followed,
        there: &Job,
        here: &Job,
        clock: Instant,
        progress: &Progress,
    ) -> Result<Followed, Error> {
        let Setup { target, end, .. } = replica.setup;
        let (list, other) = (there.manifests.get(&List::Tables), here.manifests.get(&List::Tables));
        if list.is_none() || list != other {
            let differences = verify::differences(self.source, end, List::Tables).await?;
            return Err(Error::Verification(format!(
                "{}: its tables differ from those of {}: {differences}",
                target.endpoint.host, self.plan.source.endpoint.host
            )));
        }
        let place = moment_of(there, &followed.began).map_or_else(String::new, |moment| moment.to_string());
        followed.tables = Some((self.check, list.map_or(0, |list| list.records), place));
        followed.steps.push(("comparing tables", clock.elapsed()));
        // Replication was stopped during the comparison.
        let again = Instant::now();
        (followed.gtid, followed.lag) = replica.follow_again(progress).await?;
        followed.steps.push(("catching up again", again.elapsed()));
        Ok(followed)
    }
}

/// Runs a job `tables` and requires it to succeed.
async fn run(end: &End, script: &[u8], what: &str) -> Result<Job, Error> {
    job::start(&end.agent, JobName::Tables, script, "").await?;
    let job = end.agent.ended(JobName::Tables).await?;
    if job.exit == Some(0) { Ok(job) } else { Err(reported(end, &job, what)) }
}
