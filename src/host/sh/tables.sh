# shellcheck shell=bash
# tables.sh: the tables of two servers at one moment of the one, which is their GTID (or place in its binary log): jobs `tables`. The list
# $home/tables has a record `./DATABASE/TABLE//VALUE` of each, ended by NUL and sorted; VALUE is a checksum or the number of rows.
# Events: `fact tables KEY VALUE`: gtid, file, position (of the moment), error; `manifest tables tables RECORDS 0 SHA256`.

job=tables clients=0

# list_tables SOCKET DEFAULTS: sets `names` and `quoted_names` of tables that are in transactions, and `other_names` and `quoted_others` of
# those that are not. Views and sequences have no contents of theirs, nor have tables whose rows are in memory or elsewhere; what the
# server keeps for itself differs on each.
list_tables() {
  local all schema table engine name
  local -a command
  client_command "$1" "$2" --skip-column-names || give_up "$REPLY"
  # Of a hundred thousand tables it takes longer than other answers may.
  all=$("${command[@]}" </dev/null 2>&1 -e "SELECT table_schema, table_name, COALESCE(engine, '') FROM information_schema.tables
    WHERE table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')
      AND table_schema NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema')
      AND COALESCE(engine, '') NOT IN ('MEMORY', 'BLACKHOLE', 'FEDERATED', 'CONNECT', 'SPIDER', 'S3')") ||
    give_up "its tables cannot be listed: $all"
  names=() quoted_names=() other_names=() quoted_others=()
  while IFS=$'\t' read -r schema table engine; do
    [[ $schema ]] || continue
    printf -v schema %b "$schema"
    printf -v table %b "$table"
    name=\`${schema//\`/\`\`}\`.\`${table//\`/\`\`}\`
    if [[ $engine == InnoDB || $engine == ROCKSDB ]]; then
      names+=("./$schema/$table") quoted_names+=("$name")
    else
      other_names+=("./$schema/$table") quoted_others+=("$name")
    fi
  done < <(printf '%s\n' "$all")
}

# open_client SOCKET DEFAULTS: one that stays, for statements on descriptor `into` and answers on `from`. Its errors are answers, too.
open_client() {
  local -a command
  client_command "$1" "$2" --skip-column-names || give_up "$REPLY"
  clients=$((clients + 1))
  mkfifo -- "$home/client.$clients" || give_up "$home cannot be written"
  exec {from}< <(exec "${command[@]}" --unbuffered <"$home/client.$clients" 2>&1)
  exec {into}>"$home/client.$clients"
  # It may have nothing to do while another one reads, and much at once then.
  answer "SET SESSION wait_timeout = 31536000, SESSION max_statement_time = 0, SESSION idle_transaction_timeout = 0,
    SESSION idle_readonly_transaction_timeout = 0; SELECT 'there'"
}

# answer STATEMENT: sets REPLY to its one line; the words of a client that ends are the error.
answer() {
  local said
  printf '%s;\n' "${1%; }" >&"$into"
  if ! IFS= read -r REPLY <&"$from" || [[ $REPLY == ERROR\ * || $REPLY == -------------- ]]; then
    said=$REPLY$(timeout 2 cat <&"$from")
    give_up "${said:-the server has gone}"
  fi
}

# contents HOW NAMES-VARIABLE QUOTED-VARIABLE [BEFORE BEHIND]: prints a record of each, with statements around it.
contents() {
  local -n all=$2 quoted_all=$3
  local index
  for index in "${!all[@]}"; do
    if [[ $1 == rows ]]; then
      answer "$4 SELECT COUNT(*) FROM ${quoted_all[index]}; $5"
    else
      answer "$4 CHECKSUM TABLE ${quoted_all[index]} EXTENDED; $5"
      REPLY=${REPLY##*$'\t'}
      [[ $REPLY != NULL ]] || { answer 'SHOW WARNINGS'; give_up "${all[index]#./} has no checksum: $REPLY"; }
    fi
    printf '%s//%s\0' "${all[index]}" "$REPLY"
  done
}

# keep: sorts what comes into the list, and tells it.
keep() {
  sort -z >"$home/tables" || give_up "$home/tables cannot be written"
  line '!' manifest "$job" tables "$(tr -dc '\0' <"$home/tables" | wc -c)" 0 "$(sha256sum <"$home/tables" | cut -d ' ' -f 1)"
  printf '%s\n' "$REPLY" >&5
}

# await SOCKET DEFAULTS IDLE GTID: until this server has all of that.
await() {
  local said last=$SECONDS seen='' now
  while :; do
    said=$(sql "$1" "$2" "SELECT MASTER_GTID_WAIT('$4', 5)") || give_up "$said"
    [[ $said == 0 ]] && return
    now=$(sql "$1" "$2" 'SELECT @@global.gtid_slave_pos') || give_up "$now"
    [[ $now == "$seen" ]] || { seen=$now last=$SECONDS; }
    ((SECONDS - last <= $3)) || give_up "it is at $now and does not reach $4, the position of its copies"
  done
}

# of_source SOCKET DEFAULTS HOW WHOSE IDLE GTID...: at this moment, but behind those at which the others stand still. WHOSE is `own`,
# or `upstream` where the others follow whom this one follows. Tables that are in no transaction are locked against writes until all
# of them are read; the others for no time.
of_source() {
  local file position into from first_into first_from list
  local -a names quoted_names other_names quoted_others
  if [[ $4 == upstream ]]; then
    for position in "${@:6}"; do await "$1" "$2" "$5" "$position"; done
  fi
  list_tables "$1" "$2"
  if ((${#quoted_others[@]})); then
    open_client "$1" "$2"
    printf -v list '%s, ' "${quoted_others[@]}"
    answer "SET SESSION lock_wait_timeout = 60; FLUSH TABLES ${list%, } WITH READ LOCK; SELECT 'locked'"
    first_into=$into first_from=$from
  fi
  open_client "$1" "$2"
  answer "SET SESSION lock_wait_timeout = 60; SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ;
    START TRANSACTION WITH CONSISTENT SNAPSHOT; SELECT 'begun'"
  if [[ $4 == own ]]; then
    answer "SHOW STATUS LIKE 'binlog_snapshot_file'"
    file=${REPLY#*$'\t'}
    answer "SHOW STATUS LIKE 'binlog_snapshot_position'"
    position=${REPLY#*$'\t'}
    tell file "$file"
    tell position "$position"
    quoted "$file"
    answer "SELECT COALESCE(BINLOG_GTID_POS($REPLY, $position), '')"
  else
    answer "SELECT COALESCE(GROUP_CONCAT(a.domain_id, '-', a.server_id, '-', a.seq_no), '') FROM mysql.gtid_slave_pos a
      WHERE a.sub_id = (SELECT MAX(b.sub_id) FROM mysql.gtid_slave_pos b WHERE b.domain_id = a.domain_id)"
  fi
  tell gtid "$REPLY"
  {
    if [[ ${first_into-} ]]; then
      local second_into=$into second_from=$from
      into=$first_into from=$first_from
      contents "$3" other_names quoted_others
      answer "UNLOCK TABLES; SELECT 'unlocked'"
      into=$second_into from=$second_from
    fi
    # The snapshot stays, and who changes a table's definition waits for as long as that one is read, and no longer.
    contents "$3" names quoted_names 'SAVEPOINT table_of_ours;' 'ROLLBACK TO SAVEPOINT table_of_ours'
  } | keep
  [[ ${PIPESTATUS[*]} == '0 0' ]]
}

# halt SOCKET DEFAULTS IDLE: its replication stops, when a statement that is under way has come to its end.
halt() {
  local said io sql behind last=$SECONDS
  while :; do
    sql "$1" "$2" 'STOP SLAVE' >/dev/null
    said=$(replication_status "$1" "$2") || give_up "$said"
    IFS=$'\x1f' read -r io sql behind < <(
      columns Slave_IO_Running Slave_SQL_Running Seconds_Behind_Master < <(printf '%s\n' "$said") | tr '\t' '\037')
    [[ $io == =No && $sql == No ]] && return
    [[ ! $behind =~ ^[1-9] ]] || last=$SECONDS
    ((SECONDS - last <= $3)) || give_up "its replication does not stop"
    sleep 0.2
  done
}

# rest SOCKET DEFAULTS IDLE: the replica stands still, and tells where.
rest() {
  local said
  halt "$@"
  said=$(sql "$1" "$2" 'SELECT @@global.gtid_slave_pos') || give_up "$said"
  tell gtid "$said"
}

# of_target SOCKET DEFAULTS HOW IDLE GTID FILE POSITION: goes on to exactly that moment, stands still, and goes on behind it.
of_target() {
  local said sql file position behind error seen='' last=$SECONDS into from
  local -a names quoted_names other_names quoted_others
  if [[ $5 ]]; then
    quoted "$5"
    said=$(sql "$1" "$2" "START SLAVE UNTIL master_gtid_pos = $REPLY") || give_up "$said"
  else
    quoted "$6"
    said=$(sql "$1" "$2" "START SLAVE UNTIL MASTER_LOG_FILE = $REPLY, MASTER_LOG_POS = $7") || give_up "$said"
  fi
  while :; do
    said=$(replication_status "$1" "$2") || give_up "$said"
    IFS=$'\x1f' read -r sql file position behind error < <(
      columns Slave_SQL_Running Relay_Master_Log_File Exec_Master_Log_Pos Seconds_Behind_Master Last_SQL_Error < <(printf '%s\n' "$said") |
        tr '\t' '\037')
    [[ -z $error ]] || give_up "its SQL thread has stopped: $error"
    [[ $sql == =No ]] && break
    # One that is there already, or has several threads, stops only at the next event.
    if [[ $5 ]]; then
      [[ $(sql "$1" "$2" "SELECT MASTER_GTID_WAIT('$5', 0)") == 0 ]] && break
    elif [[ $file == "$6" && $position == "$7" ]]; then
      break
    fi
    [[ $file:$position == "$seen" && ! $behind =~ ^[1-9] ]] || { seen=$file:$position last=$SECONDS; }
    ((SECONDS - last <= $4)) || give_up "it has made no progress towards ${5:-$6:$7} for $4 s"
    sleep 0.1
  done
  halt "$1" "$2" "$4"
  list_tables "$1" "$2"
  open_client "$1" "$2"
  { contents "$3" names quoted_names; contents "$3" other_names quoted_others; } | keep
  [[ ${PIPESTATUS[*]} == '0 0' ]] || exit 1
  said=$(sql "$1" "$2" 'START SLAVE') || give_up "$said"
}

# main source SOCKET DEFAULTS HOW WHOSE IDLE GTID...; main rest SOCKET DEFAULTS IDLE; main target SOCKET DEFAULTS HOW IDLE GTID FILE POSITION
main() {
  # A client that has ended has said why.
  trap : PIPE
  vouch "$2" || :
  case $1 in
    source) of_source "${@:2}" ;;
    rest) rest "${@:2}" ;;
    target) of_target "${@:2}" ;;
  esac
}
