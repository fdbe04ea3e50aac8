//! Messages of an agent to its controller. Nothing that the agent does waits for the controller to read them.

use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use crate::proto::command::{Event, FromAgent};
use crate::proto::frame;

/// Time for the controller to read the last messages.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Queue of messages, shared by all threads of an agent.
#[derive(Clone, Debug)]
pub(crate) struct Outbox {
    queue: Sender<Item>,
}

#[derive(Debug)]
enum Item {
    Message(FromAgent),
    /// Nothing is written behind this: other threads may still have the queue.
    End,
}

/// End of the queue that reports when everything was written.
#[derive(Debug)]
pub(crate) struct Written(Receiver<()>);

impl Outbox {
    /// Starts to write messages to a channel. A channel that fails swallows all further ones: the end of the
    /// input tells that the controller is gone.
    pub(crate) fn open(mut output: impl Write + Send + 'static) -> io::Result<(Self, Written)> {
        let (queue, items) = mpsc::channel();
        let (done, written) = mpsc::channel();
        thread::Builder::new().name("output".into()).spawn(move || {
            let mut works = true;
            for item in items {
                let Item::Message(message) = item else { break };
                works = works && frame::write(&mut output, &message).is_ok();
            }
            let _ = done.send(());
        })?;
        Ok((Self { queue }, Written(written)))
    }

    /// Queues a message.
    pub(crate) fn send(&self, message: FromAgent) {
        // Fails only when the writer has ended, with the process.
        let _ = self.queue.send(Item::Message(message));
    }

    /// Queues an event.
    pub(crate) fn event(&self, event: Event) {
        self.send(FromAgent::Event(event));
    }

    /// Queues the end.
    pub(crate) fn end(&self) {
        let _ = self.queue.send(Item::End);
    }
}

impl Written {
    /// Waits until everything before the end is written, but not for a controller that does not read.
    pub(crate) fn wait(self) {
        let _ = self.0.recv_timeout(LAST_WORDS);
    }
}
