//! Plain lines for logs: one for each new phase, and one every ten seconds. Each begins with the local time.

use std::io::Write as _;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use indicatif::HumanBytes;
use tokio::sync::watch;

use super::{LOOK, Moment, Phase};
use crate::base::terminal::now;

const PERIOD: Duration = Duration::from_secs(10);

pub(super) fn show(moments: &watch::Receiver<Moment>, ended: &mpsc::Receiver<()>) {
    let mut phase = None;
    let mut last = Instant::now();
    while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        let moment = moments.borrow().clone();
        if phase != Some(moment.phase) {
            // Connecting and preparing are over in a moment.
            if !matches!(moment.phase, Phase::Connecting | Phase::Preparing) {
                print(moment.phase.text());
            }
            phase = Some(moment.phase);
            last = Instant::now();
        } else if last.elapsed() >= PERIOD {
            print(&line(&moment, moment.since.elapsed()));
            last = Instant::now();
        }
    }
}

fn line(moment: &Moment, elapsed: Duration) -> String {
    if moment.phase != Phase::Copying {
        let waits = moment.waits.as_ref().map_or_else(String::new, |waits| format!(", {waits}"));
        return format!("{} ({} s){waits}", moment.phase.text(), elapsed.as_secs());
    }
    format!(
        "copying: {}/{} ({:.0}%), {}/s, {}",
        HumanBytes(moment.moved),
        HumanBytes(moment.expected),
        moment.share() * 100.0,
        HumanBytes(moment.rate(elapsed)),
        moment.left_in_words(elapsed)
    )
}

/// Prints a line. A closed standard error must not end the run.
fn print(text: &str) {
    let _ = writeln!(std::io::stderr(), "{} {text}", now());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_shows_bytes_share_rate_and_time_left() {
        let moment = Moment {
            phase: Phase::Copying,
            since: Instant::now(),
            moved: 1 << 30,
            expected: 4 << 30,
            waits: None,
        };
        assert_eq!(
            line(&moment, Duration::from_secs(8)),
            "copying: 1.00 GiB/4.00 GiB (25%), 128.00 MiB/s, 00:00:24 left"
        );
        let over = Moment { moved: 5 << 30, ..moment.clone() };
        assert!(line(&over, Duration::from_secs(8)).contains("(99%)"), "an estimate never reaches 100%");
        let still = Moment { moved: 0, ..moment.clone() };
        assert!(line(&still, Duration::from_secs(8)).ends_with("no data yet"));
        let waits = Moment { waits: Some("Acquiring BACKUP LOCKS...".into()), ..moment };
        assert!(
            line(&waits, Duration::from_secs(8))
                .ends_with("128.00 MiB/s, backup waits: Acquiring BACKUP LOCKS...")
        );
    }
}
