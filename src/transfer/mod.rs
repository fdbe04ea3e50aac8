//! One sender and its receivers, from the first lease to the last publication.
//!
//! Stage and listen on every target → connect and make sure of the peers ([`connect`]) → stream, watched for a
//! standstill ([`stream`]) → per target judge ([`judge`]), compare and publish ([`settle`]). A target that fails keeps
//! its error and the others go on. Nothing is undone here: that is the release of the agents, which `run` always
//! reaches.

mod arrive;
mod connect;
mod follow;
mod idle;
mod judge;
mod rest;
mod settle;
mod stream;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::lease::{self, End};
use crate::pipeline::jobs;
use crate::plan::replica::Account;
use crate::plan::{Plan, TargetPlan};
use crate::progress::{Phase, Progress};
use crate::run_id::random_hex;
use crate::values::{AttributeKind, FileDigest};
pub use connect::{Port, made_to};
pub use follow::Followed;
pub use judge::judge;
use rest::Rest;

/// A target on its way.
#[derive(Debug)]
struct Lane<'a> {
    plan: &'a TargetPlan,
    end: &'a End,
    port: u16,
    /// By which its server replicates.
    account: Option<Account>,
    error: Option<Error>,
}

/// What became of a target.
#[derive(Debug)]
pub enum Outcome {
    /// The copy has its final name.
    Done(Copied),
    /// So it had when the run ended early.
    Published,
    /// It has not, and why.
    Failed(Error),
}

/// The facts of a good copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Files, directories and all else.
    pub entries: u64,
    /// The sizes of all files, added up.
    pub bytes: u64,
    /// Bytes that were read from the source: less than `bytes` where files are sparse.
    pub read_bytes: u64,
    /// Bytes that crossed the network.
    pub wire_bytes: u64,
    /// From the first lease to the final name.
    pub took: Duration,
    /// Of that, the stream alone.
    pub streamed: Duration,
    /// The stream's digest, with its algorithm's name.
    pub stream_digest: Option<String>,
    /// The stream's digest itself, hexadecimal, as both sides took it.
    pub stream_value: Option<String>,
    /// The algorithm of the files' digests, and how many were compared.
    pub files_compared: Option<(FileDigest, u64)>,
    /// The SHA-256 of the sorted list of all entries, on both sides.
    pub entries_digest: String,
    /// It was waited for until it was on the disk.
    pub synced: bool,
    /// Some of it changed on the source meanwhile, which is among the remarks.
    pub changed: bool,
    /// Names and sizes of all entries were compared with the source's.
    pub listed: bool,
    /// Of a hot backup.
    pub backup: Option<Box<BackupFacts>>,
    /// Of a replica.
    pub replica: Option<Box<Followed>>,
    /// Extended attributes that the target's file system cannot hold and that were left out, by kind, with the number of files.
    pub dropped: BTreeMap<AttributeKind, u64>,
    /// What the stages remarked without failing: skipped sockets, mostly.
    pub remarks: Vec<String>,
}

/// What a hot backup says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackupFacts {
    /// What made it, with its version.
    pub tool: String,
    /// The version of its server.
    pub server_version: String,
    /// It can be started as it is.
    pub prepared: bool,
    /// The GTID of what is in it, as the server writes it; empty where there is none.
    pub gtid: String,
    /// The file of the source's own binary log, and the position in it.
    pub binlog: Option<(String, u64)>,
    /// On a replica: its source's position, as a statement.
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

/// Copies the source to all targets, and lets the copies follow the primary where they are to be replicas. The outcomes, with the
/// last port of each (0: none), are in the order of the plan's targets.
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
        // What ends all targets, such as a source that fails, is told for each of them.
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

/// Returns how long the stream took and the copies of the lanes that are live at the end.
async fn body(
    plan: &Plan,
    (source, primary): (&End, Option<&End>),
    lanes: &mut [Lane<'_>],
    progress: &Progress,
    began: Instant,
) -> Result<(Duration, Vec<Copied>), Error> {
    let key = Zeroizing::new(if plan.encrypt {
        random_hex::<32>().map_err(|error| Error::Failed(format!("no random numbers for a key: {error}")))?
    } else {
        String::new()
    });
    progress.phase(Phase::Preparing);
    lease::hold_source(plan, source).await?;
    join_all(lanes.iter_mut().map(|lane| async {
        if let Err(error) = lease::staging(plan, lane.end, lane.plan).await {
            lane.fail(error);
        }
    }))
    .await;
    follow::accounts(plan, primary, lanes).await;
    connect::connect(plan, source, lanes, &key).await?;
    if !lanes.iter().any(Lane::is_live) {
        return Ok((Duration::ZERO, Vec::new()));
    }

    // As late as can be: nobody is to wait for us longer than for the copy.
    let rest = Rest::begin(plan, source).await?;
    progress.phase(Phase::Copying);
    let stream_began = Instant::now();
    if plan.shape.compares_files() {
        lease::job(&source.agent, "manifest", &jobs::source_manifest(plan), "").await?;
    }
    source.agent.call("open_gate", &[]).await?;
    let sender = stream::stream(plan, source, lanes, progress).await?;
    let streamed = stream_began.elapsed();
    // Where files are compared they are still being read.
    if !plan.shape.compares_files() {
        rest.end().await?;
    }

    // The port is free again, and may become another run's: no hole to it stays. The release tries once more.
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
