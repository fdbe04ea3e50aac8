//! `eve`: an ordinary account of a host, with no group, no sudo and no key. Everything that she runs goes when the test does.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::harness::{Host, Output, Running};

/// Her number on every host.
pub(crate) const UID: u32 = 4242;
/// What only she can read.
pub(crate) const HOME: &str = "/home/eve";

/// Makes the account once, whichever of several tests comes first.
const CREATE: &str = r#"
    exec 9>/run/lock/transfer-lab-eve; flock 9
    id -u eve >/dev/null 2>&1 || useradd --create-home --shell /bin/bash --password '*' --uid "$1" eve
    chmod 700 /home/eve"#;
/// Becomes her in a control group of its own, which is how everything that she starts is found again.
const BECOME: &str = r#"
    group=$1; shift
    mkdir -p "$group" && echo $$ >"$group/cgroup.procs" || exit
    exec setpriv --reuid eve --regid eve --init-groups -- env HOME=/home/eve USER=eve LOGNAME=eve "$@""#;
const END: &str = r#"
    [[ -d $1 ]] || exit 0
    echo 1 >"$1/cgroup.kill"
    for ((i = 0; i < 500; i++)); do rmdir "$1" 2>/dev/null && exit; sleep 0.01; done; exit 1"#;

/// The account on one host.
pub(crate) struct Eve {
    host: Host,
}

impl Eve {
    /// Makes the account where there is none yet.
    #[track_caller]
    pub(crate) fn on(host: &Host) -> Self {
        host.run(&["bash", "-c", CREATE, "create", &UID.to_string()]).expect_success();
        Self { host: host.clone() }
    }

    /// Runs a command as her, to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.host.command(args).user("eve").run()
    }

    /// Runs a bash script as her, with arguments, which has to succeed; returns its output.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str, args: &[&str]) -> String {
        self.run(&[&["bash", "-c", script, "eve"], args].concat()).expect_success().stdout
    }

    /// Starts a perl program as her that goes on while the run does.
    pub(crate) fn perl(&self, program: &str, args: &[&str]) -> Attack {
        self.spawn(&[&["perl", "-e", program], args].concat())
    }

    /// Starts a bash script as her that goes on while the run does.
    pub(crate) fn bash(&self, script: &str, args: &[&str]) -> Attack {
        self.spawn(&[&["bash", "--norc", "-c", script, "eve"], args].concat())
    }

    fn spawn(&self, args: &[&str]) -> Attack {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let group = format!("/sys/fs/cgroup/eve-{}-{number}", std::process::id());
        let program = self.host.spawn(&[&["bash", "-c", BECOME, "become", &group], args].concat());
        Attack { host: self.host.clone(), group, program }
    }
}

/// A program of hers that runs. Dropping it ends it, with all that it has started.
pub(crate) struct Attack {
    host: Host,
    group: String,
    /// The program, whose first process is hers after a moment.
    pub(crate) program: Running,
}

impl Drop for Attack {
    fn drop(&mut self) {
        let output = self.host.run(&["bash", "-c", END, "end", &self.group]);
        if !output.status.success() {
            eprintln!("a program of eve's stays: {output}");
        }
    }
}
