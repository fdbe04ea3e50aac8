//! The engine of standard tools: tar, meters, openssl and netcat in one pipeline on each end.
//!
//! Listen on every target, connect and check the peers ([`connect`]); stream, with a watch for stalls
//! ([`stream`]); judge each target ([`judge`]).

pub(crate) mod build;
mod connect;
mod judge;
mod peer;
mod port;
mod stream;
pub mod variant;

use std::net::SocketAddr;
use std::path::Path;

use futures_util::future::join_all;

use super::{Received, Sent, StreamTarget, Verdict};
use crate::base::run_id::random_hex;
use crate::config::settings::Settings;
use crate::config::values::Compress;
use crate::error::Error;
use crate::host::agent::Job;
use crate::host::command::typable;
use crate::lease::{self, End};
use crate::pipeline::summary::summary;
use crate::plan::{Plan, TargetPlan};
use crate::preflight::Requirements;
use crate::progress::Progress;
use crate::proto::command::Command;
use crate::proto::job::{JobName, Meter};
use crate::proto::secret::Secret;
use build::{CIPHER_HEADER, Sink};
pub use judge::judge;
pub use port::{Port, made_to};

/// Package suggested where no usable netcat is installed.
const NETCAT: &str = "netcat-openbsd";

/// Returns the programs that every host needs.
pub(super) fn requirements(settings: &Settings) -> Requirements {
    let mut programs = vec![("gzip", "gzip"), ("tar", "tar")];
    if settings.encrypt {
        programs.push(("openssl", "openssl"));
    }
    if let Compress::With(program) = settings.compress {
        programs.push((program.name(), program.name()));
    }
    Requirements { programs, netcat: Some(NETCAT) }
}

/// Describes the sender of a plan.
pub(super) fn describe_source(plan: &Plan) -> String {
    let sink = |target: &TargetPlan| Sink {
        number: target.number,
        address: SocketAddr::new(target.address, plan.ports.first),
    };
    let sinks: Vec<Sink> = plan.targets.iter().map(sink).collect();
    // tar works in the directory that it copies; a file is read from its parent directory.
    let within = if plan.source.is_directory { &plan.source.endpoint.path } else { &plan.source.parent };
    format!("cd {}; {}", typed(within), summary(&build::sender(plan, &sinks)))
}

/// Describes the receiver of a target.
pub(super) fn describe_target(plan: &Plan, target: &TargetPlan) -> String {
    let pipeline = build::receiver(plan, target, plan.ports.first);
    format!("cd {}; {}", typed(&target.inbox()), summary(&pipeline))
}

/// Returns a path quoted for a shell.
fn typed(path: &Path) -> String {
    typable(path.as_os_str().as_encoded_bytes())
}

/// Stream from a sender to its receivers.
#[derive(Debug)]
pub(crate) struct Stream<'a> {
    plan: &'a Plan,
    source: &'a End,
    receivers: Vec<Receiver<'a>>,
    /// The job on the source, when it has ended.
    sender: Job,
}

/// State of the stream to one target.
#[derive(Debug)]
struct Receiver<'a> {
    plan: &'a TargetPlan,
    end: &'a End,
    port: u16,
    error: Option<Error>,
}

impl Receiver<'_> {
    /// Returns where the sender connects to.
    fn sink(&self) -> Sink {
        Sink { number: self.plan.number, address: SocketAddr::new(self.plan.address, self.port) }
    }

    fn is_live(&self) -> bool {
        self.error.is_none()
    }

    fn fail(&mut self, error: Error) {
        if self.error.is_none() {
            self.error = Some(error);
        }
    }

    /// Returns what has arrived.
    fn received(&self, plan: &Plan) -> Received {
        let job = self.end.agent.job(JobName::Receiver);
        let header = if plan.encrypt { CIPHER_HEADER } else { 0 };
        Received {
            wire_bytes: job.meters.get(&Meter::Wire).copied().unwrap_or_default().saturating_add(header),
            dropped: judge::dropped(self.plan, &job),
            digest: job.digest,
            complaints: job.complaints,
        }
    }
}

impl<'a> Stream<'a> {
    pub(super) fn new(plan: &'a Plan, source: &'a End, targets: Vec<StreamTarget<'a>>) -> Self {
        let receiver = |StreamTarget { plan, end }| Receiver { plan, end, port: 0, error: None };
        let receivers = targets.into_iter().map(receiver).collect();
        Self { plan, source, receivers, sender: Job::default() }
    }

    pub(super) fn is_live(&self) -> bool {
        self.receivers.iter().any(Receiver::is_live)
    }

    pub(super) async fn connect(&mut self) -> Result<(), Error> {
        let key = || {
            random_hex::<32>()
                .map(|key| Secret::new(key.into_bytes()))
                .map_err(|error| Error::Failed(format!("cannot get random numbers for a key: {error}")))
        };
        let key = self.plan.encrypt.then(key).transpose()?;
        connect::connect(self.plan, self.source, &mut self.receivers, key.as_ref()).await
    }

    pub(super) async fn copy(&mut self, progress: &Progress) -> Result<(), Error> {
        self.source.agent.order(Command::OpenGate { job: JobName::Sender }).await?;
        self.sender = stream::stream(self.plan, self.source, &mut self.receivers, progress).await?;
        Ok(())
    }

    pub(super) async fn close(&mut self) -> Sent {
        // The ports are free again and may be taken by other runs. On failure the release retries.
        let live = self.receivers.iter().filter(|receiver| receiver.is_live());
        join_all(live.map(|receiver| lease::close_firewall(&receiver.end.agent, receiver.plan))).await;
        for receiver in self.receivers.iter_mut().filter(|receiver| receiver.is_live()) {
            let job = receiver.end.agent.job(JobName::Receiver);
            if !job.unconfined.is_empty() {
                tracing::warn!(
                    "{}: the kernel cannot confine {} to the staging directory (Landlock, Linux 5.19 or newer)",
                    receiver.plan.endpoint.host,
                    job.unconfined.join(", ")
                );
            }
            if let Err(error) = judge(self.plan, receiver.plan, &self.sender, &job) {
                receiver.fail(error);
            }
        }
        Sent {
            read_bytes: stream::bytes_read(&self.sender),
            digest: self.sender.digest.clone(),
            complaints: self.sender.complaints.clone(),
        }
    }

    pub(super) fn verdicts(self) -> Vec<Verdict> {
        let verdict = |mut receiver: Receiver<'_>| Verdict {
            port: receiver.port,
            result: match receiver.error.take() {
                Some(error) => Err(error),
                None => Ok(receiver.received(self.plan)),
            },
        };
        self.receivers.into_iter().map(verdict).collect()
    }
}
