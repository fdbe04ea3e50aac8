# shellcheck shell=bash
# server.sh: the MariaDB and MySQL servers of this host: what they tell, and how one of them or its replication is stopped, and is
# afterwards what it was before. Used by the facts, by the guard, and by the journal's undos. Which ones run is in holders.sh, how they
# are logged in to in logins.sh.
#
# A server is reached through its SOCKET, as the user that we are; DEFAULTS is a file of options (`--defaults-file`) or
# empty. No password is ever in an argument.

# quoted NAME: sets REPLY to it as a literal of SQL, also where a backslash is none.
quoted() {
  REPLY=${1//\\/\\\\}
  REPLY=\'${REPLY//\'/\'\'}\'
}

# read_owned DATADIR NAME LIMIT: prints a small file of a server's with the rights of the directory's owner, who may have put a link or a
# pipe there. False where it is none.
read_owned() {
  # shellcheck disable=SC2016 # perl's variables
  perl -e '
    use strict;
    use Fcntl;
    my ($directory, $name, $limit) = @ARGV;
    my @owner = stat("$directory/") or exit 1;
    if ($> == 0) {
        my ($uid, $gid) = @owner[4, 5];
        my $own = (getpwuid $uid)[3] // $gid;
        $) = "$own $own" . ($own == $gid ? "" : " $gid");
        $> = $uid;
        $> == $uid or exit 1;
    }
    sysopen(my $file, "$directory/$name", O_RDONLY | O_NONBLOCK | O_NOFOLLOW) or exit 1;
    my @seen = stat($file) or exit 1;
    ($seen[2] & 0170000) == 0100000 && $seen[7] <= $limit or exit 1;
    my $text = "";
    1 while sysread($file, $text, 65536, length $text);
    print $text;' "$@"
}

# databases_in DATADIR: those that are not a server's own, one per line; also where no server runs.
databases_in() {
  find "$1" -mindepth 1 -maxdepth 1 -type d ! -name mysql ! -name performance_schema ! -name sys ! -name lost+found ! -name '.*' \
    ! -name '#*' -printf '%f\n' 2>/dev/null
}

# replication_status SOCKET DEFAULTS: of each connection, in rows of `KEY: VALUE`.
replication_status() {
  # MariaDB's word, MySQL's, and that of MySQL before 8.0.22.
  sql "$1" "$2" 'SHOW ALL SLAVES STATUS\G' --column-names ||
    sql "$1" "$2" 'SHOW REPLICA STATUS\G' --column-names ||
    sql "$1" "$2" 'SHOW SLAVE STATUS\G' --column-names
}

# columns KEY...: of rows as above, one line each: `=` and the values of these keys, separated by tabs. Replica and Slave, Source and
# Master are one, and so are a connection's name and a channel's.
columns() {
  awk -v wanted="$*" '
    BEGIN { count = split(wanted, keys, " ") }
    function tell(i, line) {
      if (!seen) return
      line = "=" value[keys[1]]
      for (i = 2; i <= count; i++) line = line "\t" value[keys[i]]
      print line
    }
    /^\*+ [0-9]+\. row \*+$/ { tell(); seen = 1; delete value; next }
    {
      at = index($0, ": ")
      key = substr($0, 1, at - 1)
      sub(/^ +/, "", key)
      sub(/^Replica_/, "Slave_", key)
      gsub(/Source/, "Master", key)
      if (key == "Channel_Name") key = "Connection_name"
      if (key in value) next
      value[key] = substr($0, at + 2)
      gsub(/\t/, " ", value[key])
    }
    END { tell() }
  '
}

# connections SOCKET DEFAULTS: what it replicates, one line each: `=NAME`, IO and SQL, which are `yes` or `no`.
connections() {
  local all
  all=$(replication_status "$1" "$2") || { printf '%s\n' "$all"; return 1; }
  # One that is about to connect was told to run.
  printf '%s\n' "$all" | columns Connection_name Slave_IO_Running Slave_SQL_Running |
    awk -F '\t' -v OFS='\t' '{ print $1, $2 == "No" ? "no" : "yes", $3 == "Yes" ? "yes" : "no" }'
}

# threads SOCKET DEFAULTS NAME: sets `io` and `sql` to what runs of that connection; 2: there is none of that name.
threads() {
  local name all
  all=$(connections "$1" "$2") || return
  while IFS=$'\t' read -r name io sql; do
    [[ $name == "=$3" ]] && return 0
  done < <(printf '%s\n' "$all")
  io=no sql=no
  return 2
}

# turn_replication SOCKET DEFAULTS NAME START|STOP IO SQL: starts or stops those threads that are `yes`.
turn_replication() {
  local what=''
  case $5$6 in
    yesno) what=IO_THREAD ;;
    noyes) what=SQL_THREAD ;;
    nono) return ;;
  esac
  quoted "$3"
  if [[ $(sql "$1" "$2" 'SELECT @@version') == *MariaDB* ]]; then
    sql "$1" "$2" "$4 SLAVE $REPLY $what"
  else
    sql "$1" "$2" "$4 REPLICA $what FOR CHANNEL $REPLY" || sql "$1" "$2" "$4 SLAVE $what FOR CHANNEL $REPLY"
  fi
}

