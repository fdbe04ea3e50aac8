//! How far a run is: told by the work as facts, shown by renderers: a bar on a terminal or plain lines elsewhere on
//! standard error, events for programs on standard output.

mod bar;
mod events;
mod plain;

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use indicatif::HumanDuration;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::json;
use crate::terminal::has_cursor;
use crate::values::ProgressChoice;

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Reaching the hosts and asking them.
    Connecting,
    /// Leases, listeners, connections.
    Preparing,
    /// The stream.
    Copying,
    /// A backup is made ready to be started as a server.
    Recovering,
    /// Digests of the disks, sync, publication.
    Verifying,
    /// A replica's server is started with its copy.
    Starting,
    /// It gets what was written since.
    CatchingUp,
    /// Its tables are compared with those of the server that was copied.
    Comparing,
    /// Undoing what the run did on the hosts.
    Releasing,
}

impl Phase {
    /// As programs read it.
    fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Preparing => "preparing",
            Self::Copying => "copying",
            Self::Recovering => "recovering",
            Self::Verifying => "verifying",
            Self::Starting => "starting",
            Self::CatchingUp => "catching_up",
            Self::Comparing => "comparing",
            Self::Releasing => "releasing",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Preparing => "preparing",
            Self::Copying => "copying",
            Self::Recovering => "preparing the backup",
            Self::Verifying => "verifying and syncing",
            Self::Starting => "starting the replica",
            Self::CatchingUp => "catching up",
            Self::Comparing => "comparing tables",
            Self::Releasing => "cleaning up",
        }
    }
}

/// How often a renderer looks.
const LOOK: Duration = Duration::from_millis(100);

/// A moment of a run.
#[derive(Clone, Debug)]
struct Moment {
    phase: Phase,
    since: Instant,
    /// Bytes of the source that were read, and how many there will be, by estimate.
    moved: u64,
    expected: u64,
    /// What the source waits for, in its own words.
    waits: Option<String>,
}

/// Where the work tells how far it is.
#[derive(Clone, Debug)]
pub struct Progress {
    moments: watch::Sender<Moment>,
    /// When each phase began, in order.
    begun: Arc<Mutex<Vec<(Phase, Instant)>>>,
    /// Lines for programs, where they are wanted.
    events: Option<mpsc::Sender<String>>,
}

/// Shows a progress until it is finished. In threads of their own: a terminal that takes nothing (^S, a full pipe) must
/// not hold up the heartbeats of the agents.
#[derive(Debug)]
pub struct Renderer {
    screen: Option<JoinHandle<()>>,
    events: Option<JoinHandle<()>>,
    /// Nothing is sent: its end is what is waited for, so that nobody sleeps through it.
    end: mpsc::Sender<()>,
}

#[derive(Serialize)]
struct PhaseBegan {
    phase: &'static str,
}

impl Progress {
    /// A progress and its renderers.
    #[must_use]
    pub fn start(choice: ProgressChoice, json: bool) -> (Self, Renderer) {
        let begin =
            Moment { phase: Phase::Connecting, since: Instant::now(), moved: 0, expected: 0, waits: None };
        let moments = watch::Sender::new(begin);
        let (end, ended) = mpsc::channel();
        let wants_bar = match choice {
            ProgressChoice::Auto => has_cursor(),
            ProgressChoice::Bar => std::io::stderr().is_terminal(),
            ProgressChoice::Plain | ProgressChoice::None => false,
        };
        let seen = moments.subscribe();
        let screen = match choice {
            ProgressChoice::None => None,
            _ if wants_bar => Some(tokio::task::spawn_blocking(move || bar::show(&seen, &ended))),
            // Where there is no terminal a bar cannot be drawn.
            _ => Some(tokio::task::spawn_blocking(move || plain::show(&seen, &ended))),
        };
        let (events, teller) = if json {
            let (sender, receiver) = mpsc::channel();
            let seen = moments.subscribe();
            let teller = tokio::task::spawn_blocking(move || events::show(&seen, &receiver));
            (Some(sender), Some(teller))
        } else {
            (None, None)
        };
        let begun = Arc::new(Mutex::new(Vec::new()));
        let progress = Self { moments, begun, events };
        progress.phase(Phase::Connecting);
        (progress, Renderer { screen, events: teller, end })
    }

    /// A new phase has begun.
    ///
    /// Several targets come to one by and by: the first one tells.
    pub fn phase(&self, phase: Phase) {
        let begun = |begun: &[(Phase, Instant)]| begun.iter().any(|(other, _)| *other == phase);
        if begun(&self.begun.lock().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        tracing::debug!(phase = phase.text(), "phase");
        let now = Instant::now();
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).push((phase, now));
        self.moments.send_modify(|moment| (moment.phase, moment.since, moment.waits) = (phase, now, None));
        self.tell("phase", &PhaseBegan { phase: phase.name() });
    }

    /// Tells programs of an event.
    pub fn tell(&self, event: &str, body: &impl Serialize) {
        if let Some(events) = &self.events {
            // Its receiver lives as long as we do.
            let _ = events.send(json::line(event, body));
        }
    }

    /// How long each phase has taken so far, in order.
    #[must_use]
    pub fn phases(&self) -> Vec<(&'static str, Duration)> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = begun.iter().skip(1).map(|(_, began)| *began).chain([Instant::now()]);
        begun.iter().zip(ends).map(|((phase, began), end)| (phase.name(), end - *began)).collect()
    }

    /// That many bytes of the source, of that many expected, were read; and what it waits for, if it does.
    pub fn moved(&self, bytes: u64, expected: u64, waits: Option<&str>) {
        self.moments.send_modify(|moment| {
            (moment.moved, moment.expected) = (bytes, expected);
            moment.waits = waits.map(ToOwned::to_owned);
        });
    }

    /// What is waited for, in words.
    pub fn waits(&self, what: Option<String>) {
        self.moments.send_modify(|moment| moment.waits = what);
    }
}

impl Renderer {
    /// Takes the bar away, and waits until programs have been told everything. All of the progress's copies must be gone.
    pub async fn finish(self) {
        drop(self.end);
        if let Some(screen) = self.screen {
            let _ = tokio::time::timeout(Duration::from_secs(1), screen).await;
        }
        if let Some(events) = self.events {
            let _ = events.await;
        }
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

    /// How long the rest takes, for people.
    fn left_in_words(&self, elapsed: Duration) -> String {
        match (&self.waits, self.left(elapsed)) {
            (Some(what), _) => format!("the backup waits: {what}"),
            (None, Some(left)) => format!("about {} left", HumanDuration(left)),
            (None, None) => "nothing has moved yet".to_owned(),
        }
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
