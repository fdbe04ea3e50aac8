//! Progress bar on a terminal: one line that fits into 80 columns with its estimate.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;

use super::{LOOK, Moment, Phase};

/// Characters between the brackets.
const WIDTH: usize = 10;

pub(super) fn show(moments: &watch::Receiver<Moment>, ended: &mpsc::Receiver<()>) {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    // A line wider than the terminal would wrap and could not be erased.
    if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
        bar.set_style(style);
    }
    while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        let moment = moments.borrow().clone();
        bar.set_message(line(&moment, moment.since.elapsed()));
    }
    bar.finish_and_clear();
}

fn line(moment: &Moment, elapsed: Duration) -> String {
    if moment.phase != Phase::Copying {
        let waits = moment.waits.as_ref().map_or_else(String::new, |waits| format!(", {waits}"));
        return format!("{} ({} s){waits}", moment.phase.text(), elapsed.as_secs());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "0 to 9"
    )]
    let done = (moment.share() * WIDTH as f64) as usize;
    format!(
        "copying {:>2.0}% [{}>{}] {}/{}, {}/s, {}",
        moment.share() * 100.0,
        "=".repeat(done),
        " ".repeat(WIDTH - 1 - done.min(WIDTH - 1)),
        HumanBytes(moment.moved),
        HumanBytes(moment.expected),
        HumanBytes(moment.rate(elapsed)),
        moment.left_in_words(elapsed)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn bar_fits_one_terminal_line() {
        let moment = Moment {
            phase: Phase::Copying,
            since: Instant::now(),
            moved: 1000 << 30,
            expected: 4000 << 30,
            waits: None,
        };
        let text = line(&moment, Duration::from_secs(8000));
        assert_eq!(text, "copying 25% [==>       ] 1000.00 GiB/3.91 TiB, 128.00 MiB/s, 06:40:00 left");
        assert!(text.len() < 80);
        let releasing = Moment { phase: Phase::Releasing, ..moment.clone() };
        assert_eq!(line(&releasing, Duration::from_secs(3)), "cleaning up (3 s)");
        for moved in [0, 1, 3999 << 30, 5000 << 30] {
            let bar = line(&Moment { moved, ..moment.clone() }, Duration::from_secs(1));
            assert_eq!(bar.find(']'), text.find(']'), "{bar}");
        }
    }
}
