//! `transfer status` and `transfer clean`: leases of runs on hosts, and the rollback of orphaned runs.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::stream::{StreamExt as _, iter};

use crate::base::endpoint::HostName;
use crate::base::exit::Exit;
use crate::base::printable::short;
use crate::config::settings::Login;
use crate::error::chain;
use crate::host::agent::Held;
use crate::host::command::look_after;
use crate::host::{AT_ONCE, Host, HostError};
use crate::proto::command::Command;
use crate::proto::journal::Undo;
use crate::proto::status::{Condition, ForeignJournal, OtherUndo, RollbackEvent, RunStatus, StatusEntry};

/// Time limit of a clean-up: the removal of a large copy may take long.
const CLEAN_LIMIT: Duration = Duration::from_secs(24 * 3600);
/// Time without a sign of life after which a connection is given up.
const SILENCE: Duration = Duration::from_secs(30);

/// Maximum length of a line about a run, which may list the leases of a journal of another version.
const LONGEST_LINE: usize = 64 << 10;

/// Asks all hosts in parallel; returns their texts in the order of `hosts`, and the worst exit code.
pub async fn admin(hosts: &[HostName], verb: Verb, login: &Login) -> (String, Exit) {
    let asked = hosts
        .iter()
        .enumerate()
        .map(|(place, name)| async move { (place, name, ask(name, verb, login).await) });
    let mut answers: Vec<_> = iter(asked).buffer_unordered(AT_ONCE).collect().await;
    answers.sort_by_key(|(place, ..)| *place);
    let mut text = String::new();
    let mut exit = Exit::Done;
    for (_, name, answer) in answers {
        match answer {
            Ok(answer) => {
                let (lines, one) = answer.describe(&name.to_string(), login);
                text.push_str(&lines);
                exit = exit.worse(one);
            }
            Err(error) => {
                let _ = writeln!(text, "{}", chain(&error));
                exit = exit.worse(Exit::Failed);
            }
        }
    }
    (text, exit)
}

/// Command of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// List live and orphaned runs.
    Status,
    /// Roll back orphaned runs.
    Clean {
        /// Also start servers that they stopped, and run their hooks.
        start_servers: bool,
        /// Forget hooks that have not run.
        forget_hooks: bool,
    },
}

/// Answer of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Runs and their leases.
    Status(Vec<StatusEntry>),
    /// Events of a clean-up.
    Clean {
        /// The events.
        events: Vec<RollbackEvent>,
        /// Whether servers were started, too.
        start_servers: bool,
    },
}

async fn ask(name: &HostName, verb: Verb, login: &Login) -> Result<Answer, HostError> {
    let host = Host::connect(name, login, SILENCE).await?;
    let answer = async {
        let idle = host.agent().await?;
        let answer = match verb {
            Verb::Status => Answer::Status(idle.status().await?),
            Verb::Clean { start_servers, forget_hooks } => {
                let clean = Command::Clean { start_servers, forget_hooks };
                Answer::Clean { events: idle.roll_back(CLEAN_LIMIT, clean).await?, start_servers }
            }
        };
        host.keep(idle);
        Ok(answer)
    };
    let answer = answer.await;
    host.close().await;
    answer
}

impl Answer {
    /// Describes the answer of a host; the exit code says whether something is left there.
    #[must_use]
    pub fn describe(&self, host: &str, login: &Login) -> (String, Exit) {
        let (mut text, mut exit) = (String::new(), Exit::Done);
        match self {
            Self::Status(entries) => {
                for entry in entries {
                    let line = match entry {
                        StatusEntry::Run(run) => status(run, host, login),
                        StatusEntry::Lease(undo) => format!("  holds {undo}"),
                        StatusEntry::Foreign(journal) => {
                            exit = Exit::Leftovers;
                            foreign(journal, host)
                        }
                    };
                    let _ = writeln!(text, "{}", safe(&line));
                }
            }
            Self::Clean { events, start_servers } => {
                for event in events {
                    let (line, left) = cleaned(event, *start_servers, host, login);
                    exit = exit.worse(if left { Exit::Leftovers } else { Exit::Done });
                    let _ = writeln!(text, "{}", safe(&line));
                }
            }
        }
        if text.is_empty() {
            let _ = match self {
                Self::Status(_) => writeln!(text, "{host}: no runs"),
                Self::Clean { .. } => writeln!(text, "{host}: nothing to roll back"),
            };
        }
        (text, exit)
    }
}

