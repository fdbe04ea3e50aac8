//! Agents, watchdogs and jobs of a run: whether they exist, and what a test does to them.

use super::hosts::Host;
use super::processes::{FIND, sh};

/// A group of processes on a host that can be frozen as a whole.
pub(crate) const FREEZER: &str = "/sys/fs/cgroup/scene";

/// Whether a script with the functions of [`FIND`] succeeds.
pub(crate) fn holds(host: &Host, script: &str) -> bool {
    let script = format!("set -euo pipefail\n{FIND}{script}\n");
    host.command(&["bash", "--norc", "-s"]).stdin(script).run().status.success()
}

/// Returns the name of the only agent that has a journal on the host.
#[track_caller]
pub(crate) fn name(host: &Host) -> String {
    sh(host, "[[ -e $home/journal.bin ]]; echo -n \"${home##*/}\"")
}

/// Processes that were found, whatever has become of their parents.
pub(crate) struct Found {
    host: Host,
    pids: Vec<String>,
}

impl Found {
    /// Finds processes by some of these functions, each of which has to find at least one.
    #[track_caller]
    pub(crate) fn of(host: &Host, whom: &[&str]) -> Self {
        let finds: String =
            whom.iter().map(|who| format!("found=$({who}); echo ${{found:?no {who}}}\n")).collect();
        let pids = sh(host, &finds).split_whitespace().map(ToOwned::to_owned).collect();
        Self { host: host.clone(), pids }
    }

    /// Sends a signal to all of them at once.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        self.host.sh(&format!("kill -s {name} {}", self.pids.join(" ")));
    }

    /// Freezes them until [`Found::thaw`]. SIGSTOP would not do: the kernel continues stopped processes when
    /// their parent is killed.
    #[track_caller]
    pub(crate) fn freeze(&self) {
        let pids = self.pids.join(" ");
        self.host.sh(&format!(
            "mkdir -p {FREEZER}; for pid in {pids}; do echo $pid >{FREEZER}/cgroup.procs 2>/dev/null || [[ ! -e /proc/$pid ]]; done; echo 1 >{FREEZER}/cgroup.freeze"
        ));
    }

    /// Lets them continue.
    #[track_caller]
    pub(crate) fn thaw(&self) {
        self.host.sh(&format!("echo 0 >{FREEZER}/cgroup.freeze"));
    }

    /// Whether all of them have ended.
    pub(crate) fn are_gone(&self) -> bool {
        self.pids.iter().all(|pid| !self.host.run(&["test", "-e", &format!("/proc/{pid}")]).status.success())
    }
}
