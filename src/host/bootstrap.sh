# shellcheck shell=sh
# bootstrap.sh AGENTS NAME CONNECTION: receives the agent on standard input and becomes it. Sent in one line, as one
# argument, which any login shell passes on unchanged: no single quote, backslash or exclamation mark may occur here.
# docs/design/agent.md describes it.
#
# AGENTS: words MACHINE:SHA256:SIZE. NAME: of a new directory. CONNECTION: sshd's SSH_CONNECTION, which sudo removes.
umask 077;
agents=$1; name=$2;
if [ "$3" ]; then SSH_CONNECTION=$3; fi;
fail() { echo "transfer-bootstrap failed $*"; exit 1; };
machine=$(uname -m);
digest=;
for one in $agents; do
  case $one in "$machine":*) one=${one#*:}; digest=${one%%:*}; size=${one#*:};; esac;
done;
if [ -z "$digest" ]; then fail "there is no transfer-agent for $machine beside the controller; install the package transfer-agent of that architecture on the controller"; fi;
is_it() { [ "$(sha256sum <"$1" 2>/dev/null)" = "$digest  -" ]; };
become() {
  exec env -i "HOME=$HOME" "LOGNAME=$LOGNAME" "PATH=$PATH" "SSH_CONNECTION=$SSH_CONNECTION" "SUDO_UID=$SUDO_UID" "TMPDIR=$TMPDIR" "USER=$USER" "XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR" "XDG_STATE_HOME=$XDG_STATE_HOME" "$1" serve;
};
for file in /usr/lib/*/transfer/transfer-agent; do
  if [ -x "$file" ] && is_it "$file"; then become "$file"; fi;
done;
if [ "$(id -u)" = 0 ]; then set -- /var/lib/transfer /run/transfer;
else set -- "${XDG_STATE_HOME:-$HOME/.local/state}/transfer" "${XDG_RUNTIME_DIR:-/nonexistent}/transfer-agents"; fi;
got=; why=;
for directory in "$@"; do
  if said=$(mkdir -p "$directory" 2>&1); then :; else why="$why; $said"; continue; fi;
  if [ -L "$directory" ]; then why="$why; $directory is a symbolic link"; continue; fi;
  if [ -O "$directory" ]; then :; else why="$why; $directory belongs to another account"; continue; fi;
  case $(ls -ld "$directory") in
    d????-??-*) ;;
    *) why="$why; other accounts can write to $directory (chmod go-w it)"; continue;;
  esac;
  own=$directory/.agent-$name; file=$own/transfer-agent;
  if said=$(mkdir "$own" 2>&1); then :; else why="$why; $said"; continue; fi;
  if [ "$got" ]; then said=$(cp "$got" "$file" 2>&1); rm -rf "${got%/*}";
  else echo "transfer-bootstrap send $machine"; said=$(head -c "$size" 2>&1 >"$file"); fi;
  if is_it "$file"; then :; else
    rm -rf "$own";
    fail "cannot write the agent to $directory${said:+: $said} (free space? sha256sum installed?)";
  fi;
  got=$file;
  chmod 700 "$file";
  if "$file" ready >/dev/null 2>&1 </dev/null; then become "$file"; fi;
  why="$why; programs in $directory cannot be started (mounted with noexec, or forbidden by policy)";
done;
if [ "$got" ]; then rm -rf "${got%/*}"; fi;
fail "no directory for the agent${why}; install the package transfer-agent on this host";
