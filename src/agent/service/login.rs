//! Checks of sockets and files of options before a login. It may carry the password of a database's
//! administrator: that goes only to a listener whose account is a server's, on a path that no other account
//! can change.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::proto::HostBytes;
use crate::proto::server::Login;

use super::{Service, SharedComponent};

/// Maximum time for a listener to take a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Interval of the attempts to connect to a listener whose queue is full. Nothing reports that it has room
/// again.
const CONNECT_INTERVAL: Duration = Duration::from_millis(50);

/// Reason why a login is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    /// The socket is unknown.
    #[error("no socket of the server is known; name its unit with --unit")]
    NoSocket,
    /// No client is installed.
    #[error("neither mariadb nor mysql is installed; install mariadb-client")]
    NoClient,
    /// Nothing takes a connection.
    #[error("cannot connect to the server through {socket}: {source}")]
    Connect {
        /// Socket.
        socket: HostBytes,
        /// Cause.
        source: io::Error,
    },
    /// Another account listens.
    #[error(
        "no login to {socket}: {account} listens there, which is no account of a database server; end that \
         process, or name the server's own socket, or its unit with --unit"
    )]
    Listener {
        /// Socket.
        socket: HostBytes,
        /// Account that listens.
        account: String,
    },
    /// The owners of the path are unknown.
    #[error("no login with {path}: cannot determine who can replace it: {source}")]
    Unknown {
        /// Socket or file.
        path: HostBytes,
        /// Cause.
        source: io::Error,
    },
    /// Other accounts can replace the socket.
    #[error(
        "no login to {socket}: accounts other than its server's can replace it through {} ({}); put the \
         server's socket into a directory of its own",
        HostBytes::from(&component.path), owner(component)
    )]
    SharedSocket {
        /// Socket.
        socket: HostBytes,
        /// Component that they can replace.
        component: Box<SharedComponent>,
    },
    /// Other accounts can replace the file of options.
    #[error(
        "--defaults-file {file}: other accounts can replace it through {} ({}); give that to root and run \
         chmod go-w on it",
        HostBytes::from(&component.path), owner(component)
    )]
    SharedFile {
        /// File.
        file: HostBytes,
        /// Component that they can replace.
        component: Box<SharedComponent>,
    },
    /// Other accounts can write to the file of options.
    #[error(
        "--defaults-file {file}: other accounts can write to it (mode {mode:04o}); run chmod go-w {file}"
    )]
    WritableFile {
        /// File.
        file: HostBytes,
        /// Permission bits.
        mode: u32,
    },
}

fn owner(component: &SharedComponent) -> String {
    format!("owner {}, mode {:04o}", component.owner, component.mode)
}

impl Service<'_> {
    /// Checks that a login may be made: right before it, since it holds only until the server is started
    /// again. The account of `unit` may listen, too.
    pub(crate) fn vouch(&self, login: &Login, unit: Option<&str>) -> Result<(), LoginError> {
        self.vouch_for_file(&login.defaults_file)?;
        self.vouch_for_socket(&login.socket, unit)
    }

    fn vouch_for_socket(&self, socket: &HostBytes, unit: Option<&str>) -> Result<(), LoginError> {
        if socket.is_empty() {
            return Err(LoginError::NoSocket);
        }
        let found = listener(socket.as_path(), CONNECT_LIMIT);
        let listener = found.map_err(|source| LoginError::Connect { socket: socket.clone(), source })?;
        let servers = self.server_accounts(unit);
        if !servers.contains(&listener) {
            let account = self.account_name(listener);
            return Err(LoginError::Listener { socket: socket.clone(), account });
        }
        // Where systemd listens for a server, the directory may be the server's.
        let may_replace = if listener == 0 { servers } else { vec![listener] };
        match self.surroundings.shared_component(socket.as_path(), &may_replace) {
            Ok(None) => Ok(()),
            Ok(Some(component)) => {
                Err(LoginError::SharedSocket { socket: socket.clone(), component: component.into() })
            }
            Err(source) => Err(LoginError::Unknown { path: socket.clone(), source }),
        }
    }

    /// Checks that a file of options is under the control of root and the login alone.
    fn vouch_for_file(&self, file: &HostBytes) -> Result<(), LoginError> {
        // The client reports one that is missing.
        let Ok(metadata) = fs::metadata(file.as_path()) else { return Ok(()) };
        let path = std::path::absolute(file.as_path()).unwrap_or_else(|_| PathBuf::from(file.clone()));
        match self.surroundings.shared_component(&path, &[]) {
            Err(source) => return Err(LoginError::Unknown { path: file.clone(), source }),
            Ok(Some(component)) => {
                return Err(LoginError::SharedFile { file: file.clone(), component: component.into() });
            }
            Ok(None) => {}
        }
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o022 == 0 { Ok(()) } else { Err(LoginError::WritableFile { file: file.clone(), mode }) }
    }
}

