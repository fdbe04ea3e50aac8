//! Input of an agent: messages of its controller, signals, and silence.

use std::io::{self, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::proto::command::{Command, Ending, EndingSignal, ToAgent};
use crate::proto::frame;

/// Next thing to do.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Command, to be answered under its number.
    Call(u64, Command),
    /// The controller has ended the run in order.
    Release,
    /// The run ends without an order of the controller.
    Ended(Ending),
}

/// Queue of what reaches an agent. Two threads fill it.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Receiver<Incoming>,
    heard: Arc<Mutex<Instant>>,
}

/// Signals by which a run is ended.
const SIGNALS: [(i32, EndingSignal); 3] =
    [(SIGHUP, EndingSignal::Hangup), (SIGINT, EndingSignal::Interrupt), (SIGTERM, EndingSignal::Terminate)];

impl Inbox {
    /// Starts to read messages and to wait for signals, which are caught and not blocked: programs that the agent
    /// starts would inherit a block.
    pub(crate) fn open(input: impl Read + Send + 'static) -> io::Result<Self> {
        let mut signals = Signals::new(SIGNALS.map(|(signal, _)| signal))?;
        let (sender, queue) = mpsc::channel();
        let heard = Arc::new(Mutex::new(Instant::now()));
        let of_signals = sender.clone();
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || wait_for_signals(&mut signals, &of_signals))?;
        let of_reader = Arc::clone(&heard);
        thread::Builder::new().name("input".into()).spawn(move || read(input, &sender, &of_reader))?;
        Ok(Self { queue, heard })
    }

    /// Returns the next thing to do. Reports silence when no message has arrived for `limit`, whatever this
    /// agent was doing; without a limit it waits for ever.
    pub(crate) fn next(&self, limit: Option<Duration>) -> Incoming {
        loop {
            let heard = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
            let received = match limit {
                None => self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(limit) => self.queue.recv_timeout(limit.saturating_sub(heard.elapsed())),
            };
            match received {
                Ok(incoming) => return incoming,
                Err(RecvTimeoutError::Disconnected) => return Incoming::Ended(Ending::Closed),
                Err(RecvTimeoutError::Timeout) => {
                    let last = *self.heard.lock().unwrap_or_else(PoisonError::into_inner);
                    if last == heard {
                        return Incoming::Ended(Ending::Silence);
                    }
                }
            }
        }
    }
}

fn read(mut input: impl Read, queue: &Sender<Incoming>, heard: &Mutex<Instant>) {
    loop {
        // What is no message is no controller of this build: the conversation is over.
        let Ok(Some(message)) = frame::read::<ToAgent>(&mut input) else {
            let _ = queue.send(Incoming::Ended(Ending::Closed));
            return;
        };
        *heard.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let incoming = match message {
            ToAgent::Ping => continue,
            ToAgent::Call { id, command } => Incoming::Call(id, command),
            ToAgent::Release => Incoming::Release,
        };
        let is_last = matches!(incoming, Incoming::Release);
        if queue.send(incoming).is_err() || is_last {
            return;
        }
    }
}

fn wait_for_signals(signals: &mut Signals, queue: &Sender<Incoming>) {
    for signal in signals.forever() {
        let ending = SIGNALS.iter().find(|(known, _)| *known == signal).map(|(_, ending)| *ending);
        let Some(ending) = ending else { continue };
        if queue.send(Incoming::Ended(Ending::Signal(ending))).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn messages_arrive_in_order_and_then_the_end() {
        let (reader, mut writer) = io::pipe().unwrap();
        let inbox = Inbox::open(reader).unwrap();
        frame::write(&mut writer, &ToAgent::Ping).unwrap();
        frame::write(&mut writer, &ToAgent::Call { id: 7, command: Command::Status }).unwrap();
        assert!(matches!(inbox.next(None), Incoming::Call(7, Command::Status)));
        drop(writer);
        assert!(matches!(inbox.next(None), Incoming::Ended(Ending::Closed)));
    }

    #[test]
    fn rubbish_ends_the_conversation() {
        let (reader, mut writer) = io::pipe().unwrap();
        let inbox = Inbox::open(reader).unwrap();
        writer.write_all(&[1, 0, 0, 0, 0xff]).unwrap();
        assert!(matches!(inbox.next(None), Incoming::Ended(Ending::Closed)));
    }

    #[test]
    fn silence_is_reported_after_the_limit_only() {
        let (reader, mut writer) = io::pipe().unwrap();
        let inbox = Inbox::open(reader).unwrap();
        let start = Instant::now();
        let limit = Duration::from_millis(200);
        let beating = thread::spawn(move || {
            for _ in 0..4 {
                thread::sleep(Duration::from_millis(100));
                frame::write(&mut writer, &ToAgent::Ping).unwrap();
            }
            writer
        });
        assert!(matches!(inbox.next(Some(limit)), Incoming::Ended(Ending::Silence)));
        assert!(start.elapsed() >= Duration::from_millis(590), "{:?}", start.elapsed());
        drop(beating.join());
    }
}
