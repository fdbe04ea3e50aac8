# shellcheck shell=bash
# logins.sh: which sockets are logged in to, and how. A login may carry the password of a database's administrator: it goes only to a
# listener whose account is a server's, on a path that no other account can change, and never as clear text.

# Where the plugins are that clients may load for a login, and a place where there can be none.
permitted_plugins=/etc/transfer/client-plugins no_plugins=/dev/null/none
# Unit of the server in question, where one is known.
server_unit=''
# Sockets that were looked at, and what was found against them.
declare -A vouched=()
server_uids=()

# server_uids: sets the array `server_uids` to the accounts that may listen on a server's socket: root, the login, those that the units
# of servers name, and `mysql`.
server_uids() {
  local name uid
  local -a names
  server_uids=(0)
  mapfile -t names < <(systemctl show -p User --value -- ${server_unit:+"$server_unit"} mariadb.service mysql.service mysqld.service \
    'mariadb@*.service' 'mysql@*.service' 'mysqld@*.service' 2>/dev/null | sort -u)
  for name in "$EUID" mysql "${names[@]}"; do
    [[ $name ]] || continue
    uid=$name
    [[ $name =~ ^[0-9]+$ ]] || uid=$(id -u -- "$name" 2>/dev/null) || continue
    [[ " ${server_uids[*]} " == *" $uid "* ]] || server_uids+=("$uid")
  done
}