/// Returns the account that listens on a socket, by the kernel's word.
fn listener(path: &Path, limit: Duration) -> io::Result<u32> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let deadline = Instant::now() + limit;
    loop {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        match connect(&socket, &address) {
            // The process may have no number here, if it is in another namespace.
            Ok(()) => return Ok(getsockopt(&socket, PeerCredentials)?.uid()),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) if Instant::now() < deadline => {
                std::thread::sleep(CONNECT_INTERVAL);
            }
            Err(rustix::io::Errno::AGAIN) => {
                return Err(io::Error::new(ErrorKind::TimedOut, "the listener takes no connection"));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::service::tests::{Fake, login};
    use std::os::unix::net::UnixListener;

    fn refusal(fake: &Fake, login: &Login) -> String {
        fake.service().vouch(login, None).unwrap_err().to_string()
    }

    #[test]
    fn own_listener_on_a_path_of_its_own_is_vouched_for() {
        let fake = Fake::new();
        let path = fake.path("s.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        fake.service().vouch(&login(&path), None).unwrap();
        fake.share(&path);
        let text = refusal(&fake, &login(&path));
        assert!(text.contains("can replace it through /shared (owner eve, mode 1777)"), "{text}");
    }

    #[test]
    fn missing_closed_and_stale_sockets_are_refused() {
        let fake = Fake::new();
        assert!(refusal(&fake, &login("")).contains("no socket of the server is known"));
        let path = fake.path("s.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(refusal(&fake, &login(&path)).contains("Connection refused"));
        assert!(refusal(&fake, &login(&fake.path("none"))).contains("No such file"));
        let long = fake.path(&"x".repeat(200));
        assert!(refusal(&fake, &login(&long)).contains("cannot connect"));
    }

    #[test]
    fn full_queue_ends_at_the_time_limit() {
        let fake = Fake::new();
        let path = fake.path("s.sock");
        let listening =
            socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&listening, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&listening, 0).unwrap();
        let _first = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let error = listener(&path, Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
    }

    #[test]
    fn listener_of_another_account_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let fake = Fake::new();
        let path = fake.path("s.sock");
        fake.listen_as(65534, &path);
        let text = refusal(&fake, &login(&path));
        assert!(text.contains("nobody listens there, which is no account of a database server"), "{text}");
    }

    #[test]
    fn file_of_options_must_be_under_control() {
        let fake = Fake::new();
        let socket = fake.path("s.sock");
        let _listener = UnixListener::bind(&socket).unwrap();
        let file = fake.path("my.cnf");
        let with_file = Login { defaults_file: HostBytes::from(&file), ..login(&socket) };
        // The client reports it.
        fake.service().vouch(&with_file, None).unwrap();
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o660)).unwrap();
        assert!(refusal(&fake, &with_file).contains("other accounts can write to it (mode 0660)"));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fake.service().vouch(&with_file, None).unwrap();
        fake.share(&file);
        assert!(refusal(&fake, &with_file).contains("other accounts can replace it through /shared"));
    }
}
