//! Channel from an agent to a job: a socket on the job's standard input. The order comes first, with the held
//! descriptors; then controls. A job ends when the channel does, or when it gets a signal.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use zeroize::Zeroizing;

use crate::proto::frame::{self, FrameError, HEADER};
use crate::proto::task::{Control, Order};

/// Maximum number of held descriptors.
const MOST_HELD: usize = 2;

/// Error of an order that cannot be sent or understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    /// The message cannot be sent or understood.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The descriptors do not belong to the order.
    #[error("expected {expected} descriptors with the order, found {found}")]
    Descriptors {
        /// Number of descriptors in the order.
        expected: usize,
        /// Number of descriptors that came.
        found: usize,
    },
}

impl From<io::Error> for ChannelError {
    fn from(error: io::Error) -> Self {
        FrameError::from(error).into()
    }
}

/// Sends an order with the descriptors that it names.
pub(crate) fn send_order(
    channel: &UnixStream,
    order: &Order,
    held: &[BorrowedFd<'_>],
) -> Result<(), ChannelError> {
    if order.held.len() != held.len() || held.len() > MOST_HELD {
        return Err(ChannelError::Descriptors { expected: order.held.len(), found: held.len() });
    }
    // It may contain the key.
    let bytes = Zeroizing::new(frame::encode(order)?);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_HELD))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !held.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(held));
    }
    let sent = sendmsg(channel, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)
        .map_err(io::Error::from)?;
    let mut channel = channel;
    Ok(channel.write_all(&bytes[sent..])?)
}

/// Receives an order with its descriptors. Programs do not inherit them.
pub(super) fn receive_order(channel: &UnixStream) -> Result<(Order, Vec<OwnedFd>), ChannelError> {
    let mut header = [0; HEADER];
    let mut held = Vec::new();
    let mut read = 0;
    while read < HEADER {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_HELD))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut into = [IoSliceMut::new(&mut header[read..])];
        let message = match recvmsg(channel, &mut into, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => continue,
            message => message.map_err(io::Error::from)?,
        };
        for part in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = part {
                held.extend(descriptors);
            }
        }
        if message.bytes == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        read += message.bytes;
    }
    let mut body = Zeroizing::new(vec![0; frame::length(header)?]);
    let mut channel = channel;
    channel.read_exact(&mut body)?;
    let order: Order = frame::decode(&body)?;
    if order.held.len() != held.len() {
        return Err(ChannelError::Descriptors { expected: order.held.len(), found: held.len() });
    }
    Ok((order, held))
}

/// Event that a job has to act upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// Message of the agent.
    Control(Control),
    /// The agent is gone, or someone asked the job to end.
    Stop,
}

/// Controls and signals of a job.
#[derive(Debug)]
pub(super) struct Inbox {
    channel: UnixStream,
    signals: Option<UnixStream>,
    rest: Vec<u8>,
    has_ended: bool,
}

impl Inbox {
    /// Creates an inbox behind the order.
    pub(super) fn new(channel: UnixStream, signals: Option<UnixStream>) -> io::Result<Self> {
        channel.set_nonblocking(true)?;
        Ok(Self { channel, signals, rest: Vec::new(), has_ended: false })
    }

