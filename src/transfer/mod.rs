//! Transfer from one sender to its receivers, from the first lease to the last publication.
//!
//! Stage and listen on every target → connect and check the peers ([`connect`]) → stream, with a watch for
//! stalls ([`stream`]) → per target judge ([`judge`]), compare and publish ([`settle`]). A target that fails
//! keeps its error, and the others go on. Nothing is rolled back here: this happens when `run` releases the
//! agents, as it always does.

mod arrive;
mod connect;
mod follow;
mod idle;
mod judge;
mod peer;
mod port;
mod rest;
mod settle;
mod stream;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::host::agent::Command;
use crate::lease::{self, End};
use crate::pipeline::jobs;
use crate::plan::replica::Account;
use crate::plan::{Plan, TargetPlan};
use crate::progress::{Phase, Progress};
use crate::run_id::random_hex;
use crate::values::{AttributeKind, FileDigest};
pub use follow::Followed;
pub use judge::judge;
pub use port::{Port, made_to};
use rest::Rest;

/// State of the transfer to one target.
#[derive(Debug)]
struct Lane<'a> {
    plan: &'a TargetPlan,
    end: &'a End,
    port: u16,
    /// Replication account of its server.
    account: Option<Account>,
    error: Option<Error>,
}

/// Result for one target.
#[derive(Debug)]
pub enum Outcome {
    /// The copy has its final name.
    Done(Copied),
    /// The copy had its final name when the run ended early.
    Published,
    /// The copy failed.
    Failed(Error),
}

/// Facts about a completed copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Number of entries: files, directories and others.
    pub entries: u64,
    /// Total size of the files.
    pub bytes: u64,
    /// Bytes read from the source: less than `bytes` if files are sparse.
    pub read_bytes: u64,
    /// Bytes sent over the network.
    pub wire_bytes: u64,
    /// Time from the first lease to the final name.
    pub took: Duration,
    /// Duration of the stream alone.
    pub streamed: Duration,
    /// Algorithm of the stream's digest.
    pub stream_digest: Option<String>,
    /// Digest of the stream, hexadecimal, identical on both sides.
    pub stream_value: Option<String>,
    /// Algorithm of the file digests and the number of compared files.
    pub files_compared: Option<(FileDigest, u64)>,
    /// SHA-256 of the sorted list of all entries, identical on both sides.
    pub entries_digest: String,
    /// The copy was synced to disk.
    pub synced: bool,
    /// Files changed on the source during the copy; the remarks list them.
    pub changed: bool,
    /// Names and sizes of all entries were compared with the source.
    pub listed: bool,
    /// Facts about a hot backup.
    pub backup: Option<Box<BackupFacts>>,
    /// Facts about a replica.
    pub replica: Option<Box<Followed>>,
    /// Extended attributes that were dropped because the target's file system cannot store them: files by
    /// kind.
    pub dropped: BTreeMap<AttributeKind, u64>,
    /// Remarks about the source: its downtime, and complaints of stages that did not fail, mostly about skipped
    /// sockets.
    pub source_remarks: Vec<String>,
    /// Remarks about this target.
    pub remarks: Vec<String>,
}

/// Metadata of a hot backup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupFacts {
    /// Backup program and its version.
    pub tool: String,
    /// Version of the server that was backed up.
    pub server_version: String,
    /// The backup is prepared: a server can start with it.
    pub prepared: bool,
    /// GTID position of the backup as written by the server, or empty.
    pub gtid: String,
    /// Position in the source's own binlog: file and offset.
    pub binlog: Option<(String, u64)>,
    /// Position in the upstream's binlog as a statement, if the source is a replica.
    pub source_position: Option<String>,
}

impl Lane<'_> {
    fn is_live(&self) -> bool {
        self.error.is_none()
    }

    fn fail(&mut self, error: Error) {
        if self.error.is_none() {
            tracing::debug!(target = %self.plan.endpoint, error = error.chain(), "target failed");
            self.error = Some(error);
        }
    }
}

