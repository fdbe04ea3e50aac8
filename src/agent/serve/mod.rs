//! The conversation with a controller: answers questions, carries out the commands of a run, and rolls back
//! when the run ends, however it does.

mod control;
mod failure;
mod inbox;
mod names;
mod outbox;
pub(crate) mod program;
mod questions;
mod run;
mod sessions;
mod surroundings;
mod undoer;

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::umask;
use zeroize::Zeroizing;

use self::control::Control;
use self::failure::{Fallible, failed};
use self::inbox::{Entrance, Inbox, Incoming, Input};
use self::outbox::{Outbox, Written};
use self::run::Run;
use self::sessions::{Opened, Sessions};
use self::surroundings::SERVICE;
use self::undoer::HostUndoer;
use super::job::Checks;
use super::job::limits::no_core_dumps;
use super::rollback::orphans::Settled;
use super::rollback::replay::Replayed;
use super::rollback::{Hooks, MayStart, Policy, Rollback, other, status};
use super::service::session::Session;
use super::state::{Directories, StateError};
use crate::proto::command::{Answer, Command, Ending, Event, Failure, FromAgent};
use crate::proto::hello::{Hello, MAGIC, PROTOCOL, Welcome};
use crate::proto::name::AgentName;
use crate::proto::server::{Login, Statements};
use crate::proto::status::RollbackEvent;
use crate::proto::vault::{Exchange, Side, Vault};
use crate::proto::{Text, frame};

/// Maximum time for a client to log in.
const LOGIN_LIMIT: Duration = Duration::from_secs(60);

