# shellcheck shell=bash
# follow.sh: one server follows another. What is asked of a target before a run (`reach`), and the jobs that make a copy a replica:
# `follow` gives it its position and starts it, `again` waits for it once more. Events: `fact JOB KEY VALUE`; what goes wrong is
# the fact `error`.
#
# Account and password come on descriptor 6 (jobs) or as arguments of a script (which are no process's), and go on to a server
# or a client on pipes only. What a server says back is told without the password.

# option VALUE: sets REPLY to it as a value in a file of options.
option() {
  REPLY=${1//\\/\\\\}
  if [[ $1 == *\"* ]]; then REPLY="'$REPLY'"; else REPLY="\"$REPLY\""; fi
}

# at HOST PORT SSL STATEMENTS: what the server there answers to the replicas' account. Where it fails, why, as the last line. Nobody
# vouches for who answers: a password is proved, and never sent.
at() {
  local program=mariadb name word said
  local -a tls=(--skip-ssl)
  command -v mariadb >/dev/null || program=mysql
  # MySQL's sends it to whoever has any certificate.
  is_of_mariadb "$program" || { echo "MariaDB's client is missing: apt install mariadb-client"; return 1; }
  # As replication does: encrypted, without a look at whose certificate it is.
  [[ $3 == 1 ]] && tls=(--ssl --skip-ssl-verify-server-cert)
  option "$user"
  name=$REPLY
  option "$password"
  word=$REPLY
  plugin_directory challenge
  { said=$(timeout -k 5 30 "$program" --defaults-file=<(printf '[client]\nuser=%s\npassword=%s\n' "$name" "$word") --protocol=tcp \
    "${tls[@]}" --host="$1" --port="$2" --local-infile=0 --plugin-dir="$REPLY" --connect-timeout=10 --batch --skip-column-names < <(printf '%s\n' "$4") 2>&1 >&12) &&
    return 0; } 12>&1
  permission challenge "$said"
  printf '%s\n' "${REPLY:-no answer within half a minute}"
  return 1
}

# reach NAME ADDRESS PORT SSL USER PASSWORD: how the server that was named is reached from here: `reach HOST`, HOST being the name where
# that leads to the ADDRESS, or else that; `own ADDRESS`, as whom it sees us; with an account `primary VARIABLE VALUE`, `current
# USER@HOST` and `grant`; or `reach_error TEXT`.
reach() {
  local host=$2 said key name value
  user=$5 password=$6
  if [[ -z $2 ]] || getent ahosts -- "$1" 2>/dev/null | awk -v own="$2" '$1 == own { found = 1 } END { exit !found }'; then host=$1; fi
  say reach "$host"
  value=$(getent ahosts -- "$host" 2>/dev/null | awk '{ print $1; exit }')
  key=$(ip -o route get "${value:-$2}" 2>/dev/null | sed -n 's/.* src \([^ ]*\).*/\1/p')
  if [[ -z $user ]]; then
    # Nobody's login is refused, or his host is, by a server that can be reached, and it says whom it sees.
    user=transfer
    said=$(at "$host" "$3" "$4" 'SELECT 1') || true
    if [[ $said =~ (\'transfer\'@|Host\ )\'([^\']*)\' ]]; then
      key=${BASH_REMATCH[2]}
    elif [[ $said == *ERROR* && ! $said =~ (1045|1130|1698|4151) ]]; then
      say reach_error "${said##*$'\n'}"
    fi
  elif said=$(at "$host" "$3" "$4" "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'server_id', 'version');
      SELECT 'current', CURRENT_USER(); SHOW GRANTS"); then
    while IFS=$'\t' read -r name value; do
      case $name in
        GRANT\ *) [[ $name =~ (REPLICATION\ (SLAVE|REPLICA)|ALL\ PRIVILEGES)(,.*)?\ ON\ \*\.\* ]] && say grant ;;
        current) printf 'current\t%s\n' "$value" ;;
        *) printf 'primary\t%s\t%s\n' "$name" "$value" ;;
      esac
    done < <(printf '%s\n' "$said")
  else
    without_password "$said"
    say reach_error "$REPLY"
  fi
  say own "$key"
}

# known POSITION OWN: sets REPLY to those parts of a GTID whose domain is in another one, too.
known() {
  local part domains=,$2
  REPLY=''
  local -a parts
  IFS=, read -ra parts < <(printf '%s\n' "$1")
  for part in "${parts[@]}"; do
    [[ $domains != *",${part%%-*}-"* ]] || REPLY+=${REPLY:+,}$part
  done
}

# wait_for HOST PORT SSL WHOSE MAX-LAG IDLE SOCKET DEFAULTS: until both threads run, and all that the other one has now is here within
# MAX-LAG seconds. That counts, and not what a replica says of its lag, which knows only what it has fetched. With WHOSE `upstream` the
# other one may have more domains than the copied server ever got.
wait_for() {
  local host=$1 port=$2 ssl=$3 whose=$4 limit=$5 idle=$6 socket=$7 defaults=$8
  local all io sql behind io_errno io_error sql_error gtid file position fetched there='' target='' since now seen='' last=$SECONDS why='' slow=0
  while :; do
    all=$(replication_status "$socket" "$defaults") || give_up "the new replica does not answer: $all"
    IFS=$'\x1f' read -r io sql behind io_errno io_error sql_error gtid file position fetched < <(
      columns Slave_IO_Running Slave_SQL_Running Seconds_Behind_Master Last_IO_Errno Last_IO_Error Last_SQL_Error Gtid_Slave_Pos \
        Relay_Master_Log_File Exec_Master_Log_Pos Read_Master_Log_Pos < <(printf '%s\n' "$all") | tr '\t' '\037')
    io=${io#=}
    tell gtid "$gtid"
    [[ $sql == Yes ]] || give_up "its SQL thread has stopped: ${sql_error:-it says nothing of why}"
    [[ $io != No ]] || give_up "its IO thread has stopped: ${io_error:-it says nothing of why}"
    case $io_errno in
      1044 | 1045 | 1130 | 1227 | 1236 | 1698 | 2026) give_up "it cannot fetch: $io_error" ;;
    esac
    # One statement may take long: who is behind, and works, is not idle.
    if [[ "$gtid $file $position $fetched" != "$seen" || $behind =~ ^[1-9] && -z $why ]]; then
      seen="$gtid $file $position $fetched"
      last=$SECONDS
    elif ((SECONDS - last > idle)); then
      give_up "it has made no progress for $idle s: ${io_error:-${sql_error:-${why:-its lag is $behind s}}}"
    fi
    if [[ $io == Yes && -z $target ]]; then
      since=${EPOCHREALTIME/./} why=''
      # Of what it says late nobody knows how old it is.
      ((slow < 5)) || give_up "its source takes longer to answer than --max-lag: say a longer one"
      if ! there=$(at "$host" "$port" "$ssl" 'SELECT @@global.gtid_binlog_pos'); then
        # It may be busy; the replica itself tries again, too.
        why="its source does not answer: ${there##*$'\n'}"
      elif [[ -z $there ]] || { [[ $whose == upstream && ! $there == *[^0-9,-]* ]] && known "$there" "$gtid" && [[ -z $REPLY ]]; }; then
        # Nothing that has a GTID was ever written there, or nothing that this one ever got.
        if [[ $behind =~ ^[0-9]+$ && $position == "$fetched" ]] && ((behind <= limit)); then
          tell lag_ms $((behind * 1000))
          return
        fi
      elif [[ ! $there =~ ^[0-9]+-[0-9]+-[0-9]+(,[0-9]+-[0-9]+-[0-9]+)*$ ]]; then
        give_up "its source tells no position, but '${there:0:100}'"
      else
        target=$there
        [[ $whose == own ]] || { known "$there" "$gtid" && target=$REPLY; }
        if ((${EPOCHREALTIME/./} - since > limit * 1000000)); then slow=$((slow + 1)) target=''; else slow=0; fi
      fi
    fi
    if [[ $target ]]; then
      if [[ $(sql "$socket" "$defaults" "SELECT MASTER_GTID_WAIT('$target', 1)") == 0 ]]; then
        now=$(((${EPOCHREALTIME/./} - since) / 1000))
        if ((now <= limit * 1000)); then
          all=$(sql "$socket" "$defaults" 'SELECT @@global.gtid_slave_pos') && tell gtid "$all"
          tell lag_ms "$now"
          return
        fi
        target=''
      elif ((${EPOCHREALTIME/./} - since > limit * 1000000)); then
        target=''
      fi
    fi
    tell behind "$behind"
    sleep 0.2
  done
}

# disable_events SOCKET DEFAULTS ON: those that the copied server runs, its replicas must not; its binary log brings what they do. With ON
# `on` the scheduler, which rested until now, is at work again.
disable_events() {
  local all schema name definer host
  all=$(sql "$1" "$2" "SELECT event_schema, event_name, definer FROM information_schema.events WHERE status = 'ENABLED'") ||
    give_up "its events cannot be seen: $all"
  while IFS=$'\t' read -r schema name definer; do
    [[ $schema ]] || continue
    printf -v schema %b "$schema"
    printf -v name %b "$name"
    printf -v definer %b "$definer"
    # Whoever changes one is its definer, unless he says who is.
    quoted "${definer##*@}"
    host=$REPLY
    quoted "${definer%@*}"
    definer=$REPLY@$host
    all=$(sql "$1" "$2" "SET sql_log_bin = 0; ALTER DEFINER = $definer EVENT \`${schema//\`/\`\`}\`.\`${name//\`/\`\`}\` DISABLE ON SLAVE") ||
      give_up "its event $schema.$name cannot be turned off: $all"
  done < <(printf '%s\n' "$all")
  [[ $3 != on ]] || all=$(sql "$1" "$2" 'SET GLOBAL event_scheduler = ON') || give_up "its events: $all"
}

# start_following HOST PORT SSL SOCKET DEFAULTS EVENTS GTID FILE POSITION: with a GTID, or else from a position in the other one's binary
# log.
start_following() {
  local name all said from='' way host account word
  # A copy brings none with it; of a server that had some, they would run beside ours.
  all=$(connections "$4" "$5") || give_up "the new replica does not answer: $all"
  while IFS=$'\t' read -r name _; do
    [[ $name ]] || continue
    quoted "${name#=}"
    said=$(sql "$4" "$5" "STOP SLAVE $REPLY; RESET SLAVE $REPLY ALL") || give_up "connection $REPLY: $said"
  done < <(printf '%s\n' "$all")
  said=$(sql "$4" "$5" 'SET GLOBAL read_only = 1') || give_up "it cannot be made read-only: $said"
  disable_events "$4" "$5" "$6"
  if [[ $7 ]]; then
    quoted "$7"
    from="SET GLOBAL gtid_slave_pos = $REPLY;"
    way='MASTER_USE_GTID = slave_pos'
  else
    quoted "$8"
    way="MASTER_USE_GTID = no, MASTER_LOG_FILE = $REPLY, MASTER_LOG_POS = $9"
  fi
  quoted "$1"
  host=$REPLY
  quoted "$user"
  account=$REPLY
  quoted "$password"
  word=$REPLY
  said=$(sql "$4" "$5" - < <(
    printf '%s\n' "SET SESSION sql_log_off = 1, SESSION slow_query_log = 0, SESSION sql_mode = ''; $from
      CHANGE MASTER TO MASTER_HOST = $host, MASTER_PORT = $2, MASTER_USER = $account, MASTER_PASSWORD = $word,
      MASTER_CONNECT_RETRY = 10, MASTER_SSL = $3, MASTER_SSL_VERIFY_SERVER_CERT = 0, $way;") && sql "$4" "$5" 'START SLAVE') || give_up "it cannot follow: $said"
}

# main follow HOST PORT SSL WHOSE MAX-LAG IDLE SOCKET DEFAULTS EVENTS GTID FILE POSITION; main again, with the same up to DEFAULTS; main
# reach ...
main() {
  local user='' password=''
  if [[ $1 == reach ]]; then
    reach "${@:2}"
    say end
    return
  fi
  job=follow
  { IFS= read -r user && IFS= read -r password; } <&6
  exec 6<&-
  # Once for all that is asked from now on, each in a process of its own.
  vouch "$8" || :
  [[ $1 == again ]] || start_following "${@:2:3}" "${@:8:6}"
  wait_for "${@:2:8}"
}
