//! The only module that starts processes and speaks SSH.
//!
//! Every process on a host is a bash that reads its script from standard input. It is started by the host's
//! SSH server or, on this machine, as a child, and answers with lines in the format of [`wire`].

pub mod agent;
mod bootstrap;
pub mod command;
pub mod facts;
pub mod leases;
#[expect(dead_code, reason = "in work: runs still send scripts")]
mod link;
mod local;
pub mod scripts;
mod ssh;
pub mod wire;

pub use ssh::what_ssh_said;

use std::io;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::task::JoinHandle;

use crate::base::endpoint::HostName;
use crate::config::settings::Login;
use scripts::Script;
use wire::{Field, LONGEST_TEXT, decode, message, read_record};

/// Time limit of a script that only queries a host. Enough to list a tree of many millions of files.
const ASK_LIMIT: Duration = Duration::from_secs(3600);
/// Time limit for the start of a shell.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Maximum size of an answer, including the output of the shell's start-up files before it.
const MOST_BYTES: usize = 1 << 20;
/// Maximum number of fields of an answer: short ones take more memory than their bytes.
const MOST_FIELDS: usize = 1 << 16;
/// Maximum number of concurrent logins.
pub const AT_ONCE: usize = 64;
/// Limit of open files to request for this process: each host takes some.
const MOST_FILES: u64 = 1 << 16;
/// Command for `sh` that becomes a root bash. sudo's error output is kept for messages. `SSH_CONNECTION` is
/// passed as an argument, because sudo resets the environment.
const ROOT_SHELL: &str =
    "echo; sudo -n bash --norc -p -s 2>&1 </dev/null && exec sudo -n bash --norc -p -s \"$SSH_CONNECTION\"";

/// Raises this process's limit of open files: a run with many hosts needs more than most logins allow.
pub fn allow_many_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let wanted = hard.min(MOST_FILES);
        if soft < wanted {
            // On failure the operation that lacks a file reports it.
            let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
        }
    }
}

/// A connected host.
#[derive(Debug)]
pub struct Host {
    name: HostName,
    login: Login,
    backend: Backend,
}

#[derive(Debug)]
enum Backend {
    Local,
    Ssh(ssh::Connection),
}

/// Error of an operation on a host.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// ssh could not connect.
    #[error("{host}: cannot connect with ssh: {text}; try: {command}")]
    Connect {
        /// Host name.
        host: String,
        /// Error message of ssh.
        text: String,
        /// Command that makes the same login by hand.
        command: String,
    },
    /// A shell could not be started, or its channel broke.
    #[error("{host}: {action} failed")]
    Shell {
        /// Host name.
        host: String,
        /// Attempted operation.
        action: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// The agent cannot write its journal on the host.
    #[error("{host}: cannot start the agent: {text}; check free space and write permission")]
    Refused {
        /// Host name.
        host: String,
        /// Message of the host.
        text: String,
    },
    /// The shell ended without running the script.
    #[error(
        "{host}: {action}: cannot start a shell (output: {said}); is bash installed, and does the login \
         shell run commands?"
    )]
    NoShell {
        /// Host name.
        host: String,
        /// Attempted operation.
        action: &'static str,
        /// Last output.
        said: String,
    },
    /// sudo did not start a root shell.
    #[error(
        "{host}: {action}: sudo did not start a root shell (output: {said}); install sudo and let the \
         account use it without a password (ACCOUNT ALL=(root) NOPASSWD: ALL in a file in /etc/sudoers.d), \
         or log in as root"
    )]
    NoSudo {
        /// Host name.
        host: String,
        /// Attempted operation.
        action: &'static str,
        /// Last output.
        said: String,
    },
    /// The host did not answer in time.
    #[error("{host}: {action}: no answer within {seconds} s")]
    Silent {
        /// Host name.
        host: String,
        /// Attempted operation.
        action: &'static str,
        /// Time limit.
        seconds: u64,
    },
    /// The shell ended in the middle of its answer.
    #[error(
        "{host}: {action}: the shell or the connection ended before the answer was complete \
         (last output: {said})"
    )]
    Incomplete {
        /// Host name.
        host: String,
        /// Attempted operation.
        action: &'static str,
        /// Last output.
        said: String,
    },
}