/// Converses on standard input and output until the run ends. `connection` is sshd's `SSH_CONNECTION`.
pub(crate) fn run(connection: String) -> ExitCode {
    umask(Mode::from_raw_mode(0o077));
    no_core_dumps();
    match Agent::greet(connection, io::stdin(), io::stdout()) {
        Ok((agent, inbox, written)) => {
            agent.converse(&inbox);
            written.wait();
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Converses on other channels than those of the process.
#[cfg(test)]
pub(crate) fn converse(
    input: impl Read + Send + 'static,
    output: impl Write + Send + 'static,
) -> io::Result<()> {
    let (agent, inbox, written) = Agent::greet(String::new(), input, output)?;
    agent.converse(&inbox);
    written.wait();
    Ok(())
}

/// Waits for the journal of an agent, and rolls back if the agent was killed.
pub(crate) fn watch(agent: &[u8]) -> ExitCode {
    let name = std::str::from_utf8(agent).ok().and_then(AgentName::new);
    let (Some(name), Ok(directories)) = (name, Directories::of_user()) else { return ExitCode::FAILURE };
    umask(Mode::from_raw_mode(0o077));
    no_core_dumps();
    let mut rollback = Rollback {
        directories: &directories,
        policy: Policy::OWN,
        undoer: &mut HostUndoer::new(None),
        observer: &mut |_| {},
    };
    match rollback.watch(&name, &mut io::stdout()) {
        Ok(_) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Rolls back the journal of one agent, for an agent of another version. `words` are those of [`other`].
pub(crate) fn clean_one(agent: &[u8], words: &[&[u8]]) -> ExitCode {
    let name = std::str::from_utf8(agent).ok().and_then(AgentName::new);
    let (Some(name), Ok(directories)) = (name, Directories::of_user()) else { return ExitCode::FAILURE };
    umask(Mode::from_raw_mode(0o077));
    no_core_dumps();
    let mut events = Vec::new();
    let mut rollback = Rollback {
        directories: &directories,
        policy: other::policy(words),
        undoer: &mut HostUndoer::new(None),
        observer: &mut |event| events.push(event),
    };
    let settled = rollback.settle(&name, Duration::ZERO);
    let lines: Vec<String> = events.iter().filter_map(other::line).collect();
    let said = io::stdout().write_all((lines.join("\n") + "\n").as_bytes());
    match settled {
        Settled::Gone | Settled::Replayed(Ok(Replayed::Clean)) if said.is_ok() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Checks that jobs repeat right before a program logs in to a server.
pub(crate) struct JobChecks;

impl Checks for JobChecks {
    fn login(&self, login: &Login, program: &OsStr) -> Result<Vec<OsString>, Text> {
        SERVICE.vouch(login, None).map_err(|error| Text::from(&error))?;
        Ok(SERVICE.backup_arguments(Path::new(program)))
    }
}

/// Agent in a conversation.
struct Agent {
    connection: String,
    directories: Directories,
    outbox: Outbox,
    vault: Arc<Vault>,
    sessions: Sessions,
    /// Lease time.
    lease: Duration,
    run: Option<Run>,
}

/// Channels to a controller after the first messages.
struct Conversation {
    vault: Arc<Vault>,
    lease: Duration,
    inbox: Inbox,
    outbox: Outbox,
    written: Written,
}

/// Exchanges the first messages.
fn exchange(
    mut input: impl Read + Send + 'static,
    mut output: impl Write + Send + 'static,
) -> io::Result<Conversation> {
    let keys = Exchange::new().map_err(io::Error::other)?;
    output.write_all(b"\n")?;
    output.write_all(MAGIC)?;
    output.write_all(b"\n")?;
    let hello =
        Hello { protocol: PROTOCOL, program: Text::new(env!("CARGO_PKG_VERSION")), key: keys.public() };
    frame::write(&mut output, &hello).map_err(io::Error::other)?;
    let welcome = frame::read::<Welcome>(&mut input).map_err(io::Error::other)?;
    let welcome = welcome.ok_or(io::ErrorKind::UnexpectedEof)?;
    let vault = Arc::new(keys.agree(Side::Agent, welcome.key).map_err(io::Error::other)?);
    let (outbox, written) = Outbox::open(output)?;
    let inbox = Inbox::open(input, outbox.clone())?;
    let lease = Duration::from_secs(welcome.lease_seconds);
    Ok(Conversation { vault, lease, inbox, outbox, written })
}

impl Agent {
    /// Begins a conversation.
    fn greet(
        connection: String,
        input: impl Read + Send + 'static,
        output: impl Write + Send + 'static,
    ) -> io::Result<(Self, Inbox, Written)> {
        let directories = Directories::of_user().map_err(io::Error::other)?;
        program::remove(&directories);
        let Conversation { vault, lease, inbox, outbox, written } = exchange(input, output)?;
        let sessions = Sessions::default();
        let agent = Self { connection, directories, outbox, vault, sessions, lease, run: None };
        Ok((agent, inbox, written))
    }

    /// Carries out commands in their order, and ends the run when it is over.
    fn converse(mut self, inbox: &Inbox) {
        let ending = loop {
            match inbox.next(Some(self.lease)) {
                Incoming::Call(id, command) => {
                    if let Some(result) = self.obey(id, command, inbox).transpose() {
                        self.outbox.send(FromAgent::Reply { id, result });
                    }
                }
                // The controller of a run has no use for it.
                Incoming::Attach(..) if self.run.is_some() => break Ending::Closed,
                Incoming::Attach(id, agent, input) => return self.attach(id, &agent, input, inbox),
                Incoming::Release => break Ending::Released,
                Incoming::Ended(ending) => break ending,
            }
        };
        self.outbox.event(Event::Ending(ending));
        std::mem::take(&mut self.sessions).close_all();
        if let Some(run) = self.run.take() {
            run.end();
        }
        self.outbox.event(Event::Bye);
        self.outbox.end();
    }

    /// Becomes the connection of a controller to the agent of its run.
    fn attach(self, id: u64, agent: &AgentName, input: Input, inbox: &Inbox) {
        let connected = control::connect(&self.directories, agent).or_failed();
        let (stream, result) = match connected {
            Ok(stream) => (Some(stream), Ok(Answer::Done)),
            Err(failure) => (None, Err(failure)),
        };
        self.outbox.send(FromAgent::Reply { id, result });
        if let Some(stream) = stream {
            // If it fails, its output ends, and the controller tries again.
            let _ = control::relay(stream, input, &self.outbox, inbox);
        }
        self.outbox.end();
    }

    /// Carries out a command; `None` when the answer comes later.
    fn obey(&mut self, id: u64, command: Command, inbox: &Inbox) -> Result<Option<Answer>, Failure> {
        match command {
            Command::Status => self.status().map(Some),
            Command::Clean { start_servers, forget_hooks } => {
                self.clean(start_servers, forget_hooks).map(Some)
            }
            Command::Settle { agent, seconds } => self.settle(&agent, Duration::from_secs(seconds)).map(Some),
            Command::OpenSession { login, unit } => {
                let client = SERVICE.client(&login, unit.as_deref()).or_failed()?;
                let session = Session::open(client, LOGIN_LIMIT).or_failed()?;
                self.sessions.add(session, self.outbox.clone()).map(|number| Some(Answer::Session(number)))
            }
            Command::Execute { session, statements } => {
                let statements = statements.map(|statements| self.open(statements)).transpose()?;
                self.sessions.execute(id, session, statements).map(|()| None)
            }
            Command::Query { login, unit, statements } => {
                let statements = self.open(statements)?;
                Ok(Some(Answer::Sql(questions::query(&login, unit.as_deref(), &statements))))
            }
            Command::CloseSession { session } => {
                self.sessions.close(session);
                Ok(Some(Answer::Done))
            }
            Command::RemoteQuery { server, user, password, statements } => {
                let password = self.vault.open(password).or_failed()?;
                let statements = self.open(statements)?;
                questions::remote_query(&server, &user, &password, &statements).map(Some)
            }
            Command::ReplicationAccount { datadir, connection } => {
                questions::replication_account(&datadir, &connection, &self.vault).map(Some)
            }
            Command::Begin(begin) => {
                if self.run.is_some() {
                    return Err(failed("a run has begun already"));
                }
                let lease = Duration::from_secs(begin.lease_seconds);
                self.run = Some(Run::begin(&self.directories, begin, &self.outbox)?);
                self.lease = lease;
                self.listen(inbox.entrance());
                self.clean_up_after_others();
                Ok(Some(Answer::Done))
            }
            Command::ReadList { list, offset } => {
                let run = self.run.as_ref().ok_or_else(|| failed("no run has begun"))?;
                run.read_list(list, offset).map(Some)
            }
            command => match questions::answer(command, &self.directories, &self.connection) {
                Ok(answer) => answer.map(Some),
                Err(command) => self.obey_run(*command).map(Some),
            },
        }
    }

    /// Lets the controller come back by another connection, if this one is cut.
    fn listen(&self, entrance: Entrance) {
        let Some(run) = &self.run else { return };
        let (vault, outbox) = (Arc::clone(&self.vault), self.outbox.clone());
        let control = Control { vault, entrance: entrance.clone(), outbox };
        // Without the socket the run goes on, but a cut rolls it back.
        if control.listen(run.directory()).is_ok() {
            entrance.survive(self.lease);
            self.outbox.keep();
        }
    }

    fn open(&self, statements: Statements) -> Result<Opened, Failure> {
        let text = self.vault.open(statements.text).or_failed()?;
        Ok(Opened { text, limit: Duration::from_secs(statements.seconds) })
    }

    fn obey_run(&mut self, command: Command) -> Result<Answer, Failure> {
        let run = self.run.as_mut().ok_or_else(|| failed("no run has begun"))?;
        let sealed = match &command {
            Command::StartJob { key, .. } => key.clone(),
            Command::MakeAccount { hash, .. } => Some(hash.clone()),
            _ => None,
        };
        let key: Option<Zeroizing<Vec<u8>>> =
            sealed.map(|sealed| self.vault.open(sealed)).transpose().or_failed()?;
        run.obey(command, key)
    }

    fn status(&self) -> Result<Answer, Failure> {
        let mut report = |entry| self.outbox.event(Event::Status(entry));
        status::list(&self.directories, &mut report).or_failed()?;
        Ok(Answer::Done)
    }

    fn clean(&self, start_servers: bool, forget_hooks: bool) -> Result<Answer, Failure> {
        let policy = Policy {
            may_start: if start_servers { MayStart::All } else { MayStart::None },
            hooks: if forget_hooks { Hooks::Forget } else { Hooks::Run },
            ..Policy::OTHERS
        };
        let mut observer = |event| self.outbox.event(Event::Rollback(event));
        clean(&self.directories, policy, &mut observer).or_failed()?;
        Ok(Answer::Done)
    }

    fn settle(&self, agent: &AgentName, limit: Duration) -> Result<Answer, Failure> {
        let mut observer = |event| self.outbox.event(Event::Rollback(event));
        let mut rollback = Rollback {
            directories: &self.directories,
            policy: Policy::OWN,
            undoer: &mut HostUndoer::new(None),
            observer: &mut observer,
        };
        match rollback.settle(agent, limit) {
            Settled::Gone | Settled::Replayed(Ok(_)) => {}
            Settled::Held => {
                self.outbox.event(Event::Rollback(RollbackEvent::Live { agent: agent.clone() }));
            }
            Settled::Replayed(Err(error)) => return Err(failed(&error)),
            Settled::Unreadable(error) => return Err(failed(&error)),
        }
        Ok(Answer::Done)
    }

    /// Rolls back orphaned runs beside this run, which they do not delay. What is left of them when this agent
    /// ends is for the next one.
    fn clean_up_after_others(&self) {
        let (directories, outbox) = (self.directories.clone(), self.outbox.clone());
        let clean = move || {
            let mut observer = |event| {
                if matches!(event, RollbackEvent::Left { .. } | RollbackEvent::Foreign(_)) {
                    outbox.event(Event::Rollback(event));
                }
            };
            // A directory that cannot be read concerns the runs in it, and not this one.
            let _ = clean(&directories, Policy::OTHERS, &mut observer);
        };
        let _ = std::thread::Builder::new().name("clean-up".into()).spawn(clean);
    }
}

/// Rolls back all orphaned runs.
fn clean(
    directories: &Directories,
    policy: Policy,
    observer: &mut dyn FnMut(RollbackEvent),
) -> Result<(), StateError> {
    let undoer = &mut HostUndoer::new(None);
    Rollback { directories, policy, undoer, observer }.clean()
}
