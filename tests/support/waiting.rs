//! Waiting for a condition instead of sleeping.

use std::thread;
use std::time::{Duration, Instant};

/// Polls until the condition holds. `false` when it still does not hold after `within`.
pub(crate) fn eventually(within: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if start.elapsed() >= within {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