impl HostError {
    /// Returns whether the cause may be the network, so that a retry can succeed. A refused login is not
    /// retried.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        const NETWORK: [&str; 7] =
            ["timed out", "refused", "No route", "unreachable", "closed by", "reset by", "no login within"];
        match self {
            Self::Connect { text, .. } => NETWORK.iter().any(|words| text.contains(words)),
            Self::Shell { .. } | Self::Silent { .. } | Self::Incomplete { .. } => true,
            Self::NoShell { .. } | Self::NoSudo { .. } | Self::Refused { .. } => false,
        }
    }
}

/// Standard input of a shell.
pub(crate) type Input = Box<dyn AsyncWrite + Send + Unpin>;
/// Standard output of a shell.
pub(crate) type Output = BufReader<Box<dyn AsyncRead + Send + Unpin>>;

/// A bash on a host that reads its script from `stdin`. Its end shows as the end of `stdout`.
struct Shell {
    stdin: Input,
    stdout: Output,
    process: Process,
}

/// A shell that has begun to run its script.
pub(crate) struct Begun {
    /// Yields the shell's input once the whole script was sent.
    pub(crate) sent: JoinHandle<io::Result<Input>>,
    pub(crate) stdout: Output,
    /// Dropping this ends the local process only; the host's shell ends when its input is closed.
    pub(crate) _process: Process,
}

#[expect(dead_code, reason = "held because dropping it ends the process")]
pub(crate) enum Process {
    Local(tokio::process::Child),
    Ssh(Box<ssh::RemoteChild>),
}

impl Host {
    /// Connects to a host. This machine needs no connection; others get one multiplexed SSH connection, which
    /// detects within `silence` that the other side is gone.
    pub async fn connect(name: &HostName, login: &Login, silence: Duration) -> Result<Self, HostError> {
        let backend = match name {
            HostName::Local => Backend::Local,
            HostName::Ssh(destination) => {
                Backend::Ssh(ssh::Connection::open(destination, login, silence).await?)
            }
        };
        Ok(Self { name: name.clone(), login: login.clone(), backend })
    }

    /// Connects to the same host once more, over a separate connection.
    pub async fn connect_again(&self, silence: Duration) -> Result<Self, HostError> {
        Self::connect(&self.name, &self.login, silence).await
    }

    /// Returns the host as the user named it.
    #[must_use]
    pub fn name(&self) -> &HostName {
        &self.name
    }

    /// Returns the command that a user can type to run `status` or `clean` on this host.
    #[must_use]
    pub fn look_after(&self, verb: &str) -> String {
        command::look_after(&self.login, verb, &self.name.to_string())
    }

