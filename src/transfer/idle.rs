//! Detection of jobs that make no progress.

use std::time::Duration;

use tokio::time::Instant;

use super::stream::LOOK;
use crate::host::agent::Agent;

/// Returns when a job has made no progress for the idle timeout. Time in which it reports that it waits does
/// not count.
pub(super) async fn stands_still(agent: &Agent, job: &str, idle_timeout: Duration) {
    let mut last = 0;
    let mut since = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        let seen = agent.job(job);
        let moved = seen.moved();
        if moved != last || seen.waits.is_some() || seen.exit.is_some() {
            (last, since) = (moved, Instant::now());
        } else if since.elapsed() > idle_timeout {
            return;
        }
    }
}
