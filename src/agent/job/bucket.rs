//! Token bucket: limits the bytes per second of a meter. The rate may be changed at any time.

use std::num::NonZeroU64;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Maximum time that a thread may lag behind and catch up with. Longer pauses are lost, so that no burst follows.
const BURST: Duration = Duration::from_millis(100);
/// Time for which bytes are granted at once.
const GRANT: Duration = Duration::from_millis(10);

/// Bucket, shared by the meters that it limits and the thread that changes the rate.
#[derive(Debug)]
pub(crate) struct Bucket {
    schedule: Mutex<Schedule>,
    changed: Condvar,
}

/// Time at which the next byte may pass. It does not depend on when threads wake up, so the rate is exact.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    rate: Option<NonZeroU64>,
    next: Instant,
}

/// Bytes that may pass now, or the time until some may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grant {
    Now(usize),
    In(Duration),
}

impl Bucket {
    /// Creates a bucket with a rate in bytes per second; `None` for no limit.
    pub(crate) fn new(rate: Option<NonZeroU64>) -> Self {
        Self { schedule: Mutex::new(Schedule { rate, next: Instant::now() }), changed: Condvar::new() }
    }

    /// Sets the rate, also for a thread that waits.
    pub(crate) fn set_rate(&self, rate: Option<NonZeroU64>) {
        *self.lock() = Schedule { rate, next: Instant::now() };
        self.changed.notify_all();
    }

    /// Waits until bytes may pass, and returns how many of `most` may. [`Self::give_back`] takes those that did
    /// not.
    pub(crate) fn take(&self, most: usize) -> usize {
        let mut schedule = self.lock();
        loop {
            match schedule.take(most, Instant::now()) {
                Grant::Now(bytes) => return bytes,
                Grant::In(time) => {
                    let waited = self.changed.wait_timeout(schedule, time);
                    schedule = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// Takes back granted bytes.
    pub(crate) fn give_back(&self, bytes: usize) {
        let mut schedule = self.lock();
        let time = schedule.time_of(bytes);
        schedule.next = schedule.next.checked_sub(time).unwrap_or(schedule.next);
    }

    fn lock(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Schedule {
    fn take(&mut self, most: usize, now: Instant) -> Grant {
        let Some(rate) = self.rate else { return Grant::Now(most) };
        self.next = self.next.max(now.checked_sub(BURST).unwrap_or(now));
        if let Some(wait) = self.next.checked_duration_since(now).filter(|wait| !wait.is_zero()) {
            return Grant::In(wait);
        }
        let portion = u128::from(rate.get()) * GRANT.as_nanos() / 1_000_000_000;
        let bytes = most.min(usize::try_from(portion).unwrap_or(usize::MAX)).max(1);
        self.next += self.time_of(bytes);
        Grant::Now(bytes)
    }

    /// Returns the time that bytes take at the rate.
    fn time_of(&self, bytes: usize) -> Duration {
        let nanoseconds = |rate: NonZeroU64| bytes as u128 * 1_000_000_000 / u128::from(rate.get());
        let nanoseconds = self.rate.map_or(0, nanoseconds);
        Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;

    const MIB: u64 = 1 << 20;

    /// Returns the bytes that pass in a time, by a clock that is not the host's. The thread is woken up late by
    /// `lag`.
    fn passed(schedule: &mut Schedule, start: Instant, time: Duration, lag: Duration) -> u64 {
        let (mut now, mut passed) = (start, 0);
        while now < start + time {
            match schedule.take(1 << 20, now) {
                Grant::Now(bytes) => passed += bytes as u64,
                Grant::In(wait) => now += wait + lag,
            }
        }
        passed
    }

    #[test]
    fn rate_is_exact_over_ten_seconds() {
        for rate in [MIB, 10 * MIB, 200 * MIB] {
            for lag in [0, 1, 7, 30] {
                let start = Instant::now();
                let mut schedule = Schedule { rate: NonZeroU64::new(rate), next: start };
                let passed =
                    passed(&mut schedule, start, Duration::from_secs(10), Duration::from_millis(lag));
                let error = passed.abs_diff(10 * rate);
                assert!(error * 20 < 10 * rate, "{passed} bytes at {rate} B/s, lag {lag} ms");
            }
        }
    }

    #[test]
    fn no_burst_follows_a_pause() {
        let start = Instant::now();
        let mut schedule = Schedule { rate: NonZeroU64::new(10 * MIB), next: start };
        let later = start + Duration::from_secs(60);
        let passed = passed(&mut schedule, later, Duration::from_secs(1), Duration::ZERO);
        assert!(passed < 12 * MIB, "{passed}");
    }

    #[test]
    fn bytes_that_did_not_pass_are_not_counted() {
        let start = Instant::now();
        let mut bucket = Bucket::new(NonZeroU64::new(MIB));
        bucket.schedule.get_mut().unwrap().next = start;
        let granted = bucket.take(4096);
        bucket.give_back(granted);
        assert!(bucket.lock().next.saturating_duration_since(start) < Duration::from_micros(1));
    }

    #[test]
    fn rate_changes_while_a_thread_waits() {
        let bucket = Arc::new(Bucket::new(NonZeroU64::new(1)));
        let waiting = Arc::clone(&bucket);
        // A byte per second: the second one would take a second, and the last ones very long.
        let thread = thread::spawn(move || (0..100).map(|_| waiting.take(1)).sum::<usize>());
        bucket.set_rate(None);
        assert_eq!(thread.join().unwrap(), 100);
        assert_eq!(bucket.take(1 << 30), 1 << 30);
        bucket.set_rate(NonZeroU64::new(MIB));
        assert!(bucket.take(1 << 30) < 1 << 20);
    }
}