    /// Runs a script and returns its output up to the line `end`, which every script prints last.
    pub async fn ask(&self, action: &'static str, script: &Script) -> Result<Vec<Vec<Field>>, HostError> {
        let mut messages: Vec<Vec<Field>> = Vec::new();
        let answer = async {
            let mut shell = self.shell(action, script).await?;
            let (mut bytes, mut fields) = (0, 0);
            while let Some(line) = self.line(action, &mut shell, &mut bytes).await? {
                messages.push(decode(&line));
                fields += messages.last().map_or(0, Vec::len);
                if fields > MOST_FIELDS {
                    let text = format!("the host sent more than {MOST_FIELDS} fields");
                    return Err(self.broken(action, io::Error::other(text)));
                }
                if line == b"end" {
                    return Ok(true);
                }
            }
            Ok(false)
        };
        match tokio::time::timeout(ASK_LIMIT, answer).await {
            Ok(Ok(true)) => Ok(messages),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.silent(action, ASK_LIMIT)),
            Ok(Ok(false)) => Err(HostError::Incomplete {
                host: self.name.to_string(),
                action,
                said: output(&messages.last().map(|fields| fields.join(&b' ')).unwrap_or_default()),
            }),
        }
    }

    /// Reads the next line of a shell and enforces the limit of bytes.
    async fn line(
        &self,
        action: &'static str,
        shell: &mut Begun,
        bytes: &mut usize,
    ) -> Result<Option<Vec<u8>>, HostError> {
        let line =
            read_record(&mut shell.stdout, b'\n').await.map_err(|source| self.broken(action, source))?;
        *bytes += line.as_ref().map_or(0, |line| line.len() + 1);
        if *bytes > MOST_BYTES {
            return Err(self.broken(action, io::Error::other("the host sent more than 1 MiB")));
        }
        Ok(line)
    }

    /// Starts a shell with a script and leaves its input open. Skips the output of the start-up files.
    pub(crate) async fn shell(&self, action: &'static str, script: &Script) -> Result<Begun, HostError> {
        tokio::time::timeout(START_LIMIT, self.start_shell(action, script))
            .await
            .unwrap_or_else(|_| Err(self.silent(action, START_LIMIT)))
    }

    async fn start_shell(&self, action: &'static str, script: &Script) -> Result<Begun, HostError> {
        let started = match &self.backend {
            Backend::Local => local::shell(self.login.sudo),
            Backend::Ssh(connection) => connection.shell(self.login.sudo).await,
        };
        let Shell { mut stdin, stdout, process } = started.map_err(|source| self.broken(action, source))?;
        let script = script.as_bytes().to_vec();
        // In a task of its own: a host that writes a lot before it reads would deadlock with us.
        let sent = tokio::spawn(async move {
            stdin.write_all(&script).await?;
            stdin.flush().await?;
            Ok(stdin)
        });
        let mut shell = Begun { sent, stdout, _process: process };
        let mut bytes = 0;
        let mut said = Vec::new();
        while let Some(line) = self.line(action, &mut shell, &mut bytes).await? {
            if line == b"begin" {
                return Ok(shell);
            }
            if !line.is_empty() {
                said = line;
            }
        }
        match shell.sent.await {
            // The shell's own output, if any, explains better why the script could not be sent.
            Ok(Err(source)) if said.is_empty() => Err(self.broken(action, source)),
            _ => Err(self.no_shell(action, &said)),
        }
    }

    /// Starts the script that becomes an agent.
    async fn bootstrap(&self, images: &[bootstrap::Image]) -> Result<Shell, HostError> {
        let started = match &self.backend {
            Backend::Local => local::start("sh", &bootstrap::arguments(images, self.login.sudo)),
            Backend::Ssh(connection) => connection.start(bootstrap::command(images, self.login.sudo)).await,
        };
        started.map_err(|source| self.broken("start of the agent", source))
    }

    /// Returns the error for a shell that has ended without running the script.
    fn no_shell(&self, action: &'static str, said: &[u8]) -> HostError {
        let (host, said) = (self.name.to_string(), output(said));
        if self.login.sudo {
            HostError::NoSudo { host, action, said }
        } else {
            HostError::NoShell { host, action, said }
        }
    }

    /// Closes the connection.
    pub async fn close(self) {
        if let Backend::Ssh(connection) = self.backend {
            connection.close().await;
        }
    }

    fn silent(&self, action: &'static str, limit: Duration) -> HostError {
        HostError::Silent { host: self.name.to_string(), action, seconds: limit.as_secs() }
    }

    fn broken(&self, action: &'static str, source: io::Error) -> HostError {
        HostError::Shell { host: self.name.to_string(), action, source }
    }
}

/// Returns the last output of a shell as it is shown in an error.
fn output(bytes: &[u8]) -> String {
    let text = message(bytes, LONGEST_TEXT);
    if text.is_empty() { "none".into() } else { text }
}
