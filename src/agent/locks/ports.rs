//! Ports: the first one of a range on which no process listens, and that neither another run nor transferpy has
//! locked.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::geteuid;

use super::{Lock, LockError, PATIENCE, Wait, port_lock};
use crate::agent::state::Directories;
use crate::proto::HostBytes;
use crate::proto::locks::{IgnoredLock, PortsBusy};

/// State of a listening socket in the kernel's tables.
const LISTEN: &[u8] = b"0A";
/// Directory in which transferpy locks ports.
const TRANSFERPY: &str = "/tmp";
/// Tables of sockets.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// Error of a port that was not leased.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PortError {
    /// No port of the range is free.
    #[error("no free port: {0}")]
    Busy(PortsBusy),
    /// Ports cannot be locked.
    #[error(transparent)]
    Lock(LockError),
    /// The sockets of the host cannot be listed.
    #[error("cannot list the listening sockets of the host: {0}")]
    List(io::Error),
}

/// Port that this run has locked.
#[derive(Debug)]
pub(crate) struct PortLease {
    /// Port.
    pub(crate) port: u16,
    /// Lock, which the rollback removes.
    #[cfg_attr(not(test), expect(dead_code, reason = "held as long as the agent runs"))]
    pub(crate) lock: Lock,
    /// Name that looks like a lock of transferpy for this port, and is none.
    pub(crate) ignored: Option<IgnoredLock>,
}

/// Ports that names of transferpy's locks claim.
#[derive(Debug, Default)]
struct Claims {
    locked: BTreeMap<u16, HostBytes>,
    ignored: BTreeMap<u16, IgnoredLock>,
}

/// Locks the first free port of a range. The caller writes the undo before it uses the port; a lock file without
/// a record does no harm.
pub(crate) fn lease_port(
    directories: &Directories,
    range: RangeInclusive<u16>,
) -> Result<PortLease, PortError> {
    lease(directories, range, &mut listening, Path::new(TRANSFERPY))
}

fn lease(
    directories: &Directories,
    range: RangeInclusive<u16>,
    listening: &mut dyn FnMut() -> io::Result<PortSet>,
    transferpy: &Path,
) -> Result<PortLease, PortError> {
    // A clean-up may hold a lock for a moment; from a range another port is taken instead.
    let wait = if range.start() == range.end() { PATIENCE } else { Wait::No };
    let mut busy = PortsBusy::default();
    let in_use = listening().map_err(PortError::List)?;
    let mut claims = claims(transferpy, &range);
    for port in range {
        busy.tried += 1;
        if in_use.contains(port) {
            busy.in_use += 1;
            continue;
        }
        if let Some(path) = claims.locked.remove(&port) {
            busy.transferpy.get_or_insert(path);
            continue;
        }
        let lock = match Lock::take(directories, &port_lock(port), wait) {
            Err(LockError::Held { .. }) => {
                busy.held += 1;
                continue;
            }
            taken => taken.map_err(PortError::Lock)?,
        };
        // Its last owner may have begun to listen before this run had the lock.
        match listening() {
            Ok(in_use) if !in_use.contains(port) => {
                return Ok(PortLease { port, lock, ignored: claims.ignored.remove(&port) });
            }
            Ok(_) => {
                lock.remove();
                busy.in_use += 1;
            }
            Err(error) => {
                lock.remove();
                return Err(PortError::List(error));
            }
        }
    }
    Err(PortError::Busy(busy))
}

/// Set of ports.
struct PortSet(Box<[u64; 1024]>);

impl PortSet {
    fn insert(&mut self, port: u16) {
        self.0[usize::from(port) / 64] |= 1 << (port % 64);
    }

    fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port) / 64] >> (port % 64) & 1 == 1
    }
}

/// Returns the ports on which any process listens.
fn listening() -> io::Result<PortSet> {
    let mut ports = PortSet(Box::new([0; 1024]));
    for table in TABLES {
        match File::open(table) {
            Ok(table) => add_listening(BufReader::new(table), &mut ports)?,
            // A host without IPv6 has no second table.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table == TABLES[1] => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ports)
}

/// Adds the ports of listening sockets in a table of the kernel: `SLOT: ADDRESS:PORT PEER:PORT STATE …`.
fn add_listening(mut table: impl BufRead, ports: &mut PortSet) -> io::Result<()> {
    let mut line = Vec::new();
    while table.read_until(b'\n', &mut line)? > 0 {
        let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty()).skip(1);
        let (own, state) = (fields.next(), fields.nth(1));
        let port = own.and_then(|own| own.rsplit(|&byte| byte == b':').next());
        let port = port.and_then(|port| std::str::from_utf8(port).ok());
        if let (Some(port), Some(LISTEN)) = (port.and_then(|port| u16::from_str_radix(port, 16).ok()), state)
        {
            ports.insert(port);
        }
        line.clear();
    }
    Ok(())
}

/// Returns the ports of a range that transferpy has locked. It makes directories, as root; names that other
/// accounts choose keep no run from a port.
fn claims(directory: &Path, range: &RangeInclusive<u16>) -> Claims {
    let mut claims = Claims::default();
    let Ok(entries) = fs::read_dir(directory) else { return claims };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(port) = claimed(name.as_bytes()).filter(|port| range.contains(port)) else { continue };
        // Of a link itself, too.
        let Ok(found) = entry.metadata() else { continue };
        let path: PathBuf = entry.path();
        if found.is_dir() && (found.uid() == 0 || found.uid() == geteuid().as_raw()) {
            claims.locked.insert(port, HostBytes::from(&path));
        } else {
            claims.ignored.insert(port, IgnoredLock { path: HostBytes::from(&path), uid: found.uid() });
        }
    }
    claims
}

