//! The one door to the hosts: only here are processes started and SSH spoken.
//!
//! Every process on a host is a bash that reads its script from standard input, started by the host's SSH server or,
//! for this machine, as a child. What it answers is lines in the format of [`wire`].

pub mod agent;
pub mod command;
pub mod facts;
pub mod leases;
mod local;
pub mod netcat;
pub mod scripts;
mod ssh;
pub mod wire;

pub use ssh::what_ssh_said;

use std::io;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::task::JoinHandle;

use crate::endpoint::HostName;
use crate::settings::Login;
use scripts::Script;
use wire::{Field, LONGEST_TEXT, decode, read_record, short};

/// The longest that a script which only asks may take. Listing a tree of many millions of files is within it.
const ASK_LIMIT: Duration = Duration::from_secs(3600);
/// The longest that a shell may take to begin.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Of an answer, and of what start-up files print before it, no more than this is read.
const MOST_BYTES: usize = 1 << 20;
/// Fields of an answer: short ones take more memory than their bytes.
const MOST_FIELDS: usize = 1 << 16;
/// Logins that are made at the same time.
pub const AT_ONCE: usize = 64;
/// Files that a process may have open, if the machine lets it: each host takes some.
const MOST_FILES: u64 = 1 << 16;
/// For `sh`: becomes a bash of root. What sudo says when it refuses is heard; and since it hands on no environment, what
/// the host saw of the connection goes as an argument.
const ROOT_SHELL: &str =
    "echo; sudo -n bash --norc -p -s 2>&1 </dev/null && exec sudo -n bash --norc -p -s \"$SSH_CONNECTION\"";

/// Lets this process have more files open than most logins may: a run with many hosts needs them.
pub fn allow_many_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let wanted = hard.min(MOST_FILES);
        if soft < wanted {
            // Where it may not, that is told by whoever lacks one.
            let _ = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard);
        }
    }
}

/// A host that can be asked and told.
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

/// Why a host did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No connection.
    #[error("{host}: cannot connect with ssh: {text}; try: {command}")]
    Connect {
        /// The host.
        host: String,
        /// What ssh said.
        text: String,
        /// The same login by hand.
        command: String,
    },
    /// A shell could not be started, or its channel broke.
    #[error("{host}: {action} failed")]
    Shell {
        /// The host.
        host: String,
        /// What was tried.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// The agent cannot keep its journal there.
    #[error("{host}: no agent can be started: {text}; is there space, and may we write there?")]
    Refused {
        /// The host.
        host: String,
        /// What it said.
        text: String,
    },
    /// The shell never began to work.
    #[error(
        "{host}: {action}: no shell could be started (it said: {said}); is bash there, and does its login shell run commands?"
    )]
    NoShell {
        /// The host.
        host: String,
        /// What was tried.
        action: &'static str,
        /// The last that was heard.
        said: String,
    },
    /// sudo did not make us root.
    #[error(
        "{host}: {action}: sudo starts no root shell (it said: {said}); install it where it is missing and let the account use it without a \
         password (ACCOUNT ALL=(root) NOPASSWD: ALL in a file in /etc/sudoers.d), or log in as root"
    )]
    NoSudo {
        /// The host.
        host: String,
        /// What was tried.
        action: &'static str,
        /// The last that was heard.
        said: String,
    },
    /// No answer in time.
    #[error("{host}: {action}: no answer within {seconds} s")]
    Silent {
        /// The host.
        host: String,
        /// What was tried.
        action: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The shell ended before its answer did.
    #[error(
        "{host}: {action}: the shell or the connection ended before the answer did (the last it said: {said})"
    )]
    Incomplete {
        /// The host.
        host: String,
        /// What was tried.
        action: &'static str,
        /// The last that was heard.
        said: String,
    },
}

impl HostError {
    /// The network may be to blame, so that it may work later. A login that is refused is not tried again.
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

/// What a shell reads.
pub(crate) type Input = Box<dyn AsyncWrite + Send + Unpin>;

/// A bash on a host, reading its script from `stdin`. Its end is seen as the end of `stdout`.
struct Shell {
    stdin: Input,
    stdout: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
    process: Process,
}

/// One that has begun its script.
pub(crate) struct Begun {
    /// Its input, once it has all of the script.
    pub(crate) sent: JoinHandle<io::Result<Input>>,
    pub(crate) stdout: BufReader<Box<dyn AsyncRead + Send + Unpin>>,
    /// Dropping it ends the local side only; the host's ends with its input.
    pub(crate) _process: Process,
}

#[expect(dead_code, reason = "held for what dropping them does")]
pub(crate) enum Process {
    Local(tokio::process::Child),
    Ssh(Box<ssh::RemoteChild>),
}

impl Host {
    /// Connects: to this machine at once, to others with one multiplexed SSH connection that notices within
    /// `silence` that the other side is gone.
    pub async fn connect(name: &HostName, login: &Login, silence: Duration) -> Result<Self, HostError> {
        let backend = match name {
            HostName::Local => Backend::Local,
            HostName::Ssh(destination) => {
                Backend::Ssh(ssh::Connection::open(destination, login, silence).await?)
            }
        };
        Ok(Self { name: name.clone(), login: login.clone(), backend })
    }

    /// The same once more, over a connection of its own.
    pub async fn connect_again(&self, silence: Duration) -> Result<Self, HostError> {
        Self::connect(&self.name, &self.login, silence).await
    }

    /// The host as the user named it.
    #[must_use]
    pub fn name(&self) -> &HostName {
        &self.name
    }

    /// What a user may type to look after it, `status` or `clean`.
    #[must_use]
    pub fn look_after(&self, verb: &str) -> String {
        command::look_after(&self.login, verb, &self.name.to_string())
    }

    /// Runs a script and returns its lines up to the line `end`, which every script prints last.
    pub async fn ask(&self, action: &'static str, script: &Script) -> Result<Vec<Vec<Field>>, HostError> {
        let mut messages: Vec<Vec<Field>> = Vec::new();
        let answer = async {
            let mut shell = self.shell(action, script).await?;
            let (mut bytes, mut fields) = (0, 0);
            while let Some(line) = self.line(action, &mut shell, &mut bytes).await? {
                messages.push(decode(&line));
                fields += messages.last().map_or(0, Vec::len);
                if fields > MOST_FIELDS {
                    let text = format!("the host sends more than {MOST_FIELDS} fields");
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
                said: messages
                    .last()
                    .map_or_else(|| "nothing".into(), |message| short(&message.join(&b' '), LONGEST_TEXT)),
            }),
        }
    }

    /// The next line of a shell that may send a bounded number of bytes.
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
            return Err(self.broken(action, io::Error::other("the host sends more than 1 MiB")));
        }
        Ok(line)
    }

    /// Starts a shell on a script and leaves its input open. What start-up files print has been read.
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
        // A host that talks before it listens would wait for us as we for it.
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
        let said = match shell.sent.await {
            // A shell that takes no script may say why.
            Ok(Err(source)) if said.is_empty() => return Err(self.broken(action, source)),
            _ if said.is_empty() => "nothing".into(),
            _ => short(&said, LONGEST_TEXT),
        };
        let host = self.name.to_string();
        Err(if self.login.sudo {
            HostError::NoSudo { host, action, said }
        } else {
            HostError::NoShell { host, action, said }
        })
    }

    /// Ends the connection.
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
