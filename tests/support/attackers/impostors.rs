//! Processes, of eve or of the account of a compromised server, that pose as servers.

use super::stand::main_pid;
use crate::support::commands::Running;
use crate::support::hosts::Host;
use crate::support::scenes::SOON;
use crate::support::waiting::eventually;

/// Perl, since every host has it.
const SCRIPT: &str = include_str!("impostor.pl");

/// A process that poses as a server, not started yet.
#[must_use]
pub(crate) struct Impostor {
    host: Host,
    user: String,
    program: Vec<String>,
    record: String,
    arguments: Vec<String>,
}

impl Impostor {
    /// A process of any account. It writes what it receives to a file, which that account owns.
    pub(crate) fn new(host: &Host, user: &str, record: &str) -> Self {
        let impostor = Self {
            host: host.clone(),
            user: user.to_owned(),
            program: vec!["perl".to_owned()],
            record: record.to_owned(),
            arguments: Vec::new(),
        };
        impostor.with("record", record)
    }

    /// Adds an argument of `impostor.pl`.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.arguments.push(format!("{key}={value}"));
        self
    }

    /// Changes to a directory.
    pub(crate) fn in_directory(self, path: &str) -> Self {
        self.with("cwd", path)
    }

    /// Listens on a path or a port.
    pub(crate) fn listens(self, place: &str) -> Self {
        self.with("listen", place)
    }

    /// Asks its clients for something: `clear` and `dialog` for a password, `infile:FILE` for a file.
    pub(crate) fn asks(self, what: &str) -> Self {
        self.with("asks", what)
    }

    /// Sets the command that runs the script, instead of `perl`.
    pub(crate) fn by(mut self, program: &[&str]) -> Self {
        self.program = program.iter().map(ToString::to_string).collect();
        self
    }

    /// Creates the script and the record, and returns the command line.
    #[track_caller]
    fn words(&self) -> Vec<String> {
        let (user, record) = (&self.user, &self.record);
        self.host.sh(&format!(": >{record}; chown {user} {record}; chmod 644 {record}"));
        let script = format!("{record}.pl");
        self.host.put(SCRIPT, &script, 0o644);
        [&self.program[..], &[script], &self.arguments].concat()
    }

    /// Starts it, and waits until it listens.
    #[track_caller]
    pub(crate) fn start(self) -> Posing {
        let words = self.words();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let mut running = self.host.command(&words).user(&self.user).spawn();
        running.wait_for("ready", SOON);
        Posing { running, host: self.host, record: self.record }
    }

    /// Starts it as a systemd unit, which an administrator has created for the account.
    #[track_caller]
    pub(crate) fn start_in_unit(self, unit: &str) -> Unit {
        let file = format!("/run/systemd/system/{unit}");
        let command = self.words().join(" ");
        // systemd needs the path of a program.
        let text = format!("[Service]\nUser={}\nExecStart=/usr/bin/env {command}\n", self.user);
        self.host.put(text, &file, 0o644);
        self.host.sh(&format!("systemctl daemon-reload; systemctl start {unit}"));
        let unit = Unit { host: self.host.clone(), unit: unit.to_owned() };
        let name = self.arguments.iter().find_map(|word| word.strip_prefix("name=")).unwrap_or("perl");
        let is_named = || unit.host.sh(&format!("cat /proc/{}/comm || :", unit.pid())).trim() == name;
        assert!(eventually(SOON, is_named), "{file} does not run");
        unit
    }
}

/// A running impostor, until this is dropped.
pub(crate) struct Posing {
    running: Running,
    host: Host,
    record: String,
}

impl Posing {
    /// Returns the bytes that clients have sent.
    #[track_caller]
    pub(crate) fn received(&self) -> String {
        self.host.sh(&format!("cat -v {}", self.record))
    }

    /// Asserts that no client has sent a byte: no name, no password.
    #[track_caller]
    pub(crate) fn expect_nothing_received(&self) {
        assert_eq!(self.received(), "", "a login went to an impostor");
    }

    /// Asserts that it still runs: a run ends only its own processes.
    #[track_caller]
    pub(crate) fn expect_alive(&mut self) {
        assert!(self.running.is_running(), "a process of another account was ended");
    }
}

/// An impostor in a systemd unit, until this is dropped.
pub(crate) struct Unit {
    host: Host,
    unit: String,
}

impl Unit {
    /// Returns its main process.
    #[track_caller]
    pub(crate) fn pid(&self) -> String {
        main_pid(&self.host, &self.unit)
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let unit = &self.unit;
        let remove =
            format!("systemctl stop {unit}; rm -f /run/systemd/system/{unit}; systemctl daemon-reload");
        self.host.run(&["bash", "-c", &remove]);
    }
}
