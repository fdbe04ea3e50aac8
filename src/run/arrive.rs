//! Work on one target after the stream: prepares the received data, syncs and lists it, and compares it with
//! the data that was sent, as far as this is possible on the target alone.

use super::jobs;
use super::lane::{Completing, Lane};
use crate::base::printable::printable;
use crate::config::values::DigestAlgorithm;
use crate::error::Error;
use crate::host::agent::Job;
use crate::lease::job;
use crate::mariadb::prepare;
use crate::plan::Plan;
use crate::progress::Phase;
use crate::proto::files::DigestKind;
use crate::proto::job::JobName;
use crate::report::outcome::BackupFacts;
use crate::shape::Consumer;

/// Action of the jobs that list and digest files, for error messages.
pub(super) const LIST: &str = "list and digest the files";

/// Received data, ready to be compared.
pub(super) struct Arrived {
    /// Job that listed the files.
    pub(super) listed: Job,
    /// Metadata, if the data is a backup.
    pub(super) backup: Option<BackupFacts>,
}

/// Prepares, syncs and lists the received data. Fails if it is not as expected.
pub(super) async fn arrive(
    Completing { plan, sent, progress, .. }: &Completing<'_>,
    lane: &Lane<'_>,
) -> Result<Arrived, Error> {
    let mut backup = None;
    match plan.shape.consumer {
        Consumer::Tree => {}
        Consumer::Archive => {
            job::run(lane.end, JobName::Strip, jobs::strip(plan), "leave out the top directory").await?;
        }
        Consumer::Backup => backup = Some(prepare::receive(plan, lane.plan, lane.end, progress).await?),
        Consumer::File => digest(plan, lane, sent.digest.as_deref()).await?,
    }
    progress.phase(Phase::Verifying);
    job::start(&lane.end.agent, JobName::Verify, jobs::target_list(plan, lane.plan), None).await?;
    let listed = job::digested(lane.end, JobName::Verify, plan.idle_timeout, LIST).await?;
    Ok(Arrived { listed, backup })
}

/// Reads an archive back from disk, compares its digest with that of the sent data, and writes a digest file
/// beside it.
async fn digest(plan: &Plan, lane: &Lane<'_>, sent: Option<&str>) -> Result<(), Error> {
    let kind = plan.stream_digest.map_or(DigestKind::Sha256, DigestAlgorithm::kind);
    job::start(&lane.end.agent, JobName::Archive, jobs::digest_archive(plan, lane.plan, kind), None).await?;
    let here =
        job::digested(lane.end, JobName::Archive, plan.idle_timeout, "read the archive back from disk")
            .await?
            .digest;
    if here.is_some() && here.as_deref() == sent {
        return Ok(());
    }
    Err(Error::Verification(format!(
        "{}: {} on disk differs from the data that was sent: its digest was {} on the source and is {} here",
        lane.plan.endpoint.host,
        printable(lane.plan.final_path.as_os_str().as_encoded_bytes()),
        sent.unwrap_or("unknown"),
        here.as_deref().unwrap_or("unknown")
    )))
}
