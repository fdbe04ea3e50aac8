//! State reported by agents, kept in bounded memory: replies for their callers, and counters and messages of
//! each job.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::event::{
    Dropped, Ending, Event, Fact, FaultClass, JobName, List, MOST_STAGES, Manifest, Meter, Program, Report,
    number, said, text,
};
use crate::base::endpoint::MOST_TARGETS;
use crate::host::leases::Held;
use crate::host::wire::Field;

/// Maximum number of lines of one kind that are kept of a host.
pub const MOST_COMPLAINTS: usize = 64;
/// Maximum number of log lines that are kept of a job.
pub const MOST_LOG: usize = 100;
/// Maximum number of files that are named in each fault class.
pub const MOST_NAMED: usize = 8;

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
    /// Results.
    pub facts: JobFacts,
    /// Sinks that were dropped, by the number of their target.
    pub dropped: BTreeMap<usize, Dropped>,
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

/// Results of a job, as far as it has any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFacts {
    /// Reason of a failure.
    pub error: Option<String>,
    /// Seconds that a replica is behind.
    pub behind: Option<u64>,
    /// Lag of a replica that has caught up.
    pub lag: Option<Duration>,
    /// GTID position.
    pub gtid: Option<String>,
    /// Binlog file of a position.
    pub file: Option<String>,
    /// Offset of a position in its binlog file.
    pub position: Option<u64>,
    /// Version of the server that was backed up.
    pub server_version: Option<String>,
    /// State of a backup.
    pub state: Option<String>,
    /// Backup program.
    pub tool_name: Option<String>,
    /// Version of the backup program.
    pub tool_version: Option<String>,
    /// Binlog file of a backup.
    pub binlog_file: Option<String>,
    /// Offset of a backup in its binlog file.
    pub binlog_position: Option<u64>,
    /// Position in the upstream's binlog, as a statement.
    pub source_position: Option<String>,
}

impl JobFacts {
    fn add(&mut self, fact: Fact) {
        match fact {
            Fact::Error(text) => self.error = Some(text),
            Fact::Behind(seconds) => self.behind = seconds,
            Fact::Lag(lag) => self.lag = Some(lag),
            Fact::Gtid(gtid) => self.gtid = Some(gtid),
            Fact::File(file) => self.file = Some(file),
            Fact::Position(position) => self.position = Some(position),
            Fact::ServerVersion(version) => self.server_version = Some(version),
            Fact::State(state) => self.state = Some(state),
            Fact::ToolName(name) => self.tool_name = Some(name),
            Fact::ToolVersion(version) => self.tool_version = Some(version),
            Fact::BinlogFile(file) => self.binlog_file = Some(file),
            Fact::BinlogPosition(position) => self.binlog_position = Some(position),
            Fact::SourcePosition(position) => self.source_position = Some(position),
        }
    }
}

/// State of one agent, shared between its reader and its callers.
#[derive(Debug, Default)]
pub struct Shared {
    state: Mutex<State>,
    pub(super) changed: watch::Sender<()>,
}

/// State reported by one agent.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent reports of the agent")]
pub struct State {
    /// The agent accepts commands.
    pub ready: bool,
    /// Reason why the agent refused to start.
    pub refused: Option<String>,
    /// The agent or the connection to it is gone.
    pub lost: bool,
    /// Reason why the agent began to end.
    pub ending: Option<Ending>,
    /// The agent has attempted the rollback of every lease and has ended in order.
    pub bye: bool,
    pub(super) next: u64,
    pub(super) waiting: HashMap<u64, oneshot::Sender<Reply>>,
    /// Jobs.
    pub jobs: BTreeMap<JobName, Job>,
    /// Leftovers as agent and lease, those of earlier runs included.
    pub left: Vec<(String, Held)>,
    /// The copy has its final name.
    pub published: bool,
    /// The data that had this name before was renamed and still exists.
    pub old_kept: bool,
    /// Units that the controller has asked to be stopped.
    pub stopping: Vec<String>,
    /// Units and replication that were stopped, as noted by the controller.
    pub stopped: Vec<String>,
    /// A command was sent that changes what the final name leads to.
    pub publishing: bool,
    /// The final name was found to belong to another process.
    pub foreign: bool,
    /// Staging directories that were kept on request.
    pub kept: Vec<String>,
}

