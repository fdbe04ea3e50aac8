//! Sockets on which servers listen.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::agent::proc::Process;

/// Maximum time for a listener to accept the connection.
const LIMIT: Duration = Duration::from_secs(10);
/// Flag of a socket that accepts connections.
const ACCEPTS: u32 = 0x10000;

/// Returns a socket on which one of these processes listens: the preferred one if it is among them. `None` where
/// that cannot be seen.
pub(crate) fn socket_of(preferred: &Path, pids: &[u32]) -> Option<PathBuf> {
    let table = std::fs::read("/proc/net/unix").ok()?;
    let all = listening(&table, &sockets_of(pids));
    // Whoever has put a newline in the name of a socket can forge a row: who listens decides. For a socket unit
    // that is systemd.
    let is_theirs = |path: &&PathBuf| listener(path).is_some_and(|pid| pid == 1 || pids.contains(&pid));
    let (first, others): (Vec<_>, Vec<_>) = all.iter().partition(|path| *path == preferred);
    // The sockets of the X Plugin speak another protocol.
    let others =
        others.into_iter().filter(|path| !path.as_os_str().as_bytes().windows(6).any(|w| w == b"mysqlx"));
    first.into_iter().chain(others).find(is_theirs).cloned()
}

/// Returns the inodes of the sockets that processes have.
fn sockets_of(pids: &[u32]) -> BTreeSet<u64> {
    let mut inodes = BTreeSet::new();
    for process in pids.iter().filter_map(|pid| Process::open(*pid)) {
        process.each_descriptor(|_, link| {
            inodes.extend(socket_inode(link));
            ControlFlow::Continue(())
        });
    }
    inodes
}

/// Returns the inode in the link of a socket, `socket:[INODE]`.
pub(crate) fn socket_inode(link: &[u8]) -> Option<u64> {
    let number = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// Returns the paths of listening sockets with these inodes, in the order of the inodes.
fn listening(table: &[u8], inodes: &BTreeSet<u64>) -> Vec<PathBuf> {
    let mut found: BTreeMap<u64, Vec<PathBuf>> = BTreeMap::new();
    for line in table.split(|&byte| byte == b'\n') {
        if let Some((inode, path)) = row(line).filter(|(inode, _)| inodes.contains(inode)) {
            found.entry(inode).or_default().push(path);
        }
    }
    found.into_values().flatten().collect()
}

/// Parses `NUMBER: REFERENCES PROTOCOL FLAGS TYPE STATE INODE PATH` of a listening stream socket.
fn row(line: &[u8]) -> Option<(u64, PathBuf)> {
    let mut words = line.splitn(7, |&byte| byte == b' ');
    let text = |word: Option<&[u8]>| Some(std::str::from_utf8(word?).ok()?.to_owned());
    let flags = u32::from_str_radix(&text(words.nth(3))?, 16).ok()?;
    let is_stream = words.next()? == b"0001";
    words.next()?;
    let rest = words.next()?.trim_ascii_start();
    let end = rest.iter().position(|&byte| byte == b' ')?;
    let inode = text(rest.get(..end))?.parse().ok()?;
    let path = &rest[end + 1..];
    (is_stream && flags & ACCEPTS != 0 && path.starts_with(b"/"))
        .then(|| (inode, PathBuf::from(OsStr::from_bytes(path))))
}

/// Returns the process that listens on a socket, by the kernel's word.
fn listener(path: &Path) -> Option<u32> {
    let address = SocketAddrUnix::new(path).ok()?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).ok()?;
    // A connection waits as long as the listener's queue is full.
    set_socket_timeout(&socket, Timeout::Send, Some(LIMIT)).ok()?;
    connect(&socket, &address).ok()?;
    u32::try_from(getsockopt(&socket, PeerCredentials).ok()?.pid()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn rows_of_listening_sockets_are_parsed() {
        let line = b"00000000f1a2b3c4: 00000002 00000000 00010000 0001 01  16213 /run/a b/mysqld.sock";
        assert_eq!(row(line), Some((16213, PathBuf::from("/run/a b/mysqld.sock"))));
        for other in [
            &b"Num       RefCount Protocol Flags    Type St Inode Path"[..],
            b"0: 00000002 00000000 00000000 0001 03  16213 /run/connected",
            b"0: 00000002 00000000 00010000 0005 01  16213 /run/seqpacket",
            b"0: 00000002 00000000 00010000 0001 01  16213 @abstract",
            b"0: 00000002 00000000 00010000 0001 01  16213",
            b"",
        ] {
            assert_eq!(row(other), None, "{}", String::from_utf8_lossy(other));
        }
    }

    #[test]
    fn own_listener_is_found_and_the_preferred_one_first() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["mysqlx.sock", "b.sock", "a.sock"].map(|name| directory.path().join(name));
        let listeners = paths.each_ref().map(|path| UnixListener::bind(path).unwrap());
        let pids = [std::process::id()];
        assert_eq!(socket_of(&paths[2], &pids), Some(paths[2].clone()));
        assert_eq!(socket_of(&paths[0], &pids), Some(paths[0].clone()));
        let any = socket_of(Path::new(""), &pids).unwrap();
        assert!(paths[1..].contains(&any), "{}", any.display());
        assert_eq!(socket_of(&paths[2], &[u32::MAX]), None);
        drop(listeners);
        assert_eq!(socket_of(&paths[2], &pids), None);
    }
}
