//! The only module that starts processes and speaks SSH.
//!
//! On a host it starts an agent, with the host's SSH server or, on this machine, as a child, and converses with it.

pub mod agent;
mod attach;
mod bootstrap;
pub mod command;
pub mod conversation;
#[cfg(test)]
#[path = "../../tests/support/database.rs"]
pub(crate) mod database;
pub mod facts;
mod lines;
mod link;
mod local;
mod ssh;
#[cfg(test)]
pub(crate) mod tests;
mod words;

pub use ssh::what_ssh_said;

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, BufReader};

use crate::base::endpoint::HostName;
use crate::base::printable::{LONGEST_TEXT, message};
use crate::config::settings::Login;
use agent::IdleAgent;
use conversation::AgentError;

/// Maximum number of concurrent logins.
pub const AT_ONCE: usize = 64;
/// Limit of open files to request for this process: each host takes some.
const MOST_FILES: u64 = 1 << 16;

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
    /// Time without a sign of life after which an agent may end.
    silence: Duration,
    /// Agents that no run has, to be used again.
    idle: Mutex<Vec<IdleAgent>>,
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
    /// The host cannot start an agent.
    #[error("{host}: cannot start the agent: {text}")]
    Refused {
        /// Host name.
        host: String,
        /// Reason, and its fix.
        text: String,
    },
    /// An agent could not answer.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The shell ended without running the script.
    #[error(
        "{host}: {action}: cannot start a shell (output: {said}); does the login shell run commands, and is \
         sh installed?"
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
}

impl HostError {
    /// Returns whether the cause may be the network, so that a retry can succeed. A refused login is not
    /// retried.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        const NETWORK: [&str; 8] = [
            "timed out",
            "refused",
            "No route",
            "unreachable",
            "closed by",
            "reset by",
            "no login within",
            "Temporary failure in name resolution",
        ];
        match self {
            Self::Connect { text, .. } => NETWORK.iter().any(|words| text.contains(words)),
            Self::Shell { .. } | Self::Silent { .. } | Self::Agent(AgentError::Lost { .. }) => true,
            Self::Agent(AgentError::Failed { .. })
            | Self::NoShell { .. }
            | Self::NoSudo { .. }
            | Self::Refused { .. } => false,
        }
    }
}

/// Standard input of a shell.
pub(crate) type Input = Box<dyn AsyncWrite + Send + Unpin>;
/// Standard output of a shell.
pub(crate) type Output = BufReader<Box<dyn AsyncRead + Send + Unpin>>;

/// A process on a host. Its end shows as the end of `stdout`.
struct Shell {
    stdin: Input,
    stdout: Output,
    process: Process,
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
        let (name, login) = (name.clone(), login.clone());
        Ok(Self { name, login, backend, silence, idle: Mutex::default() })
    }

    /// Connects to the same host once more, over a separate connection.
    pub(crate) async fn connect_again(&self) -> Result<Self, HostError> {
        Self::connect(&self.name, &self.login, self.silence).await
    }

    /// Returns an agent that no run has: one that was kept, or else a new one.
    pub(crate) async fn agent(&self) -> Result<IdleAgent, HostError> {
        let kept = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|agent| !agent.is_lost());
            idle.pop()
        };
        match kept {
            Some(agent) => Ok(agent),
            None => IdleAgent::start(self, self.silence).await,
        }
    }

    /// Keeps an agent for later use.
    pub(crate) fn keep(&self, agent: IdleAgent) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(agent);
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

    /// Ends the idle agents, and closes the connection.
    pub async fn close(self) {
        let idle = self.idle.into_inner().unwrap_or_else(PoisonError::into_inner);
        join_all(idle.into_iter().map(IdleAgent::end)).await;
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
