//! A host behind SSH: one master connection of our own, and a session on it for each shell.
//!
//! The master is started by hand and not by the crate, so that it dies with the controller, even by SIGKILL
//! (`setpriv --pdeathsig`, and a look at whether the controller had died before that); then every session's input ends and
//! the agents undo what they did.

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
use super::wire::{LONGEST_TEXT, short};
use super::{HostError, Process, ROOT_SHELL, Shell};
use crate::run_id::{hex, random_hex};
use crate::settings::Login;
use crate::trust;

/// Seconds that TCP and the SSH handshake may take, at least and at most; in between, as long as the host may be silent.
const CONNECT_SECONDS: (u64, u64) = (3, 15);
/// The longest that a login may take as a whole, authentication included.
const LOGIN_LIMIT: Duration = Duration::from_secs(60);
/// Of what ssh writes, the last bytes are kept.
const MOST_WORDS: usize = 16 * 1024;
/// Becomes ssh, unless the controller, whose pid comes first, died before its death became our signal.
const WHILE_IT_LIVES: &str = r#"[ "$PPID" = "$0" ] && exec ssh "$@""#;
/// How long to wait between two looks for the master's socket; nothing announces it.
const SOCKET_POLL: Duration = Duration::from_millis(4);

/// Dead sockets were removed; once is enough for all connections.
static SWEPT: OnceCell<()> = OnceCell::const_new();

pub(super) type RemoteChild = openssh::Child<Arc<Session>>;

pub(super) struct Connection {
    session: Arc<Session>,
    master: Child,
    _socket: Socket,
}

/// The master's socket. ssh removes it when it ends in order; this does when it was killed.
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
    /// Connects to `[user@]host` as the user's own ssh configuration says. A server that drops the connection because
    /// too many log in at once (`MaxStartups`) is asked again.
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
        SWEPT.get_or_init(|| remove_dead_sockets(&directory)).await;
        let socket = Socket(socket_path(&directory, destination).map_err(|error| error.to_string())?);
        let mut master = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--", "sh", "-c", WHILE_IT_LIVES])
            .arg(std::process::id().to_string())
            .args(["-M", "-N", "-T", "-S"])
            .arg(&socket.0)
            .args(["-o", "ControlPersist=no", "-o", "BatchMode=yes", "-o", "ServerAliveCountMax=3"])
            .args(["-o", "ForwardAgent=no", "-o", "ForwardX11=no", "-o", "ClearAllForwardings=yes"])
            .arg("-o")
            .arg(format!("ServerAliveInterval={}", (silence.as_secs() / 4).clamp(1, 15)))
            .args(login.config.iter().flat_map(|file| [OsStr::new("-F"), file.as_os_str()]))
            // Of two values the first one counts: what the run depends on stands before these.
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
        // Read to the end, whatever it is: a master that cannot write would hang.
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

    pub(super) async fn shell(&self, sudo: bool) -> io::Result<Shell> {
        // Any login shell understands these two.
        let command =
            if sudo { format!("exec sh -c '{ROOT_SHELL}'") } else { "exec bash --norc -p -s".to_owned() };
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

    /// Ends the master; it removes its socket itself.
    pub(super) async fn close(mut self) {
        if let Some(pid) = self.master.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = tokio::time::timeout(Duration::from_secs(2), self.master.wait()).await;
    }
}

/// The end of what ssh writes on standard error.
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

/// The last lines that ssh wrote, which say why; its banners come before.
#[must_use]
pub fn what_ssh_said(said: &[u8]) -> String {
    let lines: Vec<String> = said
        .split(|&byte| byte == b'\n')
        .map(|line| short(line.trim_ascii(), LONGEST_TEXT))
        .filter(|line| !line.is_empty())
        .collect();
    match lines.as_slice() {
        [] => "ssh ended without a word".into(),
        [.., before, last] if last.contains("Host key verification failed") => format!("{before} {last}"),
        [.., last] => last.clone(),
    }
}

/// Where the sockets of our masters are: a directory that only we can enter.
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
                "no place for its sockets: {}: {error} (set XDG_RUNTIME_DIR to a directory of this account, or unset it)",
                directory.display()
            );
            return Err(io::Error::new(error.kind(), text));
        }
        _ => {}
    }
    let meta = fs::symlink_metadata(&directory)?;
    if !meta.is_dir() || meta.uid() != Uid::effective().as_raw() || meta.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!("{} is not a directory of ours alone", directory.display())));
    }
    // Whoever could exchange it could pose as our masters.
    trust::own_directory(&directory)?;
    Ok(directory)
}

/// A path for the master's socket. Short, whatever the host is called: a socket's path has at most some 100 bytes.
fn socket_path(directory: &Path, destination: &str) -> io::Result<PathBuf> {
    let host = hex(&Md5::digest(destination.as_bytes())[..6]);
    let random = random_hex::<4>().map_err(|_| io::Error::other("no random numbers"))?;
    Ok(directory.join(format!("{host}-{random}")))
}

/// Removes the sockets of masters that were killed: nobody listens there. ssh gives a socket its name when it listens
/// already; until then the name has a dot and more behind it, and only one that is old counts.
async fn remove_dead_sockets(directory: &Path) {
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
    fn the_reason_is_the_last_line_that_ssh_wrote() {
        assert_eq!(
            what_ssh_said(b"***\nbanner\nroot@db1: Permission denied (publickey).\r\n"),
            "root@db1: Permission denied (publickey)."
        );
        assert_eq!(what_ssh_said(b""), "ssh ended without a word");
        assert_eq!(
            what_ssh_said(b"No ED25519 host key is known for db1.\nHost key verification failed.\n"),
            "No ED25519 host key is known for db1. Host key verification failed."
        );
    }

    #[tokio::test]
    async fn sockets_where_nobody_listens_are_removed_and_others_are_not() {
        let directory = tempfile::tempdir().expect("no temporary directory");
        let [dead, live, unfinished] =
            ["0123-dead", "0123-live", "0123-unfinished.Ab12"].map(|name| directory.path().join(name));
        drop(std::os::unix::net::UnixListener::bind(&dead).expect("no socket"));
        drop(std::os::unix::net::UnixListener::bind(&unfinished).expect("no socket"));
        let _listener = std::os::unix::net::UnixListener::bind(&live).expect("no socket");
        remove_dead_sockets(directory.path()).await;
        assert_eq!([dead.exists(), live.exists(), unfinished.exists()], [false, true, true]);
    }
}
