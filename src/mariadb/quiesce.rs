//! Quiescing of the source during the copy: its servers or their replication. The leases are rolled back as
//! soon as the source has been read, and by the release of the agent in any case.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::lease::{self, End};
use crate::plan::Plan;

/// Servers or replication that are stopped for the copy, if the plan requires it.
pub(crate) struct Quiesced<'a> {
    plan: &'a Plan,
    source: &'a End,
    /// A server or replication was running and was stopped.
    any: bool,
    /// A stopped server replicated.
    replicated: bool,
    began: Instant,
    took: OnceLock<Duration>,
}

impl<'a> Quiesced<'a> {
    /// Stops the servers or the replication of the source.
    pub(crate) async fn begin(plan: &'a Plan, source: &'a End) -> Result<Self, Error> {
        let mut quiesced = Self {
            plan,
            source,
            any: !plan.source.servers.is_empty(),
            replicated: false,
            began: Instant::now(),
            took: OnceLock::new(),
        };
        if let Some(backup) = plan.backup.as_ref().filter(|backup| backup.stop_replication) {
            let stopped = lease::stop_replication(source, &plan.source.endpoint.path, backup).await?;
            quiesced.any |= stopped > 0;
            if stopped == 0 {
                tracing::warn!("{}: --stop-replication: the server replicates nothing", source.agent.host());
            }
        }
        quiesced.replicated = lease::stop_servers(source, &plan.source.servers).await?;
        Ok(quiesced)
    }

    /// Restores the servers or the replication. Fails, too, if a server was started by others: it may have
    /// written to the data during the copy.
    pub(crate) async fn end(&self) -> Result<(), Error> {
        if !self.plan.rests() || self.took.get().is_some() {
            return Ok(());
        }
        let already = lease::restart(&self.source.agent).await?;
        self.took.get_or_init(|| self.began.elapsed());
        match already.first() {
            Some(unit) => Err(Error::Failed(format!(
                "{}: {unit} was started from outside this run while it had to be down",
                self.source.agent.host()
            ))),
            None => Ok(()),
        }
    }

    /// Returns a remark about the downtime, if there was one.
    pub(crate) fn remark(&self) -> Option<String> {
        let seconds = self.took.get().filter(|_| self.any)?.as_secs_f64();
        let host = self.source.agent.host();
        let units: Vec<&str> = self.plan.source.servers.iter().map(|server| server.unit.as_str()).collect();
        let replication = if self.replicated { " and its replication was restored" } else { "" };
        Some(match units.as_slice() {
            [] => format!("{host}: replication was stopped for {seconds:.1} s; it was restored"),
            [unit] => format!("{host}: {unit} was down for {seconds:.1} s; it is running again{replication}"),
            units => {
                let units = units.join(", ");
                format!("{host}: {units} were down for {seconds:.1} s; they are running again{replication}")
            }
        })
    }
}