/// Fields of a successful reply, or code and text of a failure.
pub type Reply = Result<Vec<Field>, (Code, String)>;

/// Reason why an agent failed to carry out a command, as far as the controller acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// Another run or program uses the resource.
    Busy,
    /// Another process has created what the command was to create.
    Exists,
    /// The change was made, but could not be made durable.
    Sync,
    /// Any other reason, which only its text explains.
    Other,
}

impl Code {
    fn parse(word: &str) -> Self {
        match word {
            "busy" => Self::Busy,
            "exists" => Self::Exists,
            "sync" => Self::Sync,
            _ => Self::Other,
        }
    }
}

impl Shared {
    /// Marks the agent as gone and wakes everything that waits for it.
    pub(super) fn lose(&self) {
        let mut state = self.state();
        state.lost = true;
        state.waiting.clear();
        drop(state);
        self.changed.send_replace(());
    }

    /// Locks and returns the state reported so far.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers a command: returns its sequence number and the receiver of its reply. `None` when the agent
    /// is gone.
    pub fn expect_reply(&self) -> Option<(u64, oneshot::Receiver<Reply>)> {
        let mut state = self.state();
        if state.lost {
            return None;
        }
        let (sender, reply) = oneshot::channel();
        state.next += 1;
        let sequence = state.next;
        state.waiting.insert(sequence, sender);
        Some((sequence, reply))
    }

    /// Applies one line from the agent. Lines that are not of the protocol, such as a login banner, are
    /// ignored.
    pub fn take(&self, message: &[Field]) {
        let mut state = self.state();
        match message.first().map(Vec::as_slice) {
            Some(b"=") => {
                if let Some(waiting) = state.waiting.remove(&number(message, 1)) {
                    let reply = match text(message, 2).as_str() {
                        "ok" => Ok(message[3..].to_vec()),
                        _ => Err((Code::parse(&text(message, 3)), said(message, 4))),
                    };
                    let _ = waiting.send(reply);
                }
            }
            Some(b"!") => {
                let event = Event::decode(&text(message, 1), message.get(2..).unwrap_or_default());
                if let Some(event) = event {
                    state.apply(event);
                }
            }
            _ => {}
        }
        drop(state);
        self.changed.send_replace(());
    }
}

impl State {
    fn apply(&mut self, event: Event) {
        match event {
            Event::Ready => self.ready = true,
            Event::Refused(reason) => self.refused = Some(reason),
            Event::Ending(reason) => self.ending = Some(reason),
            Event::Bye => self.bye = true,
            Event::Unpublished => (self.published, self.old_kept) = (false, false),
            Event::OldGoes => self.old_kept = false,
            Event::Published { old_kept } => (self.published, self.old_kept) = (true, old_kept),
            Event::Kept(path) if self.kept.len() < MOST_COMPLAINTS => self.kept.push(path),
            Event::Left(agent, held) if self.left.len() < MOST_COMPLAINTS => self.left.push((agent, held)),
            Event::Kept(_) | Event::Left(..) => {}
            Event::Job(name, report) => self.jobs.entry(name).or_default().apply(report),
        }
    }
}

