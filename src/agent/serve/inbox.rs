//! Input of an agent: messages of its controller, signals, and silence.

use std::fmt;
use std::io::{self, Read};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::proto::attach::is_cut;
use crate::proto::command::{Command, Ending, EndingSignal, ToAgent};
use crate::proto::frame::{self, FrameError};
use crate::proto::name::AgentName;

use super::outbox::Outbox;

/// Next thing to do.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Command, to be answered under its number.
    Call(u64, Command),
    /// Order, with its number, to become the connection to the agent of a run. What follows in the input is for
    /// that one.
    Attach(u64, AgentName, Input),
    /// The controller has ended the run in order.
    Release,
    /// The run ends without an order of the controller.
    Ended(Ending),
}

/// Channel from a controller.
pub(crate) struct Input(pub(super) Box<dyn Read + Send>);

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Input")
    }
}

/// Queue of what reaches an agent. Several threads fill it.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: Receiver<Incoming>,
    entrance: Entrance,
}

/// Other end of the queue.
#[derive(Clone, Debug)]
pub(crate) struct Entrance {
    queue: Sender<Incoming>,
    outbox: Outbox,
    connection: Arc<Mutex<Connection>>,
}

/// Connection to the controller.
#[derive(Debug)]
struct Connection {
    /// Number of the connection. What arrives by an earlier one no longer counts.
    number: u64,
    /// Number of the last command that has arrived.
    call: u64,
    /// Time of the last message.
    heard: Instant,
    /// Lease time of a run, which a cut does not end.
    lease: Option<Duration>,
}

/// Signals by which a run is ended.
const SIGNALS: [(i32, EndingSignal); 3] =
    [(SIGHUP, EndingSignal::Hangup), (SIGINT, EndingSignal::Interrupt), (SIGTERM, EndingSignal::Terminate)];

impl Inbox {
    /// Starts to read messages and to wait for signals, which are caught and not blocked: programs that the agent
    /// starts would inherit a block. The outbox learns what has arrived at the controller.
    pub(crate) fn open(input: impl Read + Send + 'static, outbox: Outbox) -> io::Result<Self> {
        let mut signals = Signals::new(SIGNALS.map(|(signal, _)| signal))?;
        let (sender, queue) = mpsc::channel();
        let connection = Connection { number: 0, call: 0, heard: Instant::now(), lease: None };
        let entrance =
            Entrance { queue: sender.clone(), outbox, connection: Arc::new(Mutex::new(connection)) };
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || wait_for_signals(&mut signals, &sender))?;
        entrance.read(0, input)?;
        Ok(Self { queue, entrance })
    }

    /// Returns the end by which another connection of the same controller reaches the queue.
    pub(crate) fn entrance(&self) -> Entrance {
        self.entrance.clone()
    }

    /// Returns the next thing to do. Reports silence when no message has arrived for `limit`, whatever this
    /// agent was doing; without a limit it waits for ever.
    pub(crate) fn next(&self, limit: Option<Duration>) -> Incoming {
        loop {
            let heard = self.entrance.connection().heard;
            let received = match limit {
                None => self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(limit) => self.queue.recv_timeout(limit.saturating_sub(heard.elapsed())),
            };
            match received {
                Ok(incoming) => return incoming,
                Err(RecvTimeoutError::Disconnected) => return Incoming::Ended(Ending::Closed),
                Err(RecvTimeoutError::Timeout) => {
                    if self.entrance.connection().heard == heard {
                        return Incoming::Ended(Ending::Silence);
                    }
                }
            }
        }
    }
}

impl Entrance {
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets the agent survive a cut of its connection from now on.
    pub(crate) fn survive(&self, lease: Duration) {
        self.connection().lease = Some(lease);
    }

    /// Ends the run.
    pub(crate) fn end(&self, ending: Ending) {
        // Fails only when the agent has ended.
        let _ = self.queue.send(Incoming::Ended(ending));
    }

    /// Lets another connection take the place of the earlier one. Returns the number of the connection, and that of
    /// the last command that has arrived. Nothing that arrives by the earlier one counts from now on.
    pub(crate) fn replace(&self) -> (u64, u64) {
        let mut connection = self.connection();
        connection.number += 1;
        connection.heard = Instant::now();
        (connection.number, connection.call)
    }

    /// Starts to read the messages of a connection.
    pub(crate) fn read(&self, number: u64, input: impl Read + Send + 'static) -> io::Result<()> {
        let entrance = self.clone();
        thread::Builder::new().name("input".into()).spawn(move || entrance.read_all(number, input))?;
        Ok(())
    }

