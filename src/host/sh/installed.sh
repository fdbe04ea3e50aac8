# shellcheck shell=bash
# installed.sh: the one server of this host that is meant where no socket and no path was named: a part of the facts. It may run or not.

# is_stale JOURNAL: whether it knows of a trial that is not over, and nobody holds it any more.
is_stale() {
  [[ -e $1 ]] && awk -F '\t' '
    $1 == "lease" && $3 == "trial" { trials++ } $1 == "closed" && $3 == "trial" { trials-- } $1 == "accepted" { trials = 0 }
    END { exit !trials }' "$1" && flock -n 8 8<"$1"
}

# active_units: those of servers that run, by the names that packages give them.
active_units() {
  systemctl show -p Id -p ActiveState -p SubState -- mariadb.service mysql.service mysqld.service 'mariadb@*.service' 'mysql@*.service' \
    'mysqld@*.service' 2>/dev/null | awk -F = '
      function tell() { if (state == "active" && (sub_state == "running") && !seen[id]++) print id; id = state = sub_state = "" }
      NF == 0 { tell() } $1 == "Id" { id = $2 } $1 == "ActiveState" { state = $2 } $1 == "SubState" { sub_state = $2 } END { tell() }'
}

# serving: sets `serving` to the processes that serve data directories, and `units_of` to the unit of each, or nothing. They have locked
# its files, and listen: who prepares a backup does the former only. No account's own server is the host's.
serving() {
  local line
  local -a words
  serving=() units_of=()
  while IFS= read -r line; do
    split "$line"
    [[ ${words[7]} ]] || continue
    unit_of "${words[3]}"
    # Those of containers are not this host's.
    [[ $REPLY || ${words[8]} ]] || continue
    line=$REPLY
    server_counts any "${words[@]:4:3}" "$line" || continue
    [[ " ${serving[*]} " != *" ${words[3]} "* ]] || continue
    socket_of '' "${words[3]}"
    [[ $REPLY ]] || continue
    serving+=("${words[3]}") units_of+=("$line")
  done < <(data_holders)
}

