//! Reports of a job, written by a thread of their own: an agent that does not read delays no stage.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use crate::proto::frame;
use crate::proto::job::{JobReport, Meter};

/// Interval between two reports of a counter.
const INTERVAL: Duration = Duration::from_secs(1);

/// Counter of bytes, which any thread may advance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counter(Arc<AtomicU64>);

impl Counter {
    /// Adds bytes.
    pub(crate) fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Returns the bytes so far.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Reports of a job, for all of its threads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<JobReport>,
    counters: Vec<(Meter, Counter, Option<u64>)>,
    is_closing: bool,
    is_closed: bool,
}

impl Reports {
    /// Starts the thread that writes the reports.
    pub(crate) fn start(to: impl Write + Send + 'static) -> io::Result<Self> {
        let reports = Self::default();
        let writing = reports.clone();
        thread::Builder::new().name("reports".into()).spawn(move || {
            writing.write(to);
            writing.lock().is_closed = true;
            writing.0.changed.notify_all();
        })?;
        Ok(reports)
    }

    /// Reports something.
    pub(crate) fn send(&self, report: JobReport) {
        let mut state = self.lock();
        state.waiting.push_back(report);
        drop(state);
        self.0.changed.notify_all();
    }

    /// Creates a counter, which is reported once a second as long as it advances.
    pub(crate) fn counter(&self, meter: Meter) -> Counter {
        let counter = Counter::default();
        self.lock().counters.push((meter, counter.clone(), None));
        counter
    }

    /// Reports all counters, also those that are 0.
    pub(crate) fn send_counters(&self) {
        self.lock().collect(Which::All);
        self.0.changed.notify_all();
    }

    /// Writes what waits, and nothing more. Returns when it is written, or after `limit`.
    pub(crate) fn finish(&self, limit: Duration) {
        let mut state = self.lock();
        state.is_closing = true;
        self.0.changed.notify_all();
        let deadline = Instant::now() + limit;
        while !state.is_closed {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn write(&self, mut to: impl Write) {
        let mut next = Instant::now() + INTERVAL;
        loop {
            let batch = self.next_batch(&mut next);
            if batch.is_empty() {
                return;
            }
            for report in batch {
                // Without an agent the job ends, for which its input is watched.
                if frame::write(&mut to, &report).is_err() {
                    return;
                }
            }
        }
    }

    /// Waits for reports; returns none at the end.
    fn next_batch(&self, next: &mut Instant) -> VecDeque<JobReport> {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            if now >= *next {
                *next = now + INTERVAL;
                state.collect(Which::Advanced);
            }
            if !state.waiting.is_empty() || state.is_closing {
                return std::mem::take(&mut state.waiting);
            }
            let waited = self.0.changed.wait_timeout(state, next.saturating_duration_since(now));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counters to report.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    All,
    Advanced,
}

impl State {
    fn collect(&mut self, which: Which) {
        for (meter, counter, reported) in &mut self.counters {
            let bytes = counter.get();
            if which == Which::All && reported.is_none() || *reported != Some(bytes) && bytes > 0 {
                *reported = Some(bytes);
                self.waiting.push_back(JobReport::Bytes(*meter, bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pipes::pipe;
    use super::*;
    use crate::proto::Text;
    use std::fs::File;

    #[test]
    fn reports_arrive_in_their_order_with_the_last_counts() {
        let (input, output) = pipe().unwrap();
        let reports = Reports::start(File::from(output)).unwrap();
        let counter = reports.counter(Meter::Wire);
        reports.counter(Meter::Read);
        counter.add(5);
        reports.send(JobReport::Complaint(Text::new("one")));
        reports.send_counters();
        reports.send(JobReport::Exit(0));
        reports.finish(Duration::from_secs(60));
        let mut input = File::from(input);
        let all: Vec<JobReport> = std::iter::from_fn(|| frame::read(&mut input).unwrap()).collect();
        let expected = [
            JobReport::Complaint(Text::new("one")),
            JobReport::Bytes(Meter::Wire, 5),
            JobReport::Bytes(Meter::Read, 0),
            JobReport::Exit(0),
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn agent_that_does_not_read_delays_no_thread() {
        let (_input, output) = pipe().unwrap();
        let reports = Reports::start(File::from(output)).unwrap();
        for _ in 0..10_000 {
            reports.send(JobReport::Log(Text::new("x".repeat(400))));
        }
        reports.finish(Duration::from_millis(10));
    }

    #[test]
    fn counters_are_reported_while_they_advance() {
        let (input, output) = pipe().unwrap();
        let reports = Reports::start(File::from(output)).unwrap();
        let counter = reports.counter(Meter::Wire);
        let mut input = File::from(input);
        for total in 1..3 {
            counter.add(1);
            assert_eq!(frame::read(&mut input).unwrap(), Some(JobReport::Bytes(Meter::Wire, total)));
        }
    }
}
