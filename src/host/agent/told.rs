//! State reported by agents, kept in bounded memory: replies for their callers, and counters and messages of
//! each job.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use crate::base::endpoint::MOST_TARGETS;
use crate::host::leases::Held;
use crate::host::wire::{Field, LONGEST_PATH, LONGEST_TEXT, message, short};

/// Maximum number of lines of one kind that are kept of a host.
pub const MOST_COMPLAINTS: usize = 64;
/// Maximum number of log lines that are kept of a job.
pub const MOST_LOG: usize = 100;
/// Maximum number of names of one kind: meters, lists, facts.
pub const MOST_NAMES: usize = 64;
/// Maximum number of stages of a pipeline: a sender has one for each target, and a few more.
pub const MOST_STAGES: usize = MOST_TARGETS + 16;
/// Maximum number of fault classes, and of files that are named in each.
pub const MOST_FAULTS: usize = 8;
/// Maximum number of jobs of an agent.
pub const MOST_JOBS: usize = 16;

/// State that a job has reported so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// Bytes that went through each meter.
    pub meters: BTreeMap<String, u64>,
    /// Exit statuses of the stages, in the pipeline's order.
    pub stages: Vec<(String, i32)>,
    /// Digest of the stream, hexadecimal.
    pub digest: Option<String>,
    /// First lines that the stages wrote to standard error.
    pub complaints: Vec<String>,
    /// Number of further lines on standard error.
    pub silenced: u64,
    /// Files that the stages lost, by fault class: a stage can lose files and still exit with 0.
    pub faults: BTreeMap<String, Fault>,
    /// Manifests by the name of their list.
    pub manifests: BTreeMap<String, Manifest>,
    /// Last lines of the log.
    pub log: Vec<String>,
    /// Error message that the job repeats without making progress.
    pub stuck: Option<String>,
    /// Reason why the job waits, for example for a lock.
    pub waits: Option<String>,
    /// Results by name.
    pub facts: BTreeMap<String, String>,
    /// Sinks that were dropped, with the reason.
    pub dropped: BTreeMap<String, String>,
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

/// Summary of a list that is stored on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Number of records.
    pub records: u64,
    /// Total size of the listed files.
    pub bytes: u64,
    /// SHA-256 of the list.
    pub digest: String,
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
    /// Reason why the agent began to end: a word of the protocol.
    pub ending: Option<String>,
    /// The agent has attempted the rollback of every lease and has ended in order.
    pub bye: bool,
    pub(super) next: u64,
    pub(super) waiting: HashMap<u64, oneshot::Sender<Reply>>,
    /// Jobs by name.
    pub jobs: BTreeMap<String, Job>,
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
        let text = |index: usize| message.get(index).map(|field| shown(field)).unwrap_or_default();
        let number = |index: usize| text(index).parse::<u64>().unwrap_or_default();
        let mut state = self.state();
        match message.first().map(Vec::as_slice) {
            Some(b"=") => {
                if let Some(waiting) = state.waiting.remove(&number(1)) {
                    let reply = match text(2).as_str() {
                        "ok" => Ok(message[3..].to_vec()),
                        _ => Err((
                            Code::parse(&text(3)),
                            message.get(4).map(|field| said(field)).unwrap_or_default(),
                        )),
                    };
                    let _ = waiting.send(reply);
                }
            }
            Some(b"!") => state.event(&text(1), message.get(2..).unwrap_or_default()),
            _ => {}
        }
        drop(state);
        self.changed.send_replace(());
    }
}

