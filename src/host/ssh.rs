//! Hosts behind SSH: one master connection per host, with a session for each shell.
//!
//! The master is not started by the openssh crate, because it must die with the controller, even on SIGKILL:
//! it runs under `setpriv --pdeathsig`, after a check that the controller still lives. When it dies, the
//! input of every session is closed and the agents roll back.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use md5::{Digest, Md5};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use openssh::{Session, Stdio as SessionStdio};
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::OnceCell;

use super::command::try_login;
use super::{HostError, Process, Shell};
use crate::base::printable::{LONGEST_TEXT, message};
use crate::base::run_id::{hex, random_hex};
use crate::base::trust;
use crate::config::settings::Login;
use crate::proto::attach::beat;

/// Minimum and maximum of ssh's `ConnectTimeout` in seconds; within them it is the time a host may be silent.
const CONNECT_SECONDS: (u64, u64) = (3, 15);
/// Time limit of a login as a whole, authentication included.
const LOGIN_LIMIT: Duration = Duration::from_secs(60);
/// Number of bytes that are kept of the end of ssh's output.
const MOST_WORDS: usize = 16 * 1024;
/// Command for `sh` that becomes ssh, unless the controller (its pid comes first) died before `--pdeathsig`
/// was set.
const WHILE_IT_LIVES: &str = r#"[ "$PPID" = "$0" ] && exec ssh "$@""#;
/// Interval of checks for the master's socket; nothing announces it.
const SOCKET_POLL: Duration = Duration::from_millis(4);

/// Set once stale sockets were removed; once is enough for all connections.
static SWEPT: OnceCell<()> = OnceCell::const_new();

pub(super) type RemoteChild = openssh::Child<Arc<Session>>;

pub(super) struct Connection {
    session: Arc<Session>,
    master: Child,
    _socket: Socket,
}

/// The master's socket. ssh removes it when it ends in order; dropping this removes it when ssh was killed.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("master", &self.master.id()).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects to `[user@]host` with the user's ssh configuration. Retries when the server drops the
    /// connection because of too many concurrent logins (`MaxStartups`).
    pub(super) async fn open(destination: &str, login: &Login, silence: Duration) -> Result<Self, HostError> {
        let patience = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(200))
            .with_max_delay(Duration::from_secs(3))
            .with_max_times(7)
            .with_jitter();
        (|| Self::try_open(destination, login, silence))
            .retry(patience)
            .when(|text| {
                ["Connection closed by", "Connection reset by"].iter().any(|reason| text.contains(reason))
            })
            .await
            .map_err(|text| HostError::Connect {
                host: destination.to_owned(),
                text,
                command: try_login(login, destination),
            })
    }

    async fn try_open(destination: &str, login: &Login, silence: Duration) -> Result<Self, String> {
        let directory = socket_directory().map_err(|error| error.to_string())?;
        SWEPT.get_or_init(|| remove_stale_sockets(&directory)).await;
        let socket = Socket(socket_path(&directory, destination).map_err(|error| error.to_string())?);
        let mut master = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--", "sh", "-c", WHILE_IT_LIVES])
            .arg(std::process::id().to_string())
            .args(["-M", "-N", "-T", "-S"])
            .arg(&socket.0)
            .args(["-o", "ControlPersist=no", "-o", "BatchMode=yes", "-o", "ServerAliveCountMax=3"])
            .args(["-o", "ForwardAgent=no", "-o", "ForwardX11=no", "-o", "ClearAllForwardings=yes"])
            .arg("-o")
            .arg(format!("ServerAliveInterval={}", beat(silence).as_secs().max(1)))
            .args(login.config.iter().flat_map(|file| [OsStr::new("-F"), file.as_os_str()]))
            // ssh uses the first value of an option: the user's options cannot override those above.
            .args(login.options.iter().flat_map(|option| ["-o", option]))
            .arg("-o")
            .arg(format!("ConnectTimeout={}", silence.as_secs().clamp(CONNECT_SECONDS.0, CONNECT_SECONDS.1)))
            .args(["--", destination])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot start setpriv and ssh: {error}"))?;
        // Read to the end: a master that cannot write would hang.
        let said = tokio::spawn(last_words(master.stderr.take()));
        let ready = async {
            loop {
                if socket.0.exists() {
                    return Ok(());
                }
                if master.try_wait().map_err(|error| error.to_string())?.is_some() {
                    return Err(what_ssh_said(&said.await.unwrap_or_default()));
                }
                tokio::time::sleep(SOCKET_POLL).await;
            }
        };
        tokio::time::timeout(LOGIN_LIMIT, ready)
            .await
            .unwrap_or_else(|_| Err(format!("no login within {} s", LOGIN_LIMIT.as_secs())))?;
        let session = Session::resume_mux(socket.0.clone().into_boxed_path(), None);
        Ok(Self { session: Arc::new(session), master, _socket: socket })
    }

    /// Starts a command, as the login shell reads it.
    pub(super) async fn start(&self, command: String) -> io::Result<Shell> {
        let mut child = Arc::clone(&self.session)
            .arc_raw_command(command)
            .stdin(SessionStdio::piped())
            .stdout(SessionStdio::piped())
            .stderr(SessionStdio::null())
            .spawn()
            .await
            .map_err(io::Error::other)?;
        let stdin = child.stdin().take().ok_or(io::ErrorKind::BrokenPipe)?;
        let stdout = child.stdout().take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Shell {
            stdin: Box::new(stdin),
            stdout: BufReader::new(Box::new(stdout)),
            process: Process::Ssh(Box::new(child)),
        })
    }

    /// Stops the master, which removes its socket.
    pub(super) async fn close(mut self) {
        if let Some(pid) = self.master.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = tokio::time::timeout(Duration::from_secs(2), self.master.wait()).await;
    }
}

