//! State reported by an agent, kept in bounded memory: counters and messages of each job, and events.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::base::endpoint::MOST_TARGETS;
use crate::base::printable::{LONGEST_PATH, LONGEST_TEXT, short};
use crate::proto::command::{Ending, Event};
use crate::proto::job::{
    BackupFacts, Dropped, FaultClass, JobName, JobReport, List, Manifest, Meter, Program,
};
use crate::proto::status::{RollbackEvent, StatusEntry};

/// Maximum number of lines of one kind that are kept of a host.
pub const MOST_COMPLAINTS: usize = 64;
/// Maximum number of log lines that are kept of a job.
pub const MOST_LOG: usize = 100;
/// Maximum number of files that are named in each fault class.
pub const MOST_NAMED: usize = 8;
/// Maximum number of stages of a pipeline: a sender has one for each target, and a few more.
pub const MOST_STAGES: usize = MOST_TARGETS + 16;
/// Maximum total size in bytes of the events about runs that are kept. A path may be as long as a message.
const MOST_EVENT_BYTES: usize = 8 << 20;

/// State that a job has reported so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// Bytes that went through each meter.
    pub meters: BTreeMap<Meter, u64>,
    /// Exit statuses of the stages, in the pipeline's order.
    pub stages: Vec<(Program, i32)>,
    /// Digest of the stream, hexadecimal.
    pub digest: Option<String>,
    /// First lines that the stages wrote to standard error.
    pub complaints: Vec<String>,
    /// Number of further lines on standard error.
    pub silenced: u64,
    /// Files that the stages lost, by fault class: a stage can lose files and still exit with 0.
    pub faults: BTreeMap<FaultClass, Fault>,
    /// Summaries of the lists.
    pub manifests: BTreeMap<List, Manifest>,
    /// Last lines of the log.
    pub log: Vec<String>,
    /// Error message that the job repeats without making progress.
    pub stuck: Option<String>,
    /// Reason why the job waits, for example for a lock.
    pub waits: Option<String>,
    /// Metadata of a backup.
    pub backup: Option<BackupFacts>,
    /// Sinks that were dropped, by the number of their target.
    pub dropped: BTreeMap<usize, Dropped>,
    /// Programs that the host's kernel cannot confine.
    pub unconfined: Vec<String>,
    /// Exit status of the job, once it has ended.
    pub exit: Option<i32>,
}

impl Job {
    /// Returns the sum of all meters, which grows as long as anything moves.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.meters.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

/// Files that a program failed to process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// Number of files.
    pub files: u64,
    /// First files, each with the reason.
    pub named: Vec<String>,
}

/// State of one agent, shared between its conversation and its callers.
#[derive(Debug, Default)]
pub struct Shared {
    state: Mutex<State>,
    pub(super) changed: watch::Sender<()>,
}

/// State reported by one agent.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent reports of the agent")]
pub(super) struct State {
    /// The agent or the connection to it is gone.
    pub(super) lost: bool,
    /// The agent has begun to end by itself.
    is_ending: bool,
    /// The connection was cut, and may come back.
    pub(super) is_cut_off: bool,
    /// The agent has attempted the rollback of every lease and has ended in order.
    pub(super) bye: bool,
    /// Jobs.
    pub(super) jobs: BTreeMap<JobName, Job>,
    /// Runs that have changes in place on the host, as requested.
    pub(super) runs: Vec<StatusEntry>,
    /// Events of rollbacks, those of earlier runs included.
    pub(super) rollback: Vec<RollbackEvent>,
    /// Size of these two.
    event_bytes: usize,
    /// The copy has its final name.
    pub(super) published: bool,
    /// The data that had this name before was renamed and still exists.
    pub(super) old_kept: bool,
    /// Units that the controller has asked to be stopped.
    pub(super) stopping: Vec<String>,
    /// Units and replication that were stopped, as noted by the controller.
    pub(super) stopped: Vec<String>,
    /// A command was sent that changes what the final name leads to.
    pub(super) publishing: bool,
    /// The final name was found to belong to another process.
    pub(super) foreign: bool,
}

impl Shared {
    /// Locks and returns the state reported so far.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies an event.
    pub fn take(&self, event: Event) {
        self.state().apply(event);
        self.changed.send_replace(());
    }

    /// Returns a snapshot of a job's state.
    #[must_use]
    pub fn job(&self, name: JobName) -> Job {
        self.state().jobs.get(&name).cloned().unwrap_or_default()
    }

    /// Returns the number of events about runs that were kept.
    #[must_use]
    pub fn kept_events(&self) -> usize {
        let state = self.state();
        state.runs.len() + state.rollback.len()
    }
}

impl State {
    fn apply(&mut self, event: Event) {
        match event {
            // The conversation keeps the reason, for messages.
            Event::Ending(reason) => self.is_ending = reason != Ending::Released,
            // The jobs of an agent that ends by itself end with it, which is not their failure.
            Event::Job(_, JobReport::Exit(_)) if self.is_ending => {}
            Event::Bye => self.bye = true,
            Event::Unpublished => (self.published, self.old_kept) = (false, false),
            Event::OldGoes => self.old_kept = false,
            Event::Published { old } => (self.published, self.old_kept) = (true, old.is_some()),
            Event::Rollback(event) => {
                if self.has_room(&event) {
                    self.rollback.push(event);
                }
            }
            Event::Status(entry) => {
                if self.has_room(&entry) {
                    self.runs.push(entry);
                }
            }
            Event::Job(name, report) => self.jobs.entry(name).or_default().apply(report),
        }
    }