/// Returns a line as it is shown: units, commands and names of connections in it are as a host has sent them.
fn safe(line: &str) -> String {
    short(line.as_bytes(), LONGEST_LINE)
}

fn status(run: &RunStatus, host: &str, login: &Login) -> String {
    let boot = if run.is_rebooted { ", from before a reboot" } else { "" };
    let (state, hint) = match run.condition {
        Condition::Live => ("live", String::new()),
        Condition::Orphaned => ("orphaned", format!("; to clean up: {}", look_after(login, "clean", host))),
    };
    let header = &run.header;
    format!(
        "{host}: {state} {}: {} of {}, by {}, since {}{boot}{hint}",
        run.agent,
        header.role,
        header.path,
        header.controller,
        when(header.started)
    )
}

/// Describes a journal that is not touched.
fn foreign(journal: &ForeignJournal, host: &str) -> String {
    let state = match journal.condition {
        Condition::Live => "live",
        Condition::Orphaned => "NOT ROLLED BACK",
    };
    format!("{host}: {state}: {journal}")
}

/// Describes an event of a clean-up, and returns whether something is left.
fn cleaned(event: &RollbackEvent, start_servers: bool, host: &str, login: &Login) -> (String, bool) {
    match event {
        RollbackEvent::Undone { agent, undo } => {
            (format!("{host}: rolled back: {undo} (run {agent})"), false)
        }
        RollbackEvent::Left { agent, undo, reason } => {
            let held = Held { lease: undo.clone(), reason: reason.clone() };
            let left = Left { held: &held, run: agent.as_str(), start_servers };
            (format!("{host}: {}", left.describe(host, login)), true)
        }
        RollbackEvent::Kept { agent, path } => {
            (format!("{host}: kept (--keep-staging): {path} (run {agent})"), false)
        }
        RollbackEvent::Forgotten { agent, hook } => {
            (format!("{host}: forgotten: hook `{}` (run {agent})", hook.command), false)
        }
        RollbackEvent::Failed { agent, reason } => {
            (format!("{host}: NOT ROLLED BACK: run {agent}: {reason}"), true)
        }
        RollbackEvent::Live { agent } => (
            format!("{host}: live run {agent} was not touched; see: {}", look_after(login, "status", host)),
            false,
        ),
        RollbackEvent::Other { agent, result, lease } => {
            let words = match result {
                OtherUndo::Undone => "rolled back",
                OtherUndo::Left => "NOT ROLLED BACK",
                OtherUndo::Kept => "kept (--keep-staging)",
                OtherUndo::Forgotten => "forgotten: hook",
            };
            let by = "by the agent of its version";
            (format!("{host}: {words}: {lease} (run {agent}, {by})"), *result == OtherUndo::Left)
        }
        RollbackEvent::Foreign(journal) => (foreign(journal, host), journal.condition == Condition::Orphaned),
    }
}

/// Lease of an orphaned run that is left on a host.
struct Left<'a> {
    held: &'a Held,
    run: &'a str,
    start_servers: bool,
}

impl Left<'_> {
    /// Describes it, with the command that rolls it back.
    fn describe(&self, host: &str, login: &Login) -> String {
        let Self { held, run, start_servers } = *self;
        let restarted = look_after(login, "clean --start-servers", host);
        match &held.lease {
            Undo::Hook(_) if start_servers => format!(
                "NOT DONE: {held} (run {run}); fix it and repeat this command, or do its work by hand and then: {}",
                look_after(login, "clean --forget-hooks", host)
            ),
            Undo::Hook(_) => {
                format!("NOT DONE: {held} (run {run}); to run it: {restarted}")
            }
            Undo::Server { unit, .. } if !start_servers => format!(
                "STOPPED: {unit} was stopped by run {run} and is not running; to start it: {restarted}"
            ),
            Undo::Replication { server, connection, .. }
            | Undo::ServerReplication { server, connection, .. }
                if !start_servers =>
            {
                format!(
                    "STOPPED: replication '{connection}' of the server on {} was stopped by run {run}; to start \
                     it: {restarted}",
                    server.socket
                )
            }
            Undo::Provisional { unit, .. } if !start_servers => format!(
                "PROVISIONAL: {unit} has provisional data of run {run}; to restore its old data and start it: \
                 {restarted}"
            ),
            _ => format!("NOT ROLLED BACK: {held} (run {run})"),
        }
    }
}

