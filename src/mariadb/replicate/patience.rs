//! How long no progress is accepted. Pure: times are those since the wait began.

use std::time::Duration;

/// Progress of a wait.
#[derive(Debug)]
pub(super) struct Patience<T> {
    limit: Duration,
    seen: Option<T>,
    since: Duration,
}

impl<T: PartialEq> Patience<T> {
    /// Starts a wait that may make no progress for this time.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, seen: None, since: Duration::ZERO }
    }

    /// Returns whether there was no progress for too long: the state has not changed, and the server does not
    /// report that it is busy with one change.
    pub(super) fn is_over(&mut self, now: Duration, state: T, is_busy: bool) -> bool {
        if is_busy || self.seen.as_ref() != Some(&state) {
            (self.seen, self.since) = (Some(state), now);
            return false;
        }
        now.saturating_sub(self.since) > self.limit
    }

    /// Returns the limit.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_time_without_progress_counts() {
        let second = Duration::from_secs;
        let mut patience = Patience::new(second(10));
        assert!(!patience.is_over(second(0), "a", false));
        assert!(!patience.is_over(second(10), "a", false));
        assert!(patience.is_over(second(11), "a", false));
        assert!(!patience.is_over(second(12), "b", false));
        assert!(!patience.is_over(second(22), "b", true));
        assert!(!patience.is_over(second(32), "b", false));
        assert!(patience.is_over(second(33), "b", false));
    }
}
