//! Comparison of the tables of new replicas with those of the donor, at one position of it.

use std::pin::pin;
use std::time::Instant;

use futures_util::future::join_all;

use super::contents::{Contents, Differences};
use super::donor::{Moment, Snapshot};
use super::error::Trouble;
use super::{Replica, Setup, donor, moment};
use crate::config::values::TableCheck;
use crate::error::Error;
use crate::lease::End;
use crate::lease::login;
use crate::mariadb::plan::{ReplicaPlan, is_gtid};
use crate::mariadb::sql::Server;
use crate::plan::Plan;
use crate::progress::{Phase, Progress};
use crate::report::outcome::Followed;

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
type OfDonor = Result<(Moment, Contents), String>;

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
            let Setup { plan, end, .. } = caught.replica.setup;
            let stopped = moment::stop(&caught.replica.setup.server(), plan.idle_timeout).await;
            stopped
                .map_err(|trouble| trouble.of(end.agent.host(), "cannot stop replication for the comparison"))
        }))
        .await;
        let (of_donor, of_replicas) = Box::pin(self.read_both(&caught, stopped)).await;
        let of_donor = &of_donor;
        join_all(caught.into_iter().zip(of_replicas).map(|(caught, here)| async move {
            let Caught { replica, followed, copy } = caught;
            let judged = async {
                let here = here?;
                let there = of_donor.as_ref().map_err(|text| Error::Failed(text.clone()))?;
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
        stopped: Vec<Result<String, Error>>,
    ) -> (OfDonor, Vec<Result<Contents, Error>>) {
        let mut of_donor = Err("no replica could be compared".to_owned());
        let mut of_replicas = Vec::new();
        // Without a replica to compare, the donor's writes must not be blocked.
        if stopped.iter().any(Result::is_ok) {
            match self.begin(&stopped).await {
                Err(error) => of_donor = Err(error.chain()),
                Ok(snapshot) => {
                    let moment = snapshot.moment().clone();
                    let reading = join_all(caught.iter().zip(&stopped).map(|(caught, stopped)| async {
                        let is_stopped = stopped.is_ok();
                        if is_stopped { Some(self.read_replica(caught, &moment).await) } else { None }
                    }));
                    let (there, here) = both(self.read_donor(snapshot), reading).await;
                    of_donor = there.map(|contents| (moment.clone(), contents));
                    of_replicas = here;
                }
            }
        }
        let mut of_replicas = of_replicas.into_iter().flatten();
        let failed = of_donor.as_ref().err().cloned().unwrap_or_default();
        let of_each = stopped.into_iter().map(|stopped| {
            stopped?;
            of_replicas.next().unwrap_or_else(|| Err(Error::Failed(failed.clone())))
        });
        let of_each = of_each.collect();
        (of_donor, of_each)
    }

    fn donor_error(&self, trouble: Trouble, what: &str) -> Error {
        trouble.of(self.source.agent.host(), what)
    }

    /// Begins a snapshot of the donor, not before the positions at which the replicas have stopped.
    async fn begin(&self, stopped: &[Result<String, Error>]) -> Result<Snapshot<'_>, Error> {
        let copies: Vec<String> = stopped.iter().flatten().filter(|gtid| is_gtid(gtid)).cloned().collect();
        let socket = self.plan.source.endpoint.path.as_os_str();
        let agent = self.source.agent.conversation();
        let server = Server { agent, login: login(socket, &self.replica.defaults_file), unit: None };
        let begun = donor::begin(&server, self.replica.position, self.plan.idle_timeout, &copies).await;
        begun.map_err(|trouble| self.donor_error(trouble, "cannot read its tables in one snapshot"))
    }

    async fn read_donor(&self, snapshot: Snapshot<'_>) -> Result<Contents, Error> {
        let read = snapshot.read(self.check).await;
        read.map_err(|trouble| self.donor_error(trouble, "cannot read its tables"))
    }

    /// Reads the tables of a replica at the position of the donor.
    async fn read_replica<T>(&self, caught: &Caught<'_, '_, T>, moment: &Moment) -> Result<Contents, Error> {
        let position = moment
            .position(&caught.followed.began)
            .ok_or_else(|| self.donor_error(Trouble::NoPosition, "cannot read its tables in one snapshot"))?;
        let Setup { plan, end, .. } = caught.replica.setup;
        let server = caught.replica.setup.server();
        let read = moment::read_at(&server, &position, self.check, plan.idle_timeout).await;
        read.map_err(|trouble| {
            trouble.of(end.agent.host(), "cannot read its tables at the position of the source")
        })
    }

    /// Compares the tables of the donor and of one replica, which then catches up again.
    async fn judge(
        &self,
        replica: &Replica<'_>,
        mut followed: Followed,
        (moment, there): &(Moment, Contents),
        here: &Contents,
        clock: Instant,
        progress: &Progress,
    ) -> Result<Followed, Error> {
        if let Some(differences) = Differences::between(there, here) {
            return Err(Error::Verification(format!(
                "{}: its tables differ from those of {}: {differences}",
                replica.setup.target.endpoint.host, self.plan.source.endpoint.host
            )));
        }
        let place = moment.position(&followed.began).map_or_else(String::new, |place| place.to_string());
        followed.tables = Some((self.check, there.len() as u64, place));
        followed.steps.push(("comparing tables", clock.elapsed()));
        // Replication was stopped during the comparison.
        let again = Instant::now();
        (followed.gtid, followed.lag) = replica.wait(progress).await?;
        followed.steps.push(("catching up again", again.elapsed()));
        Ok(followed)
    }
}

/// Waits for the donor's contents and for those of the replicas, `None` for one that takes no part. The donor
/// is not read on when no replica is left, so that its writers can go on; nor are the replicas when the donor
/// has failed.
async fn both<T>(
    donor: impl Future<Output = Result<T, Error>>,
    replicas: impl Future<Output = Vec<Option<Result<T, Error>>>>,
) -> (Result<T, String>, Vec<Option<Result<T, Error>>>) {
    let (mut donor, mut replicas) = (pin!(donor), pin!(replicas));
    let text = |there: Result<T, Error>| there.map_err(|error| error.chain());
    tokio::select! {
        there = &mut donor => match there {
            Ok(there) => (Ok(there), replicas.await),
            Err(error) => (Err(error.chain()), Vec::new()),
        },
        here = &mut replicas => {
            if here.iter().flatten().any(Result::is_ok) {
                (text(donor.await), here)
            } else {
                (Err("no replica could be compared".into()), here)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    /// Shows whether it was dropped.
    struct Dropped<'a>(&'a std::cell::Cell<bool>);

    impl Drop for Dropped<'_> {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }

    fn failed<T>(text: &str) -> Result<T, Error> {
        Err(Error::Failed(text.into()))
    }

    #[tokio::test(flavor = "current_thread")]
    async fn donor_is_not_read_on_without_a_replica() {
        let is_dropped = std::cell::Cell::new(false);
        let session = Dropped(&is_dropped);
        let donor = async move {
            let _session = session;
            pending::<()>().await;
            Ok(1)
        };
        let (there, here) = both(donor, ready(vec![Some(failed("one")), None])).await;
        assert!(is_dropped.get());
        assert_eq!(there.unwrap_err(), "no replica could be compared");
        assert_eq!(here[0].as_ref().unwrap().as_ref().unwrap_err().to_string(), "one");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn replicas_are_not_read_on_without_the_donor() {
        let (there, here) = both::<u8>(ready(failed("donor")), pending()).await;
        assert_eq!((there.unwrap_err().as_str(), here.len()), ("donor", 0));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn one_good_replica_is_enough() {
        for is_donor_first in [true, false] {
            let pause = |is_first: bool| async move {
                if !is_first {
                    tokio::task::yield_now().await;
                }
            };
            let donor = async {
                pause(is_donor_first).await;
                Ok(1)
            };
            let replicas = async {
                pause(!is_donor_first).await;
                vec![Some(failed("one")), Some(Ok(2))]
            };
            let (there, here) = both(donor, replicas).await;
            assert_eq!((there.unwrap(), *here[1].as_ref().unwrap().as_ref().unwrap()), (1, 2));
        }
    }
}