/// Formats seconds since the epoch as a time in UTC.
fn when(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| "an unknown time".into(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Text;
    use crate::proto::journal::{Header, Hook};
    use crate::proto::name::AgentName;
    use crate::proto::server::{DataDirectory, Login as ServerLogin, StartState};
    use crate::proto::status::Foreign;

    fn clean(events: Vec<RollbackEvent>) -> Answer {
        Answer::Clean { events, start_servers: false }
    }

    fn agent(name: &str) -> AgentName {
        AgentName::new(name).unwrap()
    }

    fn staging() -> Undo {
        Undo::Staging { path: "/srv/.transfer-r-target1".into(), keep: false }
    }

    #[test]
    fn texts_of_a_host_do_not_control_the_terminal() {
        let strange = "\u{1b}[2J".repeat(20_000);
        let hook = Hook {
            end: "target".into(),
            number: 0,
            command: strange.clone(),
            source: String::new(),
            targets: String::new(),
        };
        let forgotten = RollbackEvent::Forgotten { agent: agent("r-target1"), hook };
        let (text, _) = clean(vec![forgotten]).describe("db2", &Login::default());
        assert!(text.contains("\\u{1b}[2J") && !text.contains('\u{1b}'));
        assert!(text.len() <= LONGEST_LINE + 4, "{}", text.len());
    }

    #[test]
    fn stopped_server_is_shown_with_its_start_command() {
        let undo = Undo::Server {
            unit: "mariadb.service".into(),
            server: ServerLogin { socket: "/run/mysqld/mysqld.sock".into(), defaults_file: "".into() },
            start: StartState::Configured,
            data: DataDirectory { path: "/var/lib/mysql".into(), inode: 7 },
        };
        let left = RollbackEvent::Left { agent: agent("r-source"), undo, reason: Text::default() };
        let (text, exit) = clean(vec![left]).describe("db1", &Login::default());
        assert_eq!(
            text,
            "db1: STOPPED: mariadb.service was stopped by run r-source and is not running; to start it: \
             transfer clean --start-servers db1\n"
        );
        assert_eq!(exit, Exit::Leftovers);
    }

    #[test]
    fn orphaned_run_is_shown_with_its_clean_up_command() {
        let header = Header {
            version: 2,
            program: Text::new("1"),
            boot: Text::new("b"),
            role: Text::new("target"),
            controller: Text::new("ctl (pid 7)"),
            started: 1_700_000_000,
            path: "/srv".into(),
        };
        let condition = Condition::Orphaned;
        let run = RunStatus { agent: agent("r-target1"), condition, is_rebooted: true, header };
        let entries = vec![StatusEntry::Run(run), StatusEntry::Lease(staging())];
        let login = Login { sudo: true, ..Login::default() };
        assert_eq!(
            Answer::Status(entries).describe("db2", &login).0,
            "db2: orphaned r-target1: target of /srv, by ctl (pid 7), since 2023-11-14 22:13:20 UTC, \
             from before a reboot; to clean up: transfer --sudo clean db2\n  holds staging directory /srv/.transfer-r-target1\n"
        );
        let nothing = clean(Vec::new()).describe("db2", &login);
        assert_eq!(nothing, ("db2: nothing to roll back\n".into(), Exit::Done));
        let left =
            RollbackEvent::Left { agent: agent("r-target1"), undo: staging(), reason: Text::default() };
        assert_eq!(clean(vec![left]).describe("db2", &login).1, Exit::Leftovers);
    }

    #[test]
    fn journal_of_the_shell_version_is_never_ignored() {
        let journal = ForeignJournal {
            directory: "/var/lib/transfer/r-target1".into(),
            condition: Condition::Orphaned,
            reason: Foreign::Shell {
                leases: vec![Text::new("port 4400"), Text::new("staging directory /x")],
            },
            has_agent: false,
        };
        let text = "db2: NOT ROLLED BACK: /var/lib/transfer/r-target1 is the journal of transfer 0.1, which alone can \
                    roll it back; it holds: port 4400, staging directory /x\n";
        let status = Answer::Status(vec![StatusEntry::Foreign(journal.clone())]);
        assert_eq!(status.describe("db2", &Login::default()), (text.into(), Exit::Leftovers));
        let cleaned = clean(vec![RollbackEvent::Foreign(journal)]);
        assert_eq!(cleaned.describe("db2", &Login::default()), (text.into(), Exit::Leftovers));
    }
}
