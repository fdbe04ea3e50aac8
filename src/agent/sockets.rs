//! Sockets of a job on a port.
//!
//! A socket is a process's when one of its descriptors is that socket by inode, and a process is the job's when it
//! has the job's lock file open. Names of processes are never read: their owners choose them.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bstr::ByteSlice as _;
use rustix::fs::{AtFlags, CWD, statat};

use super::holders::socket_inode;
use super::proc::{Process, id, pids};
use crate::proto::sockets::{Connection, PortSocket};

/// Pauses between looks at the tables: the kernel cannot be asked to report a new socket.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
];
/// States of a connection in the kernel's table.
const ESTABLISHED: u8 = 1;
const TIME_WAIT: u8 = 6;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;

/// Error of a look at the sockets of a job.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketsError {
    /// The lock file of the job is missing.
    #[error("cannot examine {}", path.display())]
    Lock {
        /// Path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The processes or connections of the host cannot be listed.
    #[error("cannot list the connections of the host")]
    List(#[source] io::Error),
}

/// Socket that is awaited for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// A listener of the job.
    Listener,
    /// A connection of the job.
    Connection,
}

/// Returns the sockets on an address and port of this host.
pub(crate) fn accepted(
    lock: &Path,
    local: SocketAddr,
    awaited: Awaited,
) -> Result<Vec<PortSocket>, SocketsError> {
    let rows = |ours: &BTreeSet<u64>, entries: Vec<Entry>| -> Vec<PortSocket> {
        entries.iter().filter_map(|entry| entry.accepted(local, ours)).collect()
    };
    let has_arrived = |sockets: &Vec<PortSocket>| {
        sockets.iter().any(|socket| match awaited {
            Awaited::Listener => *socket == PortSocket::Listening,
            Awaited::Connection => matches!(socket, PortSocket::Ours(_)),
        })
    };
    repeat(lock, local.port(), rows, has_arrived)
}

/// Returns the connections of the job to a port of another host.
pub(crate) fn made(lock: &Path, port: u16) -> Result<Vec<Connection>, SocketsError> {
    let rows = |ours: &BTreeSet<u64>, entries: Vec<Entry>| -> Vec<Connection> {
        entries.iter().filter_map(|entry| entry.made(port, ours)).collect()
    };
    repeat(lock, port, rows, |found| !found.is_empty())
}

/// Looks until something has arrived, for a moment at most.
fn repeat<T>(
    lock: &Path,
    port: u16,
    rows: impl Fn(&BTreeSet<u64>, Vec<Entry>) -> T,
    has_arrived: impl Fn(&T) -> bool,
) -> Result<T, SocketsError> {
    let mut pauses = PAUSES.into_iter();
    loop {
        let ours = inodes_of_job(lock)?;
        let found = rows(&ours, entries(port).map_err(SocketsError::List)?);
        match pauses.next() {
            Some(pause) if !has_arrived(&found) => std::thread::sleep(pause),
            _ => return Ok(found),
        }
    }
}

/// Returns the inodes of the sockets of all processes that have the lock file open.
fn inodes_of_job(lock: &Path) -> Result<BTreeSet<u64>, SocketsError> {
    let fail =
        |source: rustix::io::Errno| SocketsError::Lock { path: lock.to_owned(), source: source.into() };
    let wanted = id(&statat(CWD, lock, AtFlags::SYMLINK_NOFOLLOW).map_err(fail)?);
    let name = lock.file_name().unwrap_or_default().as_encoded_bytes();
    let mut inodes = BTreeSet::new();
    for process in pids().map_err(SocketsError::List)?.into_iter().filter_map(Process::open) {
        let (mut is_ours, mut sockets) = (false, Vec::new());
        process.each_descriptor(|number, link| {
            sockets.extend(socket_inode(link));
            // The link only saves most calls: identity decides.
            if !is_ours && link.ends_with(name) {
                is_ours = process.stat_descriptor(number).is_some_and(|stat| id(&stat) == wanted);
            }
            ControlFlow::Continue(())
        });
        if is_ours {
            inodes.extend(sockets);
        }
    }
    Ok(inodes)
}

/// Row of the kernel's table of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    own: SocketAddr,
    peer: SocketAddr,
    state: u8,
    inode: u64,
}

impl Entry {
    /// Parses `NUMBER: OWN PEER STATE QUEUES TIMER RETRANSMITS UID TIMEOUT INODE …`.
    fn parse(row: &[u8]) -> Option<Self> {
        let mut words = row.to_str().ok()?.split_ascii_whitespace().skip(1);
        Some(Self {
            own: address(words.next()?)?,
            peer: address(words.next()?)?,
            state: u8::from_str_radix(words.next()?, 16).ok()?,
            inode: words.nth(5)?.parse().ok()?,
        })
    }

    fn accepted(&self, local: SocketAddr, ours: &BTreeSet<u64>) -> Option<PortSocket> {
        let is_here = self.own.ip() == local.ip().to_canonical() || self.own.ip().is_unspecified();
        if self.own.port() != local.port() || !is_here {
            return None;
        }
        match (ours.contains(&self.inode), self.state) {
            (true, LISTEN) => Some(PortSocket::Listening),
            (false, LISTEN) => Some(PortSocket::Listener(self.own)),
            // Also one whose peer has closed its half, which is still unread.
            (true, ESTABLISHED | CLOSE_WAIT) => Some(PortSocket::Ours(self.peer)),
            // A connection that is over has no process any more; one that no process has accepted has no inode,
            // and is not read.
            (true, _) | (false, TIME_WAIT | CLOSE) => None,
            (false, _) => (self.inode != 0).then_some(PortSocket::Other(self.peer)),
        }
    }

