//! The conversation with a controller: answers questions, carries out the commands of a run, and rolls back
//! when the run ends, however it does.

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
use std::time::Duration;

use rustix::fs::Mode;
use rustix::process::umask;
use zeroize::Zeroizing;

use self::failure::{Fallible, failed};
use self::inbox::{Inbox, Incoming};
use self::outbox::{Outbox, Written};
use self::program::Program;
use self::run::Run;
use self::sessions::{Opened, Sessions};
use self::surroundings::SERVICE;
use self::undoer::HostUndoer;
use super::job::Checks;
use super::job::limits::no_core_dumps;
use super::rollback::orphans::Settled;
use super::rollback::{Hooks, MayStart, Policy, Rollback, status};
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
    program: Program,
    outbox: Outbox,
    vault: Vault,
    sessions: Sessions,
    /// Lease time, when a run has begun.
    lease: Option<Duration>,
    run: Option<Run>,
}

impl Agent {
    /// Exchanges the first messages.
    fn greet(
        connection: String,
        mut input: impl Read + Send + 'static,
        mut output: impl Write + Send + 'static,
    ) -> io::Result<(Self, Inbox, Written)> {
        let directories = Directories::of_user().map_err(io::Error::other)?;
        let program = Program::hold()?;
        let exchange = Exchange::new().map_err(io::Error::other)?;
        output.write_all(b"\n")?;
        output.write_all(MAGIC)?;
        output.write_all(b"\n")?;
        let hello = Hello {
            protocol: PROTOCOL,
            program: Text::new(env!("CARGO_PKG_VERSION")),
            key: exchange.public(),
        };
        frame::write(&mut output, &hello).map_err(io::Error::other)?;
        let welcome = frame::read::<Welcome>(&mut input).map_err(io::Error::other)?;
        let Some(welcome) = welcome else {
            program.remove(&directories);
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        let vault = exchange.agree(Side::Agent, welcome.key).map_err(io::Error::other)?;
        let inbox = Inbox::open(input)?;
        let (outbox, written) = Outbox::open(output)?;
        let sessions = Sessions::default();
        let agent =
            Self { connection, directories, program, outbox, vault, sessions, lease: None, run: None };
        Ok((agent, inbox, written))
    }

    /// Carries out commands in their order, and ends the run when it is over.
    fn converse(mut self, inbox: &Inbox) {
        let ending = loop {
            match inbox.next(self.lease) {
                Incoming::Call(id, command) => {
                    if let Some(result) = self.obey(id, command).transpose() {
                        self.outbox.send(FromAgent::Reply { id, result });
                    }
                }
                Incoming::Release => break Ending::Released,
                Incoming::Ended(ending) => break ending,
            }
        };
        self.outbox.event(Event::Ending(ending));
        self.sessions.close_all();
        if let Some(run) = self.run.take() {
            run.end();
        }
        self.program.remove(&self.directories);
        self.outbox.event(Event::Bye);
        self.outbox.end();
    }

    /// Carries out a command; `None` when the answer comes later.
    fn obey(&mut self, id: u64, command: Command) -> Result<Option<Answer>, Failure> {
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
                self.run = Some(Run::begin(&self.directories, &self.program, begin, &self.outbox)?);
                self.lease = Some(lease);
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
