# shellcheck shell=bash
# installed.sh: the one server of this host that is meant where no socket and no path was named: a part of the facts. It may run or not.

# is_stale JOURNAL: whether it knows of a trial that is not over, and nobody holds it any more.
is_stale() {
  [[ -e $1 ]] && awk -F '\t' '
    $1 == "lease" && $3 == "trial" { trials++ } $1 == "closed" && $3 == "trial" { trials-- } $1 == "accepted" { trials = 0 }
    END { exit !trials }' "$1" && flock -n 8 8<"$1"
}

# find_unit: sets `unit` and `pid` (0: it does not run): of the only server that runs, or of one that is installed. 1: several run.
find_unit() {
  local one
  local -a pids
  server_pids
  for one in "${pids[@]}"; do
    unit_of "$one"
    # Those of containers are not this host's.
    [[ $REPLY ]] || [[ $(readlink "/proc/$one/ns/mnt") == "$(readlink /proc/self/ns/mnt)" ]] || continue
    say installed_running "$REPLY"
    [[ -z $pid ]] || return 1
    unit=$REPLY pid=$one
  done
  [[ $pid ]] && return
  pid=0
  for unit in mariadb.service mysql.service mysqld.service; do
    systemctl cat -- "$unit" >/dev/null 2>&1 && return
  done
  unit=''
}

# configured PROGRAM UNIT: what a start of it would take, by its files of options.
configured() {
  local -a group=()
  [[ $2 == *@*.service ]] && { group=("${2#*@}") && group=("--defaults-group-suffix=.${group[0]%.service}"); }
  "$1" "${group[@]}" --verbose --help 2>/dev/null | awk '
    $1 ~ /^(aria-log-dir-path|datadir|event-scheduler|innodb-(data-file-path|data-home-dir|log-group-home-dir|undo-directory)|log-bin(-index)?|port|read-only|relay-log(-index)?|server-id|socket|wsrep-on)$/ {
      name = $1
      gsub(/-/, "_", name)
      $1 = ""
      print name "\t" substr($0, 2)
    }'
}

# installed_facts ROLE UNIT DEFAULTS: ROLE is primary, donor or target.
installed_facts() {
  local role=$1 unit=$2 pid='' program='' name value socket='' datadir='' log
  # Runs whose new data is still on trial here, and that nobody works at any more.
  for name in "$state"/*/journal; do
    is_stale "$name" || continue
    value=$(awk -F '\t' 'NR == 1 { print $3 }' "$name")
    name=${name%/journal}
    say stale "${name##*/}" "$([[ $value == "$boot" ]] && echo same || echo other)"
  done
  if [[ $unit ]]; then
    [[ $unit == *.service ]] || unit+=.service
    pid=$(systemctl show -p MainPID --value -- "$unit" 2>/dev/null)
    systemctl cat -- "$unit" >/dev/null 2>&1 || unit=''
  else
    find_unit || return
  fi
  [[ $unit || ${pid:-0} != 0 ]] || return
  say installed "$unit" "$(if [[ ${pid:-0} == 0 ]]; then echo rests; else echo runs; fi)"
  program=$(readlink -f -- "/proc/$pid/exe" 2>/dev/null)
  # One that was upgraded meanwhile.
  program=${program% (deleted)}
  for name in mariadbd mysqld /usr/sbin/mariadbd /usr/sbin/mysqld; do
    [[ $program ]] || program=$(command -v "$name")
  done
  [[ $program ]] || return
  say installed_version "$("$program" --version 2>/dev/null | head -n 1)"
  while IFS=$'\t' read -r name value; do
    say configured "$name" "$value"
    case $name in
      datadir) datadir=$value ;;
      socket) socket=$value ;;
    esac
  done < <(configured "$program" "$unit")
  if [[ $pid != 0 ]]; then
    value=$datadir
    socket_of "$pid"
    socket=${REPLY:-$socket}
    variables "$socket" "$3"
    datadir=${datadir:-$value}
    # What it works in, whatever it was told.
    [[ -d /proc/$pid/cwd ]] && datadir=$(readlink -- "/proc/$pid/cwd")
  fi
  say installed_socket "$socket"
  [[ $datadir == /?* ]] || return
  say installed_datadir "$(readlink -m -- "$datadir")"
  mounted "$(readlink -m -- "$datadir")" && say installed_mounted
  for name in mariadb_upgrade_info mysql_upgrade_info; do
    [[ ! -f $datadir/$name ]] || say installed_upgraded "$name" "$(head -c 100 -- "$datadir/$name" | head -n 1)"
  done
  while IFS= read -r name; do say database "$name"; done < <(databases_in "$datadir" | head -n 20)
  [[ $pid == 0 ]] || tells "$role" "$socket" "$3"
}

