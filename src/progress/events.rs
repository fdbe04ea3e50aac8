//! Events as JSON lines on standard output, for programs.

use std::io::Write as _;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;

use super::{Moment, Phase};
use crate::base::json;

/// Interval of progress events.
const PERIOD: Duration = Duration::from_secs(1);

/// Prints every event in order, with the progress in between, until all senders are gone. A slow reader loses nothing.
pub(super) fn show(moments: &watch::Receiver<Moment>, events: &Receiver<String>) {
    loop {
        match events.recv_timeout(PERIOD) {
            Ok(event) => print(&event),
            Err(RecvTimeoutError::Timeout) => {
                let moment = moments.borrow().clone();
                if moment.phase == Phase::Copying {
                    print(&progress(&moment, moment.since.elapsed()));
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

/// Prints a line. A reader that has gone must not end the run.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn progress_event_contains_numbers() {
        let moment =
            Moment { phase: Phase::Copying, since: Instant::now(), moved: 100, expected: 400, waits: None };
        assert_eq!(
            progress(&moment, Duration::from_secs(10)),
            r#"{"version":2,"event":"progress","bytes":100,"bytes_per_second":10,"expected_bytes":400,"seconds_left":30,"waits":null}"#
        );
    }
}
