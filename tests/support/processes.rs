//! Processes of a run on a host of the lab.

use super::hosts::Host;

/// Shell functions that find the processes of a run, by descriptors that no other process has. `$home` is the
/// directory of the agent.
pub(crate) const FIND: &str = r#"
    of() {
        local fd
        for fd in /proc/[0-9]*/fd/"$1"; do
            if [[ $fd -ef $2 ]]; then fd=${fd#/proc/}; echo "${fd%%/*}"; fi
        done
    }
    # Prints nothing for a process that has ended.
    parent() { awk '$1 == "PPid:" { print $2 }' "/proc/$1/status" 2>/dev/null; }
    # Processes that may write to the journal are the agent and its children that make a change.
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

/// Runs a script with `$home` and the functions that find processes: `agent`, `session`, `watchdog`,
/// `process`.
#[track_caller]
pub(crate) fn sh(host: &Host, script: &str) -> String {
    host.sh(&format!("{FIND}{script}"))
}
