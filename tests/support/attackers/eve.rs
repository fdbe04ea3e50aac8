//! `eve`: an ordinary account of a host, without groups, sudo and keys. All of her processes end with the
//! test.

use std::sync::atomic::{AtomicU32, Ordering};

use super::impostors::Impostor;
use crate::support::commands::Running;
use crate::support::hosts::Host;
use crate::support::output::Output;
use crate::support::scratch::Scratch;

/// Her uid on every host.
const UID: u32 = 4242;
/// Her home directory, which only she can read.
pub(crate) const HOME: &str = "/home/eve";

/// Creates the account once. Under a lock, since tests run at the same time.
const CREATE: &str = r#"
    exec 9>/run/transfer-lab-eve; flock 9
    id -u eve >/dev/null 2>&1 || useradd --create-home --shell /bin/bash --password '*' --uid "$1" eve
    chmod 700 /home/eve"#;
/// Becomes her in a control group, by which all processes that she starts are found again.
const BECOME: &str = r#"
    echo $$ >"$1/cgroup.procs" || exit; shift
    exec setpriv --reuid eve --regid eve --init-groups -- env HOME=/home/eve USER=eve LOGNAME=eve "$@""#;
/// Ends the group's processes, also one that enters it meanwhile. Without the group none can start.
const END: &str = r#"
    for ((i = 0; i < 500; i++)); do
        echo 1 >"$1/cgroup.kill"
        rmdir "$1" 2>/dev/null && exit
        sleep 0.01
    done; exit 1"#;

/// The account on one host.
pub(crate) struct Eve {
    host: Host,
    /// A directory of hers.
    directory: String,
}

impl Eve {
    /// Creates the account unless it exists.
    #[track_caller]
    pub(crate) fn on(host: &Host) -> Self {
        host.run(&["bash", "-c", CREATE, "create", &UID.to_string()]).expect_success();
        Self { host: host.clone(), directory: HOME.to_owned() }
    }

    /// As [`Eve::on`], with a directory of hers, open to all accounts, in the directory of the test.
    #[track_caller]
    pub(crate) fn within(host: &Host, scratch: &Scratch) -> Self {
        let mut eve = Self::on(host);
        eve.directory = scratch.join("eve");
        host.sh(&format!("chmod 755 {}; install -d -o eve -g eve -m 755 {}", scratch.path(), eve.directory));
        eve
    }

    /// Returns the path of an entry of her directory.
    pub(crate) fn at(&self, name: &str) -> String {
        format!("{}/{name}", self.directory)
    }

    /// Asserts that a message names a path and its owner; the owner not only as a part of the path.
    #[track_caller]
    pub(crate) fn expect_named(&self, message: &str, path: &str) {
        let words = message.replace(&self.directory, "");
        let is_named = message.contains(path) && ["eve", "4242"].iter().any(|name| words.contains(name));
        assert!(is_named, "{path} of eve is not named: {message}");
    }

    /// Returns a process of hers with that name, not started.
    pub(crate) fn poses_as(&self, name: &str) -> Impostor {
        Impostor::new(&self.host, "eve", &self.at("record")).with("name", name)
    }

    /// Creates a program of hers that is to be replaced.
    #[track_caller]
    pub(crate) fn trap(&self) -> Trap {
        let program = self.at("mysqld");
        self.sh(&format!("cp /usr/bin/perl {program}"), &[]);
        Trap { host: self.host.clone(), program, traces: self.at("traces") }
    }

    /// Runs a command as her, to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.host.command(args).user("eve").run()
    }

    /// Runs a bash script as her, which has to succeed, and returns its standard output.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str, args: &[&str]) -> String {
        self.run(&[&["bash", "-c", script, "eve"], args].concat()).expect_success().stdout
    }

    /// Starts a perl program as her.
    #[track_caller]
    pub(crate) fn perl(&self, program: &str, args: &[&str]) -> Attack {
        self.spawn(&[&["perl", "-e", program], args].concat())
    }

    /// Starts a bash script as her.
    #[track_caller]
    pub(crate) fn bash(&self, script: &str, args: &[&str]) -> Attack {
        self.spawn(&[&["bash", "--norc", "-c", script, "eve"], args].concat())
    }

    #[track_caller]
    fn spawn(&self, args: &[&str]) -> Attack {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let group = format!("/sys/fs/cgroup/eve-{}-{number}", std::process::id());
        // Made before the program, so that a program dropped at once finds no group to start in.
        self.host.run(&["mkdir", &group]).expect_success();
        let program = self.host.spawn(&[&["bash", "-c", BECOME, "become", &group], args].concat());
        Attack { host: self.host.clone(), group, program }
    }
}

/// A running program of hers. Dropping it ends it, and all processes that it has started.
pub(crate) struct Attack {
    host: Host,
    group: String,
    /// The program. Its first process becomes hers after a moment.
    pub(crate) program: Running,
}

impl Drop for Attack {
    fn drop(&mut self) {
        let output = self.host.run(&["bash", "-c", END, "end", &self.group]);
        if !output.status.success() {
            eprintln!("a program of eve's still runs: {output}");
        }
    }
}

/// A program of eve's whose process keeps running while its file is replaced.
pub(crate) struct Trap {
    host: Host,
    /// Path of the program, with which her process is started.
    pub(crate) program: String,
    traces: String,
}

impl Trap {
    /// Replaces the program's file by a script that records the uid of each account that runs it.
    #[track_caller]
    pub(crate) fn set(&self) {
        let script = format!(
            "#!/bin/bash\nid -u >>{}\necho 'mariadbd  Ver 10.11.14-MariaDB for debian-linux-gnu'\n",
            self.traces
        );
        self.host.put(script, &self.program, 0o755);
        self.host.sh(&format!("chown eve: {0}; touch {1}; chown eve: {1}", self.program, self.traces));
    }

    /// Asserts that no account has run it.
    #[track_caller]
    pub(crate) fn expect_untouched(&self) {
        let who = self.host.sh(&format!("cat {}", self.traces));
        assert_eq!(who, "", "eve's program was executed, by these user ids");
    }
}
