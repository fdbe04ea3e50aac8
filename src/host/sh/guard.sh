# shellcheck shell=bash
# guard.sh: the one program of a run on a host. Reads commands on its standard input, makes each effect only after its
# undo is in the journal, and undoes all of them when it is told to (`release`), when its input ends, on HUP, INT and
# TERM, and when the controller has been silent for the lease time. The protocol is in docs/guard-protocol.md.
#
# Descriptors: 3 commands in, 4 the gate of a job, 5 replies and events out, 6 the key of a job, 7 the port's lock,
# 8 a job's lock file, 9 the journal's lock, 10 the lock of the final name, 11 that of a server, 12 the source,
# 13 the directory in which a copy arrives, 14 the target directory, 15 the staging directory. Jobs inherit 5 to 8, 12 and
# 13, and never 3, 4 and 9 to 11: the input could not end and the journal could not be replayed while they live.

send() {
  line "$@"
  printf '%s\n' "$REPLY" >&5
} 2>/dev/null

event() { send '!' "$@"; }
ok() { send '=' "$sequence" ok "$@"; }
fail() { send '=' "$sequence" fail "$@"; }

undone() { event undone "$@"; }
left() { event left "$@"; }
kept() { event kept "$2"; }

# record SCOPE KIND ARGUMENT...: the undo, on disk, before its effect. The leading newline ends a torn record.
record() {
  line lease "$@" .
  printf '\n%s\n' "$REPLY" >&9 && sync -d "$home/journal"
}

