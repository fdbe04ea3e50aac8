# shellcheck shell=bash
# rest.sh: the part of the guard that makes servers and what they replicate rest, starts them again, and puts new data under one on
# trial: until it is accepted, the old data comes back whatever happens. And accounts, which go unless they are kept.

# take_server DATADIR: nobody else makes a server rest, or what it replicates, while we need that. The lock goes with us.
take_server() {
  local place lock
  place=$(stat -L -c %D.%i -- "$1") || { fail server "$1 is gone"; return 1; }
  lock=$runtime/server.$place
  # Where a run makes several rest, the first one stands for all.
  [[ -e /proc/self/fd/11 ]] && return 0
  take_lock "$lock" 11 -w 1
  case $? in
    1) fail busy "$(cat -- "$lock")"; return 1 ;;
    2) fail runtime "$runtime cannot be used"; return 1 ;;
  esac
  # The oldest of its scope, so that it is undone when the server runs again.
  if ! { record server rest "$lock" &&
    TZ=UTC0 printf 'run %s of %s, since %(%F %T UTC)T' "${guard%-*}" "$controller" -1 >"$lock"; }; then
    fail journal "$home/journal or $lock cannot be written"
    return 1
  fi
}

# stop_replication SOCKET DEFAULTS DATADIR: stops each connection of which something runs, and waits for its end. Replies how
# many.
stop_replication() {
  local all name io sql said count=0
  take_server "$3" || return
  vouch "$1" || :
  all=$(connections "$1" "$2") || { fail replication "${all##*$'\n'}"; return; }
  while IFS=$'\t' read -r name io sql; do
    [[ $io$sql == *yes* ]] || continue
    name=${name#=}
    record boot replication "$1" "$2" "$name" "$io" "$sql" || { fail journal "$home/journal cannot be written"; return; }
    said=$(restore_replication "$1" "$2" "$name" no no) || { fail replication "connection '$name': $said"; return; }
    count=$((count + 1))
  done < <(printf '%s\n' "$all")
  ok "$count"
}

# note_replication SOCKET DEFAULTS DATADIR: before a server is stopped: each thread of what it replicates will run afterwards, or
# rest, as it does, unless its data is another one's then. Replies `rests` where some rest.
note_replication() {
  local all name io sql runs=runs inode
  take_server "$3" || return
  inode=$(stat -L -c %i -- "$3") || { fail server "$3 is gone"; return; }
  if [[ $1 ]]; then
    # Once for all that is asked, each in a process of its own.
    vouch "$1" || :
    all=$(connections "$1" "$2") || { fail replication "${all##*$'\n'}"; return; }
    while IFS=$'\t' read -r name io sql; do
      [[ $name ]] || continue
      [[ $io$sql == yesyes ]] || runs=rests
      if ! record server replication "$1" "$2" "${name#=}" "$io" "$sql" "$3" "$inode"; then
        fail journal "$home/journal cannot be written"
        return
      fi
    done < <(printf '%s\n' "$all")
  fi
  ok "$runs"
}

# stop_server UNIT SOCKET DEFAULTS DATADIR SECONDS REPLICATION: in order, so that its files need no recovery. REPLICATION is `runs`
# or `rests`, as it begins again.
stop_server() {
  local said inode
  server_unit=$1
  # What does not run would be started by our undo.
  if ! systemctl is-active --quiet -- "$1"; then fail server "$1 does not run"; return; fi
  inode=$(stat -L -c %i -- "$4") || { fail server "$4 is gone"; return; }
  record server server "$1" "$2" "$3" "$6" "$4" "$inode" || { fail journal "$home/journal cannot be written"; return; }
  # With 2 and 3 it leaves more work to the next start than it says.
  if [[ $2 ]] && said=$(sql "$2" "$3" 'SELECT @@innodb_fast_shutdown') && [[ $said == [23] ]]; then
    sql "$2" "$3" 'SET GLOBAL innodb_fast_shutdown = 1' >/dev/null
  fi
  said=$(timeout -k 5 "$5" systemctl stop -- "$1" 2>&1)
  case $? in
    0) ;;
    124 | 137) fail server "$1 has not stopped within $5 s"; return ;;
    *) fail server "$1: ${said##*$'\n'}"; return ;;
  esac
  if is_served "$4"; then
    fail server "a server still works in $4 after the stop of $1"
  elif said=$(systemctl show -p Result --value -- "$1") && [[ $said != success ]]; then
    fail server "$1 did not end in order: $said"
  else
    ok
  fi
}

# close_record MESSAGE: it is undone, and what becomes of it from now on is not ours to undo at the end.
close_record() {
  printf '\nclosed\t%s\n' "${1#*$'\t'}" >&9 && sync -d "$home/journal"
}

# restart: what was stopped runs again, before the end, and what is on trial is over. Where the data is another one's now, what it
# replicates rests, since nobody knows what that would be. Replies the units that ran already, which somebody else must have
# started. All is tried, and the first thing that fails is told.
restart() {
  local index said failed='' concluded trial=''
  local -a header records words already=()
  read_journal "$home/journal"
  for ((index = ${#records[@]} - 1; index >= 0; index--)); do
    split "${records[index]}"
    said=''
    case ${words[2]} in
      trial) trial_over "${words[@]:3:6}" || said="${words[3]}: ${said:-its old data is not back}" ;;
      server)
        # Behind a trial it runs with data that it must not have.
        [[ -z $trial ]] || continue
        systemctl is-active --quiet -- "${words[3]}" && already+=("${words[3]}")
        server_back "${words[@]:3:6}" || said="${words[3]}: ${said:-it cannot be started}"
        ;;
      # With its data where that may have become another one's.
      replication)
        [[ -z $trial ]] || continue
        replication_back "${words[@]:3:${#words[@]}-4}" || said="connection '${words[5]}': $said"
        ;;
      *) continue ;;
    esac
    if [[ -z $said ]] && ! close_record "${records[index]}"; then said="$home/journal cannot be written"; fi
    failed=${failed:-$said}
  done
  if [[ $failed ]]; then fail restart "$failed"; else ok "${already[@]}"; fi
}

