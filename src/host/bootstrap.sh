# shellcheck shell=sh
# bootstrap.sh AGENTS NAME CONNECTION: receives the agent on standard input and becomes it. Sent in one line, as one
# argument, which any login shell passes on unchanged: no single quote, backslash or exclamation mark may occur here.
# docs/design/agent.md describes it.
#
# AGENTS: words MACHINE:SHA256:SIZE. NAME: of a new directory. CONNECTION: sshd's SSH_CONNECTION, which sudo removes.
umask 077;
agents=$1; name=$2;
if [ "$3" ]; then SSH_CONNECTION=$3; fi;
# The output of a login shell may end within a line.
say() { echo; echo "transfer-bootstrap $*"; };
fail() { say "failed $*"; exit 1; };
# A controller that is gone reads nothing: what was written is removed nevertheless.
trap "" PIPE;
machine=$(uname -m);
digest=; above=;
for one in $agents; do
  case $one in "$machine":*) one=${one#*:}; digest=${one%%:*}; size=${one#*:};; esac;
done;
if [ -z "$digest" ]; then fail "there is no transfer-agent for $machine beside the controller; install the package transfer-agent of that architecture on the controller"; fi;
# drop DIRECTORY: removes that of an agent, and the one above it if it is empty.
drop() { rm -rf "$1"; rmdir "${1%/.agent-*}" 2>/dev/null; };
# shellcheck disable=SC2317 # by a trap
stop() { drop "$own"; if [ "$got" ]; then drop "${got%/*}"; fi; exit 1; };
is_it() { [ "$(sha256sum <"$1" 2>/dev/null)" = "$digest  -" ]; };
become() {
  trap - HUP INT PIPE TERM;
  exec env -i ${HOME:+"HOME=$HOME"} ${LOGNAME:+"LOGNAME=$LOGNAME"} "PATH=$PATH" ${SSH_CONNECTION:+"SSH_CONNECTION=$SSH_CONNECTION"} ${SUDO_UID:+"SUDO_UID=$SUDO_UID"} ${above:+"TRANSFER_ABOVE=$above"} ${TMPDIR:+"TMPDIR=$TMPDIR"} ${USER:+"USER=$USER"} ${XDG_RUNTIME_DIR:+"XDG_RUNTIME_DIR=$XDG_RUNTIME_DIR"} ${XDG_STATE_HOME:+"XDG_STATE_HOME=$XDG_STATE_HOME"} "$1" serve;
};
for file in /usr/lib/*/transfer/transfer-agent; do
  if [ -x "$file" ] && is_it "$file"; then become "$file"; fi;
done;
if [ "$(id -u)" = 0 ]; then set -- /var/lib/transfer /run/transfer;
else set -- "${XDG_STATE_HOME:-$HOME/.local/state}/transfer" "${XDG_RUNTIME_DIR:-/nonexistent}/transfer-$(id -u)"; fi;
got=; why=;
for directory in "$@"; do
  case $directory in /*) ;; *) why="$why; $directory is not an absolute path"; continue;; esac;
  # The agent syncs the entries of directories that are new.
  above=$directory; until [ -e "$above" ]; do above=${above%/*}; above=${above:-/}; done;
  own=$directory/.agent-$name; file=$own/transfer-agent;
  trap stop HUP INT TERM;
  # An agent that starts at the same time removes the directory while it is empty.
  for _ in 1 2 3 4 5; do if said=$({ mkdir -p "$directory" && mkdir "$own"; } 2>&1); then break; fi; done;
  if [ -d "$own" ]; then :; else why="$why; $said"; continue; fi;
  bad=;
  if [ -L "$directory" ]; then bad="$directory is a symbolic link";
  elif [ -O "$directory" ]; then case $(ls -ld "$directory") in
    d????-??-*) ;;
    *) bad="other accounts can write to $directory (chmod go-w it)";;
  esac;
  else bad="$directory belongs to another account"; fi;
  if [ "$bad" ]; then rmdir "$own"; why="$why; $bad"; continue; fi;
  # That of a run, which may end now.
  for kept in "$directory"/*/transfer-agent; do
    if ln "$kept" "$file" 2>/dev/null && is_it "$file" && env -i "$file" ready >/dev/null 2>&1 </dev/null; then become "$file"; fi;
    rm -f "$file";
  done;
  # On a full disk the agent goes to the next directory, and is not asked for: it is sent once only.
  if said=$(head -c "$size" /dev/zero 2>&1 >"$file"); then :; else drop "$own"; why="$why; $directory: $said"; continue; fi;
  if [ "$got" ]; then said=$(cp "$got" "$file" 2>&1); drop "${got%/*}";
  else say "send $machine"; said=$(head -c "$size" 2>&1 >"$file"); fi;
  if is_it "$file"; then :; else
    drop "$own";
    fail "cannot write the agent to $directory${said:+: $said} (free space? sha256sum installed?)";
  fi;
  got=$file;
  chmod 700 "$file";
  if env -i "$file" ready >/dev/null 2>&1 </dev/null; then become "$file"; fi;
  why="$why; programs in $directory cannot be started (mounted with noexec, or forbidden by policy)";
done;
if [ "$got" ]; then drop "${got%/*}"; fi;
fail "no directory for the agent${why}; install the package transfer-agent on this host";
