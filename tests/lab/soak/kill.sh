# Kills a process of one run on a host and prints which, if any. Sent to bash by soak.rs. Arguments: pid of the
# controller, end of the agent's name, seconds to wait after its start, kind of process, number that selects one of
# several. The journal shows which run an agent belongs to: processes of other runs are not touched.
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
# Processes that have the journal open, 0 for reading or 1 for writing, without their children.
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
