//! What of the source rests while it is copied: servers, and what they replicate. Their leases are undone as soon as nothing
//! is read any more, and by the agent's end in any case.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::lease::{self, End};
use crate::plan::Plan;

/// Something that rests, or nothing where the plan wants nothing to.
pub(super) struct Rest<'a> {
    plan: &'a Plan,
    source: &'a End,
    /// Something was at work, and is stopped.
    any: bool,
    began: Instant,
    took: OnceLock<Duration>,
}

impl<'a> Rest<'a> {
    /// Stops what has to rest.
    pub(super) async fn begin(plan: &'a Plan, source: &'a End) -> Result<Self, Error> {
        let mut rest = Self {
            plan,
            source,
            any: !plan.source.servers.is_empty(),
            began: Instant::now(),
            took: OnceLock::new(),
        };
        if let Some(backup) = plan.backup.as_ref().filter(|backup| backup.stop_replication) {
            let stopped = lease::stop_replication(source, &plan.source.endpoint.path, backup).await?;
            rest.any |= stopped > 0;
            if stopped == 0 {
                tracing::warn!("{}: --stop-replication: it replicates nothing", source.agent.host());
            }
        }
        lease::stop_servers(source, &plan.source.servers).await?;
        Ok(rest)
    }

    /// It runs again. An error, too, when somebody else has started it, who may have written to what was copied.
    pub(super) async fn end(&self) -> Result<(), Error> {
        if !self.plan.rests() || self.took.get().is_some() {
            return Ok(());
        }
        let already = lease::restart(&self.source.agent).await?;
        self.took.get_or_init(|| self.began.elapsed());
        match already.first() {
            Some(unit) => Err(Error::Failed(format!(
                "{}: {unit} was started by somebody else while it had to rest",
                self.source.agent.host()
            ))),
            None => Ok(()),
        }
    }

    /// That it did, and how long.
    pub(super) fn remark(&self) -> Option<String> {
        let seconds = self.took.get().filter(|_| self.any)?.as_secs_f64();
        let units: Vec<&str> = self.plan.source.servers.iter().map(|server| server.unit.as_str()).collect();
        let who = if units.is_empty() { "what it replicates".into() } else { units.join(", ") };
        Some(format!("{}: {who} rested for {seconds:.1} s, and is again as it was", self.source.agent.host()))
    }
}