begin() {
  find_directories
  this_boot
  local try index above=${state%/*} up=$state
  # Under a name that nobody takes for a run, until it is one.
  home=$state/.new-$guard
  while [[ $above && ! -e $above ]]; do above=${above%/*}; done
  # Another run's release may remove the empty parent in between, and a clean-up a journal that is not locked yet.
  for try in 1 2 3 4 5; do
    # The umask makes them ours alone.
    mkdir -p -- "$state" && [[ -O $state && ! -L $state ]] && mkdir -p -- "$home" && exec 9>>"$home/journal" &&
      flock -w 2 9 && [[ $home/journal -ef /proc/self/fd/9 ]] && break
    ((try < 5)) || return 1
  done
  line transfer-journal 1 "$boot" "$role" "$controller" "$(date +%s)" "$path" .
  printf '%s\n' "$REPLY" >&9 && sync -d "$home/journal" || return 1
  for ((index = 0; index < ${#tools[@]}; index += 2)); do
    printf '%s' "${tools[index + 1]}" >"$home/${tools[index]}" || return 1
  done
  sync -- "$home" && mv -T -- "$home" "$state/$guard" || return 1
  home=$state/$guard
  sync -- "$state" || return 1
  # The entry of that directory, too, which goes with the last run and is made again, and those of what is above it and new.
  while [[ $up != "$above" ]]; do
    up=${up%/*}
    [[ ! -r $up/ ]] || sync -- "$up/" || return 1
  done
}

# The sentinel waits for the journal's lock, which is free when the guard and its effects in flight are gone. If the
# journal is still there then, the guard was killed; and perhaps it was on its last step. What the guard itself has tried to
# undo in vain is for people: they need not wait for us, too.
start_sentinel() {
  set -m
  (
    exec 3<&- 5>/dev/null 9>&- 10>&- 11>&-
    trap '' HUP INT TERM
    undone() { :; }
    left() { :; }
    kept() { :; }
    if ! lock_journal "$home"; then
      forget "$guard"
    elif [[ ! -e $home/tried ]]; then
      replay "$home"
    fi
  ) >/dev/null 2>&1 &
  disown
  set +m
}

# Everything is undone before a word is said about it: nobody may be listening any more, and a full pipe would hold us.
release() {
  local word
  local -a told=()
  trap '' HUP INT TERM
  # Not yet that of a server that rests, which is undone behind it.
  exec 3<&- 4>&- 7>&- 8>&- 10>&- 12<&- 13<&- 14<&- 15<&-
  # Undos go by paths: whoever replays the journal in our place has nothing else.
  unset -v target_directory inbox
  # By somebody who may wait for a reader.
  event ending "$1" 9>&- 11>&- &
  undone() { line '!' undone "$@"; told+=("$REPLY"); }
  left() { line '!' left "$@"; told+=("$REPLY"); }
  kept() { line '!' kept "$2"; told+=("$REPLY"); }
  replay "$home" || : >"$home/tried"
  exec 9>&-
  for word in "${told[@]}"; do printf '%s\n' "$word" >&5; done 2>/dev/null
  event bye
  exit 0
}

# What earlier runs left here is undone beside our own work: it may take long, and concerns nobody else.
clean_up_after_others() {
  set -m
  (
    exec 3<&- 9>&- 10>&- 11>&-
    undone() { :; }
    alive() { :; }
    kept() { :; }
    may_start=''
    clean_dead
  ) &
  disown
  set +m
}

# listening_ports: sets the array `listening` to the ports that anybody listens on, as indices.
listening_ports() {
  local port
  listening=()
  while read -r port; do listening[16#$port]=yes; done < <(
    awk '$4 == "0A" { sub(/.*:/, "", $2); print $2 }' /proc/net/tcp /proc/net/tcp6 2>/dev/null)
}

# transferpy_locks: sets the arrays `locked`, by port, to transferpy's locks, and `ignored` to what only bears such a name.
# transferpy makes directories, as root; what other accounts put into /tmp keeps nobody from a port.
transferpy_locks() {
  local kind uid name
  locked=() ignored=()
  while IFS=$'\t' read -r -d '' kind uid name; do
    [[ $name =~ _([0-9]{1,5})\.lock$ ]] || continue
    if [[ $kind == d && ($uid == 0 || $uid == "$EUID") ]]; then
      locked[10#${BASH_REMATCH[1]}]=/tmp/$name
    else
      ignored[10#${BASH_REMATCH[1]}]=$uid:/tmp/$name
    fi
  done < <(find /tmp -maxdepth 1 -name 'trnsfr_*.lock' -printf '%y\t%U\t%f\0' 2>/dev/null)
}

# take_lock FILE DESCRIPTOR OPTION-OF-FLOCK...: opens a lock file of ours and locks it. 1: another run has it; 2: there can
# be no lock.
take_lock() {
  local try
  for try in 1 2 3 4 5; do
    # Another run's release may remove the empty directory in between.
    mkdir -p -- "$runtime"
    if ! owns_runtime || ! eval "exec $2>>\"\$1\""; then continue; fi
    flock "${@:3}" "$2" || { eval "exec $2>&-"; return 1; }
    # The file that was locked must be the one that others see: its last owner may have removed it in between.
    [[ $1 -ef /proc/self/fd/$2 ]] && return 0
  done
  return 2
}

# lease_port FIRST LAST: the first port that nobody listens on, whose lock can be had and which transferpy has not taken.
# Replies the port, and what was ignored of that port's locks.
lease_port() {
  local port in_use=0 by_runs=0 by_transferpy='' many=yes REPLY
  local -a listening locked ignored
  # Who cleans up may have a lock for a moment; where there is a choice, another port is taken.
  local -a patience=(-n)
  (($1 == $2)) && patience=(-w 1) many=''
  exec 7>&-
  listening_ports
  transferpy_locks
  for ((port = $1; port <= $2; port++)); do
    [[ ${listening[port]-} ]] && { in_use=$((in_use + 1)); continue; }
    [[ ${locked[port]-} ]] && { by_transferpy=${by_transferpy:-${locked[port]}}; continue; }
    take_lock "$runtime/port.$port" 7 "${patience[@]}"
    case $? in
      1) by_runs=$((by_runs + 1)); continue ;;
      2) fail runtime "$(why_no_runtime)"; return ;;
    esac
    listening_ports
    if [[ ${listening[port]-} ]]; then
      # Ours, but of no use: it goes with its lock still held.
      rm -f -- "$runtime/port.$port"
      exec 7>&-
      in_use=$((in_use + 1))
      continue
    fi
    if ! record boot port "$port"; then
      fail journal "$home/journal cannot be written"
    elif [[ ${ignored[port]-} ]]; then
      # Only this one's owner is looked up: there may be any number of them.
      REPLY=$(id -nu -- "${ignored[port]%%:*}" 2>/dev/null) || REPLY=${ignored[port]%%:*}
      ok "$port" "${ignored[port]#*:} of $REPLY"
    else
      ok "$port"
    fi
    return
  done
  # What is in the way, with numbers where several ports were looked at.
  local -a why=()
  ((in_use == 0)) || why+=("${many:+$in_use }in use")
  ((by_runs == 0)) || why+=("${many:+$by_runs }held by other runs")
  [[ -z $by_transferpy ]] || why+=("locked by transferpy: $by_transferpy")
  printf -v REPLY '%s, ' "${why[@]}"
  fail busy "${REPLY%, }"
}

# open_rule LAYER FAMILY SOURCE PORT: one peer, one port, in front of what is there. Replies how many chains.
open_rule() {
  local layer=$1 family=$2 source=$3 port=$4 tag=transfer-$guard chains rules message
  record boot rule "$layer" "$family" "$tag" || { fail journal "$home/journal cannot be written"; return; }
  if [[ $layer == nftables ]]; then
    local ip=ip
    [[ $family == 6 ]] && ip=ip6
    chains=$(input_chains) || { fail firewall "nft cannot list the rules"; return; }
    # What accepts a packet in one chain does not keep another one from dropping it: all of them are opened, or none.
    rules=$(awk -v ip="$ip" -v rule="$ip saddr $source tcp dport $port accept comment \"$tag\"" '
      ($1 == "inet" || $1 == ip) && $3 == "free" { print "insert rule", $1, $2, $4, rule }' < <(printf '%s\n' "$chains"))
    [[ -z $rules ]] && { ok 0; return; }
    if message=$(nft -f - < <(printf '%s\n' "$rules") 2>&1); then ok "$(printf '%s\n' "$rules" | wc -l)"; else fail firewall "${message%%$'\n'*}"; fi
  else
    iptables_command "$layer" "$family"
    if message=$("$REPLY" -w 5 -I INPUT -s "$source" -p tcp --dport "$port" -m comment --comment "$tag" -j ACCEPT 2>&1)
    then ok 1; else fail firewall "${message%%$'\n'*}"; fi
  fi
}

# start_job NAME SCRIPT [KEY]: runs a script in a process group of its own; `exit NAME STATUS` tells its end. A job that
# names $home/NAME.gate waits there until `open_gate`. A key travels on a pipe: in no argument, environment or file.
start_job() {
  local name=$1 script=$2 key=${3-}
  local lock=$home/$name.job gate=$home/$name.gate
  if ! { : >"$lock" && record boot job "$lock"; }; then
    fail journal "$home/journal cannot be written"
    return
  fi
  if [[ $script == *"/$name.gate"* ]]; then
    # What was said to an earlier job goes with its last reader, which is us.
    exec 4>&-
    [[ -p $gate ]] || REPLY=$(mkfifo -- "$gate" 2>&1) || { fail gate "mkfifo cannot make $gate${REPLY:+: $REPLY}"; return; }
    # Held open for reading too, so that opening the gate never waits for a reader.
    exec 4<>"$gate"
  fi
  export home nr_splice nr_tee nr_fadvise
  # Opened here and not by the job: from its first moment the job is one that `end_processes` finds.
  exec 8>>"$lock"
  set -m
  {
    "${stand_back[@]}" bash --norc -p -c "$script" "transfer-$name" 6< <(printf '%s\n' "$key")
    event exit "$name" $?
  } 3<&- 4>&- 9>&- 10>&- 11>&- 14<&- 15<&- &
  tellers[$name]=$!
  set +m
  exec 7>&- 8>&-
  ok
}

# Who tells the end of a job can be killed like any other process. Then the rest of the job goes, and this tells it.
tell_lost_jobs() {
  local name status
  for name in "${!tellers[@]}"; do
    [[ -e $home/$name.job ]] || continue
    [[ /proc/${tellers[$name]}/fd/8 -ef $home/$name.job ]] && continue
    wait "${tellers[$name]}"
    status=$?
    unset "tellers[$name]"
    ((status > 128)) || continue
    end_processes "$home/$name.job"
    event exit "$name" "$status"
  done
}

stop_job() {
  unset "tellers[$1]"
  if end_processes "$home/$1.job"; then
    # Who would have told it was ended, too.
    event exit "$1" 143
    ok
  else
    fail stop "processes of $1 do not end: ${pids[*]}"
  fi
}

open_gate() {
  if printf 'go\n' >&4; then ok; else fail gate "no job waits"; fi
}

# sockets NAME PORT QUESTION...: what there is of the job's on that port, as sockets.pl tells.
sockets() {
  local all row
  local -a found=()
  all=$(perl "$home/sockets.pl" "$home/$1.job" "${@:2}" 2>&1) || { fail sockets "${all##*$'\n'}"; return; }
  while IFS= read -r row; do [[ $row ]] && found+=("$row"); done < <(printf '%s\n' "$all")
  ok "${found[@]}"
}

# hold_source PATH INODE: opens what is copied, which must be the directory or file of that device and inode, and from then
# on is reached through descriptor 12 only: whoever may change the names on the way to it exchanges nothing. Jobs find it in
# $home/source.
hold_source() {
  local REPLY
  if ! hold 12 "$1"; then
    fail source "$1: ${REPLY:-it cannot be opened}; it may have been replaced since the preflight"
  elif [[ ${REPLY%% *} != "$2" ]]; then
    fail replaced "$1 is not what it was at the preflight"
  elif rm -rf -- "$home/source" && mkdir -- "$home/source" && ln -s -- /proc/self/fd/12 "$home/source/${1##*/}"; then
    ok
  else
    fail source "$home/source cannot be made"
  fi
}

