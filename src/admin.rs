//! `transfer status` and `transfer clean`: leases of runs on hosts, and the rollback of orphaned runs.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::stream::{StreamExt as _, iter};

use crate::base::endpoint::HostName;
use crate::base::exit::Exit;
use crate::config::settings::Login;
use crate::error::chain;
use crate::host::command::look_after;
use crate::host::leases::{Held, Lease};
use crate::host::scripts::Script;
use crate::host::wire::{Field, LONGEST_PATH, short};
use crate::host::{AT_ONCE, Host, HostError};

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
            Ok(messages) => {
                let (lines, one) = verb.describe(&name.to_string(), login, &messages);
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

async fn ask(name: &HostName, verb: Verb, login: &Login) -> Result<Vec<Vec<Field>>, HostError> {
    let host = Host::connect(name, login, Duration::from_secs(30)).await?;
    let answer = match verb {
        Verb::Status => host.ask("status", &Script::admin(&["status"])).await,
        Verb::Clean { start_servers, forget_hooks } => {
            let mut words = vec!["clean"];
            words.extend(start_servers.then_some("start-servers"));
            words.extend(forget_hooks.then_some("forget-hooks"));
            host.ask("clean-up", &Script::admin(&words)).await
        }
    };
    host.close().await;
    answer
}

impl Verb {
    /// Describes the answer of a host; the exit code says whether something is left there.
    #[must_use]
    pub fn describe(self, host: &str, login: &Login, messages: &[Vec<Field>]) -> (String, Exit) {
        let mut text = String::new();
        let mut exit = Exit::Done;
        for message in messages {
            let fields: Vec<String> = message.iter().map(|field| short(field, LONGEST_PATH)).collect();
            let field = |index: usize| fields.get(index).map_or("", String::as_str);
            let held = || Held::parse(message.get(2..).unwrap_or_default());
            let _ = match field(0) {
                "run" => {
                    let boot = if field(3) == "other" { ", from before a reboot" } else { "" };
                    let (state, hint) = match field(2) {
                        "dead" => {
                            ("orphaned", format!("; to clean up: {}", look_after(login, "clean", host)))
                        }
                        live => (live, String::new()),
                    };
                    writeln!(
                        text,
                        "{host}: {state} {}: {} of {}, by {}, since {}{boot}{hint}",
                        field(1),
                        field(4),
                        field(7),
                        field(5),
                        when(field(6))
                    )
                }
                "lease" => writeln!(text, "  holds {}", held()),
                "kept" => {
                    writeln!(text, "{host}: kept (--keep-staging): {} (run {})", field(2), field(1))
                }
                "forgotten" => {
                    writeln!(text, "{host}: forgotten: hook `{}` (run {})", field(2), field(1))
                }
                "undone" => writeln!(text, "{host}: rolled back: {} (run {})", held(), field(1)),
                "live" => writeln!(
                    text,
                    "{host}: live run {} was not touched; see: {}",
                    field(1),
                    look_after(login, "status", host)
                ),
                "left" => {
                    exit = Exit::Leftovers;
                    writeln!(text, "{host}: {}", self.leftover(&held(), field(1), host, login))
                }
                _ => Ok(()),
            };
        }
        if text.is_empty() {
            let _ = match self {
                Self::Status => writeln!(text, "{host}: no runs"),
                Self::Clean { .. } => writeln!(text, "{host}: nothing to roll back"),
            };
        }
        (text, exit)
    }

    /// Describes a lease of an orphaned run that is left on a host, with the command that rolls it back.
    fn leftover(self, held: &Held, run: &str, host: &str, login: &Login) -> String {
        let restarted = look_after(login, "clean --start-servers", host);
        let Self::Clean { start_servers, .. } = self else {
            return format!("NOT ROLLED BACK: {held} (run {run})");
        };
        let reason = held.failure();
        match &held.lease {
            Lease::Hook { end, command } if start_servers => format!(
                "NOT DONE: after-{end} hook `{command}` of run {run}{reason}; fix it and repeat this command, or do \
                 its work by hand and then: {}",
                look_after(login, "clean --forget-hooks", host)
            ),
            Lease::Hook { end, command } => {
                format!("NOT DONE: after-{end} hook `{command}` of run {run}{reason}; to run it: {restarted}")
            }
            Lease::Server(unit) if !start_servers => format!(
                "STOPPED: {unit} was stopped by run {run} and is not running; to start it: {restarted}"
            ),
            Lease::Replication { socket, connection } if !start_servers => format!(
                "STOPPED: replication '{connection}' of the server on {socket} was stopped by run {run}; to start \
                 it: {restarted}"
            ),
            Lease::Provisional { unit, .. } if !start_servers => format!(
                "PROVISIONAL: {unit} has provisional data of run {run}; to restore its old data and start it: \
                 {restarted}"
            ),
            _ => format!("NOT ROLLED BACK: {held} (run {run})"),
        }
    }
}

/// Formats seconds since the epoch as a time in UTC.
fn when(seconds: &str) -> String {
    seconds
        .parse()
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| "an unknown time".into(), |time| time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::wire::decode;

    const CLEAN: Verb = Verb::Clean { start_servers: false, forget_hooks: false };

    #[test]
    fn stopped_server_is_shown_with_its_start_command() {
        let left = decode(b"left\tr-source\tserver\tmariadb.service\t/run/mysqld/mysqld.sock\t\truns");
        let (text, exit) = CLEAN.describe("db1", &Login::default(), &[left]);
        assert_eq!(
            text,
            "db1: STOPPED: mariadb.service was stopped by run r-source and is not running; to start it: \
             transfer clean --start-servers db1\n"
        );
        assert_eq!(exit, Exit::Leftovers);
    }

    #[test]
    fn orphaned_run_is_shown_with_its_clean_up_command() {
        let lines = "run\tr-target1\tdead\tother\ttarget\tctl (pid 7)\t1700000000\t/srv\n\
                     lease\tr-target1\tstaging\t/srv/.transfer-r-target1\nend";
        let messages: Vec<_> = lines.lines().map(|line| decode(line.as_bytes())).collect();
        let login = Login { sudo: true, ..Login::default() };
        assert_eq!(
            Verb::Status.describe("db2", &login, &messages).0,
            "db2: orphaned r-target1: target of /srv, by ctl (pid 7), since 2023-11-14 22:13:20 UTC, \
             from before a reboot; to clean up: transfer --sudo clean db2\n  holds staging directory /srv/.transfer-r-target1\n"
        );
        assert_eq!(CLEAN.describe("db2", &login, &[]), ("db2: nothing to roll back\n".into(), Exit::Done));
        let left = decode(b"left\tr-target1\tstaging\t/srv/.transfer-r-target1");
        assert_eq!(CLEAN.describe("db2", &login, &[left]).1, Exit::Leftovers);
    }
}
