//! What agents tell, kept in bounded form: replies to whoever waits, and per job its counters and messages.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use crate::endpoint::MOST_TARGETS;
use crate::host::leases;
use crate::host::wire::{Field, LONGEST_PATH, LONGEST_TEXT, short};

/// Of what a host says, no more than this is kept.
pub const MOST_COMPLAINTS: usize = 64;
/// The last lines of a log.
pub const MOST_LOG: usize = 100;
/// Names of one kind: meters, lists, facts.
pub const MOST_NAMES: usize = 64;
/// Stages of a pipeline: of a sender one for each target, and some more.
pub const MOST_STAGES: usize = MOST_TARGETS + 16;
/// Classes of faults, and the files that are named of each.
pub const MOST_FAULTS: usize = 8;
/// Jobs of an agent.
pub const MOST_JOBS: usize = 16;

/// What a job has told so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// Bytes that went through each of its meters.
    pub meters: BTreeMap<String, u64>,
    /// Its stages' exit statuses, in the pipeline's order.
    pub stages: Vec<(String, i32)>,
    /// The digest of the stream, hexadecimal.
    pub digest: Option<String>,
    /// What its stages wrote on standard error.
    pub complaints: Vec<String>,
    /// How many lines more there were.
    pub silenced: u64,
    /// What its stages lost, whatever their statuses say, by class.
    pub faults: BTreeMap<String, Fault>,
    /// Its manifests, by the list's name.
    pub manifests: BTreeMap<String, Manifest>,
    /// The last lines of a log.
    pub log: Vec<String>,
    /// It says over and over that it fails, in these words.
    pub stuck: Option<String>,
    /// It waits for somebody else, and says so in these words.
    pub waits: Option<String>,
    /// What it found out, by name.
    pub facts: BTreeMap<String, String>,
    /// Sinks that were dropped, with the reason.
    pub dropped: BTreeMap<String, String>,
    /// Its own exit status, once it has ended.
    pub exit: Option<i32>,
}

impl Job {
    /// The sum of all its meters: it grows as long as anything moves.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.meters.values().fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }
}

/// Files that something went wrong with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// How many.
    pub files: u64,
    /// The first of them, with the reason.
    pub named: Vec<String>,
}

/// A list that lies on the host, in short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Records in it.
    pub records: u64,
    /// Sizes of the files in it, added up.
    pub bytes: u64,
    /// The SHA-256 of the list.
    pub digest: String,
}

/// What an agent has told, for those who wait for it.
#[derive(Debug, Default)]
pub struct Shared {
    state: Mutex<State>,
    pub(super) changed: watch::Sender<()>,
}

/// All of it.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "what was told, each once")]
pub struct State {
    /// Commands are taken.
    pub ready: bool,
    /// Why the agent cannot work.
    pub refused: Option<String>,
    /// It is gone.
    pub lost: bool,
    /// Why the agent has begun to end, in its own word.
    pub ending: Option<String>,
    /// It has tried everything.
    pub bye: bool,
    pub(super) next: u64,
    pub(super) waiting: HashMap<u64, oneshot::Sender<Reply>>,
    /// What its jobs have told, by their names.
    pub jobs: BTreeMap<String, Job>,
    /// Agent and lease, of earlier runs too.
    pub left: Vec<(String, String)>,
    /// The copy has its final name.
    pub published: bool,
    /// What had it before has another one now.
    pub old_kept: bool,
    /// Staging directories that were to be kept.
    pub kept: Vec<String>,
}

/// The fields of a good reply, or code and text of one that is none.
pub type Reply = Result<Vec<Field>, (String, String)>;

impl Shared {
    /// The agent is gone: nobody waits for it any longer.
    pub(super) fn lose(&self) {
        let mut state = self.state();
        state.lost = true;
        state.waiting.clear();
        drop(state);
        self.changed.send_replace(());
    }

    /// What was told so far.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Awaits the reply to a command: its sequence number, and where the reply comes. `None` when the agent is gone.
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

