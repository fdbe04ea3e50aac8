//! The processes of a run on a host: how they are found, and what can be done to them.

use crate::harness::Host;

/// A group of processes on a host that can be stopped as a whole.
pub(crate) const FREEZER: &str = "/sys/fs/cgroup/scene";

/// Shell functions that find the processes of a run, by the descriptors that only they have. `$home` is the directory
/// of the agent.
pub(crate) const FIND: &str = r#"
    of() {
        local fd
        for fd in /proc/[0-9]*/fd/"$1"; do
            if [[ $fd -ef $2 ]]; then fd=${fd#/proc/}; echo "${fd%%/*}"; fi
        done
    }
    # Of one that has gone meanwhile, nothing is told, and it is none of these.
    parent() { awk '$1 == "PPid:" { print $2 }' "/proc/$1/status" 2>/dev/null; }
    # Who may write to the journal: the agent, and its effects in flight, which have it for a parent.
    agent() {
        local pid up
        for pid in $(of 9 "$home/journal"); do
            if writes "$pid" && up=$(parent "$pid") && [[ ! /proc/$up/fd/9 -ef $home/journal ]]; then echo "$pid"; fi
        done
    }
    writes() { [[ $(awk '/^flags/ { print $2 }' "/proc/$1/fdinfo/9" 2>/dev/null) == *1 ]]; }
    session() { parent "$(agent)"; }
    watchdog() {
        local pid
        for pid in $(of 9 "$home/journal"); do
            if ! writes "$pid" && [[ -e /proc/$pid/fd/9 ]]; then echo "$pid"; fi
        done
    }
    # process JOB COMMAND ARGUMENTS: one process of a job, by its name and a part of its arguments.
    process() {
        local pid
        for pid in $(of 8 "$home/$1.job"); do
            if [[ $(<"/proc/$pid/comm") == "$2" && " $(tr '\0' ' ' <"/proc/$pid/cmdline")" == *" $3 "* ]]; then
                echo "$pid"
            fi
        done
    }
    home=$(compgen -G '/var/lib/transfer/*' || compgen -G '/home/dba/.local/state/transfer/*' || echo none)
"#;

/// Runs a script with `$home` and the functions that find processes: `agent`, `session`, `watchdog`, `process`.
#[track_caller]
pub(crate) fn sh(host: &Host, script: &str) -> String {
    host.sh(&format!("{FIND}{script}"))
}

/// Whether such a script succeeds.
pub(crate) fn hold(host: &Host, script: &str) -> bool {
    let script = format!("set -euo pipefail\n{FIND}{script}\n");
    host.command(&["bash", "--norc", "-s"]).stdin(script).run().status.success()
}

/// The name of the one agent that has a journal on the host.
#[track_caller]
pub(crate) fn agent(host: &Host) -> String {
    sh(host, "[[ -e $home/journal ]]; echo -n \"${home##*/}\"")
}

/// Processes that were found once, whatever has become of their parents.
pub(crate) struct Found {
    host: Host,
    pids: Vec<String>,
}

impl Found {
    /// All processes that some of the functions find now; each of them has to find one.
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

    /// Stops all of them in a way that nothing but [`Found::thaw`] ends: the kernel wakes stopped processes when their
    /// parent is killed.
    #[track_caller]
    pub(crate) fn freeze(&self) {
        let pids = self.pids.join(" ");
        self.host.sh(&format!(
            "mkdir -p {FREEZER}; for pid in {pids}; do echo $pid >{FREEZER}/cgroup.procs 2>/dev/null || [[ ! -e /proc/$pid ]]; done; echo 1 >{FREEZER}/cgroup.freeze"
        ));
    }

    /// Lets them go on.
    #[track_caller]
    pub(crate) fn thaw(&self) {
        self.host.sh(&format!("echo 0 >{FREEZER}/cgroup.freeze"));
    }

    /// Whether none of them is left.
    pub(crate) fn are_gone(&self) -> bool {
        self.pids.iter().all(|pid| !self.host.run(&["test", "-e", &format!("/proc/{pid}")]).status.success())
    }
}
