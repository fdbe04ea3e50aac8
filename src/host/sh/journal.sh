# shellcheck shell=bash
# journal.sh: what a run did to this host, and how it is undone. Used by the guard, by its sentinel, and by
# `transfer status` and `transfer clean`.
#
# A journal is $state/GUARD/journal, locked (flock) by whoever may still write to it or replay it: the guard, effects
# in flight, the sentinel. Its lines: `transfer-journal 1 BOOT ROLE CONTROLLER STARTED PATH .`, then one per lease,
# `lease SCOPE KIND ARGUMENT... .`, written and synced before the effect. A line that does not end in the field `.` was
# torn and its effect was never made. A line `closed SCOPE KIND ARGUMENT... .` takes back one that was undone before the end, and a
# line `accepted .` those by which an old server comes back.
#
# SCOPE boot: the effect is gone after a reboot (process, rule, lock). The others stay, and are undone in this order: disk
# (names, modes), server (one that was stopped), tree (what may take long to remove), end (a command of the user's). A line
# `status WORD .` says how the run ended, for those.
#
# `may_start` says whose servers may be started, and whose commands run: `own`, those of a run that ends itself, unless its
# host went down meanwhile; `all`, where somebody asked for it; or nothing.

stand_back=() may_start='' forgets_hooks=''
# Seconds that a command of the user's may take.
hook_limit=600