    /// Returns the descriptors that announce events.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        std::iter::once(self.channel.as_fd()).chain(self.signals.as_ref().map(AsFd::as_fd))
    }

    /// Returns the events so far, without waiting.
    pub(super) fn notices(&mut self) -> Vec<Notice> {
        let mut buffer = [0; 4096];
        while !self.has_ended {
            match self.channel.read(&mut buffer) {
                Ok(0) => self.has_ended = true,
                Ok(read) => self.rest.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.has_ended = true,
            }
        }
        let mut notices = Vec::new();
        while let Some(control) = self.next_control() {
            notices.push(Notice::Control(control));
        }
        let has_signal = self
            .signals
            .as_ref()
            .is_some_and(|mut signals| signals.read(&mut buffer).is_ok_and(|read| read > 0));
        if self.has_ended || has_signal {
            notices.push(Notice::Stop);
        }
        notices
    }

    fn next_control(&mut self) -> Option<Control> {
        let header: [u8; HEADER] = self.rest.get(..HEADER)?.try_into().ok()?;
        let decoded = frame::length(header).and_then(|length| {
            let Some(body) = self.rest.get(HEADER..HEADER + length) else { return Ok(None) };
            frame::decode(body).map(|control| Some((control, HEADER + length)))
        });
        match decoded {
            Ok(Some((control, length))) => {
                self.rest.drain(..length);
                Some(control)
            }
            Ok(None) => None,
            // An agent that cannot be understood is none.
            Err(_) => {
                self.rest.clear();
                self.has_ended = true;
                None
            }
        }
    }
}

/// Catches the signals that end a job, and returns the descriptor that announces them. They are not blocked:
/// programs that the job starts would inherit a block.
pub(super) fn signals() -> io::Result<UnixStream> {
    let (announced, announcing) = UnixStream::pair()?;
    announced.set_nonblocking(true)?;
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, announcing.try_clone()?)?;
    }
    Ok(announced)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::secret::Secret;
    use crate::proto::task::{Held, Place, Task};
    use rustix::fs::fstat;
    use std::fs::File;

    fn order(held: Vec<Held>) -> Order {
        Order {
            directory: "/run".into(),
            nice: 0,
            task: Task::Inspect(Place::Root),
            key: Some(Secret::new(vec![b'k'; 100_000])),
            held,
        }
    }

    #[test]
    fn order_arrives_with_its_descriptors_and_controls_follow() {
        let (agent, job) = UnixStream::pair().unwrap();
        let (one, two) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let sent = order(vec![Held::Staging, Held::Source]);
        let receiver = std::thread::spawn(move || {
            let received = receive_order(&job).unwrap();
            (received, Inbox::new(job, None).unwrap())
        });
        send_order(&agent, &sent, &[one.as_fd(), two.as_fd()]).unwrap();
        let ((received, held), mut inbox) = receiver.join().unwrap();
        assert_eq!(received, sent);
        let inode = |file: &dyn AsFd| fstat(file.as_fd()).unwrap().st_ino;
        assert_eq!([inode(&held[0]), inode(&held[1])], [inode(&one), inode(&two)]);

        assert_eq!(inbox.notices(), []);
        frame::write(&mut &agent, &Control::OpenGate).unwrap();
        let rate = frame::encode(&Control::Rate(None)).unwrap();
        (&agent).write_all(&rate[..3]).unwrap();
        assert_eq!(inbox.notices(), [Notice::Control(Control::OpenGate)]);
        (&agent).write_all(&rate[3..]).unwrap();
        drop(agent);
        assert_eq!(inbox.notices(), [Notice::Control(Control::Rate(None)), Notice::Stop]);
    }

    #[test]
    fn order_without_its_descriptors_is_refused() {
        let (agent, job) = UnixStream::pair().unwrap();
        let file = File::open("/dev/null").unwrap();
        assert!(send_order(&agent, &order(vec![Held::Source]), &[]).is_err());
        (&agent)
            .write_all(&frame::encode(&Order { key: None, ..order(vec![Held::Source]) }).unwrap())
            .unwrap();
        assert!(matches!(receive_order(&job), Err(ChannelError::Descriptors { expected: 1, found: 0 })));
        drop((agent, file));
        assert!(receive_order(&job).is_err());
    }

    #[test]
    fn garbage_ends_the_channel() {
        let (agent, job) = UnixStream::pair().unwrap();
        (&agent).write_all(&[0xff; 64]).unwrap();
        assert_eq!(Inbox::new(job, None).unwrap().notices(), [Notice::Stop]);
    }
}