# find_unit: sets `unit` and `runs`: of the only server that runs, or of one that is installed. 1: several run.
find_unit() {
  local one
  local -A seen=()
  runs=''
  while IFS= read -r one; do
    [[ -z $one || -z ${seen[$one]-} ]] || continue
    [[ -z $one ]] || seen[$one]=yes
    say installed_running "$one"
    [[ -z $runs ]] || return 1
    unit=$one runs=yes
  done < <(
    ((${#units_of[@]} == 0)) || printf '%s\n' "${units_of[@]}"
    active_units
  )
  [[ -z $runs ]] || return 0
  for unit in mariadb.service mysql.service mysqld.service; do
    systemctl cat -- "$unit" >/dev/null 2>&1 && return
  done
  unit=''
}

# is_roots PROGRAM: whether nobody else can say what it does.
is_roots() {
  local mode owner
  [[ $1 == /* ]] || return
  read -r mode owner < <(stat -L -c '%a %u' -- "$1" 2>/dev/null) || return
  [[ $owner == 0 ]] && ((!(8#$mode & 8#22))) && shared_component "$1" && [[ -z $REPLY ]]
}

# find_program UNIT: sets `program` to the server that a unit starts, or else to the one that is installed; to nothing where others could
# have put it there.
find_program() {
  local name
  program=''
  name=$([[ -z $1 ]] || systemctl show -p ExecStart --value -- "$1" 2>/dev/null | sed -n 's/^{ path=\(\/[^ ;]*\) ;.*/\1/p' | head -n 1)
  for name in "$name" "$(command -v mariadbd)" "$(command -v mysqld)" /usr/sbin/mariadbd /usr/sbin/mysqld; do
    # A unit may begin with a shell, which is no server.
    [[ ${name##*/} == mariadbd || ${name##*/} == mysqld ]] || continue
    if is_roots "$name"; then
      program=$name
      return
    fi
  done
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

# stale_facts: runs whose new data is still on trial here, and that nobody works at any more.
stale_facts() {
  local name value
  for name in "$state"/*/journal; do
    is_stale "$name" || continue
    value=$(awk -F '\t' 'NR == 1 { print $3 }' "$name")
    name=${name%/journal}
    say stale "${name##*/}" "$([[ $value == "$boot" ]] && echo same || echo other)"
  done
}

# installed_facts ROLE UNIT DEFAULTS: ROLE is primary, donor or target.
installed_facts() {
  local role=$1 unit=$2 runs='' program name value socket='' configured_in='' datadir='' log
  local -a serving=() units_of=() pids=()
  stale_facts
  serving
  if [[ $unit ]]; then
    [[ $unit == *.service ]] || unit+=.service
    [[ $(systemctl show -p MainPID --value -- "$unit" 2>/dev/null) == [1-9]* ]] && runs=yes
    systemctl cat -- "$unit" >/dev/null 2>&1 || unit=''
  else
    find_unit || return
  fi
  [[ $unit || $runs ]] || return
  for name in "${!serving[@]}"; do
    [[ ${units_of[name]} != "$unit" ]] || pids+=("${serving[name]}")
  done
  server_unit=$unit
  say installed "$unit" "$(if [[ $runs ]]; then echo runs; else echo rests; fi)"
  find_program "$unit"
  if [[ $program ]]; then
    say installed_version "$("$program" --version 2>/dev/null | head -n 1)"
    while IFS=$'\t' read -r name value; do
      say configured "$name" "$value"
      case $name in
        datadir) configured_in=$value ;;
        socket) socket=$value ;;
      esac
    done < <(configured "$program" "$unit")
  fi
  if [[ $runs ]]; then
    # Its own, wherever it was told to listen.
    socket_of "$socket" "${pids[@]}"
    socket=${REPLY:-$socket}
    vouch "$socket" || :
    # What is replaced is not for a server to say.
    if variables "$socket" "$3" && [[ $role == target && $unit ]] && ! is_served "$datadir" "$unit"; then
      say instance_error "$unit says that its data is in $datadir, where it has no files open"
    fi
  fi
  datadir=${datadir:-$configured_in}
  say installed_socket "$socket"
  [[ $datadir == /?* ]] || return
  data_facts "$datadir"
  [[ -z $runs ]] || tells "$role" "$socket" "$3"
}

# data_facts DATADIR: what is in the data directory of the server.
data_facts() {
  local name
  say installed_datadir "$(readlink -m -- "$1")"
  mounted "$(readlink -m -- "$1")" && say installed_mounted
  for name in mariadb_upgrade_info mysql_upgrade_info; do
    read_owned "$1" "$name" 65536 >/dev/null && say installed_upgraded "$name" "$(read_owned "$1" "$name" 65536 | head -c 100 | head -n 1)"
  done
  while IFS= read -r name; do say database "$name"; done < <(databases_in "$1" | head -n 20)
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
    while IFS= read -r -d $'\t' field; do fields+=("$field"); done < <(printf '%s\t' "$all")
    say upstream "${fields[0]#=}" "${fields[@]:1}"
  done < <(columns Connection_name Slave_IO_Running Slave_SQL_Running Master_Host Master_Port Using_Gtid Master_SSL_Allowed Master_Server_Id \
    Replicate_Do_DB Replicate_Ignore_DB Replicate_Do_Table Replicate_Ignore_Table Replicate_Wild_Do_Table Replicate_Wild_Ignore_Table \
    Replicate_Do_Domain_Ids Replicate_Ignore_Domain_Ids < <(printf '%s\n' "$all"))
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
  local file=master.info user='' password=''
  # In names of files, what is no letter and no digit is written otherwise; those are not looked for.
  [[ -z $2 ]] || file=master-${2,,}.info
  [[ $file != */* ]] || return
  { for _ in 1 2 3 4; do read -r; done; IFS= read -r user; IFS= read -r password; } < <(read_owned "$1" "$file" 65536)
  [[ $user ]] && say account "$user" "$password"
}