/// Returns the port in a name such as `trnsfr_HOST_4400.lock`.
fn claimed(name: &[u8]) -> Option<u16> {
    let name = name.strip_prefix(b"trnsfr_")?.strip_suffix(b".lock")?;
    // The host may be empty: then the first underscore is in front of the port.
    let digits =
        name.rsplit(|&byte| byte == b'_').next().filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::fs::symlink;

    use super::*;

    struct Host {
        scratch: tempfile::TempDir,
        directories: Directories,
    }

    fn host() -> Host {
        let scratch = tempfile::tempdir().unwrap();
        let directories = Directories::at(scratch.path().join("state"), scratch.path().join("run"));
        Host { scratch, directories }
    }

    impl Host {
        fn lease(&self, range: RangeInclusive<u16>, in_use: &[u16]) -> Result<PortLease, PortError> {
            let mut listening = || {
                let mut ports = PortSet(Box::new([0; 1024]));
                for &port in in_use {
                    ports.insert(port);
                }
                Ok(ports)
            };
            lease(&self.directories, range, &mut listening, self.scratch.path())
        }
    }

    fn busy(result: Result<PortLease, PortError>) -> String {
        let Err(PortError::Busy(busy)) = result else { panic!("{result:?}") };
        busy.to_string()
    }

    #[test]
    fn first_free_port_is_locked() {
        let host = host();
        let first = host.lease(4400..=4403, &[4400]).unwrap();
        let second = host.lease(4400..=4403, &[4400]).unwrap();
        assert_eq!((first.port, second.port), (4401, 4402));
        assert!(first.lock.path().ends_with("port.4401"));
        assert_eq!(busy(host.lease(4400..=4402, &[4400])), "1 in use, 2 held by other runs");
        assert_eq!(busy(host.lease(4400..=4400, &[4400])), "in use");
        assert_eq!(busy(host.lease(4401..=4401, &[])), "held by other runs");
        drop(first);
        assert_eq!(host.lease(4401..=4401, &[]).unwrap().port, 4401);
    }

    #[test]
    fn port_is_checked_again_under_its_lock() {
        let host = host();
        let mut lists = [vec![], vec![5000], vec![5000]].into_iter();
        let mut listening = || {
            let mut ports = PortSet(Box::new([0; 1024]));
            lists.next().unwrap().into_iter().for_each(|port| ports.insert(port));
            Ok(ports)
        };
        let lease = lease(&host.directories, 5000..=5001, &mut listening, host.scratch.path()).unwrap();
        assert_eq!(lease.port, 5001);
        assert!(!host.directories.runtime().join("port.5000").exists());
    }

    #[test]
    fn only_directories_of_root_are_locks_of_transferpy() {
        let host = host();
        let at = |name: &str| host.scratch.path().join(name);
        fs::create_dir(at("trnsfr_db9_4400.lock")).unwrap();
        fs::write(at("trnsfr_x_4401.lock"), "").unwrap();
        symlink("/etc", at("trnsfr_x_4402.lock")).unwrap();
        let lease = host.lease(4400..=4403, &[]).unwrap();
        let path = HostBytes::from(&at("trnsfr_x_4401.lock"));
        assert_eq!((lease.port, lease.ignored), (4401, Some(IgnoredLock { path, uid: geteuid().as_raw() })));
        let lease = host.lease(4402..=4403, &[]).unwrap();
        assert!(lease.port == 4402 && lease.ignored.is_some());
        let reason = busy(host.lease(4400..=4400, &[]));
        assert!(reason.starts_with("locked by transferpy: /") && reason.ends_with("4400.lock"), "{reason}");
        if geteuid().is_root() {
            std::os::unix::fs::lchown(at("trnsfr_db9_4400.lock"), Some(65534), None).unwrap();
            assert_eq!(host.lease(4400..=4400, &[]).unwrap().ignored.unwrap().uid, 65534);
        }
    }

    #[test]
    fn ports_in_names_are_parsed() {
        assert_eq!(claimed(b"trnsfr_db1_4400.lock"), Some(4400));
        assert_eq!(claimed(b"trnsfr__04400.lock"), Some(4400));
        for name in
            ["trnsfr_db1_.lock", "trnsfr_db1_99999.lock", "trnsfr_db1_44x.lock", "trnsfr_1.lockx", "x"]
        {
            assert_eq!(claimed(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn listeners_are_found_in_the_tables_of_the_kernel() {
        let (v4, v6) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("[::1]:0"));
        let ports = listening().unwrap();
        assert!(ports.contains(v4.local_addr().unwrap().port()));
        // A host without IPv6 cannot have the second.
        assert!(v6.map_or(true, |v6| ports.contains(v6.local_addr().unwrap().port())));
        let mut ports = PortSet(Box::new([0; 1024]));
        let table = b"  sl  local_address rem_address   st\n   0: 0100007F:1130 00000000:0000 0A 0 0\n   \
            1: 0100007F:1131 0100007F:0A0A 01 0 0\n0A\n\xff:zz 0A 0A 0A\n";
        add_listening(&table[..], &mut ports).unwrap();
        assert!(ports.contains(4400) && !ports.contains(4401));
    }
}