# but ONE OTHER: prints whether the one is `yes` and the other is not.
but() {
  if [[ $1 == yes && $2 != yes ]]; then echo yes; else echo no; fi
}

# restore_replication SOCKET DEFAULTS NAME IO SQL: until that connection runs, or rests, thread by thread. Prints why not.
restore_replication() {
  local io sql round=0 said='' end=$((SECONDS + 30))
  while ((SECONDS < end)); do
    threads "$1" "$2" "$3"
    case $? in
      1) echo "its server does not answer"; return 1 ;;
      # It was of data that is not there any more.
      2) return 0 ;;
    esac
    [[ $io$sql == "$4$5" ]] && return 0
    if ((round++ % 20 == 0)); then
      said=$(turn_replication "$1" "$2" "$3" START "$(but "$4" "$io")" "$(but "$5" "$sql")"
        turn_replication "$1" "$2" "$3" STOP "$(but "$io" "$4")" "$(but "$sql" "$5")")
    fi
    sleep 0.25
  done
  echo "${said:-its threads are $io and $sql instead of $4 and $5$(complaint "$1" "$2" "$3")}"
  return 1
}

# complaint SOCKET DEFAULTS NAME: prints `: ` and what the server says of that connection, if it says anything.
complaint() {
  local all name text
  all=$(replication_status "$1" "$2") || return
  while IFS=$'\t' read -r name text; do
    [[ $name != "=$3" || ! ${text//[[:space:]]/} ]] || printf ': %s' "${text%%$'\t'*}"
  done < <(printf '%s\n' "$all" | columns Connection_name Last_SQL_Error Last_IO_Error)
}

# rest_replication SOCKET DEFAULTS: stops all that the server replicates. Prints why not.
rest_replication() {
  local all name io sql said
  [[ $1 ]] || return 0
  all=$(connections "$1" "$2") || { echo "what it replicates cannot be seen: ${all##*$'\n'}"; return 1; }
  while IFS=$'\t' read -r name io sql; do
    [[ $io$sql == *yes* ]] || continue
    said=$(restore_replication "$1" "$2" "${name#=}" no no) || { echo "connection '${name#=}': $said"; return 1; }
  done < <(printf '%s\n' "$all")
}

# unlogged SOCKET DEFAULTS: sets REPLY to what keeps a statement out of the binary log of a server that is itself a replica: what it
# wrote there of its own, those of its source would collide with. It is nothing for others, whose replicas get what they are told.
unlogged() {
  local all
  REPLY=''
  all=$(connections "$1" "$2") && [[ $all ]] && REPLY='SET SESSION sql_log_bin = 0;'
}

# forget_drop UNIT: the unit is again what it was, if `start_unit` has changed it.
forget_drop() {
  local drop=/run/systemd/system/$1.d
  [[ -e $drop/transfer.conf ]] || return 0
  rm -f -- "$drop/transfer.conf"
  rmdir -- "$drop" 2>/dev/null
  systemctl daemon-reload
}

# start_unit UNIT SOCKET DEFAULTS REPLICATION: starts a server, and waits until it answers. With REPLICATION `rests` it begins
# without, and with `replica` also without clients that may write and without events, as far as its unit lets us say so. Prints why not.
start_unit() {
  local drop=/run/systemd/system/$1.d said='' end options=--skip-slave-start
  # What was found of its socket was of the one before.
  server_unit=$1 vouched=()
  server_uids
  # Events are those of the copied server; it is for its replica not to run them.
  [[ $4 == replica ]] && options+=' --read-only --event-scheduler=OFF'
  # One that was ended in here may have left it.
  forget_drop "$1"
  if ! systemctl is-active --quiet -- "$1"; then
    # shellcheck disable=SC2016 # as it stands in the unit
    if [[ $4 != runs && $(systemctl cat -- "$1" 2>/dev/null) == *'$MYSQLD_OPTS'* &&
      $(systemctl show -p Environment --value -- "$1") != *MYSQLD_OPTS=* ]]; then
      mkdir -p -- "$drop" && printf '[Service]\nEnvironment="MYSQLD_OPTS=%s"\n' "$options" >"$drop/transfer.conf" &&
        systemctl daemon-reload
    fi
    # One that has failed some times in a row is not tried again by itself.
    systemctl reset-failed -- "$1" 2>/dev/null
    said=$(systemctl start -- "$1" 2>&1)
  fi
  forget_drop "$1"
  end=$((SECONDS + 60))
  while ((SECONDS < end)); do
    systemctl is-active --quiet -- "$1" && { [[ -z $2 ]] || answers "$2" "$3"; } && return 0
    systemctl is-failed --quiet -- "$1" && break
    sleep 0.25
  done
  if [[ -z $said && $2 ]]; then said=$(sql "$2" "$3" 'SELECT 1'); fi
  echo "${said:-$1 does not answer}"
  return 1
}