/// Copies the source to all targets and, for replicas, starts replication from the primary. Returns the
/// outcomes in the order of the plan's targets, each with its last port (0: none).
pub async fn transfer(
    plan: &Plan,
    (source, primary): (&End, Option<&End>),
    targets: &[End],
    progress: &Progress,
) -> Vec<(u16, Outcome)> {
    let began = Instant::now();
    let mut lanes: Vec<Lane<'_>> = plan
        .targets
        .iter()
        .zip(targets)
        .map(|(plan, end)| Lane { plan, end, port: 0, account: None, error: None })
        .collect();
    let (streamed, copied) = match body(plan, (source, primary), &mut lanes, progress, began).await {
        Ok(result) => result,
        // An error that ends all targets, such as a failed source, is reported for each of them.
        Err(error) => {
            let text = error.chain();
            let mut error = Some(error);
            for lane in &mut lanes {
                if lane.is_live() {
                    lane.fail(error.take().unwrap_or_else(|| Error::Failed(text.clone())));
                }
            }
            (Duration::ZERO, Vec::new())
        }
    };
    let mut copied = copied.into_iter();
    let mut outcome = |lane: &mut Lane<'_>| match lane.error.take() {
        Some(error) => Outcome::Failed(error),
        None => copied.next().map_or_else(
            || Outcome::Failed(Error::Failed("no result".into())),
            |copied| Outcome::Done(Copied { streamed, ..copied }),
        ),
    };
    lanes.iter_mut().map(|lane| (lane.port, outcome(lane))).collect()
}

/// Returns the duration of the stream and the copies of the lanes that are live at the end.
async fn body(
    plan: &Plan,
    (source, primary): (&End, Option<&End>),
    lanes: &mut [Lane<'_>],
    progress: &Progress,
    began: Instant,
) -> Result<(Duration, Vec<Copied>), Error> {
    let key = Zeroizing::new(if plan.encrypt {
        random_hex::<32>()
            .map_err(|error| Error::Failed(format!("cannot get random numbers for a key: {error}")))?
    } else {
        String::new()
    });
    progress.phase(Phase::Preparing);
    let staging = join_all(lanes.iter_mut().map(|lane| async {
        if let Err(error) = lease::staging(plan, lane.end, lane.plan).await {
            lane.fail(error);
        }
    }));
    let (held, _) = tokio::join!(lease::hold_source(plan, source), staging);
    held?;
    follow::accounts(plan, primary, lanes).await;
    connect::connect(plan, source, lanes, &key).await?;
    if !lanes.iter().any(Lane::is_live) {
        return Ok((Duration::ZERO, Vec::new()));
    }

    // As late as possible: servers are down only for the copy itself.
    let rest = Rest::begin(plan, source).await?;
    progress.phase(Phase::Copying);
    let stream_began = Instant::now();
    if plan.shape.compares_files() {
        lease::job(&source.agent, "manifest", &jobs::source_manifest(plan), "").await?;
    }
    source.agent.call(Command::OpenGate).await?;
    let sender = stream::stream(plan, source, lanes, progress).await?;
    let streamed = stream_began.elapsed();
    // If files are compared, they are still being read.
    if !plan.shape.compares_files() {
        rest.end().await?;
    }

    // The port is free again and may be taken by another run: close the firewall now. On failure the release
    // retries.
    join_all(
        lanes
            .iter()
            .filter(|lane| lane.is_live())
            .map(|lane| lease::close_firewall(&lane.end.agent, lane.plan, lane.port)),
    )
    .await;
    for lane in lanes.iter_mut().filter(|lane| lane.is_live()) {
        let receiver = lane.end.agent.job("receiver");
        if let Err(error) = judge::judge(plan, lane.plan, &sender, &receiver) {
            lane.fail(error);
        }
    }
    if !lanes.iter().any(Lane::is_live) {
        return Ok((streamed, Vec::new()));
    }
    let copied = settle::settle(plan, (source, primary), lanes, &sender, (began, progress, &rest)).await?;
    Ok((streamed, copied))
}