# read_journal FILE: sets `header` (array, may be empty), `records` (array of messages, oldest first), and `concluded`: how the
# run ended, or `lost` where its controller has not said so.
read_journal() {
  local message index
  header=() records=() concluded=lost
  while IFS= read -r message; do
    split "$message"
    [[ ${words[-1]-} == . ]] || continue
    case ${words[0]} in
      transfer-journal) header=("${words[@]}") ;;
      lease) records+=("$message") ;;
      status) concluded=${words[1]} ;;
      accepted)
        for ((index = ${#records[@]} - 1; index >= 0; index--)); do
          split "${records[index]}"
          [[ ${words[2]} == trial || ${words[2]} == server || ${words[1]} == server && ${words[2]} == replication ]] || continue
          records=("${records[@]:0:index}" "${records[@]:index+1}")
        done
        ;;
      closed)
        for ((index = ${#records[@]} - 1; index >= 0; index--)); do
          [[ ${records[index]#*$'\t'} == "${message#*$'\t'}" ]] || continue
          records=("${records[@]:0:index}" "${records[@]:index+1}")
          break
        done
        ;;
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
    ' < <(printf '%s\n' "$rules") | nft -f -
    rules=$(nft -t list ruleset) || return 1
    [[ $rules != *"comment \"$tag\""* ]]
  else
    iptables_command "$layer" "$family"
    program=$REPLY
    rules=$("$program" -w "$lock_wait" -S INPUT) || return 1
    while IFS= read -r rule; do
      carries "$rule" "$tag" || continue
      read -ra spec < <(printf '%s\n' "${rule//\"/}")
      "$program" -w "$lock_wait" -D "${spec[@]:1}" || return 1
    done < <(printf '%s\n' "$rules")
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
  # Root needs no mode, and is not to follow what the owner may put in the place of a directory meanwhile.
  ((EUID == 0)) || find "$1" -xdev -type d -exec chmod u+rwx -- {} \;
  rm -rf --one-file-system -- "$1" && [[ ! -e $1 && ! -L $1 ]]
}

# close_kept PATH: what is kept was never verified, and may be anything: only its owner can enter it, and no program in it has
# rights of its own.
close_kept() {
  # By a descriptor of our own directory: where others may change the names above it, nothing of theirs is changed. Behind that
  # nobody else can enter it.
  # shellcheck disable=SC2016 # perl's and the inner shell's variables
  perl -MFcntl -e '
    my ($path, @command) = @ARGV;
    sysopen(my $directory, $path, O_RDONLY | O_NOFOLLOW | O_DIRECTORY) or exit 1;
    exit 1 if (stat $directory)[4] != $>;
    chmod(0700, $directory) && chdir($directory) && exec(@command);
    exit 1' "$1" bash --norc -p -c '
    find . -xdev -mindepth 1 -maxdepth 1 -type d -exec chmod 00700 -- {} +
    find . -xdev -type f -perm /7000 -exec chmod a-st -- {} +
    ((EUID != 0)) || find . -xdev -type f -print0 | perl -0 -lne "
      BEGIN { (\$call, \$attribute) = splice(@ARGV, 0, 2) } syscall(\$call + 0, \$_, \$attribute)" "$1" security.capability
    exit 0' close "$nr_removexattr" 2>/dev/null
}

# make_durable PATH: so that what was undone there does not come back with a power cut, when the journal that knows of it
# is gone. A disk that refuses is no reason to keep a journal. `hasty`: set where no disk is to be waited for.
make_durable() {
  [[ ${hasty-} ]] || sync -- "$1" 2>/dev/null
  return 0
}

# unfill GUARD DIRECTORY STAGED: takes back the names that a copy has in its directory, unless it has all of them. By their
# inodes: what somebody else made there is not ours.
unfill() {
  local inode name
  [[ -e $state/$1/filled ]] && return 0
  while IFS= read -r -d '' inode && IFS= read -r -d '' name; do
    [[ $(stat -c %i -- "$2/$name" 2>/dev/null) == "$inode" ]] || continue
    mv -nT -- "$2/$name" "$3/$name" && [[ ! -e $2/$name && ! -L $2/$name ]] || return 1
  done <"$state/$1/names"
  make_durable "$2/"
}

# rename_to FLAG FROM TO: FLAG 1: never over an existing name (RENAME_NOREPLACE); 2: both change their names at once
# (RENAME_EXCHANGE). Prints why not.
rename_to() {
  local REPLY from
  pinned "$2"
  from=$REPLY
  pinned "$3"
  # shellcheck disable=SC2016 # perl's variables
  perl -e 'syscall($ARGV[0] + 0, -100, $ARGV[2], -100, $ARGV[3], $ARGV[1] + 0) == 0 or print($!), exit 1' \
    "$nr_renameat2" "$1" "$from" "$REPLY"
}

# pinned PATH: sets REPLY to it, through the descriptor of the target directory where it is in there and the guard holds that.
pinned() {
  REPLY=$1
  [[ -z ${target_directory+held} || ${1%/*} != "$target_directory" ]] || REPLY=/proc/self/fd/14/${1##*/}
}

# may_start_now: whether servers may be started for the journal that is replayed.
may_start_now() {
  [[ $may_start == all || $may_start == own && ${header[2]-} == "$boot" ]]
}

# is_same DATADIR INODE: whether a server that was stopped has the data that it had.
is_same() {
  [[ $(stat -L -c %i -- "$1" 2>/dev/null) == "$2" ]]
}

# Where a server may not be started, it may run all the same: then there is nothing to undo.
server_back() { # UNIT SOCKET DEFAULTS REPLICATION DATADIR INODE
  if [[ $trial ]]; then
    return 1
  elif ! may_start_now; then
    forget_drop "$1"
    systemctl is-active --quiet -- "$1"
  elif is_same "$5" "$6"; then
    said=$(start_unit "$@")
  else
    said=$(start_unit "$1" "$2" "$3" rests && rest_replication "$2" "$3")
  fi
}

replication_back() { # SOCKET DEFAULTS NAME IO SQL [DATADIR INODE]
  local io sql
  [[ ${6-} && $trial ]] && return 1
  # It was of data that is not there any more.
  [[ ${6-} ]] && ! is_same "$6" "$7" && return 0
  vouch "$1" || :
  if may_start_now; then
    said=$(restore_replication "${@:1:5}")
  elif [[ ${header[2]-} == "$boot" ]]; then
    threads "$1" "$2" "$3" && [[ $io$sql == "$4$5" ]]
  else
    # Its server was started with its host, and did with its replication what it is told to then.
    answers "$1" "$2"
  fi
}

drop_account() { # SOCKET DEFAULTS USER HOST
  local user quietly
  vouch "$1" || :
  unlogged "$1" "$2"
  quietly=$REPLY
  quoted "$3"
  user=$REPLY
  quoted "$4"
  said=$(sql "$1" "$2" "$quietly DROP USER IF EXISTS $user@$REPLY")
}

# trial_over UNIT DATADIR OLD NEW ASIDE SECONDS: the server of that unit works on NEW no more, and what it had before is again in
# DATADIR: OLD, by its inode, or nothing. It does not run then.
trial_over() {
  [[ $(stat -c %i -- "$2" 2>/dev/null) == "$4" ]] || { trial=''; return 0; }
  # Until that has succeeded, the server is not started again.
  trial=pending
  if ! may_start_now; then
    said="its data is provisional${3:+, the old data is $5}"
    return 1
  fi
  said=$(timeout -k 5 "$6" systemctl stop -- "$1" 2>&1) || return 1
  # Who was ended while it started left how it was to begin.
  forget_drop "$1"
  if is_served "$2"; then
    said="a server still works in $2"
    return 1
  fi
  if [[ -z $3 ]]; then
    said=$(rename_to 1 "$2" "$5")
  elif [[ $(stat -c %i -- "$5" 2>/dev/null) == "$3" ]]; then
    said=$(rename_to 2 "$5" "$2")
  else
    said="the old data is not in $5 any more"
    return 1
  fi || return 1
  trial=''
  make_durable "${2%/*}/"
}

# hook_after END NUMBER COMMAND SOURCE TARGETS: a command of the user's, with what it may want to know. What it says goes into a
# file: nobody waits for what it leaves running. One that was begun already, by somebody who may have been killed in it, is
# repeated only where somebody asks for that.
hook_after() {
  local home=$state/$guard status
  [[ -e $home/hook.$2.done ]] && return 0
  if [[ $forgets_hooks ]]; then
    # Also where something else is left, and this is asked for no more.
    : >"$home/hook.$2.done" && sync -- "$home/hook.$2.done" "$home" || return
    forgotten "$guard" "$3"
    return 2
  fi
  if [[ $may_start != all && -e $home/hook.$2.begun ]]; then
    said='it has failed, or was ended'
    return 1
  fi
  may_start_now || { said='it has not run'; return 1; }
  : >"$home/hook.$2.begun" && sync -- "$home/hook.$2.begun" "$home" || return
  (
    cd / && umask 022
    exec 5>&- 9>&- 11>&-
    TRANSFER_HOOK_PHASE=after TRANSFER_HOOK_STATUS=$concluded TRANSFER_HOOK_RUN=${guard%-*} TRANSFER_HOOK_END=$1 \
      TRANSFER_HOOK_SOURCE=$4 TRANSFER_HOOK_TARGETS=$5 exec env --default-signal=HUP,INT,TERM timeout -k 10 "$hook_limit" \
      bash --norc -p -c "$3" transfer-hook
  ) >"$home/hook.$2.said" 2>&1 </dev/null
  status=$?
  if ((status == 0)); then
    : >"$home/hook.$2.done" && sync -- "$home/hook.$2.done" "$home"
    return 0
  fi
  said="status $status: $(tail -c 500 -- "$home/hook.$2.said" | tail -n 1)"
  return 1
}

# undo GUARD KIND ARGUMENT...: undoes one lease; may be repeated. 0: nothing of it is left; 2: it is kept, as was asked
# for. Sets `said` to why not, where that is known.
undo() {
  local guard=$1 kind=$2
  shift 2
  case $kind in
    job) end_processes "$1" ;;
    port) free_lock "$runtime/port.$1" ;;
    target) free_lock "$1" ;;
    rest)
      # Also for a child that has not closed it yet.
      flock -u 11 2>/dev/null
      exec 11>&-
      free_lock "$1"
      ;;
    rule) close_rules "$1" "$2" "$3" ;;
    # Nothing but a path that carries the run's own name is ever removed.
    staging) [[ ${1##*/} == ".transfer-$guard" ]] && remove_tree "$1" && make_durable "${1%/*}/" ;;
    kept_staging)
      [[ ! -d $1 || -L $1 ]] || find "$1" -mindepth 1 -maxdepth 2 -depth -type d -empty -delete 2>/dev/null
      rmdir -- "$1" 2>/dev/null
      [[ ! -e $1 ]] || { close_kept "$1"; kept "$guard" "$1"; return 2; }
      make_durable "${1%/*}/"
      ;;
    aside)
      # While it is still our copy that has this name, the old one has its own.
      [[ ${1##*/} == *".old-${guard%-*}" ]] || return 1
      [[ $(stat -c %i -- "$1" 2>/dev/null) != "$2" ]] || { remove_tree "$1" && make_durable "${1%/*}/"; }
      ;;
    old) [[ ${1##*/} == *".old-${guard%-*}" ]] && remove_tree "$1" && make_durable "${1%/*}/" ;;
    fill) unfill "$guard" "$@" ;;
    server) server_back "$@" ;;
    replication) replication_back "$@" ;;
    trial) trial_over "$@" ;;
    account) drop_account "$@" ;;
    hook) hook_after "$@" ;;
    mode) [[ $(stat -c %i -- "$1" 2>/dev/null) != "$2" ]] || { chmod "$3" -- "$1" && make_durable "$1"; } ;;
    *) return 1 ;;
  esac
}

# replay DIRECTORY: undoes all leases of a journal whose lock the caller holds, scope by scope, the newest first. What fails
# is tried once more, with more patience, before what may take long, and before the user's commands, which are not repeated.
# Calls `undone` or `left` for each lease, or `kept` for a staging directory that was to be kept and is not empty. Removes the
# directory when nothing is left, and the directories above it when they are empty.
replay() {
  local directory=$1 guard=${1##*/} remains='' concluded trial=''
  local -a header records
  read_journal "$directory/journal"
  hold_rest
  replay_scopes boot disk server
  replay_scopes tree
  replay_scopes end
  [[ -z $remains ]] || return 1
  # Out of sight at once: a directory that has lost its journal already would be nobody's.
  mv -T -- "$directory" "$state/.old-$guard" && forget "$guard"
}

# hold_rest: nobody takes a server that rests for one that does not run, until it runs again.
hold_rest() {
  local record
  local -a words
  [[ ${header[2]-} == "$boot" && ! -e /proc/self/fd/11 ]] || return 0
  for record in "${records[@]}"; do
    split "$record"
    [[ ${words[2]} == rest && -f ${words[3]} ]] || continue
    exec 11<"${words[3]}"
    flock -n 11 || exec 11>&-
  done
}

# replay_scopes SCOPE...: of the journal that is replayed. Sets `remains` when something is left.
replay_scopes() {
  local scope index record lock_wait=3 said=''
  local -a words again=()
  for scope; do
    [[ $scope == boot && ${header[2]-} != "$boot" ]] && continue
    for ((index = ${#records[@]} - 1; index >= 0; index--)); do
      split "${records[index]}"
      [[ ${words[1]} == "$scope" ]] || continue
      said=''
      undo "$guard" "${words[@]:2:${#words[@]}-3}"
      case $? in
        0) undone "$guard" "${words[@]:2:${#words[@]}-3}" ;;
        2) ;;
        *) again+=("${records[index]}") ;;
      esac
    done
  done
  lock_wait=30
  for record in "${again[@]}"; do
    split "$record"
    if [[ ${words[1]} != end ]]; then
      said=''
      if undo "$guard" "${words[@]:2:${#words[@]}-3}"; then
        undone "$guard" "${words[@]:2:${#words[@]}-3}"
        continue
      fi
    fi
    left "$guard" "${words[@]:2:${#words[@]}-3}" ${said:+"($said)"}
    remains=yes
  done
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
    find "$runtime" -maxdepth 1 \( -name 'port.*' -o -name 'target.*' -o -name 'server.*' \) -mmin +1 -print0 2>/dev/null)
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
