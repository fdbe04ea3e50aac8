//! Progress of a run. The work reports facts; renderers show them as a bar on a terminal, as plain lines elsewhere on
//! standard error, and as events for programs on standard output.

mod bar;
mod events;
mod plain;

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use indicatif::FormattedDuration;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::base::json;
use crate::base::terminal::has_cursor;
use crate::config::values::ProgressChoice;

/// Phase of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Connecting to the hosts and collecting their facts.
    Connecting,
    /// Leases, listeners, connections.
    Preparing,
    /// The stream.
    Copying,
    /// Preparing the backup, so that a server can start on it.
    Recovering,
    /// Digests of the disks, sync, publication.
    Verifying,
    /// Starting a replica's server on its copy.
    Starting,
    /// Waiting for the replica to catch up.
    CatchingUp,
    /// Comparing its tables with those of the donor.
    Comparing,
    /// Rolling back what must not outlast a successful run.
    Releasing,
    /// The same after a failure: rolling back all changes.
    RollingBack,
}

impl Phase {
    /// Returns the name for programs.
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
            Self::Releasing | Self::RollingBack => "releasing",
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
            Self::RollingBack => "rolling back",
        }
    }
}

/// Interval at which a renderer looks.
const LOOK: Duration = Duration::from_millis(100);

/// State of a run at one moment.
#[derive(Clone, Debug)]
struct Moment {
    phase: Phase,
    since: Instant,
    /// Bytes of the source read so far, and the estimated total.
    moved: u64,
    expected: u64,
    /// Event that the source waits for, as its program names it.
    waits: Option<String>,
}

/// Receiver of the facts that the work reports.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    moments: watch::Sender<Moment>,
    /// Start of each phase, in order.
    begun: Arc<Mutex<Vec<(Phase, Instant)>>>,
    /// Lines for programs, with `--json`.
    events: Option<mpsc::Sender<String>>,
}

/// Threads that show the progress until it is finished. They are threads because a blocked terminal (^S, a full pipe) must
/// not delay the heartbeats of the agents.
#[derive(Debug)]
pub(crate) struct Renderer {
    screen: Option<JoinHandle<()>>,
    events: Option<JoinHandle<()>>,
    /// Carries no message: closing it ends the renderers at once.
    end: mpsc::Sender<()>,
}

#[derive(Serialize)]
struct PhaseBegan {
    phase: &'static str,
}

impl Progress {
    /// Starts a progress and its renderers.
    #[must_use]
    pub(crate) fn start(choice: ProgressChoice, json: bool) -> (Self, Renderer) {
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
            // Without a terminal there is no bar.
            _ => Some(tokio::task::spawn_blocking(move || plain::show(&seen, &ended))),
        };
        let (events, printer) = if json {
            let (sender, receiver) = mpsc::channel();
            let seen = moments.subscribe();
            let printer = tokio::task::spawn_blocking(move || events::show(&seen, &receiver));
            (Some(sender), Some(printer))
        } else {
            (None, None)
        };
        let begun = Arc::new(Mutex::new(Vec::new()));
        let progress = Self { moments, begun, events };
        progress.phase(Phase::Connecting);
        (progress, Renderer { screen, events: printer, end })
    }

    /// Begins a phase. Targets reach a phase one after the other: only the first one counts.
    pub(crate) fn phase(&self, phase: Phase) {
        let begun = |begun: &[(Phase, Instant)]| begun.iter().any(|(other, _)| *other == phase);
        if begun(&self.begun.lock().unwrap_or_else(PoisonError::into_inner)) {
            return;
        }
        tracing::debug!(phase = phase.name(), "phase: {}", phase.text());
        let now = Instant::now();
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).push((phase, now));
        self.moments.send_modify(|moment| (moment.phase, moment.since, moment.waits) = (phase, now, None));
        self.emit("phase", &PhaseBegan { phase: phase.name() });
    }

    /// Sends an event to programs.
    pub(crate) fn emit(&self, event: &str, body: &impl Serialize) {
        if let Some(events) = &self.events {
            // The receiver outlives this sender.
            let _ = events.send(json::line(event, body));
        }
    }

    /// Returns the duration of each phase so far, in order.
    #[must_use]
    pub(crate) fn phases(&self) -> Vec<(&'static str, Duration)> {
        let begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = begun.iter().skip(1).map(|(_, began)| *began).chain([Instant::now()]);
        begun.iter().zip(ends).map(|((phase, began), end)| (phase.name(), end - *began)).collect()
    }

    /// Reports the bytes read from the source, the expected total, and the event that the source waits for, if any.
    pub(crate) fn moved(&self, bytes: u64, expected: u64, waits: Option<&str>) {
        self.moments.send_modify(|moment| {
            (moment.moved, moment.expected) = (bytes, expected);
            moment.waits = waits.map(ToOwned::to_owned);
        });
    }

    /// Reports an event that the run waits for.
    pub(crate) fn waits(&self, what: Option<String>) {
        self.moments.send_modify(|moment| moment.waits = what);
    }
}

impl Renderer {
    /// Erases the bar and waits until all events are printed. All clones of the progress must be dropped before.
    pub(crate) async fn finish(self) {
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
    /// Returns the share that is done. Since the total is an estimate, it stays below 100% until the phase ends.
    fn share(&self) -> f64 {
        if self.expected == 0 {
            return 0.0;
        }
        #[expect(clippy::cast_precision_loss, reason = "for display")]
        (self.moved as f64 / self.expected as f64).min(0.99)
    }

    /// Returns the time left as `hours:minutes:seconds`, or the reason why there is no estimate.
    fn left_in_words(&self, elapsed: Duration) -> String {
        match (&self.waits, self.left(elapsed)) {
            (Some(what), _) => format!("backup waits: {what}"),
            (None, Some(left)) => format!("{} left", FormattedDuration(left)),
            (None, None) => "no data yet".to_owned(),
        }
    }

    /// Returns the bytes per second since the phase began.
    fn rate(&self, elapsed: Duration) -> u64 {
        #[expect(clippy::cast_precision_loss, reason = "for display")]
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "for display, never negative"
        )]
        ((self.moved as f64 / elapsed.as_secs_f64().max(0.001)) as u64)
    }

    /// Estimates the time left at the rate so far; `None` before the first byte.
    fn left(&self, elapsed: Duration) -> Option<Duration> {
        let rest = self.expected.saturating_sub(self.moved);
        let rate = self.rate(elapsed);
        (rate > 0).then(|| Duration::from_secs(rest / rate))
    }
}
