//! Messages of an agent to its controller. Nothing that the agent does waits for the controller to read them.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::proto::command::{Event, FromAgent};
use crate::proto::frame;

/// Time for the controller to read the last messages.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Size in bytes from which on a relay waits for its controller.
const MOST_WAITING: usize = 1 << 20;
/// Maximum size in bytes of messages that are kept for another connection. Behind a longer gap the conversation does
/// not go on.
const MOST_KEPT: usize = 8 << 20;

/// Queue of messages, shared by all threads of an agent.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    shared: Arc<(Mutex<Queue>, Condvar)>,
}

/// End of the queue that reports when everything was written.
#[derive(Debug)]
pub(crate) struct Written(Outbox);

#[derive(Debug, Default)]
struct Queue {
    /// Encoded messages, from this number on.
    messages: VecDeque<Vec<u8>>,
    first: u64,
    /// Number of the message that is written next.
    next: u64,
    /// Number of the connection that is written to.
    connection: u64,
    /// The connection has failed.
    is_broken: bool,
    /// Messages are kept until they have arrived.
    keeps: bool,
    /// Size of all messages in bytes.
    size: usize,
    /// Nothing is written behind the last message: other threads may still have the queue.
    is_over: bool,
}

impl Outbox {
    /// Starts to write messages to a channel. A channel that fails swallows all further ones, unless they are kept:
    /// the end of the input tells that the controller is gone.
    pub(crate) fn open(output: impl Write + Send + 'static) -> io::Result<(Self, Written)> {
        let outbox = Self { shared: Arc::default() };
        outbox.write(0, output)?;
        let written = Written(outbox.clone());
        Ok((outbox, written))
    }

    /// Queues a message.
    pub(crate) fn send(&self, message: FromAgent) {
        match frame::encode(&message) {
            Ok(bytes) => self.pass_on(bytes),
            // Without it the conversation makes no sense.
            Err(_) => self.change(|queue| queue.is_over = true),
        }
    }

    /// Queues an event.
    pub(crate) fn event(&self, event: Event) {
        self.send(FromAgent::Event(event));
    }

    /// Queues bytes of another agent's messages.
    pub(crate) fn pass_on(&self, bytes: Vec<u8>) {
        self.change(|queue| {
            if !queue.is_over {
                queue.size += bytes.len();
                queue.messages.push_back(bytes);
            }
        });
    }

    /// As [`Outbox::pass_on`], but waits as long as much is queued.
    pub(crate) fn pass_on_slowly(&self, bytes: Vec<u8>) {
        let mut queue = self.lock();
        while queue.size > MOST_WAITING && !queue.is_broken {
            queue = self.shared.1.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        drop(queue);
        self.pass_on(bytes);
    }

    /// Queues the end.
    pub(crate) fn end(&self) {
        self.change(|queue| queue.is_over = true);
    }

    /// Keeps messages from now on until they have arrived, for a connection that may be cut.
    pub(crate) fn keep(&self) {
        self.change(|queue| queue.keeps = true);
    }

    /// Forgets messages that have arrived.
    pub(crate) fn forget(&self, arrived: u64) {
        self.change(|queue| queue.forget(arrived));
    }

    /// Returns whether all messages are there that follow those that have arrived.
    pub(crate) fn has_all_since(&self, arrived: u64) -> bool {
        let queue = self.lock();
        queue.keeps && (queue.first..=queue.next).contains(&arrived)
    }

    /// Lets another connection take the place of the earlier one, behind the messages that have arrived.
    pub(crate) fn replace(
        &self,
        connection: u64,
        arrived: u64,
        output: impl Write + Send + 'static,
    ) -> io::Result<()> {
        self.change(|queue| {
            queue.forget(arrived);
            (queue.connection, queue.next, queue.is_broken) = (connection, queue.first, false);
        });
        self.write(connection, output).inspect_err(|_| self.change(|queue| queue.is_broken = true))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Queue)) {
        let mut queue = self.lock();
        change(&mut queue);
        queue.limit();
        self.shared.1.notify_all();
    }

    /// Starts to write the messages of a connection. A thread that cannot go on writing to an earlier one stays.
    fn write(&self, connection: u64, mut output: impl Write + Send + 'static) -> io::Result<()> {
        let outbox = self.clone();
        thread::Builder::new().name("output".into()).spawn(move || {
            while let Some(bytes) = outbox.next(connection) {
                if output.write_all(&bytes).and_then(|()| output.flush()).is_err() {
                    outbox.change(|queue| queue.is_broken |= queue.connection == connection);
                    return;
                }
            }
        })?;
        Ok(())
    }

