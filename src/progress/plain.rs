//! Plain lines, for logs: each new phase, and while copying one line in ten seconds.

use std::io::Write as _;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanDuration};
use tokio::sync::watch;

use super::{LOOK, Moment, Phase};

const PERIOD: Duration = Duration::from_secs(10);

pub(super) fn show(moments: &watch::Receiver<Moment>, ended: &mpsc::Receiver<()>) {
    let mut phase = None;
    let mut last = Instant::now();
    while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        let moment = moments.borrow().clone();
        if phase != Some(moment.phase) {
            // Connecting and preparing take no time that anybody waits for.
            if !matches!(moment.phase, Phase::Connecting | Phase::Preparing) {
                say(moment.phase.text());
            }
            phase = Some(moment.phase);
            last = Instant::now();
        } else if last.elapsed() >= PERIOD {
            say(&line(&moment, moment.since.elapsed()));
            last = Instant::now();
        }
    }
}

fn line(moment: &Moment, elapsed: Duration) -> String {
    if moment.phase != Phase::Copying {
        let waits = moment.waits.as_ref().map_or_else(String::new, |waits| format!(", {waits}"));
        return format!("{} for {}{waits}", moment.phase.text(), HumanDuration(elapsed));
    }
    format!(
        "copying: {} of about {} ({:.0} %), {}/s, {}",
        HumanBytes(moment.moved),
        HumanBytes(moment.expected),
        moment.share() * 100.0,
        HumanBytes(moment.rate(elapsed)),
        moment.left_in_words(elapsed)
    )
}

/// A closed standard error must not end a run.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_bytes_rate_share_and_time_left() {
        let moment = Moment {
            phase: Phase::Copying,
            since: Instant::now(),
            moved: 1 << 30,
            expected: 4 << 30,
            waits: None,
        };
        assert_eq!(
            line(&moment, Duration::from_secs(8)),
            "copying: 1.00 GiB of about 4.00 GiB (25 %), 128.00 MiB/s, about 24 seconds left"
        );
        let over = Moment { moved: 5 << 30, ..moment.clone() };
        assert!(line(&over, Duration::from_secs(8)).contains("(99 %)"), "an estimate never claims the end");
        let still = Moment { moved: 0, ..moment.clone() };
        assert!(line(&still, Duration::from_secs(8)).ends_with("nothing has moved yet"));
        let waits = Moment { waits: Some("Acquiring BACKUP LOCKS...".into()), ..moment };
        assert!(
            line(&waits, Duration::from_secs(8))
                .ends_with("128.00 MiB/s, the backup waits: Acquiring BACKUP LOCKS...")
        );
    }
}