impl Job {
    fn apply(&mut self, report: Report) {
        match report {
            Report::Bytes(meter, bytes) => {
                if self.meters.len() < MOST_STAGES || self.meters.contains_key(&meter) {
                    self.meters.insert(meter, bytes);
                }
            }
            Report::Dropped(sink, reason) => {
                if self.dropped.len() < MOST_TARGETS {
                    self.dropped.insert(sink, reason);
                }
            }
            Report::Complaint(line) => {
                if self.complaints.len() < MOST_COMPLAINTS {
                    self.complaints.push(line);
                }
            }
            Report::Silenced(lines) => self.silenced = lines,
            Report::Fault(class, files, file) => {
                let fault = self.faults.entry(class).or_default();
                fault.files = fault.files.max(files);
                fault.named.extend(file.filter(|_| fault.named.len() < MOST_NAMED));
            }
            Report::Log(line) => {
                if self.log.len() < MOST_LOG {
                    self.log.push(line);
                }
            }
            Report::Stuck(error) => self.stuck = Some(error),
            Report::Waits(reason) => self.waits = reason,
            Report::Fact(fact) => self.facts.add(fact),
            Report::Stages(stages) => self.stages = stages,
            Report::Digest(digest) => self.digest = Some(digest),
            Report::Manifest(list, manifest) => {
                self.manifests.insert(list, manifest);
            }
            Report::Exit(status) => {
                self.exit.get_or_insert(status);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::wire::{LONGEST_PATH, LONGEST_TEXT, decode};

    #[test]
    fn hostile_agent_cannot_fill_the_memory() {
        let shared = Shared::default();
        let take = |words: &[&[u8]]| {
            let fields: Vec<Field> = words.iter().map(|word| word.to_vec()).collect();
            shared.take(&[vec![b"!".to_vec()], fields].concat());
        };
        let (long, strange, high) = (vec![b'x'; 60_000], vec![0x1b; 60_000], vec![0xff; 60_000]);
        for n in 0..MOST_STAGES + 10 {
            let number = n.to_string();
            let number = number.as_bytes();
            take(&[b"stderr", format!("job{n}").as_bytes(), b"x"]);
            take(&[b"stderr", b"sender", b"\x1b[2Jred\nalert\x07"]);
            take(&[b"stderr", b"sender", b"\x1b[2J\x07"]);
            take(&[b"left", &long, &long]);
            take(&[b"kept", &long]);
            take(&[b"dropped", b"sender", format!("netcat{n}").as_bytes(), &high]);
            take(&[b"log", b"sender", &long]);
            take(&[b"fact", b"sender", number, &strange]);
            take(&[b"fact", b"sender", b"gtid", &strange]);
            take(&[b"fault", b"sender", number, b"7"]);
            take(&[b"fault", b"sender", b"read", b"7", &long]);
            take(&[b"bytes", b"sender", format!("netcat{n}").as_bytes(), b"7"]);
            take(&[b"stages", b"sender", &long]);
        }
        let state = shared.state();
        assert_eq!(state.jobs.len(), 1);
        let job = &state.jobs[&JobName::Sender];
        assert_eq!(job.complaints.len(), MOST_COMPLAINTS);
        assert_eq!(job.complaints[..2], ["red | alert", "red | alert"]);
        assert_eq!(job.log.len(), MOST_LOG);
        assert!(job.log[0].len() <= LONGEST_TEXT + 3);
        assert!(job.facts.gtid.as_ref().unwrap().len() <= LONGEST_PATH + 3);
        assert_eq!(job.meters.len(), MOST_STAGES);
        assert_eq!(job.faults.len(), 1);
        assert_eq!(job.faults[&FaultClass::Unreadable].named.len(), MOST_NAMED);
        assert_eq!(job.dropped.len(), MOST_TARGETS);
        let longest =
            state.left.iter().map(|(agent, held)| agent.len() + held.to_string().len()).max().unwrap();
        assert!(longest <= LONGEST_TEXT + LONGEST_PATH + 6, "{longest}");
        assert!(state.kept.len() == MOST_COMPLAINTS && state.kept[0].len() <= LONGEST_PATH + 3);
    }

    #[test]
    fn long_replies_are_shortened_and_huge_numbers_saturate() {
        let shared = Shared::default();
        let (sequence, mut reply) = shared.expect_reply().unwrap();
        let text = vec![0x1b; 60_000];
        shared.take(&[b"=".into(), sequence.to_string().into(), b"fail".into(), text.clone(), text]);
        let (code, text) = reply.try_recv().unwrap().unwrap_err();
        assert!(code == Code::Other && text.len() <= LONGEST_TEXT + 3);
        for meter in ["read", "wire"] {
            shared.take(&decode(format!("!\tbytes\tsender\t{meter}\t{}", u64::MAX).as_bytes()));
        }
        assert_eq!(shared.state().jobs[&JobName::Sender].moved(), u64::MAX);
    }

    #[test]
    fn messages_with_too_few_fields_are_harmless() {
        let shared = Shared::default();
        for line in ["", "=", "=\t1", "!", "!\tstages", "!\texit", "!\tleft", "rubbish"] {
            shared.take(&decode(line.as_bytes()));
        }
    }
}
