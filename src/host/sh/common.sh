# shellcheck shell=bash
# common.sh: what every script that runs on a host shares. It is sent in front of the others.
#
# Wire format, both ways: one line per message, fields separated by tabs; inside a field a backslash, a newline and a
# tab are written \\, \n and \t. The journal uses the same format.

umask 077
# Behind sudo, which hands on no environment, what sshd told comes as an argument.
[[ ${1-} ]] && export SSH_CONNECTION=$1
# sudo says who called it.
login_uid=
[[ ${SUDO_UID-} =~ ^[0-9]+$ ]] && login_uid=$SUDO_UID
# What is in the memory of a program that crashes may be secret.
ulimit -c 0
# Of a user's environment nothing but this: the rest may tell tools to work otherwise, and an exported variable of a name
# that we use would hand what we assign to it on to every program.
for name in $(compgen -e); do
  case $name in
    HOME | LOGNAME | PATH | SSH_CONNECTION | SUDO_UID | TMPDIR | USER | XDG_RUNTIME_DIR | XDG_STATE_HOME) ;;
    *) unset -v "$name" ;;
  esac
done 2>/dev/null
export LC_ALL=C

# escape VALUE: sets REPLY to VALUE as one field.
escape() {
  REPLY=${1//\\/\\\\}
  REPLY=${REPLY//$'\n'/\\n}
  REPLY=${REPLY//$'\t'/\\t}
}

# line FIELD...: sets REPLY to the fields as one message, without its newline.
line() {
  local joined='' field
  for field; do
    escape "$field"
    joined+=$'\t'$REPLY
  done
  REPLY=${joined#$'\t'}
}

# split MESSAGE: sets the array `words` to its fields.
split() {
  local rest=$1$'\t' word
  words=()
  while [[ -n $rest ]]; do
    printf -v word '%b' "${rest%%$'\t'*}"
    words+=("$word")
    rest=${rest#*$'\t'}
  done
}

# say FIELD...: prints the fields as one message. What REPLY is, stays.
say() {
  local REPLY
  line "$@"
  printf '%s\n' "$REPLY"
}

# input_chains: each base chain of nftables that filters what comes in over IP, as FAMILY TABLE OWNER CHAIN. OWNER is
# `owned` where the process that made the table is the only one that may change it, else `free`.
input_chains() {
  local rules
  # Without the elements of sets, of which there may be a million.
  rules=$(nft -t list ruleset 2>/dev/null) || return
  awk '
    $1 == "table" { family = $2; table = $3; owner = "free" }
    $1 == "flags" && /owner/ { owner = "owned" }
    $1 == "chain" { chain = $2 }
    $1 == "type" && $2 == "filter" && $4 == "input" && family ~ /^(ip|ip6|inet)$/ { print family, table, owner, chain }
  ' < <(printf '%s\n' "$rules")
}

# Where runs keep their journals (they outlive a reboot) and their locks (they need not).
find_directories() {
  if ((EUID == 0)); then
    state=/var/lib/transfer runtime=/run/transfer
  else
    state=${XDG_STATE_HOME:-$HOME/.local/state}/transfer
    # Not in /tmp, where others could make it first.
    runtime=$state/.locks
    [[ -z ${XDG_RUNTIME_DIR-} ]] || runtime=$XDG_RUNTIME_DIR/transfer-$EUID
  fi
}

# Where it is not ours, no lock in it can be believed.
owns_runtime() {
  [[ -d $runtime && -O $runtime && ! -L $runtime ]]
}

# why_no_runtime: prints why no lock can be had, with the account that is in the way.
why_no_runtime() {
  local owner
  owner=$(stat -c %U -- "$runtime" 2>/dev/null)
  printf '%s cannot be used for locks%s' "$runtime" "${owner:+: it belongs to $owner}"
}

# target_lock DIRECTORY NAME: sets REPLY to the lock file of that name in that directory, under whatever name the
# directory is reached: through symbolic links and bind mounts it is the same device and inode.
target_lock() {
  local place hash
  place=$(stat -L -c %D.%i -- "$1") && hash=$(printf %s "$2" | sha256sum) && REPLY=$runtime/target.$place.${hash:0:16}
}

# holds DIRECTORY: prints something that is in it already: not what every file system has, and not what runs stage.
holds() {
  find "$1" -mindepth 1 -maxdepth 1 ! -name lost+found ! -name '.transfer-*' -print -quit
}

# mounted PATH: whether something is mounted at it or below it. A symbolic link is what it is, not what it points to.
mounted() {
  local real point
  [[ ! -L $1 ]] || return 1
  real=$(readlink -f -- "$1" && echo .)
  real=${real%$'\n.'}
  while read -r _ _ _ _ point _; do
    printf -v point %b "$point"
    [[ $point == "$real" || $point == "$real"/* ]] && return 0
  done </proc/self/mountinfo
  return 1
}

# hold DESCRIPTOR PATH: opens a directory or a regular file as that descriptor, without following a link and without waiting, as
# an open of a pipe would. Sets REPLY to its `DEVICE:INODE UID MODE`; false with why not. The helper that opens it ends with
# this shell, and keeps no lock, and neither end of the protocol, from whoever rolls back then.
hold() {
  local from holder number shell=$BASHPID
  # shellcheck disable=SC2016 # perl's variables
  exec {from}< <(exec perl -MFcntl=:DEFAULT,:mode -e '
    $| = 1;
    my $opened = sysopen(my $file, $ARGV[0], O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    my @stat = $opened ? stat($file) : ();
    if (!$opened) { print "- $!\n" }
    elsif (!(S_ISDIR($stat[2]) || S_ISREG($stat[2]))) { print "- it is no directory and no file\n" }
    else { print fileno($file), " $stat[0]:$stat[1] $stat[4] ", sprintf("%o", $stat[2] & 07777), "\n" }
    for (1 .. 600) { getppid() == $ARGV[1] or last; select(undef, undef, undef, 0.1) }' "$2" "$shell" 3<&- 5>&- 9>&- 10>&- 11>&-)
  holder=$!
  read -r -t 60 number REPLY <&"$from" || number=- REPLY='it cannot be opened within a minute'
  exec {from}<&-
  [[ $number != [0-9]* ]] || { eval "exec $1<\"/proc/\$holder/fd/\$number\""; } 2>/dev/null ||
    { number=- REPLY='it cannot be opened'; }
  kill -KILL "$holder" 2>/dev/null
  [[ $number == [0-9]* ]] && [[ $(stat -L -c %d:%i "/proc/self/fd/$1") == "${REPLY%% *}" ]]
}

this_boot() {
  read -r boot </proc/sys/kernel/random/boot_id
}

# The numbers of the system calls that perl makes for us: coreutils has no exclusive rename, no splice, no fadvise.
find_syscalls() {
  case $(uname -m) in
    x86_64) nr_splice=275 nr_tee=276 nr_renameat2=316 nr_fadvise=221 nr_removexattr=197 nr_getxattr=191 nr_fsetxattr=190 nr_llistxattr=195 ;;
    aarch64) nr_splice=76 nr_tee=77 nr_renameat2=276 nr_fadvise=223 nr_removexattr=14 nr_getxattr=8 nr_fsetxattr=7 nr_llistxattr=12 ;;
    *) return 1 ;;
  esac
}
