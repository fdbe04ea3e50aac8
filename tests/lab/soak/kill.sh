# Kills a process of one run on a host and prints which, if any. Sent to bash by soak.rs. Arguments: pid of the
# controller, end of the agent's name, seconds to wait after its start, kind of process, number that selects one of
# several. The journal shows which run an agent belongs to: processes of other runs are not touched.
# shellcheck shell=bash
controller=$1 end=$2 after=$3 whom=$4 pick=$5
shopt -s nullglob

journal_of_the_run() {
    for journal in /var/lib/transfer/*-"$end"/journal.bin; do
        grep -qaF " (pid $controller)" "$journal" && return 0
    done 2>/dev/null
    return 1
}
parent() { awk '$1 == "PPid:" { print $2 }' "/proc/$1/status"; }
# Processes of one kind, serve or watchdog, that have the journal open.
keepers() {
    local fd pid args
    for fd in /proc/[0-9]*/fd/[0-9]*; do
        [[ $fd -ef $journal ]] || continue
        pid=${fd#/proc/} pid=${pid%%/*}
        mapfile -d '' args <"/proc/$pid/cmdline"
        [[ ${args[1]-} == "$1" ]] && echo "$pid"
    done | sort -u
}
# A child that has not become its program yet looks like the agent.
agent() {
    local pid all
    all=$(keepers serve)
    for pid in $all; do
        grep -qx "$(parent "$pid")" <<<"$all" || echo "$pid"
    done
}
# Other runs look at the journal, too: only a child of the agent is its watchdog.
watchdog() {
    local pid
    for pid in $(keepers watchdog); do
        [[ $(parent "$pid") == "$(agent)" ]] && echo "$pid"
    done
}
session() {
    local pid
    pid=$(parent "$(agent)")
    if [[ $(<"/proc/$pid/comm") == sshd ]]; then echo "$pid"; else agent; fi
}
stage() {
    local fd lock
    local -a pids=()
    for lock in "${journal%/*}"/*.job; do
        for fd in /proc/[0-9]*/fd/8; do
            if [[ $fd -ef $lock ]]; then fd=${fd#/proc/} && pids+=("${fd%%/*}"); fi
        done
    done
    ((${#pids[@]} == 0)) || echo "${pids[pick % ${#pids[@]}]}"
}

until journal_of_the_run; do sleep 0.02; done
sleep "$after"
{
    case $whom in
        Agent | AgentAndController) found=$(agent) ;;
        AgentAndWatchdog) found=$(agent; watchdog) ;;
        Session) found=$(session) ;;
        Stage) found=$(stage) ;;
    esac
    what=$(for pid in $found; do tr '\0' ' ' <"/proc/$pid/cmdline" | cut -c 1-60; done)
    # shellcheck disable=SC2086 # pids
    [[ $found ]] && kill -KILL $found && killed=yes
} 2>/dev/null
if [[ ${killed-} ]]; then echo "killed $found: $what" | tr "\n" " "; else echo nothing; fi
