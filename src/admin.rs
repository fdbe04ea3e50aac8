//! `transfer status` and `transfer clean`: what runs hold on hosts, and the removal of what dead ones left.

use std::fmt::Write as _;
use std::time::Duration;

use futures_util::stream::{StreamExt as _, iter};

use crate::endpoint::HostName;
use crate::error::chain;
use crate::exit::Exit;
use crate::host::command::look_after;
use crate::host::scripts::Script;
use crate::host::wire::{Field, LONGEST_PATH, short};
use crate::host::{AT_ONCE, Host, HostError};
use crate::settings::Login;

/// Asks all hosts side by side and returns the text for each, in their order, with the worst exit code.
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

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// List live and dead runs.
    Status,
    /// Undo what dead runs left.
    Clean {
        /// Start servers that they stopped, too, and run their hooks.
        start_servers: bool,
        /// Hooks that have not run are forgotten.
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
    /// What a host answered, in words, and whether something is left there.
    #[must_use]
    pub fn describe(self, host: &str, login: &Login, messages: &[Vec<Field>]) -> (String, Exit) {
        let mut text = String::new();
        let mut exit = Exit::Done;
        for message in messages {
            let fields: Vec<String> = message.iter().map(|field| short(field, LONGEST_PATH)).collect();
            let field = |index: usize| fields.get(index).map_or("", String::as_str);
            let rest = |from: usize| fields.get(from..).unwrap_or_default().join(" ");
            let _ = match field(0) {
                "run" => {
                    let boot = if field(3) == "other" { ", from before a reboot" } else { "" };
                    let hint = if field(2) == "dead" {
                        format!("; remove it: {}", look_after(login, "clean", host))
                    } else {
                        String::new()
                    };
                    writeln!(
                        text,
                        "{host}: {} {}: {} of {}, by {}, since {}{boot}{hint}",
                        field(2),
                        field(1),
                        field(4),
                        field(7),
                        field(5),
                        when(field(6))
                    )
                }
                "lease" => writeln!(text, "  holds {}", rest(2)),
                "kept" => {
                    writeln!(text, "{host}: kept, as was asked for: {} (run {})", rest(2), field(1))
                }
                "forgotten" => {
                    writeln!(text, "{host}: forgotten: the hook '{}' (run {})", field(2), field(1))
                }
                "undone" => writeln!(text, "{host}: undone: {} (run {})", rest(2), field(1)),
                "live" => writeln!(
                    text,
                    "{host}: the live run {} was not touched; see: {}",
                    field(1),
                    look_after(login, "status", host)
                ),
                "left" => {
                    exit = Exit::Leftovers;
                    let (what, run) = (field(2), field(1));
                    match (what, self) {
                        ("server", Self::Clean { start_servers: false, .. }) => writeln!(
                            text,
                            "{host}: STOPPED: {} was stopped by the run {run} and does not run; to start it: {}",
                            field(3),
                            look_after(login, "clean --start-servers", host)
                        ),
                        ("replication", Self::Clean { start_servers: false, .. }) => writeln!(
                            text,
                            "{host}: STOPPED: replication ('{}' of the server behind {}) was stopped by the run {run}; to \
                             start it: {}",
                            field(5),
                            field(3),
                            look_after(login, "clean --start-servers", host)
                        ),
                        ("trial", Self::Clean { start_servers: false, .. }) => writeln!(
                            text,
                            "{host}: ON TRIAL: {} has the data that the run {run} made for it, and not its own; to give it \
                             that back, and start it: {}",
                            field(3),
                            look_after(login, "clean --start-servers", host)
                        ),
                        ("hook", Self::Clean { start_servers: false, .. }) => writeln!(
                            text,
                            "{host}: NOT DONE: the hook '{}' for the end of the run {run} {}; to run it: {}",
                            field(5),
                            // Behind all that it was called with.
                            field(8),
                            look_after(login, "clean --start-servers", host)
                        ),
                        ("hook", Self::Clean { .. }) => writeln!(
                            text,
                            "{host}: NOT DONE: the hook '{}' for the end of the run {run} has failed {}; mend it and say this once \
                             more, or do by hand what it was to do, and then: {}",
                            field(5),
                            field(8),
                            look_after(login, "clean --forget-hooks", host)
                        ),
                        _ => writeln!(text, "{host}: LEFT BEHIND: {} (run {run})", rest(2)),
                    }
                }
                _ => Ok(()),
            };
        }
        if text.is_empty() {
            let _ = match self {
                Self::Status => writeln!(text, "{host}: no runs"),
                Self::Clean { .. } => writeln!(text, "{host}: nothing to undo"),
            };
        }
        (text, exit)
    }
}

/// Seconds of the epoch as a time of day, UTC.
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
    fn a_server_that_was_stopped_is_shown_with_the_command_that_starts_it() {
        let left = decode(b"left\tr-source\tserver\tmariadb.service\t/run/mysqld/mysqld.sock\t\truns");
        let (text, exit) = CLEAN.describe("db1", &Login::default(), &[left]);
        assert_eq!(
            text,
            "db1: STOPPED: mariadb.service was stopped by the run r-source and does not run; to start it: transfer clean \
             --start-servers db1\n"
        );
        assert_eq!(exit, Exit::Leftovers);
    }

    #[test]
    fn a_dead_run_is_shown_with_the_command_that_removes_it() {
        let lines = "run\tr-target1\tdead\tother\ttarget\tctl (pid 7)\t1700000000\t/srv\n\
                     lease\tr-target1\tstaging\t/srv/.transfer-r-target1\nend";
        let messages: Vec<_> = lines.lines().map(|line| decode(line.as_bytes())).collect();
        let login = Login { sudo: true, ..Login::default() };
        assert_eq!(
            Verb::Status.describe("db2", &login, &messages).0,
            "db2: dead r-target1: target of /srv, by ctl (pid 7), since 2023-11-14 22:13:20 UTC, from before a reboot; \
             remove it: transfer --sudo clean db2\n  holds staging /srv/.transfer-r-target1\n"
        );
        assert_eq!(CLEAN.describe("db2", &login, &[]), ("db2: nothing to undo\n".into(), Exit::Done));
        let left = decode(b"left\tr-target1\tstaging\t/srv/.transfer-r-target1");
        assert_eq!(CLEAN.describe("db2", &login, &[left]).1, Exit::Leftovers);
    }
}