# check_source PATH: whether that still leads to what is held.
check_source() {
  if [[ $(timeout 60 stat -c %d:%i -- "$1" 2>/dev/null) == "$(stat -L -c %d:%i /proc/self/fd/12)" ]]; then
    ok
  else
    fail replaced "$1 was replaced while it was copied"
  fi
}

# undo_rules: for another try on another port.
undo_rules() {
  local lock_wait=5
  if close_rules "$1" "$2" "transfer-$guard"; then ok; else fail firewall "the rule of port $3 stays"; fi
}

# lease_hook END NUMBER COMMAND SOURCE TARGETS: a command that runs when all else is undone, however the run ends.
lease_hook() {
  if record end hook "$@"; then ok; else fail journal "$home/journal cannot be written"; fi
}

# conclude WORD: how the run has ended, for commands that run then; `done` where the copy has its name by now.
conclude() {
  line status "${is_published:-$1}" .
  if printf '\n%s\n' "$REPLY" >&9 && sync -d "$home/journal"; then ok; else fail journal "$home/journal cannot be written"; fi
}

obey() {
  case $1 in
    ping) tell_lost_jobs ;;
    take_target | lease_port | open_rule | make_staging | hold_source | check_source | start_job | stop_job | open_gate | publish | fill | undo_rules) "$@" ;;
    stop_replication | note_replication | stop_server | restart | drop_old | lease_hook | conclude) "$@" ;;
    put_on_trial | start_server | accept | make_account | keep_account | give_up_account) "$@" ;;
    accepted_peer) sockets "$2" "$3" accepted "${@:4}" ;;
    local_address) sockets "$2" "$3" made ;;
    release) release released ;;
    *) fail protocol "unknown command $1" ;;
  esac
}

