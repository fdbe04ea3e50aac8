//! Who attacks: `eve`, an ordinary account of a host, and processes of hers (or of a compromised server's) that look like servers.

use std::time::Duration;

use crate::fixtures::SOON;
use crate::harness::{Host, Running, Scratch, eventually};

/// What an impostor does, in a language that every host has.
const SCRIPT: &str = include_str!("impostor.pl");
/// Makes the account, whoever else wants it in the same moment.
const ACCOUNT: &str = "exec 9>/run/lock/transfer-lab-eve; flock 9; getent passwd eve >/dev/null ||
    useradd --uid 4242 --user-group --create-home --shell /bin/bash --password '*' eve";

/// Eve on one host: an account without privileges, with a directory of her own that all may enter.
pub(crate) struct Eve {
    host: Host,
    home: String,
}

impl Eve {
    /// Makes the account unless it is there, and a directory of hers in that of the test.
    #[track_caller]
    pub(crate) fn on(host: &Host, scratch: &Scratch) -> Self {
        let home = scratch.join("eve");
        host.sh(&format!("{ACCOUNT}\nchmod 755 {}; install -d -o eve -g eve -m 755 {home}", scratch.path()));
        Self { host: host.clone(), home }
    }

    /// The path of something in her directory.
    pub(crate) fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.home)
    }

    /// A message says that something of a path is hers, and not only by the path's own words.
    #[track_caller]
    pub(crate) fn expect_named(&self, message: &str, path: &str) {
        let words = message.replace(&self.home, "");
        let is_told = message.contains(path) && ["eve", "4242"].iter().any(|name| words.contains(name));
        assert!(is_told, "{path} of eve is not told: {message}");
    }

    /// Runs a bash script as her, which has to succeed.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let script = format!("set -euo pipefail\n{script}\n");
        let command = self.host.command(&["bash", "--norc", "-s"]).user("eve").stdin(script);
        command.run().expect_success().stdout
    }

    /// A process of hers with that name.
    pub(crate) fn poses_as(&self, name: &str) -> Impostor {
        Impostor::new(&self.host, "eve", &self.at("record")).with("name", name)
    }

    /// A program of hers, and what it writes down when somebody runs it: his user id.
    #[track_caller]
    pub(crate) fn trap(&self) -> Trap {
        let program = self.at("mysqld");
        self.sh(&format!("cp /usr/bin/perl {program}"));
        Trap { host: self.host.clone(), program, traces: self.at("traces") }
    }
}

/// A program of eve's whose process runs on while its file becomes another one.
pub(crate) struct Trap {
    host: Host,
    /// What her process is to be started with.
    pub(crate) program: String,
    traces: String,
}

impl Trap {
    /// The program's file is exchanged for a script that tells who runs it.
    #[track_caller]
    pub(crate) fn set(&self) {
        let script = format!(
            "#!/bin/bash\nid -u >>{}\necho 'mariadbd  Ver 10.11.14-MariaDB for debian-linux-gnu'\n",
            self.traces
        );
        self.host.put(script, &self.program, 0o755);
        self.host.sh(&format!("chown eve: {0}; touch {1}; chown eve: {1}", self.program, self.traces));
    }

    /// Nobody has run it.
    #[track_caller]
    pub(crate) fn expect_untouched(&self) {
        let who = self.host.sh(&format!("cat {}", self.traces));
        assert_eq!(who, "", "eve's program was executed, by these user ids");
    }
}

/// A process that is not what it seems, before it is started.
#[must_use]
pub(crate) struct Impostor {
    host: Host,
    user: String,
    program: Vec<String>,
    record: String,
    arguments: Vec<String>,
}

impl Impostor {
    /// One of any account; what it is sent goes to a file, which that account can write to.
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

    /// Adds a word of `impostor.pl`.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.arguments.push(format!("{key}={value}"));
        self
    }

    /// Works in a directory.
    pub(crate) fn in_directory(self, path: &str) -> Self {
        self.with("cwd", path)
    }

    /// Listens on a path or on a port.
    pub(crate) fn listens(self, place: &str) -> Self {
        self.with("listen", place)
    }

    /// Asks its clients for something: `clear`, `dialog` or `infile:FILE`.
    pub(crate) fn asks(self, what: &str) -> Self {
        self.with("asks", what)
    }

    /// Started by other words than `perl`.
    pub(crate) fn by(mut self, program: &[&str]) -> Self {
        self.program = program.iter().map(ToString::to_string).collect();
        self
    }

    /// Its command line. The script and the record are there then.
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

    /// Starts it as a unit of the system with that name, which its administrator made for her.
    #[track_caller]
    pub(crate) fn start_in_unit(self, unit: &str) -> Unit {
        let file = format!("/run/systemd/system/{unit}");
        let command = self.words().join(" ");
        // A name of a program needs its path there.
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

/// An impostor that runs, until this is dropped.
pub(crate) struct Posing {
    running: Running,
    host: Host,
    record: String,
}

impl Posing {
    /// All that clients have sent to it.
    #[track_caller]
    pub(crate) fn received(&self) -> String {
        self.host.sh(&format!("cat -v {}", self.record))
    }

    /// Nobody has sent it a byte: no name, no password.
    #[track_caller]
    pub(crate) fn expect_nothing_received(&self) {
        assert_eq!(self.received(), "", "a login went to an impostor");
    }

    /// It still runs: a run ends processes of its own only.
    #[track_caller]
    pub(crate) fn expect_alive(&mut self) {
        assert!(self.running.is_running(), "a process of another account was ended");
    }
}

/// An impostor in a unit of the system, until this is dropped.
pub(crate) struct Unit {
    host: Host,
    unit: String,
}

impl Unit {
    /// Its main process.
    #[track_caller]
    pub(crate) fn pid(&self) -> String {
        self.host.sh(&format!("systemctl show -p MainPID --value {}", self.unit)).trim().to_owned()
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

/// How long a run may take that has nothing to wait for.
pub(crate) const PROMPT: Duration = Duration::from_secs(40);