# tells ROLE SOCKET DEFAULTS: what it replicates, who replicates from it, and who else is there.
tells() {
  local all id host field
  local -a fields
  if ! all=$(replication_status "$2" "$3"); then
    say instance_error "${all##*$'\n'}"
    return
  fi
  while IFS= read -r all; do
    fields=()
    while IFS= read -r -d $'\t' field; do fields+=("$field"); done <<<"$all"$'\t'
    say upstream "${fields[0]#=}" "${fields[@]:1}"
  done < <(columns Connection_name Slave_IO_Running Slave_SQL_Running Master_Host Master_Port Using_Gtid Master_SSL_Allowed Master_Server_Id \
    Replicate_Do_DB Replicate_Ignore_DB Replicate_Do_Table Replicate_Ignore_Table Replicate_Wild_Do_Table Replicate_Wild_Ignore_Table \
    Replicate_Do_Domain_Ids Replicate_Ignore_Domain_Ids <<<"$all")
  # Ids of those that are connected; not everybody has said his host.
  while IFS=$'\x1f' read -r id host; do [[ $id ]] && say downstream "$id" "$host"; done < <(
    sql "$2" "$3" 'SHOW SLAVE HOSTS' | awk -F '\t' '{ print $1 "\037" $2 }')
  all=$(sql "$2" "$3" "SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_master_clients'")
  [[ $all == *$'\t'* ]] && say instance rpl_semi_sync_master_clients "${all#*$'\t'}"
  [[ $1 == target ]] || return
  while IFS=$'\t' read -r id host; do [[ $id ]] && say client "$id@$host"; done < <(
    sql "$2" "$3" "SELECT user, SUBSTRING_INDEX(host, ':', 1) FROM information_schema.processlist WHERE id <> CONNECTION_ID()
      AND command NOT LIKE 'Binlog Dump%' AND user NOT IN ('system user', 'event_scheduler') AND host NOT IN ('', 'localhost') LIMIT 20")
  all=$(own_writes "$2" "$3")
  sleep 1
  [[ $all == "$(own_writes "$2" "$3")" ]] || say written
}

# own_writes SOCKET DEFAULTS: how far it has come with what was written to itself, and not replicated.
own_writes() {
  sql "$1" "$2" 'SELECT @@global.gtid_binlog_state, @@server_id' | awk -F '\t' '
    { count = split($1, parts, ","); for (i = 1; i <= count; i++) { split(parts[i], part, "-"); if (part[2] == $2) print parts[i] } }'
}

# account DATADIR CONNECTION: by which a server replicates: `account USER PASSWORD`. It keeps them in a file.
account() {
  local file=$1/master.info user password
  # In names of files, what is no letter and no digit is written otherwise; those are not looked for.
  [[ -z $2 ]] || file=$1/master-${2,,}.info
  [[ -f $file ]] || return
  user=$(sed -n 5p -- "$file")
  password=$(sed -n 6p -- "$file")
  [[ $user ]] && say account "$user" "$password"
}
