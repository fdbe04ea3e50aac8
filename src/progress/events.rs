//! Events as JSON lines on standard output, for programs.

use std::io::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

use super::{Moment, Phase};
use crate::json;

/// How often a program is told how far the copying is.
const PERIOD: Duration = Duration::from_secs(1);

/// Prints every event in its order, and between them the progress, until nobody can send any more. Whoever reads may be
/// slow: nothing is dropped.
pub(super) fn show(moments: &watch::Receiver<Moment>, events: &Receiver<String>) {
    loop {
        match events.recv_timeout(PERIOD) {
            Ok(event) => say(&event),
            Err(RecvTimeoutError::Timeout) => {
                let moment = moments.borrow().clone();
                if moment.phase == Phase::Copying {
                    say(&progress(&moment, moment.since.elapsed()));
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn progress(moment: &Moment, elapsed: Duration) -> String {
    let body = json!({
        "bytes": moment.moved,
        "expected_bytes": moment.expected,
        "bytes_per_second": moment.rate(elapsed),
        "waits": moment.waits,
        "seconds_left": moment.left(elapsed).map(|left| left.as_secs()),
    });
    json::line("progress", &body)
}

/// A reader that has gone must not end a run.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn progress_is_numbers() {
        let moment =
            Moment { phase: Phase::Copying, since: Instant::now(), moved: 100, expected: 400, waits: None };
        assert_eq!(
            progress(&moment, Duration::from_secs(10)),
            r#"{"version":2,"event":"progress","bytes":100,"bytes_per_second":10,"expected_bytes":400,"seconds_left":30,"waits":null}"#
        );
    }
}