# drop_old PATH NEW: an old one that was replaced, and kept until its server has shown that it runs without, goes at the end. Not before
# the new one is on the disk, whatever was asked for.
drop_old() {
  local said
  if ! said=$(sync -f -- "$2" 2>&1); then
    fail sync "$said"
  elif record tree old "$1"; then
    event old_goes && ok
  else
    fail journal "$home/journal cannot be written"
  fi
}

# write_new DIRECTORY NAME TEXT: a file of the directory's owner, if there is nothing of that name in it: not a link either.
write_new() {
  # shellcheck disable=SC2016 # perl's variables
  perl -e '
    use Fcntl;
    my ($directory, $name, $text) = @ARGV;
    my @owner = lstat($directory) or exit 1;
    sysopen(my $file, "$directory/$name", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0660) or exit 1;
    print $file $text and chown($owner[4], $owner[5], $file) == 1 and close($file) or exit 1;' "$@"
}

# put_on_trial UNIT DATADIR STAGED ASIDE SECONDS HOLDS UPGRADED VERSION: before the server of that unit gets new data, which is
# STAGED: until `accept`, the undo stops it, within SECONDS, and the old data gets its name back from ASIDE. HOLDS is `databases`, or
# `none` where the old data may not hold any. UPGRADED is the file, or nothing, that says for which VERSION the system tables were upgraded.
put_on_trial() {
  local old='' new databases staged REPLY
  if [[ -d $2 ]]; then
    take_server "$2" || return
    old=$(stat -c %i -- "$2")
    databases=$(databases_in "$2" | head -n 1)
    if [[ $6 == none && $databases ]]; then fail exists "$2 holds a database by now: $databases"; return; fi
  fi
  # By the descriptor of the directory in which it has arrived.
  held "$3"
  staged=$REPLY
  new=$(stat -c %i -- "$staged") || { fail server "$3 is gone"; return; }
  if [[ $7 == m*_upgrade_info && $7 != */* ]]; then write_new "$staged" "$7" "$8" || :; fi
  if ! { record tree aside "$4" "$new" && record server trial "$1" "$2" "$old" "$new" "$4" "$5"; }; then
    fail journal "$home/journal cannot be written"
    return
  fi
  on_trial=yes
  ok
}

# start_server UNIT SOCKET DEFAULTS DATADIR: starts it with what is on trial: nothing that it replicates runs, and nobody writes to it.
start_server() {
  local said
  if ! said=$(start_unit "$1" "$2" "$3" replica); then
    fail server "$1: ${said##*$'\n'}"
    return
  fi
  # Before anything is said to it: it may have been told of another directory.
  if ! is_served "$4" "$1"; then
    fail server "$1 has no files open in $4: it works in another directory"
  elif said=$(rest_replication "$2" "$3"); then
    ok
  else
    fail server "$1: ${said##*$'\n'} (its accounts are those of the copied server now)"
  fi
}

# accept PATH: what was on trial there stays. One line of the journal, whole or torn: whoever dies here, all of the old server comes back
# or all of the new one stays.
accept() {
  local pending=''
  trap 'pending=HUP' HUP
  trap 'pending=INT' INT
  trap 'pending=TERM' TERM
  if printf '\naccepted\t.\n' >&9; then
    # Whoever reads the journal from now on reads it, whether or not it is on the disk.
    sync -d "$home/journal"
    event published "$1" "$trial_aside"
    on_trial='' is_published='done'
    ok
  else
    fail journal "$home/journal cannot be written"
  fi
  obey_signals
  [[ $pending ]] && release "$pending"
}

# make_account SOCKET DEFAULTS USER HOST HASH: an account that may replicate, and no more; HASH is its password's, as the server keeps
# it. It goes, unless it is kept.
make_account() {
  local said account hash quietly
  vouch "$1" || :
  unlogged "$1" "$2"
  quietly=$REPLY
  quoted "$3"
  account=$REPLY
  quoted "$4"
  account+=@$REPLY
  quoted "$5"
  hash=$REPLY
  record server account "$1" "$2" "$3" "$4" || { fail journal "$home/journal cannot be written"; return; }
  if said=$(sql "$1" "$2" - < <(
    printf '%s\n' "SET SESSION sql_log_off = 1, SESSION slow_query_log = 0; $quietly
      CREATE USER $account IDENTIFIED BY PASSWORD $hash; GRANT REPLICATION SLAVE ON *.* TO $account;")); then
    ok
  else
    fail account "${said##*$'\n'}"
  fi
}

# give_up_account SOCKET DEFAULTS USER HOST: one that was kept goes all the same: its replica is none.
give_up_account() {
  if record server account "$@"; then ok; else fail journal "$home/journal cannot be written"; fi
}

# keep_account SOCKET DEFAULTS USER HOST: a replica lives by it.
keep_account() {
  line lease server account "$@" .
  if close_record "$REPLY"; then ok; else fail journal "$home/journal cannot be written"; fi
}
