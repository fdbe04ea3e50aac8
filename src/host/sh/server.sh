# shellcheck shell=bash
# server.sh: the MariaDB and MySQL servers of this host: which ones run, what they tell, and how one of them or its
# replication is stopped, and is afterwards what it was before. Used by the facts, by the guard, and by the journal's undos.
#
# A server is reached through its SOCKET, as the user that we are; DEFAULTS is a file of options (`--defaults-file`) or
# empty. No password is ever in an argument.

# server_uids: sets the array `server_uids` to the accounts of the servers of this host.
server_uids() {
  server_uids=()
}

# client_command SOCKET DEFAULTS OPTION: sets the array `command` to a client of the server there.
client_command() {
  local program=mariadb
  command -v mariadb >/dev/null || program=mysql
  # A user's own file may name another host.
  command=("$program" ${2:+"--defaults-file=$2"} --protocol=socket --host=localhost "--socket=$1" --connect-timeout=10 --batch "$3")
}

# client SOCKET DEFAULTS STATEMENTS [OPTION]: the statements, once; those on standard input where that is `-`: everybody on the host can
# read arguments.
client() {
  local -a command
  client_command "$1" "$2" "${4:---skip-column-names}"
  if [[ $3 == - ]]; then timeout -k 5 60 "${command[@]}"; else timeout -k 5 60 "${command[@]}" -e "$3" </dev/null; fi
}

# sql SOCKET DEFAULTS STATEMENTS [OPTION]: what it answers, fields separated by tabs, escaped as in our wire format. Where it
# fails, why, as the last line: what a client complains of besides is no answer.
sql() {
  local said
  { said=$(client "$@" 2>&1 >&12) && return 0; } 12>&1
  printf '%s\n' "${said:-the server has not answered within a minute}"
  return 1
}

# quoted NAME: sets REPLY to it as a literal of SQL, also where a backslash is none.
quoted() {
  REPLY=${1//\\/\\\\}
  REPLY=\'${REPLY//\'/\'\'}\'
}

# answers SOCKET DEFAULTS: whether a server answers there, whatever it says to ours. The errors of a client that finds nobody
# are 2000 and more, and one that is kept waiting has none.
answers() {
  local said
  said=$(sql "$1" "$2" 'SELECT 1') || [[ $said == *'ERROR '[13-9][0-9]* ]]
}

# Sets `pids` to the processes that are servers.
server_pids() {
  local comm name
  pids=()
  for comm in /proc/[0-9]*/comm; do
    { read -r name <"$comm"; } 2>/dev/null || continue
    [[ $name == mariadbd || $name == mysqld ]] || continue
    comm=${comm#/proc/}
    pids+=("${comm%%/*}")
  done
}

# relation PATH PID: sets REPLY to how the path lies to that server's data: `within` it (or it itself), `around` it, or nothing.
# A server's data directory is where it works.
relation() {
  local path data=/proc/$2/cwd
  REPLY=''
  path=$(readlink -f -- "$1")
  while [[ $path ]]; do
    if [[ $path -ef $data ]]; then REPLY=within; return; fi
    path=${path%/*}
  done
  path=$(readlink -- "$data")
  [[ $path -ef $data && $path/ == "$(readlink -f -- "$1")"/* ]] && REPLY=around
}

# unit_of PID: sets REPLY to the unit of this host's systemd that a process is in; to nothing where it is in none, or in one of a
# container's.
unit_of() {
  local group unit
  group=$(sed -n 's|^[^:]*:\(name=systemd\)\{0,1\}:\(/.*\.service\)$|\2|p' "/proc/$1/cgroup" 2>/dev/null | head -n 1)
  unit=${group##*/}
  REPLY=''
  [[ $unit && $(systemctl show -p ControlGroup --value -- "$unit" 2>/dev/null) == "$group" ]] && REPLY=$unit
}

# socket_of PID: sets REPLY to the socket that it listens on; to nothing where that cannot be seen.
socket_of() {
  REPLY=$(ss -Hxlp 2>/dev/null | awk -v pid="pid=$1," '
    index($0, pid) { for (i = 1; i <= NF; i++) if ($i ~ "^/" && $i !~ /mysqlx/) { print $i; exit } }')
}

# servers_near PATH DEFAULTS: lines `server RELATION DATADIR UNIT SOCKET ERROR` for each server whose data the path has to do
# with; ERROR is why it does not let us in.
servers_near() {
  local pid unit socket near error
  local -a pids
  [[ -e $1 ]] || return
  server_pids
  for pid in "${pids[@]}"; do
    relation "$1" "$pid"
    near=$REPLY
    [[ $near ]] || continue
    unit_of "$pid"
    unit=$REPLY
    socket_of "$pid"
    socket=$REPLY
    if [[ -z $socket ]] || error=$(sql "$socket" "$2" 'SELECT 1'); then error=''; fi
    say server "$near" "$(readlink -- "/proc/$pid/cwd")" "$unit" "$socket" "${error##*$'\n'}"
  done
}

# is_served DIRECTORY: whether a server works there.
is_served() {
  local pid
  local -a pids
  server_pids
  for pid in "${pids[@]}"; do
    [[ $1 -ef /proc/$pid/cwd ]] && return 0
  done
  return 1
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
  columns Connection_name Slave_IO_Running Slave_SQL_Running <<<"$all" |
    awk -F '\t' -v OFS='\t' '{ print $1, $2 == "No" ? "no" : "yes", $3 == "Yes" ? "yes" : "no" }'
}

# threads SOCKET DEFAULTS NAME: sets `io` and `sql` to what runs of that connection; 2: there is none of that name.
threads() {
  local name all
  all=$(connections "$1" "$2") || return
  while IFS=$'\t' read -r name io sql; do
    [[ $name == "=$3" ]] && return 0
  done <<<"$all"
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
  done < <(columns Connection_name Last_SQL_Error Last_IO_Error <<<"$all")
}

# rest_replication SOCKET DEFAULTS: stops all that the server replicates. Prints why not.
rest_replication() {
  local all name io sql said
  [[ $1 ]] || return 0
  all=$(connections "$1" "$2") || { echo "what it replicates cannot be seen: ${all##*$'\n'}"; return 1; }
  while IFS=$'\t' read -r name io sql; do
    [[ $io$sql == *yes* ]] || continue
    said=$(restore_replication "$1" "$2" "${name#=}" no no) || { echo "connection '${name#=}': $said"; return 1; }
  done <<<"$all"
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
  echo "${said:-$1 does not answer}"
  return 1
}
