//! Control socket of a run: its controller reaches the agent there by another connection, when its own was cut.
//!
//! Another agent passes on what both of them say. Only the account of the agent can reach the socket, and only the
//! controller of the run has the keys of its conversation.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::process::geteuid;

use super::inbox::{Entrance, Inbox, Incoming, Input};
use super::outbox::Outbox;
use crate::agent::state::{self, Directories};
use crate::proto::attach::{Attach, Attached, Challenge};
use crate::proto::command::Ending;
use crate::proto::frame;
use crate::proto::name::AgentName;
use crate::proto::vault::Vault;

/// Name of the socket in the directory of a run.
const SOCKET: &str = "control";
/// Time for each message of a controller that attaches.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a connection that cannot be accepted.
const PAUSE: Duration = Duration::from_millis(100);
/// Size in bytes of what is passed on at once.
const PART: usize = 64 << 10;

/// Agent of a run, as far as its control socket needs it.
#[derive(Clone)]
pub(super) struct Control {
    /// Keys of the conversation.
    pub(super) vault: Arc<Vault>,
    /// Way into the agent.
    pub(super) entrance: Entrance,
    /// Messages of the agent.
    pub(super) outbox: Outbox,
}

/// Directory of a run, by which its socket is reached whatever the length of its path.
fn through(directory: &Path) -> io::Result<(OwnedFd, String)> {
    let directory = state::open_owned(directory).map_err(io::Error::other)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
    Ok((directory, path))
}

fn is_own(stream: &UnixStream) -> bool {
    getsockopt(stream, PeerCredentials).is_ok_and(|peer| peer.uid() == geteuid().as_raw())
}

impl Control {
    /// Starts to listen in the directory of the run, which goes at its end.
    pub(super) fn listen(self, directory: &Path) -> io::Result<()> {
        let (_directory, path) = through(directory)?;
        let listener = UnixListener::bind(path)?;
        thread::Builder::new().name("control".into()).spawn(move || {
            // One after the other: whoever is not the controller delays it by its patience at most.
            for stream in listener.incoming() {
                match stream {
                    Ok(stream) if is_own(&stream) => {
                        // Whatever failed, its clones must not look like a connection.
                        if self.attach(&stream).is_err() {
                            let _ = stream.shutdown(Shutdown::Both);
                        }
                    }
                    Ok(_) => {}
                    // Without free descriptors.
                    Err(_) => thread::sleep(PAUSE),
                }
            }
        })?;
        Ok(())
    }

    /// Lets a controller go on that proves that it is the one of this conversation.
    fn attach(&self, mut stream: &UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut challenge = [0; 32];
        getrandom::fill(&mut challenge).map_err(io::Error::other)?;
        frame::write(&mut stream, &Challenge(challenge)).map_err(io::Error::other)?;
        let attach = frame::read::<Attach>(&mut stream).map_err(io::Error::other)?;
        let Attach { proof, arrived } = attach.ok_or(io::ErrorKind::UnexpectedEof)?;
        if *self.vault.open(proof).map_err(io::Error::other)? != challenge {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let (input, output) = (stream.try_clone()?, stream.try_clone()?);
        if !self.outbox.has_all_since(arrived) {
            self.entrance.end(Ending::Closed);
            return frame::write(&mut stream, &Attached::Lost).map_err(io::Error::other);
        }
        let (number, call) = self.entrance.replace();
        frame::write(&mut stream, &Attached::Resumed { call }).map_err(io::Error::other)?;
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(None)?;
        self.outbox.replace(number, arrived, output)?;
        self.entrance.read(number, input)
    }
}

/// Connects to the agent of a run.
pub(super) fn connect(directories: &Directories, agent: &AgentName) -> io::Result<UnixStream> {
    let (_directory, path) = through(&directories.run(agent))?;
    let stream = UnixStream::connect(path)?;
    if is_own(&stream) { Ok(stream) } else { Err(io::ErrorKind::PermissionDenied.into()) }
}

/// Passes on everything between a controller and the agent of its run, until one of them ends.
pub(super) fn relay(
    mut stream: UnixStream,
    Input(mut input): Input,
    outbox: &Outbox,
    inbox: &Inbox,
) -> io::Result<()> {
    let mut to_agent = stream.try_clone()?;
    thread::Builder::new().name("relay-in".into()).spawn(move || {
        let _ = io::copy(&mut input, &mut to_agent).and_then(|_| to_agent.flush());
        let _ = to_agent.shutdown(Shutdown::Write);
    })?;
    let (entrance, outbox) = (inbox.entrance(), outbox.clone());
    thread::Builder::new().name("relay-out".into()).spawn(move || {
        let mut part = vec![0; PART];
        while let Ok(read @ 1..) = stream.read(&mut part) {
            outbox.pass_on_slowly(part[..read].to_vec());
        }
        entrance.end(Ending::Closed);
    })?;
    // The end of that, or a signal.
    while !matches!(inbox.next(None), Incoming::Ended(_)) {}
    Ok(())
}