    /// Counts an event, and returns whether it may be kept.
    fn has_room(&mut self, event: &impl serde::Serialize) -> bool {
        let bytes = postcard::to_stdvec(event).map_or(MOST_EVENT_BYTES, |bytes| bytes.len());
        self.event_bytes = self.event_bytes.saturating_add(bytes + size_of::<RollbackEvent>());
        self.event_bytes <= MOST_EVENT_BYTES
    }
}

impl Job {
    fn apply(&mut self, report: JobReport) {
        match report {
            JobReport::Bytes(meter, bytes) => {
                if self.meters.len() < MOST_STAGES || self.meters.contains_key(&meter) {
                    self.meters.insert(meter, bytes);
                }
            }
            JobReport::Dropped(sink, reason) => {
                if self.dropped.len() < MOST_TARGETS {
                    self.dropped.insert(sink, reason);
                }
            }
            JobReport::Complaint(line) => {
                if self.complaints.len() < MOST_COMPLAINTS && !line.is_empty() {
                    self.complaints.push(line.to_string());
                }
            }
            JobReport::Silenced(lines) => self.silenced = lines,
            JobReport::Fault(class, files, file) => {
                let fault = self.faults.entry(class).or_default();
                fault.files = fault.files.max(files);
                fault
                    .named
                    .extend(file.filter(|_| fault.named.len() < MOST_NAMED).map(|file| file.to_string()));
            }
            JobReport::Log(line) => {
                if self.log.len() < MOST_LOG {
                    self.log.push(line.to_string());
                }
            }
            JobReport::Stuck(error) => self.stuck = Some(error.to_string()),
            JobReport::Waits(reason) => self.waits = reason.map(|reason| reason.to_string()),
            JobReport::Backup(facts) => {
                let [gtid, source_position] =
                    [&facts.gtid, &facts.source_position].map(|text| short(text.as_bytes(), LONGEST_PATH));
                self.backup = Some(BackupFacts { gtid, source_position, ..facts });
            }
            JobReport::Stages(stages) => {
                let named = |(program, status)| match program {
                    Program::Other(name) => (Program::Other(short(name.as_bytes(), LONGEST_TEXT)), status),
                    known => (known, status),
                };
                self.stages = stages.into_iter().take(MOST_STAGES).map(named).collect();
            }
            JobReport::Digest(digest) => self.digest = Some(short(digest.as_bytes(), LONGEST_TEXT)),
            JobReport::Manifest(list, manifest) => {
                let digest = short(manifest.digest.as_bytes(), LONGEST_TEXT);
                self.manifests.insert(list, Manifest { digest, ..manifest });
            }
            JobReport::Unconfined(program) => {
                if self.unconfined.len() < MOST_NAMED {
                    self.unconfined.push(short(program.to_string().as_bytes(), LONGEST_TEXT));
                }
            }
            JobReport::Exit(status) => {
                self.exit.get_or_insert(status);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::journal::Undo;
    use crate::proto::name::AgentName;
    use crate::proto::{HostBytes, Text};

    #[test]
    fn hostile_agent_cannot_fill_the_memory() {
        let shared = Shared::default();
        let (long, strange) = ("x".repeat(60_000), "\u{1b}".repeat(60_000));
        let stages = vec![(Program::Other("\u{1b}".repeat(5_000)), 1); 3 * MOST_STAGES];
        let tell = |report| shared.take(Event::Job(JobName::Sender, report));
        let agent = AgentName::new("r-source").unwrap();
        for n in 0..MOST_STAGES + 10 {
            tell(JobReport::Complaint(Text::new("\x1b[2Jred\nalert\x07")));
            tell(JobReport::Complaint(Text::new("\x1b[2J\x07")));
            tell(JobReport::Dropped(n, Dropped::Closed));
            tell(JobReport::Log(Text::new(&long)));
            tell(JobReport::Fault(FaultClass::Unreadable, 7, Some(Text::new(&long))));
            tell(JobReport::Bytes(Meter::Sink(n), 7));
            tell(JobReport::Digest(strange.clone()));
            tell(JobReport::Backup(BackupFacts { gtid: strange.clone(), ..BackupFacts::default() }));
            tell(JobReport::Unconfined(Program::Other(long.clone())));
            let path = HostBytes::from(&long);
            let undo = Undo::Replaced { path: path.clone() };
            shared.take(Event::Rollback(RollbackEvent::Kept { agent: agent.clone(), path }));
            shared.take(Event::Status(StatusEntry::Lease(undo)));
        }
        tell(JobReport::Stages(stages));
        let job = shared.job(JobName::Sender);
        assert_eq!(job.complaints.len(), MOST_COMPLAINTS);
        assert_eq!(job.complaints[..2], ["red | alert", "red | alert"]);
        assert_eq!(job.log.len(), MOST_LOG);
        assert!(job.log[0].len() <= LONGEST_TEXT + 3);
        let texts = [job.digest.unwrap(), job.backup.unwrap().gtid, job.stages[0].0.to_string()];
        assert!(texts.iter().all(|text| text.len() <= LONGEST_PATH + 3 && !text.contains('\u{1b}')));
        assert_eq!(job.stages.len(), MOST_STAGES);
        assert_eq!(job.meters.len(), MOST_STAGES);
        assert_eq!(job.faults[&FaultClass::Unreadable].named.len(), MOST_NAMED);
        assert_eq!(job.dropped.len(), MOST_TARGETS);
        assert_eq!(job.unconfined.len(), MOST_NAMED);
        assert!(shared.kept_events() * 60_000 <= MOST_EVENT_BYTES, "{}", shared.kept_events());
    }

    #[test]
    fn huge_numbers_saturate() {
        let shared = Shared::default();
        for meter in [Meter::Read, Meter::Wire] {
            shared.take(Event::Job(JobName::Sender, JobReport::Bytes(meter, u64::MAX)));
        }
        assert_eq!(shared.job(JobName::Sender).moved(), u64::MAX);
    }
}