impl State {
    fn event(&mut self, kind: &str, fields: &[Field]) {
        let text = |index: usize| fields.get(index).map(|field| shown(field)).unwrap_or_default();
        let output = |index: usize| fields.get(index).map(|field| said(field)).unwrap_or_default();
        let number = |index: usize| text(index).parse::<u64>().unwrap_or_default();
        match kind {
            "ready" => self.ready = true,
            "refused" => self.refused = Some(output(0)),
            "ending" => self.ending = Some(text(0)),
            "bye" => self.bye = true,
            "unpublished" => (self.published, self.old_kept) = (false, false),
            "old_goes" => self.old_kept = false,
            "published" => (self.published, self.old_kept) = (true, !text(1).is_empty()),
            "kept" if self.kept.len() < MOST_COMPLAINTS => {
                self.kept.push(fields.first().map(|path| short(path, LONGEST_PATH)).unwrap_or_default());
            }
            "left" => {
                if self.left.len() < MOST_COMPLAINTS {
                    let lease = fields.get(1..).unwrap_or_default();
                    self.left.push((text(0), Held::parse(lease)));
                }
            }
            _ => {
                let name = text(0);
                if !self.jobs.contains_key(&name) && self.jobs.len() >= MOST_JOBS {
                    return;
                }
                let job = self.jobs.entry(name).or_default();
                match kind {
                    "bytes" if job.meters.len() < MOST_NAMES || job.meters.contains_key(&text(1)) => {
                        job.meters.insert(text(1), number(2));
                    }
                    "dropped" if job.dropped.len() < MOST_TARGETS => {
                        job.dropped.insert(text(1), text(2));
                    }
                    "stderr" if job.complaints.len() < MOST_COMPLAINTS => {
                        job.complaints.extend(Some(output(1)).filter(|line| !line.is_empty()));
                    }
                    "fault" if job.faults.len() < MOST_FAULTS || job.faults.contains_key(&text(1)) => {
                        let fault = job.faults.entry(text(1)).or_default();
                        fault.files = fault.files.max(number(2));
                        if let Some(file) = fields.get(3).filter(|_| fault.named.len() < MOST_FAULTS) {
                            fault.named.push(said(file));
                        }
                    }
                    "log" if job.log.len() < MOST_LOG => job.log.push(output(1)),
                    "stuck" => job.stuck = Some(output(1)),
                    "waits" => job.waits = fields.get(1).map(|field| said(field)),
                    "fact" if job.facts.len() < MOST_NAMES => {
                        let (name, value) = (text(1), fields.get(2).map(Vec::as_slice).unwrap_or_default());
                        // Other facts are names, in which every character counts.
                        let value = match name.as_str() {
                            "error" => message(value, LONGEST_TEXT),
                            _ => short(value, LONGEST_PATH),
                        };
                        job.facts.insert(name, value);
                    }
                    "silenced" => job.silenced = number(1),
                    "stages" => {
                        job.stages = fields
                            .iter()
                            .skip(1)
                            .take(MOST_STAGES)
                            .filter_map(|field| {
                                let field = shown(field);
                                let (stage, status) = field.split_once('=')?;
                                Some((stage.to_owned(), status.parse().unwrap_or(255)))
                            })
                            .collect();
                    }
                    "digest" => job.digest = Some(text(1)),
                    "manifest" if job.manifests.len() < MOST_NAMES => {
                        job.manifests.insert(
                            text(1),
                            Manifest { records: number(2), bytes: number(3), digest: text(4) },
                        );
                    }
                    "exit" => {
                        job.exit.get_or_insert(text(1).parse().unwrap_or(255));
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Returns a name or a word of the protocol in a form that can be shown.
fn shown(field: &[u8]) -> String {
    short(field, LONGEST_TEXT)
}

/// Returns the output of a program on a host in a form that can be shown.
fn said(field: &[u8]) -> String {
    message(field, LONGEST_TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::wire::decode;

    #[test]
    fn hostile_agent_cannot_fill_the_memory() {
        let mut state = State::default();
        for n in 0..10_000 {
            let name = format!("job{n}").into_bytes();
            state.event("stderr", &[name, b"x".to_vec()]);
            state.event("stderr", &[b"job0".to_vec(), b"\x1b[2Jred\nalert\x07".to_vec()]);
            state.event("stderr", &[b"job0".to_vec(), b"\x1b[2J\x07".to_vec()]);
            state.event("left", &[vec![b'x'; 60_000], vec![b'x'; 60_000]]);
            state.event("dropped", &[b"job1".to_vec(), n.to_string().into_bytes(), vec![0xff; 60_000]]);
            state.event("log", &[b"job0".to_vec(), vec![b'x'; 60_000]]);
            state.event("fact", &[b"job0".to_vec(), n.to_string().into_bytes(), vec![0x1b; 60_000]]);
            state.event("fault", &[b"job0".to_vec(), n.to_string().into_bytes(), b"7".to_vec()]);
            state.event("fault", &[b"job0".to_vec(), b"0".to_vec(), b"7".to_vec(), vec![b'x'; 60_000]]);
            state.event("bytes", &[b"job0".to_vec(), n.to_string().into_bytes(), b"7".to_vec()]);
        }
        assert_eq!(state.jobs.len(), MOST_JOBS);
        assert_eq!(state.jobs["job0"].complaints.len(), MOST_COMPLAINTS);
        assert_eq!(state.jobs["job0"].complaints[..3], ["x", "red | alert", "red | alert"]);
        assert_eq!(state.jobs["job0"].log.len(), MOST_LOG);
        assert!(state.jobs["job0"].log[0].len() <= LONGEST_TEXT + 3);
        assert_eq!(state.jobs["job0"].facts.len(), MOST_NAMES);
        assert!(state.jobs["job0"].facts.values().all(|fact| fact.len() <= LONGEST_PATH + 3));
        assert_eq!(state.jobs["job0"].meters.len(), MOST_NAMES);
        assert_eq!(state.jobs["job0"].faults.len(), MOST_FAULTS);
        assert_eq!(state.jobs["job0"].faults["0"].named.len(), MOST_FAULTS);
        let longest =
            state.left.iter().map(|(agent, held)| agent.len() + held.to_string().len()).max().unwrap();
        assert!(longest <= LONGEST_TEXT + LONGEST_PATH + 6, "{longest}");
        assert!(state.jobs["job1"].dropped.values().all(|reason| reason.len() <= LONGEST_TEXT + 3));
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
        assert_eq!(shared.state().jobs["sender"].moved(), u64::MAX);
    }

    #[test]
    fn messages_with_too_few_fields_are_harmless() {
        let shared = Shared::default();
        for line in ["", "=", "=\t1", "!", "!\tstages", "!\texit", "!\tleft", "rubbish"] {
            shared.take(&decode(line.as_bytes()));
        }
    }
}
