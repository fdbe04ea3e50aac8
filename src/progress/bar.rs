//! A bar on a terminal.

use std::sync::mpsc::{self, RecvTimeoutError};

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;

use super::{LOOK, Moment, Phase};

pub(super) fn show(moments: &watch::Receiver<Moment>, ended: &mpsc::Receiver<()>) {
    let bar = ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr());
    let copying =
        ProgressStyle::with_template("copying [{bar:30}] {msg}").map(|style| style.progress_chars("=> "));
    let waiting = ProgressStyle::with_template("{spinner} {msg}");
    while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        let moment = *moments.borrow();
        let elapsed = moment.since.elapsed();
        let style = if moment.phase == Phase::Copying { &copying } else { &waiting };
        if let Ok(style) = style {
            bar.set_style(style.clone());
        }
        if moment.phase == Phase::Copying {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 990")]
            bar.set_position((moment.share() * 1000.0) as u64);
            let left = moment
                .left(elapsed)
                .map_or_else(|| "?".to_owned(), |left| format!("{:#}", HumanDuration(left)));
            bar.set_message(format!(
                "{:.0} %  {} of about {}  {}/s  {left} left",
                moment.share() * 100.0,
                HumanBytes(moment.moved),
                HumanBytes(moment.expected),
                HumanBytes(moment.rate(elapsed))
            ));
        } else {
            bar.set_message(format!("{} ({} s)", moment.phase.text(), elapsed.as_secs()));
            bar.tick();
        }
    }
    bar.finish_and_clear();
}
