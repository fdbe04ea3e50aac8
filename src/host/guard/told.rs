//! What guards tell, kept in bounded form: replies to whoever waits, and per job its counters and messages.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};

use crate::host::wire::{Field, printable};

/// Of what a host says, no more than this is kept.
const MOST_COMPLAINTS: usize = 64;
const MOST_NAMES: usize = 64;
const MOST_JOBS: usize = 16;
/// Bytes of one text.
const LONGEST: usize = 500;

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
    /// Its manifests, by the list's name.
    pub manifests: BTreeMap<String, Manifest>,
    /// Sinks that were dropped, with the reason.
    pub dropped: BTreeMap<String, String>,
    /// Its own exit status, once it has ended.
    pub exit: Option<i32>,
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

#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    pub(super) changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "what was told, each once")]
pub(super) struct State {
    pub(super) ready: bool,
    pub(super) refused: Option<String>,
    pub(super) lost: bool,
    /// Why the guard has begun to end, in its own word.
    pub(super) ending: Option<String>,
    pub(super) bye: bool,
    pub(super) next: u64,
    pub(super) waiting: HashMap<u64, oneshot::Sender<Reply>>,
    pub(super) jobs: BTreeMap<String, Job>,
    /// Guard and lease, of earlier runs too.
    pub(super) left: Vec<(String, String)>,
    /// The copy has its final name.
    pub(super) published: bool,
    /// What had it before has another one now.
    pub(super) old_kept: bool,
    /// Staging directories that were to be kept.
    pub(super) kept: Vec<String>,
}

pub(super) type Reply = Result<Vec<Field>, (String, String)>;

impl Shared {
    /// The guard is gone: nobody waits for it any longer.
    pub(super) fn lose(&self) {
        let mut state = self.state();
        state.lost = true;
        state.waiting.clear();
        drop(state);
        self.changed.send_replace(());
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in one line of the guard; what is not of the protocol (a login shell's greeting) is ignored.
    pub(super) fn take(&self, message: &[Field]) {
        let text = |index: usize| message.get(index).map(|field| printable(field)).unwrap_or_default();
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
        let text = |index: usize| fields.get(index).map(|field| short(field)).unwrap_or_default();
        let number = |index: usize| text(index).parse::<u64>().unwrap_or_default();
        match kind {
            "ready" => self.ready = true,
            "refused" => self.refused = Some(text(0)),
            "ending" => self.ending = Some(text(0)),
            "bye" => self.bye = true,
            "unpublished" => (self.published, self.old_kept) = (false, false),
            "published" => (self.published, self.old_kept) = (true, !text(1).is_empty()),
            "kept" if self.kept.len() < MOST_COMPLAINTS => self.kept.push(text(0)),
            "left" => {
                if self.left.len() < MOST_COMPLAINTS {
                    let what = fields
                        .iter()
                        .skip(1)
                        .take(MOST_NAMES)
                        .map(|field| short(field))
                        .collect::<Vec<_>>()
                        .join(" ");
                    self.left.push((text(0), what));
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
                    "dropped" if job.dropped.len() < MOST_NAMES => {
                        job.dropped.insert(text(1), text(2));
                    }
                    "stderr" if job.complaints.len() < MOST_COMPLAINTS => job.complaints.push(text(1)),
                    "silenced" => job.silenced = number(1),
                    "stages" => {
                        job.stages = fields
                            .iter()
                            .skip(1)
                            .take(MOST_NAMES)
                            .filter_map(|field| {
                                let field = short(field);
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
fn short(field: &[u8]) -> String {
    printable(&field[..field.len().min(LONGEST)])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::wire::decode;

    #[test]
    fn a_hostile_guard_cannot_fill_the_memory() {
        let mut state = State::default();
        for n in 0..10_000 {
            let name = format!("job{n}").into_bytes();
            state.event("stderr", &[name, b"x".to_vec()]);
            state.event("stderr", &[b"job0".to_vec(), b"\x1b[2J".to_vec()]);
            state.event("left", &[vec![b'x'; 60_000], vec![b'x'; 60_000]]);
            state.event("dropped", &[b"job1".to_vec(), n.to_string().into_bytes(), vec![0xff; 60_000]]);
            state.event("bytes", &[b"job0".to_vec(), n.to_string().into_bytes(), b"7".to_vec()]);
        }
        assert_eq!(state.jobs.len(), MOST_JOBS);
        assert_eq!(state.jobs["job0"].complaints.len(), MOST_COMPLAINTS);
        assert_eq!(state.jobs["job0"].complaints[1], "\\u{1b}[2J");
        assert_eq!(state.jobs["job0"].meters.len(), MOST_NAMES);
        let bytes: usize = state.left.iter().map(|(guard, what)| guard.len() + what.len()).sum();
        assert!(bytes <= MOST_COMPLAINTS * 2 * LONGEST, "{bytes}");
        assert!(state.jobs["job1"].dropped.values().all(|reason| reason.len() <= 4 * LONGEST));
    }

    #[test]
    fn a_message_of_too_few_fields_does_no_harm() {
        let shared = Shared::default();
        for line in ["", "=", "=\t1", "!", "!\tstages", "!\texit", "!\tleft", "rubbish"] {
            shared.take(&decode(line.as_bytes()));
        }
    }
}