    fn made(&self, port: u16, ours: &BTreeSet<u64>) -> Option<Connection> {
        (self.peer.port() == port && self.state == ESTABLISHED && ours.contains(&self.inode))
            .then_some(Connection { own: self.own, peer: self.peer })
    }
}

/// Returns the rows that name a port at either end.
fn entries(port: u16) -> io::Result<Vec<Entry>> {
    let wanted = format!(":{port:04X} ");
    let mut found = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let content = match std::fs::read(table) {
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            content => content?,
        };
        // Most rows are of others: they are not parsed.
        found.extend(content.lines().filter(|row| row.contains_str(&wanted)).filter_map(Entry::parse));
    }
    Ok(found)
}

/// Parses `ADDRESS:PORT`: words of 32 bits in the processor's order, and a number. An IPv4 address may be mapped
/// into IPv6.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match address.len() {
        8 => IpAddr::from(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (at, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(at * 8)?);
            }
            IpAddr::from(Ipv6Addr::from(bytes))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip.to_canonical(), port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::net::{TcpListener, TcpStream};
    use std::process::{Command, Stdio};

    #[test]
    fn rows_of_both_families_are_parsed() {
        let row = b"   0: 0100007F:0CEA 0200007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 777 1";
        let entry = Entry::parse(row).unwrap();
        assert_eq!(
            (entry.own.to_string(), entry.peer.to_string()),
            ("127.0.0.1:3306".into(), "127.0.0.2:54321".into())
        );
        assert_eq!((entry.state, entry.inode), (1, 777));
        let parsed = |text| address(text).unwrap().to_string();
        assert_eq!(parsed("00000000000000000000000001000000:1130"), "[::1]:4400");
        assert_eq!(parsed("0000000000000000FFFF00000100007F:1130"), "127.0.0.1:4400");
        for malformed in ["", ":", "0100007F", "0100007:0CEA", "0100007G:0CEA", "0100007F:1CEA0"] {
            assert_eq!(address(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn states_and_owners_decide() {
        let ours = BTreeSet::from([7]);
        let local: SocketAddr = "10.0.0.1:4400".parse().unwrap();
        let peer: SocketAddr = "10.0.0.2:5".parse().unwrap();
        let any: SocketAddr = "[::]:4400".parse().unwrap();
        let seen = |own, state, inode| Entry { own, peer, state, inode }.accepted(local, &ours);
        assert_eq!(seen(any, LISTEN, 7), Some(PortSocket::Listening));
        assert_eq!(seen(local, LISTEN, 8), Some(PortSocket::Listener(local)));
        assert_eq!(seen(local, CLOSE_WAIT, 7), Some(PortSocket::Ours(peer)));
        assert_eq!(seen(local, 4, 7), None);
        assert_eq!(seen(local, ESTABLISHED, 8), Some(PortSocket::Other(peer)));
        assert_eq!(seen(local, ESTABLISHED, 0), None);
        assert_eq!(seen(local, TIME_WAIT, 8), None);
        assert_eq!(seen("10.0.0.1:4401".parse().unwrap(), LISTEN, 7), None);
        assert_eq!(seen("10.0.0.3:4400".parse().unwrap(), LISTEN, 7), None);
    }

    #[test]
    fn sockets_of_the_job_are_told_from_those_of_others() {
        let directory = tempfile::tempdir().unwrap();
        let (ours, theirs) = (directory.path().join("receiver.job"), directory.path().join("other.job"));
        let _held = File::create(&ours).unwrap();
        File::create(&theirs).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        assert_eq!(accepted(&ours, local, Awaited::Listener).unwrap(), [PortSocket::Listening]);
        assert_eq!(accepted(&theirs, local, Awaited::Listener).unwrap(), [PortSocket::Listener(local)]);
        let sender = TcpStream::connect(local).unwrap();
        let (_connection, peer) = listener.accept().unwrap();
        let of_job = accepted(&ours, local, Awaited::Connection).unwrap();
        assert!(of_job.contains(&PortSocket::Ours(peer)) && of_job.len() == 2, "{of_job:?}");
        let of_others = accepted(&theirs, local, Awaited::Listener).unwrap();
        assert!(of_others.contains(&PortSocket::Other(peer)) && of_others.len() == 2, "{of_others:?}");
        let own = sender.local_addr().unwrap();
        assert_eq!(made(&ours, local.port()).unwrap(), [Connection { own, peer: local }]);
        assert!(made(&theirs, local.port()).unwrap().is_empty());
    }

    #[test]
    fn program_of_the_job_may_have_any_descriptor_of_its_lock() {
        let directory = tempfile::tempdir().unwrap();
        let lock = directory.path().join("sender.job");
        File::create(&lock).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let local = listener.local_addr().unwrap();
        let script = "use Socket; socket(my $s, AF_INET, SOCK_STREAM, 0); \
            connect($s, pack_sockaddr_in($ARGV[0], inet_aton('127.0.0.1'))) or die; <STDIN>";
        let child = Command::new("sh")
            .args([
                "-c",
                "exec perl -e \"$0\" \"$1\" 77>\"$2\" 2>/dev/null",
                script,
                &local.port().to_string(),
            ])
            .arg(&lock)
            .stdin(Stdio::piped())
            .spawn();
        let Ok(mut child) = child else { return };
        let Ok((_connection, peer)) = listener.accept() else { return };
        let found = made(&lock, local.port()).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(found, [Connection { own: peer, peer: local }]);
    }

    #[test]
    fn missing_lock_is_an_error() {
        assert!(matches!(made(Path::new("/no/such.job"), 1), Err(SocketsError::Lock { .. })));
    }
}