# listener SOCKET: sets REPLY to the account that listens there, by the kernel's word. False with why not.
listener() {
  # shellcheck disable=SC2016 # perl's variables
  REPLY=$(perl -e '
    use strict;
    use Socket;
    local $SIG{ALRM} = sub { print "it takes no connection"; exit 1 };
    alarm 10;
    my $failed = sub { print "$!"; exit 1 };
    length $ARGV[0] <= 107 or print("its path is too long"), exit 1;
    socket(my $socket, AF_UNIX, SOCK_STREAM, 0) or $failed->();
    connect($socket, pack_sockaddr_un($ARGV[0])) or $failed->();
    print +(unpack("lLL", getsockopt($socket, SOL_SOCKET, SO_PEERCRED) // $failed->()))[1];' "$1")
}

# vouch SOCKET: whether it may be logged in to; sets REPLY to why not. Looked at once, until a server is started again.
vouch() {
  [[ $1 ]] || { REPLY='no socket of the server is known; name its unit with --unit'; return 1; }
  if [[ -z ${vouched[$1]+known} ]]; then
    find_against "$1"
    vouched[$1]=$REPLY
  fi
  REPLY=${vouched[$1]}
  [[ -z $REPLY ]]
}

# find_against SOCKET: sets REPLY to what speaks against a login there, or to nothing.
find_against() {
  local uid name component owner mode
  if ! listener "$1"; then
    REPLY="cannot connect to the server through $1: $REPLY"
    return
  fi
  uid=$REPLY
  ((${#server_uids[@]})) || server_uids
  if [[ " ${server_uids[*]} " != *" $uid "* ]]; then
    name=$(id -un -- "$uid" 2>/dev/null) || name="user id $uid"
    REPLY="no login to $1: $name listens there, which is no account of a database server; end that process, or name the server's own socket, or its unit with --unit"
    return
  fi
  [[ ${nr_getxattr-} ]] || find_syscalls
  # Where systemd listens for a server, the directory may be the server's.
  if ((uid == 0)); then shared_component "$1" "${server_uids[@]}"; else shared_component "$1" "$uid"; fi ||
    { REPLY="no login to $1: it cannot be seen who can replace it"; return; }
  [[ $REPLY ]] || return 0
  IFS=$'\t' read -r component owner mode < <(printf '%s\n' "$REPLY")
  REPLY="no login to $1: others than its server can replace it, by $component (of $owner, mode $mode); let the server's socket be in a directory of its own"
}

# plugin_directory any|challenge: sets REPLY to the directory of the plugins that clients may load; with `challenge` only if none of them
# hands a password on.
plugin_directory() {
  local file
  REPLY=$no_plugins
  [[ -d $permitted_plugins ]] || return 0
  [[ ${nr_getxattr-} ]] || find_syscalls
  for file in "$permitted_plugins" "$permitted_plugins"/*; do
    if ! shared_component "$file" || [[ $REPLY ]]; then
      REPLY=$no_plugins
      return 0
    fi
    case ${file#"$permitted_plugins"} in
      '' | /client_ed25519.so | /parsec.so | '/*') ;;
      *) [[ $1 != challenge ]] || { REPLY=$no_plugins; return 0; } ;;
    esac
  done
  REPLY=$permitted_plugins
}

# permission any|challenge TEXT: sets REPLY to what a client says, and where it misses a plugin, to how that one is permitted.
permission() {
  local name file
  REPLY=$2
  [[ $2 =~ [Pp]lugin\ \'?([A-Za-z0-9_]+)\'?\ (could\ not|cannot)\ be\ loaded ]] || return 0
  name=${BASH_REMATCH[1]}
  if [[ $1 == challenge && $name != client_ed25519 && $name != parsec ]]; then
    REPLY="ERROR 2059 (HY000): the server asks for the password itself (by the plugin $name), which never goes over the network; use an account with ed25519 or mysql_native_password"
    return
  fi
  file=PATH/$name.so
  for name in /usr/lib/*/libmariadb*/plugin/"$name.so" /usr/lib/mysql/plugin/"$name.so" /usr/lib/*/mysql/plugin/"$name.so" \
    /usr/lib64/mysql/plugin/"$name.so"; do
    [[ ! -f $name ]] || { file=$name; break; }
  done
  REPLY="ERROR 2059 (HY000): the client's plugin ${file##*/} is not permitted for logins; to permit it on that host: mkdir -p $permitted_plugins && ln -s $file $permitted_plugins/"
}

# may_decide FILE: whether a file of options for logins is nobody's but root's and the login's; sets REPLY to why not.
may_decide() {
  local file=$1 component owner mode
  REPLY=''
  [[ $file ]] || return 0
  [[ $file == /* ]] || file=$PWD/$file
  mode=$(stat -L -c %a -- "$file" 2>/dev/null) || return 0
  [[ ${nr_getxattr-} ]] || find_syscalls
  if ! shared_component "$file"; then
    REPLY="--defaults-file $1: it cannot be seen who can replace it"
  elif [[ $REPLY ]]; then
    IFS=$'\t' read -r component owner mode < <(printf '%s\n' "$REPLY")
    REPLY="--defaults-file $1: others can replace it, by $component (of $owner, mode $mode); give that to root, and chmod go-w it"
  elif ((8#$mode & 8#22)); then
    REPLY="--defaults-file $1: others can write to it (mode $mode); chmod go-w $1"
  fi
  [[ -z $REPLY ]]
}

# client_command SOCKET DEFAULTS OPTION: sets the array `command` to a client of the server there. False, and REPLY why, where no
# login may go there.
client_command() {
  local program=mariadb
  may_decide "$2" && vouch "$1" || return
  command -v mariadb >/dev/null || program=mysql
  plugin_directory any
  # A user's own file may name another host.
  command=("$program" ${2:+"--defaults-file=$2"} --protocol=socket --host=localhost "--socket=$1" --connect-timeout=10 --batch
    --local-infile=0 "--plugin-dir=$REPLY")
  # That of MySQL has clear text built in.
  is_of_mariadb "$program" || command+=(--loose-skip-enable-cleartext-plugin)
  command+=("$3")
}

# is_of_mariadb PROGRAM: whether that client is MariaDB's.
is_of_mariadb() {
  [[ $1 == mariadb || $("$1" --no-defaults --version 2>/dev/null) == *MariaDB* ]]
}

# client SOCKET DEFAULTS STATEMENTS [OPTION]: the statements, once; those on standard input where that is `-`: everybody on the host can
# read arguments.
client() {
  local -a command
  client_command "$1" "$2" "${4:---skip-column-names}" || { printf '%s\n' "$REPLY" >&2; return 1; }
  if [[ $3 == - ]]; then timeout -k 5 60 "${command[@]}"; else timeout -k 5 60 "${command[@]}" -e "$3" </dev/null; fi
}

# sql SOCKET DEFAULTS STATEMENTS [OPTION]: what it answers, fields separated by tabs, escaped as in our wire format. Where it
# fails, why, as the last line: what a client complains of besides is no answer.
sql() {
  local said REPLY
  { said=$(client "$@" 2>&1 >&12) && return 0; } 12>&1
  permission any "$said"
  printf '%s\n' "${REPLY:-the server has not answered within a minute}"
  return 1
}

# answers SOCKET DEFAULTS: whether a server answers there, whatever it says to ours. The errors of a client that finds nobody
# are 2000 and more, and one that is kept waiting has none.
answers() {
  local said
  said=$(sql "$1" "$2" 'SELECT 1') || [[ $said == *'ERROR '[13-9][0-9]* ]]
}