    /// Waits for the next message of a connection; `None` behind the last one, or if there is another connection.
    fn next(&self, connection: u64) -> Option<Vec<u8>> {
        let mut queue = self.lock();
        loop {
            if queue.connection != connection {
                return None;
            }
            if let Some(bytes) = queue.take() {
                self.shared.1.notify_all();
                return Some(bytes);
            }
            if queue.is_over {
                queue.is_broken = true;
                self.shared.1.notify_all();
                return None;
            }
            queue = self.shared.1.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Queue {
    /// Takes the message that is written next.
    fn take(&mut self) -> Option<Vec<u8>> {
        let at = usize::try_from(self.next.checked_sub(self.first)?).ok()?;
        let bytes = if self.keeps { self.messages.get(at)?.clone() } else { self.pop()? };
        self.next += 1;
        Some(bytes)
    }

    /// Forgets messages up to this number that were written.
    fn forget(&mut self, arrived: u64) {
        while self.first < arrived.min(self.next) {
            if self.pop().is_none() {
                return;
            }
        }
    }

    fn pop(&mut self) -> Option<Vec<u8>> {
        let bytes = self.messages.pop_front()?;
        self.size = self.size.saturating_sub(bytes.len());
        self.first += 1;
        Some(bytes)
    }

    /// Keeps memory bounded: forgets what no connection gets any more.
    fn limit(&mut self) {
        if self.keeps && self.size > MOST_KEPT {
            self.keeps = false;
            self.forget(self.next);
        }
        if self.is_broken && !self.keeps {
            self.messages.clear();
            self.size = 0;
        }
    }
}

impl Written {
    /// Waits until everything before the end is written, but not for a controller that does not read.
    pub(crate) fn wait(self) {
        let deadline = Instant::now() + LAST_WORDS;
        let (_, changed) = &*self.0.shared;
        let mut queue = self.0.lock();
        while !queue.is_broken {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
            queue = changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeReader, pipe};

    fn read(input: &mut PipeReader) -> Option<FromAgent> {
        frame::read(input).unwrap()
    }

    fn event(number: u32) -> Event {
        Event::Ending(if number % 2 == 0 {
            crate::proto::command::Ending::Silence
        } else {
            crate::proto::command::Ending::Closed
        })
    }

    #[test]
    fn messages_that_have_not_arrived_are_repeated_to_the_next_connection() {
        let (mut input, output) = pipe().unwrap();
        let (outbox, written) = Outbox::open(output).unwrap();
        outbox.event(event(0));
        assert_eq!(read(&mut input), Some(FromAgent::Event(event(0))));
        outbox.keep();
        for number in 1..4 {
            outbox.event(event(number));
        }
        assert_eq!(read(&mut input), Some(FromAgent::Event(event(1))));
        drop(input);
        outbox.event(event(4));
        let (mut input, output) = pipe().unwrap();
        assert!(outbox.has_all_since(2));
        outbox.replace(1, 2, output).unwrap();
        outbox.end();
        written.wait();
        for number in 2..5 {
            assert_eq!(read(&mut input), Some(FromAgent::Event(event(number))));
        }
        assert_eq!(read(&mut input), None);
    }

    #[test]
    fn conversation_without_its_messages_does_not_go_on() {
        let (mut input, output) = pipe().unwrap();
        let (outbox, _) = Outbox::open(output).unwrap();
        outbox.event(event(0));
        assert_eq!(read(&mut input), Some(FromAgent::Event(event(0))));
        assert!(!outbox.has_all_since(1), "nothing was kept");
        outbox.keep();
        assert!(!outbox.has_all_since(0), "the first one is lost");
        assert!(!outbox.has_all_since(9), "there are not as many");
        assert!(outbox.has_all_since(1));
    }

    #[test]
    fn controller_that_reads_nothing_costs_bounded_memory() {
        let (input, output) = pipe().unwrap();
        let (outbox, _) = Outbox::open(output).unwrap();
        outbox.keep();
        drop(input);
        for _ in 0..(MOST_KEPT >> 16) + 10 {
            outbox.pass_on(vec![0; 1 << 16]);
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        while !outbox.lock().messages.is_empty() {
            assert!(Instant::now() < deadline, "{} messages", outbox.lock().messages.len());
            outbox.forget(0);
            thread::sleep(Duration::from_millis(5));
        }
    }
}
