//! SIGINT, SIGTERM and SIGHUP in one place: the first one cancels, the second one exits at once.

use std::future::pending;
use std::io::Write as _;
use std::time::Duration;

use nix::libc::{SIGHUP, SIGINT, SIGTERM};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::base::terminal::over_the_bar;

/// Maximum time to print the text for a second signal.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Receiver of the first signal.
#[derive(Clone, Debug)]
pub struct Interrupts {
    first: watch::Receiver<Option<i32>>,
    farewell: watch::Sender<String>,
}

impl Interrupts {
    /// Starts to listen. An ignored SIGHUP (nohup) stays ignored.
    pub fn listen() -> std::io::Result<Self> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = if is_ignored(SIGHUP) { None } else { Some(signal(SignalKind::hangup())?) };
        let (sender, first) = watch::channel(None);
        let farewell = watch::Sender::new(String::new());
        let last_words = farewell.subscribe();
        tokio::spawn(async move {
            loop {
                let number = tokio::select! {
                    _ = interrupt.recv() => SIGINT,
                    _ = terminate.recv() => SIGTERM,
                    () = async { match hangup.as_mut() { Some(s) => drop(s.recv().await), None => pending().await } } => SIGHUP,
                };
                if sender.borrow().is_some() {
                    // The terminal may be gone or blocked; that must not delay the exit.
                    let words = format!("{}{}", over_the_bar(), *last_words.borrow());
                    let (printed, done) = std::sync::mpsc::channel::<()>();
                    std::thread::spawn(move || {
                        let _ = writeln!(std::io::stderr(), "{words}");
                        drop(printed);
                    });
                    let _ = done.recv_timeout(LAST_WORDS);
                    std::process::exit(128 + number);
                }
                sender.send_replace(Some(number));
            }
        });
        Ok(Self { first, farewell })
    }

    /// Waits for the first signal and returns its number.
    pub async fn first(&self) -> i32 {
        let mut first = self.first.clone();
        loop {
            if let Some(number) = *first.borrow() {
                return number;
            }
            if first.changed().await.is_err() {
                pending::<()>().await;
            }
        }
    }

    /// Sets the text that a second signal prints before the exit.
    pub fn on_second(&self, text: String) {
        self.farewell.send_replace(text);
    }
}

/// Returns whether this process was started with the signal ignored, according to the kernel.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
