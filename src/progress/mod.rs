//! How far a run is: told by the work as facts, shown by a renderer as a bar on a terminal or as plain lines elsewhere.

mod bar;
mod plain;

use std::io::IsTerminal as _;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reaching the hosts and asking them.
    Connecting,
    /// Leases, listeners, connections.
    Preparing,
    /// The stream.
    Copying,
    /// Digests of the disks, sync, publication.
    Verifying,
    /// Undoing what the run did on the hosts.
    Releasing,
}

impl Phase {
    fn text(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Preparing => "preparing",
            Self::Copying => "copying",
            Self::Verifying => "verifying and syncing",
            Self::Releasing => "cleaning up",
        }
    }
}

/// How often a renderer looks.
const LOOK: Duration = Duration::from_millis(100);

/// A moment of a run.
#[derive(Clone, Copy, Debug)]
struct Moment {
    phase: Phase,
    since: Instant,
    /// Bytes of the source that were read, and how many there will be, by estimate.
    moved: u64,
    expected: u64,
}

/// Where the work tells how far it is.
#[derive(Clone, Debug)]
pub struct Progress(watch::Sender<Moment>);

/// Shows a progress until it is finished. In a thread of its own: a terminal that takes nothing (^S, a full pipe) must
/// not hold up the heartbeats of the guards.
#[derive(Debug)]
pub struct Renderer {
    thread: tokio::task::JoinHandle<()>,
    /// Nothing is sent: its end is what is waited for, so that nobody sleeps through it.
    end: mpsc::Sender<()>,
}

impl Progress {
    /// A progress and its renderer on standard error.
    #[must_use]
    pub fn start() -> (Self, Renderer) {
        let begin = Moment { phase: Phase::Connecting, since: Instant::now(), moved: 0, expected: 0 };
        let sender = watch::Sender::new(begin);
        let (end, ended) = mpsc::channel();
        let moments = sender.subscribe();
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let thread = if std::io::stderr().is_terminal() && !dumb {
            tokio::task::spawn_blocking(move || bar::show(&moments, &ended))
        } else {
            tokio::task::spawn_blocking(move || plain::show(&moments, &ended))
        };
        (Self(sender), Renderer { thread, end })
    }

    /// A new phase has begun.
    pub fn phase(&self, phase: Phase) {
        tracing::debug!(phase = phase.text(), "phase");
        self.0.send_modify(|moment| {
            moment.phase = phase;
            moment.since = Instant::now();
        });
    }

    /// That many bytes of the source, of that many expected, were read.
    pub fn moved(&self, bytes: u64, expected: u64) {
        self.0.send_modify(|moment| (moment.moved, moment.expected) = (bytes, expected));
    }
}

impl Renderer {
    /// Takes the bar away.
    pub async fn finish(self) {
        drop(self.end);
        let _ = tokio::time::timeout(Duration::from_secs(1), self.thread).await;
    }
}

impl Moment {
    /// The share that is done: never all of it before the phase has changed, since the total is an estimate.
    fn share(&self) -> f64 {
        if self.expected == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "for display")]
        (self.moved as f64 / self.expected as f64).min(0.99)
    }

    /// Bytes a second since the phase began.
    fn rate(&self, elapsed: Duration) -> u64 {
        #[expect(clippy::cast_precision_loss, reason = "for display")]
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "for display, never negative"
        )]
        ((self.moved as f64 / elapsed.as_secs_f64().max(0.001)) as u64)
    }

    /// How long the rest takes at the rate so far; `None` while nothing has moved.
    fn left(&self, elapsed: Duration) -> Option<Duration> {
        let rest = self.expected.saturating_sub(self.moved);
        let rate = self.rate(elapsed);
        (rate > 0).then(|| Duration::from_secs(rest / rate))
    }
}
