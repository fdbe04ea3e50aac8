//! Processes of a run on a host of the lab.

use super::hosts::Host;

/// Shell functions that find the processes of a run, by files that no other process has open. `$home` is the
/// directory of the agent.
pub(crate) const FIND: &str = r#"
    # with FILE [DESCRIPTOR]: processes that have a file open.
    with() {
        local fd
        for fd in /proc/[0-9]*/fd/${2-[0-9]*}; do
            if [[ $fd -ef $1 ]]; then fd=${fd#/proc/}; echo "${fd%%/*}"; fi
        done | sort -u
    }
    # Prints nothing for a process that has ended.
    parent() { awk '$1 == "PPid:" { print $2 }' "/proc/$1/status" 2>/dev/null; }
    # kind SERVE|WATCHDOG: those of a kind among the processes that have the journal open.
    kind() {
        local pid args
        for pid in $(with "$home/journal.bin"); do
            mapfile -d '' args <"/proc/$pid/cmdline"
            if [[ ${args[1]-} == "$1" ]]; then echo "$pid"; fi
        done 2>/dev/null
    }
    # A child that has not become its program yet looks like the agent.
    agent() {
        local pid all
        all=$(kind serve)
        for pid in $all; do if [[ " ${all//$'\n'/ } " != *" $(parent "$pid") "* ]]; then echo "$pid"; fi; done
    }
    session() { parent "$(agent)"; }
    watchdog() { kind watchdog; }
    # job NAME: the process of a job, without its programs.
    job() {
        local pid args
        for pid in $(with "$home/$1.job" 8); do
            mapfile -d '' args <"/proc/$pid/cmdline"
            if [[ ${args[1]-} == job ]]; then echo "$pid"; fi
        done 2>/dev/null
    }
    # process JOB COMMAND ARGUMENTS: one program of a job, by its name and a part of its arguments.
    process() {
        local pid
        for pid in $(with "$home/$1.job" 8); do
            if [[ $(<"/proc/$pid/comm") == "$2" && " $(tr '\0' ' ' <"/proc/$pid/cmdline")" == *" $3 "* ]]; then
                echo "$pid"
            fi
        done
    }
    home=$(compgen -G '/var/lib/transfer/*' || compgen -G '/home/dba/.local/state/transfer/*' || echo none)
"#;

/// Runs a script with `$home` and the functions that find processes: `agent`, `session`, `watchdog`, `job`,
/// `process`.
#[track_caller]
pub(crate) fn sh(host: &Host, script: &str) -> String {
    host.sh(&format!("{FIND}{script}"))
}