/// Reads standard error of ssh and returns the end of it.
async fn last_words(stderr: Option<ChildStderr>) -> Vec<u8> {
    let mut said = Vec::new();
    let mut chunk = [0; 4096];
    if let Some(mut stderr) = stderr {
        while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
            said.extend_from_slice(&chunk[..length]);
            said.drain(..said.len().saturating_sub(MOST_WORDS));
        }
    }
    said
}

/// Returns the reason from ssh's standard error: its last line, since banners come first.
#[must_use]
pub fn what_ssh_said(said: &[u8]) -> String {
    let lines: Vec<String> = said
        .split(|&byte| byte == b'\n')
        .map(|line| message(line, LONGEST_TEXT))
        .filter(|line| !line.is_empty())
        .collect();
    match lines.as_slice() {
        [] => "ssh ended without a message".into(),
        [.., before, last] if last.contains("Host key verification failed") => format!("{before} {last}"),
        [.., last] => last.clone(),
    }
}

/// Returns the directory for the masters' sockets, which only this account can enter.
fn socket_directory() -> io::Result<PathBuf> {
    let directory = if Uid::effective().is_root() {
        PathBuf::from("/run/transfer-ssh")
    } else {
        match std::env::var_os("XDG_RUNTIME_DIR") {
            Some(runtime) => Path::new(&runtime).join("transfer-ssh"),
            None => std::env::temp_dir().join(format!("transfer-ssh-{}", Uid::effective())),
        }
    };
    match fs::DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            let text = format!(
                "cannot create the socket directory {}: {error}; set XDG_RUNTIME_DIR to a directory of this \
                 account, or unset it",
                directory.display()
            );
            return Err(io::Error::new(error.kind(), text));
        }
        _ => {}
    }
    let meta = fs::symlink_metadata(&directory)?;
    if !meta.is_dir() || meta.uid() != Uid::effective().as_raw() || meta.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!(
            "{} is not a directory that only this account can access",
            directory.display()
        )));
    }
    // An account that could replace the directory could pose as our masters.
    trust::own_directory(&directory)?;
    Ok(directory)
}

/// Returns a new path for the master's socket. Its length does not depend on the host name: the path of a
/// socket is limited to about 100 bytes.
fn socket_path(directory: &Path, destination: &str) -> io::Result<PathBuf> {
    let host = hex(&Md5::digest(destination.as_bytes())[..6]);
    let random = random_hex::<4>().map_err(|_| io::Error::other("no random numbers"))?;
    Ok(directory.join(format!("{host}-{random}")))
}

/// Removes sockets of masters that were killed: nothing listens on them. ssh listens before it renames the
/// socket to its final name; a temporary name has a suffix after a dot, and is removed only if it is old.
async fn remove_stale_sockets(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let is_old = |path: &Path| {
        let made = fs::symlink_metadata(path).and_then(|meta| meta.modified());
        made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > LOGIN_LIMIT))
    };
    let paths = entries.flatten().map(|entry| entry.path());
    for path in paths.filter(|path| path.extension().is_none() || is_old(path)) {
        match UnixStream::connect(&path).await {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => drop(fs::remove_file(&path)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reason_is_the_last_line_of_ssh() {
        assert_eq!(
            what_ssh_said(b"***\nbanner\nroot@db1: Permission denied (publickey).\r\n"),
            "root@db1: Permission denied (publickey)."
        );
        assert_eq!(what_ssh_said(b""), "ssh ended without a message");
        assert_eq!(
            what_ssh_said(b"No ED25519 host key is known for db1.\nHost key verification failed.\n"),
            "No ED25519 host key is known for db1. Host key verification failed."
        );
    }

    #[tokio::test]
    async fn only_sockets_without_a_listener_are_removed() {
        let directory = tempfile::tempdir().expect("no temporary directory");
        let [dead, live, unfinished] =
            ["0123-dead", "0123-live", "0123-unfinished.Ab12"].map(|name| directory.path().join(name));
        drop(std::os::unix::net::UnixListener::bind(&dead).expect("no socket"));
        drop(std::os::unix::net::UnixListener::bind(&unfinished).expect("no socket"));
        let _listener = std::os::unix::net::UnixListener::bind(&live).expect("no socket");
        remove_stale_sockets(directory.path()).await;
        assert_eq!([dead.exists(), live.exists(), unfinished.exists()], [false, true, true]);
    }
}
