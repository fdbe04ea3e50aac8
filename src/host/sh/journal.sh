# shellcheck shell=bash
# journal.sh: what a run did to this host, and how it is undone. Used by the guard, by its sentinel, and by
# `transfer status` and `transfer clean`.
#
# A journal is $state/GUARD/journal, locked (flock) by whoever may still write to it or replay it: the guard, effects
# in flight, the sentinel. Its lines: `transfer-journal 1 BOOT ROLE CONTROLLER STARTED PATH .`, then one per lease,
# `lease SCOPE KIND ARGUMENT... .`, written and synced before the effect. A line that does not end in the field `.` was
# torn and its effect was never made.
#
# SCOPE boot: the effect is gone after a reboot (process, rule, lock). SCOPE disk: it is not (staging, a name).

stand_back=()

# read_journal FILE: sets `header` (array, may be empty) and `records` (array of messages, oldest first).
read_journal() {
  local message
  header=() records=()
  while IFS= read -r message; do
    split "$message"
    [[ ${words[-1]-} == . ]] || continue
    case ${words[0]} in
      transfer-journal) header=("${words[@]}") ;;
      lease) records+=("$message") ;;
    esac
  done <"$1"
}

# holders LOCKFILE: sets `pids` to the processes that have LOCKFILE open as descriptor 8, which every member of a
# pipeline inherits. By the file and not by a remembered pid: that may be somebody else's by now.
holders() {
  local fd
  pids=()
  for fd in /proc/[0-9]*/fd/8; do
    if [[ $fd -ef $1 ]]; then
      fd=${fd#/proc/}
      pids+=("${fd%%/*}")
    fi
  done
}

# end_processes LOCKFILE: ends all of its holders, first kindly; true when none is left.
end_processes() {
  local round
  for round in {1..60}; do
    holders "$1"
    ((${#pids[@]} == 0)) && return 0
    if ((round == 1)); then
      kill -TERM "${pids[@]}" 2>/dev/null
      # A stopped process must wake up to die.
      kill -CONT "${pids[@]}" 2>/dev/null
    elif ((round > 10)); then
      kill -KILL "${pids[@]}" 2>/dev/null
    fi
    sleep 0.05
  done
  return 1
}

# iptables_command LAYER FAMILY: sets REPLY to the program of that back end and address family.
iptables_command() {
  local prefix=iptables
  [[ $2 == 6 ]] && prefix=ip6tables
  REPLY=$prefix-${1#iptables-}
  command -v "$REPLY" >/dev/null || REPLY=$prefix
}

# close_rules LAYER FAMILY TAG: removes every rule that carries TAG; true when none is left. What cannot be listed
# cannot be said to be gone. `lock_wait`: seconds to wait for the lock of the old tables.
close_rules() {
  local layer=$1 family=$2 tag=$3 program rules rule
  local -a spec
  if [[ $layer == nftables ]]; then
    rules=$(nft -t -a list ruleset) || return 1
    awk -v tag="comment \"$tag\" # handle " '
      $1 == "table" { family = $2; table = $3 }
      $1 == "chain" { chain = $2 }
      (at = index($0, tag)) { print "delete rule", family, table, chain, "handle", substr($0, at + length(tag)) }
    ' <<<"$rules" | nft -f -
    rules=$(nft -t list ruleset) || return 1
    [[ $rules != *"comment \"$tag\""* ]]
  else
    iptables_command "$layer" "$family"
    program=$REPLY
    rules=$("$program" -w "$lock_wait" -S INPUT) || return 1
    while IFS= read -r rule; do
      carries "$rule" "$tag" || continue
      read -ra spec <<<"${rule//\"/}"
      "$program" -w "$lock_wait" -D "${spec[@]:1}" || return 1
    done <<<"$rules"
    rules=$("$program" -w "$lock_wait" -S INPUT) || return 1
    ! carries "$rules" "$tag"
  fi
}

# carries RULES TAG: whether that comment, and not a longer one, is in what iptables listed.
carries() {
  [[ $1 == *" --comment $2 "* || $1 == *" --comment \"$2\" "* ]]
}

# free_lock FILE: removes a lock file, unless another run holds it by now.
free_lock() {
  owns_runtime && [[ -f $1 ]] || return 0
  (
    exec 7>>"$1" || exit 0
    flock -n 7 && [[ $1 -ef /proc/self/fd/7 ]] && rm -f -- "$1"
    exit 0
  )
}

# remove_tree PATH: with all that is below it on its own file system; nothing where something is mounted there. True when
# it is gone. `stand_back` (array): a prefix of programs that may wait for others.
remove_tree() {
  [[ -e $1 || -L $1 ]] || return 0
  mounted "$1" && return 1
  "${stand_back[@]}" rm -rf --one-file-system -- "$1" && [[ ! -e $1 && ! -L $1 ]] && return
  # Without root, directories that may not be written to keep their entries. Not the files: they may have other names.
  find "$1" -xdev -type d -exec chmod u+rwx -- {} \;
  rm -rf --one-file-system -- "$1" && [[ ! -e $1 && ! -L $1 ]]
}

# make_durable PATH: so that what was undone there does not come back with a power cut, when the journal that knows of it
# is gone. A disk that refuses is no reason to keep a journal. `hasty`: set where no disk is to be waited for.
make_durable() {
  [[ ${hasty-} ]] || sync -- "$1" 2>/dev/null
  return 0
}

# undo GUARD KIND ARGUMENT...: undoes one lease; may be repeated. 0: nothing of it is left; 2: it is kept, as was asked
# for.
undo() {
  local guard=$1 kind=$2
  shift 2
  case $kind in
    job) end_processes "$1" ;;
    port) free_lock "$runtime/port.$1" ;;
    target) free_lock "$1" ;;
    rule) close_rules "$1" "$2" "$3" ;;
    # Nothing but a path that carries the run's own name is ever removed.
    staging) [[ ${1##*/} == ".transfer-$guard" ]] && remove_tree "$1" && make_durable "${1%/*}/" ;;
    kept_staging)
      rmdir -- "$1/.probe" "$1/.exchange" "$1" 2>/dev/null
      [[ ! -e $1 ]] || { kept "$guard" "$1"; return 2; }
      make_durable "${1%/*}/"
      ;;
    aside)
      # While it is still our copy that has this name, the old one has its own.
      [[ ${1##*/} == *".old-${guard%-*}" ]] || return 1
      [[ $(stat -c %i -- "$1" 2>/dev/null) != "$2" ]] || { remove_tree "$1" && make_durable "${1%/*}/"; }
      ;;
    mode) [[ $(stat -c %i -- "$1" 2>/dev/null) != "$2" ]] || { chmod "$3" -- "$1" && make_durable "$1"; } ;;
    *) return 1 ;;
  esac
}

# replay DIRECTORY: undoes all leases of a journal whose lock the caller holds, newest first: what ends with a boot
# (seconds) before what is on disk (may take long). What fails is tried once more at the end, with more patience. Calls
# `undone` or `left` for each lease, or `kept` for a staging directory that was to be kept and is not empty. Removes the
# directory when nothing is left, and the directories above it when they are empty.
replay() {
  local directory=$1 guard=${1##*/} scope index record lock_wait=3
  local -a header records words again=()
  read_journal "$directory/journal"
  for scope in boot disk; do
    [[ $scope == boot && ${header[2]-} != "$boot" ]] && continue
    for ((index = ${#records[@]} - 1; index >= 0; index--)); do
      split "${records[index]}"
      [[ ${words[1]} == "$scope" ]] || continue
      undo "$guard" "${words[@]:2:${#words[@]}-3}"
      case $? in
        0) undone "$guard" "${words[@]:2:${#words[@]}-3}" ;;
        2) ;;
        *) again+=("${records[index]}") ;;
      esac
    done
  done
  lock_wait=30 index=0
  for record in "${again[@]}"; do
    split "$record"
    if undo "$guard" "${words[@]:2:${#words[@]}-3}"; then
      undone "$guard" "${words[@]:2:${#words[@]}-3}"
    else
      left "$guard" "${words[@]:2:${#words[@]}-3}"
      index=1
    fi
  done
  ((index == 0)) || return 1
  # Out of sight at once: a directory that has lost its journal already would be nobody's.
  mv -T -- "$directory" "$state/.old-$guard" && forget "$guard"
}

# forget GUARD: removes the directory of a guard that died before its first lease or after its last one was undone, and those
# above it when they are empty.
forget() {
  rm -rf -- "${state:?}/.new-$1" "$state/.old-$1" || return
  rmdir -- "$runtime" "$state" 2>/dev/null
  return 0
}

# lock_journal DIRECTORY [-n]: takes the journal's lock on descriptor 9; false when it is held (with -n) or gone.
lock_journal() {
  local journal=$1/journal
  [[ -e $journal ]] || return 1
  # For reading: it must not come into being again while its owner removes it.
  exec 9<"$journal" || return 1
  if flock ${2+"$2"} 9 && [[ $journal -ef /proc/self/fd/9 ]]; then return 0; fi
  exec 9>&-
  return 1
}

# clean_dead: replays the journals that nobody holds any more. Calls `alive` for each that somebody holds.
clean_dead() {
  local directory lock
  for directory in "$state"/*/; do
    directory=${directory%/}
    if lock_journal "$directory" -n; then
      replay "$directory"
      exec 9>&-
    elif [[ -e $directory/journal ]]; then
      alive "${directory##*/}"
    fi
  done
  # Of guards that died between the lock and its record; not of one that is just about to lock its own.
  while IFS= read -r -d '' lock; do free_lock "$lock"; done < <(
    find "$runtime" -maxdepth 1 \( -name 'port.*' -o -name 'target.*' \) -mmin +1 -print0 2>/dev/null)
  # A guard that died before it was ready has changed nothing else; one that is about to be locks its journal.
  for directory in "$state"/.new-*/; do
    directory=${directory%/}
    lock_journal "$directory" -n || [[ ! -e $directory/journal && $(find "$directory" -maxdepth 0 -mmin +1) ]] || continue
    rm -rf -- "$directory"
    exec 9>&-
  done 2>/dev/null
  # One that died after that had nothing left to undo.
  for directory in "$state"/.old-*/; do
    directory=${directory%/}
    if [[ -d $directory ]]; then forget "${directory##*/.old-}"; fi
  done
  rmdir -- "$runtime" "$state" 2>/dev/null
  return 0
}