    /// Takes in one line of the agent; what is not of the protocol (a login shell's greeting) is ignored.
    pub fn take(&self, message: &[Field]) {
        let text = |index: usize| message.get(index).map(|field| shown(field)).unwrap_or_default();
        let number = |index: usize| text(index).parse::<u64>().unwrap_or_default();
        let mut state = self.state();
        match message.first().map(Vec::as_slice) {
            Some(b"=") => {
                if let Some(waiting) = state.waiting.remove(&number(1)) {
                    let reply = match text(2).as_str() {
                        "ok" => Ok(message[3..].to_vec()),
                        _ => Err((text(3), text(4))),
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
        let number = |index: usize| text(index).parse::<u64>().unwrap_or_default();
        match kind {
            "ready" => self.ready = true,
            "refused" => self.refused = Some(text(0)),
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
                    self.left.push((text(0), leases::describe(lease)));
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
                    "stderr" if job.complaints.len() < MOST_COMPLAINTS => job.complaints.push(text(1)),
                    "fault" if job.faults.len() < MOST_FAULTS || job.faults.contains_key(&text(1)) => {
                        let fault = job.faults.entry(text(1)).or_default();
                        fault.files = fault.files.max(number(2));
                        if let Some(file) = fields.get(3).filter(|_| fault.named.len() < MOST_FAULTS) {
                            fault.named.push(shown(file));
                        }
                    }
                    "log" if job.log.len() < MOST_LOG => job.log.push(text(1)),
                    "stuck" => job.stuck = Some(text(1)),
                    "waits" => job.waits = fields.get(1).map(|field| shown(field)),
                    "fact" if job.facts.len() < MOST_NAMES => {
                        let value = fields.get(2).map(|value| short(value, LONGEST_PATH));
                        job.facts.insert(text(1), value.unwrap_or_default());
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

/// A text of a host, or the beginning of a long one.
fn shown(field: &[u8]) -> String {
    short(field, LONGEST_TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::wire::decode;

    #[test]
    fn a_hostile_agent_cannot_fill_the_memory() {
        let mut state = State::default();
        for n in 0..10_000 {
            let name = format!("job{n}").into_bytes();
            state.event("stderr", &[name, b"x".to_vec()]);
            state.event("stderr", &[b"job0".to_vec(), b"\x1b[2J".to_vec()]);
            state.event("left", &[vec![b'x'; 60_000], vec![b'x'; 60_000]]);
            state.event("dropped", &[b"job1".to_vec(), n.to_string().into_bytes(), vec![0xff; 60_000]]);
            state.event("log", &[b"job0".to_vec(), vec![0x1b; 60_000]]);
            state.event("fact", &[b"job0".to_vec(), n.to_string().into_bytes(), vec![0x1b; 60_000]]);
            state.event("fault", &[b"job0".to_vec(), n.to_string().into_bytes(), b"7".to_vec()]);
            state.event("fault", &[b"job0".to_vec(), b"0".to_vec(), b"7".to_vec(), vec![0x1b; 60_000]]);
            state.event("bytes", &[b"job0".to_vec(), n.to_string().into_bytes(), b"7".to_vec()]);
        }
        assert_eq!(state.jobs.len(), MOST_JOBS);
        assert_eq!(state.jobs["job0"].complaints.len(), MOST_COMPLAINTS);
        assert_eq!(state.jobs["job0"].complaints[1], "\\u{1b}[2J");
        assert_eq!(state.jobs["job0"].log.len(), MOST_LOG);
        assert!(state.jobs["job0"].log[0].len() <= LONGEST_TEXT + 3);
        assert_eq!(state.jobs["job0"].facts.len(), MOST_NAMES);
        assert!(state.jobs["job0"].facts.values().all(|fact| fact.len() <= LONGEST_PATH + 3));
        assert_eq!(state.jobs["job0"].meters.len(), MOST_NAMES);
        assert_eq!(state.jobs["job0"].faults.len(), MOST_FAULTS);
        assert_eq!(state.jobs["job0"].faults["0"].named.len(), MOST_FAULTS);
        let longest = state.left.iter().map(|(agent, what)| agent.len() + what.len()).max().unwrap();
        assert!(longest <= LONGEST_TEXT + LONGEST_PATH + 6, "{longest}");
        assert!(state.jobs["job1"].dropped.values().all(|reason| reason.len() <= LONGEST_TEXT + 3));
    }

    #[test]
    fn a_long_reply_is_shown_in_short_and_numbers_that_are_too_large_do_no_harm() {
        let shared = Shared::default();
        let (sequence, mut reply) = shared.expect_reply().unwrap();
        let text = vec![0x1b; 60_000];
        shared.take(&[b"=".into(), sequence.to_string().into(), b"fail".into(), text.clone(), text]);
        let (code, text) = reply.try_recv().unwrap().unwrap_err();
        assert!(code.len() <= LONGEST_TEXT + 3 && text.len() <= LONGEST_TEXT + 3);
        for meter in ["read", "wire"] {
            shared.take(&decode(format!("!\tbytes\tsender\t{meter}\t{}", u64::MAX).as_bytes()));
        }
        assert_eq!(shared.state().jobs["sender"].moved(), u64::MAX);
    }

    #[test]
    fn a_message_of_too_few_fields_does_no_harm() {
        let shared = Shared::default();
        for line in ["", "=", "=\t1", "!", "!\tstages", "!\texit", "!\tleft", "rubbish"] {
            shared.take(&decode(line.as_bytes()));
        }
    }
}
