# Kills something of one run on a host and tells what, or that there was nothing; sent to bash by soak.rs. Arguments:
# the pid of the controller, the end of the name of the agent, seconds to wait once it has begun, whom, which of several.
# Whose an agent is, is in its journal: nobody else's process is touched.
# shellcheck shell=bash
controller=$1 end=$2 after=$3 whom=$4 pick=$5
shopt -s nullglob

journal_of_the_run() {
    local head
    for journal in /var/lib/transfer/*-"$end"/journal; do
        read -r head <"$journal" && [[ $head == *" (pid $controller)"* ]] && return 0
    done 2>/dev/null
    return 1
}
parent() { awk '$1 == "PPid:" { print $2 }' "/proc/$1/status"; }
# Who has it open in a way, 0 for reading or 1 for writing, and is no child of one who has.
keepers() {
    local fd pid flags
    for fd in /proc/[0-9]*/fd/9; do
        [[ $fd -ef $journal ]] || continue
        pid=${fd#/proc/} pid=${pid%%/*}
        flags=$(awk '/^flags/ { print $2 }' "/proc/$pid/fdinfo/9")
        [[ $flags == *"$1" && ($2 != yes || ! /proc/$(parent "$pid")/fd/9 -ef $journal) ]] && echo "$pid"
    done
}
agent() { keepers 1 yes; }
# Other runs look at the journal, too: only a child of the agent is its watchdog.
watchdog() {
    local pid
    for pid in $(keepers 0 no); do
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