# ended STATUS: of the read that found nothing more.
ended() {
  if (($1 > 128)); then release silence; else release eof; fi
}

obey_signals() {
  trap 'release HUP' HUP
  trap 'release INT' INT
  trap 'release TERM' TERM
}

# guard GUARD ROLE LEASE-SECONDS NICE CONTROLLER PATH, with the tools' sources in the array `tools` (NAME SOURCE...).
main() {
  local message
  # The process that tells the end of each job.
  local -A tellers=()
  guard=$1 role=$2 lease=$3 controller=$5 path=$6
  on_trial='' trial_aside=''
  may_start=own
  (($4)) && stand_back=(nice -n "$4" ionice -c 2 -n 7)
  exec 3<&0 5>&1 </dev/null >/dev/null 2>&1
  # Not '': an ignored signal is inherited by every job.
  trap : PIPE
  find_directories
  this_boot
  find_syscalls
  if ! begin; then
    event refused "$state/$guard cannot be written"
    rm -rf -- "${home:?}"
    forget "$guard"
    exit 1
  fi
  obey_signals
  start_sentinel
  event ready
  clean_up_after_others
  while IFS= read -r -t "$lease" message <&3 || ended $?; do
    split "$message"
    sequence=${words[0]}
    obey "${words[@]:1}"
  done
}