    fn read_all(&self, number: u64, mut input: impl Read + Send + 'static) {
        loop {
            let message = frame::read::<ToAgent>(&mut input);
            let mut connection = self.connection();
            if connection.number != number {
                return;
            }
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) | Err(FrameError::Channel(_)) => {
                    let is_cut = |lease| is_cut(lease, connection.heard.elapsed());
                    // In the order of connections: a later one waits for the lock.
                    if !connection.lease.is_some_and(is_cut) {
                        self.end(Ending::Closed);
                    }
                    return;
                }
                // What is no message is no controller of this build: the conversation is over.
                Err(_) => return self.end(Ending::Closed),
            };
            connection.heard = Instant::now();
            let incoming = match message {
                ToAgent::Ping { arrived } => {
                    drop(connection);
                    self.outbox.forget(arrived);
                    continue;
                }
                // Repeated, although it has arrived.
                ToAgent::Call { id, .. } if id <= connection.call => continue,
                ToAgent::Call { id, command: Command::Attach { agent } } => {
                    let _ = self.queue.send(Incoming::Attach(id, agent, Input(Box::new(input))));
                    return;
                }
                ToAgent::Call { id, command } => {
                    connection.call = id;
                    Incoming::Call(id, command)
                }
                ToAgent::Release => Incoming::Release,
            };
            let is_last = matches!(incoming, Incoming::Release);
            if self.queue.send(incoming).is_err() || is_last {
                return;
            }
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

    const PING: ToAgent = ToAgent::Ping { arrived: 0 };

    fn open(input: impl Read + Send + 'static) -> Inbox {
        let (outbox, _) = Outbox::open(io::sink()).unwrap();
        Inbox::open(input, outbox).unwrap()
    }

    fn call(id: u64) -> ToAgent {
        ToAgent::Call { id, command: Command::Status }
    }

    #[test]
    fn messages_arrive_in_order_and_then_the_end() {
        let (reader, mut writer) = io::pipe().unwrap();
        let inbox = open(reader);
        frame::write(&mut writer, &PING).unwrap();
        frame::write(&mut writer, &call(7)).unwrap();
        assert!(matches!(inbox.next(None), Incoming::Call(7, Command::Status)));
        drop(writer);
        assert!(matches!(inbox.next(None), Incoming::Ended(Ending::Closed)));
    }

    #[test]
    fn rubbish_ends_the_conversation() {
        let (reader, mut writer) = io::pipe().unwrap();
        let inbox = open(reader);
        writer.write_all(&[1, 0, 0, 0, 0xff]).unwrap();
        assert!(matches!(inbox.next(None), Incoming::Ended(Ending::Closed)));
    }

    #[test]
    fn silence_is_reported_after_the_limit_only() {
        let (reader, mut writer) = io::pipe().unwrap();
        let inbox = open(reader);
        let start = Instant::now();
        let limit = Duration::from_millis(200);
        let beating = thread::spawn(move || {
            for _ in 0..4 {
                thread::sleep(Duration::from_millis(100));
                frame::write(&mut writer, &PING).unwrap();
            }
            writer
        });
        assert!(matches!(inbox.next(Some(limit)), Incoming::Ended(Ending::Silence)));
        assert!(start.elapsed() >= Duration::from_millis(590), "{:?}", start.elapsed());
        drop(beating.join());
    }

    #[test]
    fn end_of_input_after_missed_heartbeats_is_a_cut() {
        let (reader, mut writer) = io::pipe().unwrap();
        let inbox = open(reader);
        let start = Instant::now();
        let limit = Duration::from_millis(400);
        inbox.entrance().survive(limit);
        let cutting = thread::spawn(move || {
            frame::write(&mut writer, &PING).unwrap();
            thread::sleep(Duration::from_millis(250));
        });
        assert!(matches!(inbox.next(Some(limit)), Incoming::Ended(Ending::Silence)));
        assert!(start.elapsed() >= limit, "{:?}", start.elapsed());
        cutting.join().unwrap();
    }

    #[test]
    fn only_the_last_connection_counts_and_commands_are_taken_once() {
        let (reader, mut writer) = io::pipe().unwrap();
        let inbox = open(reader);
        frame::write(&mut writer, &call(1)).unwrap();
        assert!(matches!(inbox.next(None), Incoming::Call(1, _)));
        let (later, mut other) = io::pipe().unwrap();
        let (number, last) = inbox.entrance().replace();
        assert_eq!(last, 1);
        inbox.entrance().read(number, later).unwrap();
        frame::write(&mut writer, &call(2)).unwrap();
        drop(writer);
        for id in [1, 2] {
            frame::write(&mut other, &call(id)).unwrap();
        }
        assert!(matches!(inbox.next(None), Incoming::Call(2, _)));
        drop(other);
        assert!(matches!(inbox.next(None), Incoming::Ended(Ending::Closed)));
    }
}
