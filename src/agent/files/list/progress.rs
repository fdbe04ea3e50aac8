//! Progress of a list.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::proto::Text;

/// Minimum time between two reports of the same step.
const INTERVAL: Duration = Duration::from_secs(1);

/// Event of a list in work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListEvent {
    /// Progress, at most once a second for each step.
    Progress(ListProgress),
    /// Entry that is left out, with the reason.
    Complaint(Text),
}

/// Progress of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListProgress {
    /// Step.
    pub(crate) step: Step,
    /// Number of listed entries.
    pub(crate) entries: u64,
    /// Number of digests.
    pub(crate) digests: u64,
    /// Bytes that were read for digests.
    pub(crate) bytes: u64,
}

impl ListProgress {
    /// Number that grows as long as anything is listed or read.
    pub(crate) fn movement(&self) -> u64 {
        self.bytes.saturating_add(self.entries).saturating_add(self.digests)
    }
}

/// Step of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Written data is synced; no movement is visible.
    Syncing,
    /// Entries are listed.
    Listing,
    /// Entries are listed, and files are read.
    Digesting,
    /// Lists are sorted; no movement is visible.
    Sorting,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Syncing => "syncing the copy",
            Self::Listing => "listing the files",
            Self::Digesting => "computing digests",
            Self::Sorting => "sorting the lists",
        })
    }
}

/// Counters of the threads of one list.
pub(super) struct Progress<'a> {
    report: &'a (dyn Fn(ListEvent) + Sync),
    work: Step,
    entries: AtomicU64,
    digests: AtomicU64,
    bytes: AtomicU64,
    last: Mutex<(Instant, Step)>,
}

impl<'a> Progress<'a> {
    /// Starts counting; `work` is the step that walks through the tree.
    pub(super) fn new(report: &'a (dyn Fn(ListEvent) + Sync), work: Step) -> Self {
        Self {
            report,
            work,
            entries: AtomicU64::new(0),
            digests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            last: Mutex::new((Instant::now(), work)),
        }
    }

    /// Begins a step, and reports it.
    pub(super) fn step(&self, step: Step) {
        if let Ok(mut last) = self.last.lock() {
            *last = (Instant::now(), step);
        }
        (self.report)(ListEvent::Progress(self.now(step)));
    }

    /// Begins to walk through the tree.
    pub(super) fn work(&self) {
        self.step(self.work);
    }

    /// Reports the last numbers.
    pub(super) fn end(&self) {
        self.work();
    }

    /// Counts an entry.
    pub(super) fn listed(&self) {
        // Looking at the clock each time would cost more than counting.
        if self.entries.fetch_add(1, Ordering::Relaxed) % 16 == 0 {
            self.tick();
        }
    }

    /// Counts bytes that were read.
    pub(super) fn read(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // Also for small files: on a slow file system each of them may take long.
        self.tick();
    }

    /// Counts digests.
    pub(super) fn digested(&self, digests: u64) {
        self.digests.fetch_add(digests, Ordering::Relaxed);
        self.tick();
    }

    /// Passes on a complaint.
    pub(super) fn complain(&self, text: Text) {
        (self.report)(ListEvent::Complaint(text));
    }

    /// Reports if the last report is old. A thread that finds another one here leaves it to that one.
    fn tick(&self) {
        let Ok(mut last) = self.last.try_lock() else { return };
        if last.0.elapsed() >= INTERVAL {
            last.0 = Instant::now();
            (self.report)(ListEvent::Progress(self.now(last.1)));
        }
    }

    fn now(&self, step: Step) -> ListProgress {
        ListProgress {
            step,
            entries: self.entries.load(Ordering::Relaxed),
            digests: self.digests.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}
