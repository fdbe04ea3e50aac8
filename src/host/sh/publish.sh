# shellcheck shell=bash
# publish.sh: the part of the guard that gives a copy its final name: the lease of the name, the staging directory, and the
# publication itself.

# take_target DIRECTORY NAME HOW OLD: nobody else writes to that name, whatever path leads there. HOW and OLD are
# `publish`'s; or HOW is `fill` and NAME `.`: the directory itself, which must be empty.
take_target() {
  local old
  if ! target_lock "$1" "$2"; then fail target "$1 is gone"; return; fi
  local lock=$REPLY
  # Who cleans up may have it for a moment.
  take_lock "$lock" 10 -w 1
  case $? in
    1) fail busy "$(cat -- "$lock")"; return ;;
    2) fail runtime "$runtime cannot be used"; return ;;
  esac
  # Whoever had it until now may have made it, or another one in place of the old one.
  if [[ $3 == fill ]]; then
    old=$(holds "$1")
  else
    old=$(stat -c %d:%i -- "${1%/}/$2" 2>/dev/null)
    [[ $3 != no && $old == "$4" ]] && old=''
  fi
  if [[ $old ]]; then
    # It goes with its lock still held.
    rm -f -- "$lock"
    exec 10>&-
    fail exists "$2 exists"
    return
  fi
  # A lock file that is left behind does no harm; so it may be there before its record.
  if record boot target "$lock" &&
    TZ=UTC0 printf 'run %s of %s, since %(%F %T UTC)T' "${guard%-*}" "$controller" -1 >"$lock"; then
    ok
  else
    fail journal "$home/journal or $lock cannot be written"
  fi
}

# make_staging PATH KIND HOW INNER: the directory, and below it the one in which a copy arrives, with one of the name INNER in
# it unless that is empty, on a file system of which we have seen that it can publish in that way. What unpacks a stream works
# below PATH and can open none of it: PATH protects it. KIND is `staging`, or `kept_staging` when what is in it at the end is not
# to be removed.
make_staging() {
  local message='' REPLY staging=/proc/self/fd/15
  record tree "$2" "$1" || { fail journal "$home/journal cannot be written"; return; }
  target_directory=${1%/*}
  # From here on both directories are descriptors: where others may change the names above them, they exchange nothing.
  # shellcheck disable=SC2016 # perl's variables
  if ! hold 14 "${target_directory:-/}/."; then
    fail staging "$target_directory: $REPLY"
  elif ! message=$(mkdir -- "/proc/self/fd/14/${1##*/}" 2>&1); then
    fail staging "$message"
  elif ! hold 15 "/proc/self/fd/14/${1##*/}" || [[ $REPLY != *" $EUID "* || $(holds_any 15) ]]; then
    fail replaced "$1 was replaced by another directory"
  # Nothing of the target directory's own is to be inherited by the copy: no default ACL, no setgid bit (which chmod
  # leaves alone where a mode has fewer than five digits).
  elif ! message=$({ chmod 00700 -- "$staging" &&
    perl -e 'syscall($ARGV[0] + 0, $ARGV[1], $ARGV[2])' "$nr_removexattr" "$staging" system.posix_acl_default &&
    mkdir -- "$staging/.probe" "$staging/copy"; } 2>&1); then
    fail staging "$message"
  elif ! message=$(rename_to 1 "$staging/.probe" "$staging/.exchange"); then
    fail staging "this file system cannot rename without replacing: $message"
  elif [[ $3 != no && $3 != fill ]] && ! message=$(mkdir -- "$staging/.probe" 2>&1 &&
    rename_to 2 "$staging/.probe" "$staging/.exchange"); then
    fail staging "this file system cannot exchange two names: $message"
  elif rmdir -- "$staging/.probe" "$staging/.exchange" 2>/dev/null; ! hold 13 "$staging/copy"; then
    fail staging "$1/copy: $REPLY"
  elif [[ -z $4 ]] || message=$(mkdir -- "/proc/self/fd/13/$4" 2>&1); then
    inbox=$1/copy
    ok
  else
    fail staging "$message"
  fi
}

# holds_any DESCRIPTOR: prints something that is in that directory.
holds_any() {
  find -H "/proc/self/fd/$1" -mindepth 1 -maxdepth 1 -print -quit
}

# held PATH: sets REPLY to it, through the descriptor of the directory in which the copy has arrived where it is in there.
held() {
  REPLY=$1
  [[ ${inbox-} && $1 == "$inbox"/* ]] && REPLY=/proc/self/fd/13/${1#"$inbox"/}
  return 0
}

# place FROM TO HOW ASIDE: gives the copy its name, and an old one that of ASIDE or of FROM, in one step. Prints why not.
place() {
  local from=$1 to=$2 how=$3 aside=$4 inode
  if [[ $how == no || ! -e $to && ! -L $to ]]; then
    rename_to 1 "$from" "$to"
  elif mounted "$to"; then
    echo "something is mounted at or below $to"
    return 1
  elif [[ $how == keep ]]; then
    # By the inode alone: a device may have another number after a reboot, and names change places on one file system only.
    inode=$(stat -c %i -- "$from" 2>&1) || { echo "$inode"; return 1; }
    record disk aside "$aside" "$inode" || { echo "$home/journal cannot be written"; return 1; }
    rename_to 1 "$from" "$aside" || return
    rename_to 2 "$aside" "$to" && return
    # Back to where what has arrived is removed, or kept.
    rename_to 1 "$aside" "$from"
    return 1
  else
    rename_to 2 "$from" "$to"
  fi
}

# loosen DIRECTORY TO: without root a directory must be writable to get another parent. This one gets its mode back at TO,
# where it will be or is. Prints why not; adds it to `modes`.
loosen() {
  [[ -d $1 && ! -L $1 && ! -w $1 ]] || return 0
  local mode
  mode=$(stat -c '%i %a' -- "$1") && record disk mode "$2" "${mode% *}" "${mode#* }" && chmod u+w -- "$1" || return
  modes+=("$mode")
}

# place_back FROM TO HOW ASIDE OLD: undoes it; OLD is empty where there was no old one.
place_back() {
  local from=$1 to=$2 how=$3 aside=$4
  if [[ -z $5 ]]; then
    rename_to 1 "$to" "$from"
  elif [[ $how == keep ]]; then
    rename_to 2 "$aside" "$to" && rename_to 1 "$aside" "$from"
  else
    rename_to 2 "$from" "$to"
  fi
}

# publish FROM TO HOW ASIDE SYNC OLD: gives the proven copy its final name and, with SYNC `sync`, makes the name durable. HOW
# `no`: never over an existing name; `remove`: the old one takes the copy's place in the staging directory, to go with
# it; `keep`: it gets the name ASIDE, which the event tells. OLD is device and inode of the old one as the preflight saw
# it: another one is not ours to replace.
publish() {
  local from to=$2 how=$3 aside=$4 sync=$5 message='' mode pending='' placed='' old code=publish REPLY
  local -a modes=()
  held "$1"
  from=$REPLY
  # What is begun here ends here, before anything is undone.
  trap 'pending=HUP' HUP
  trap 'pending=INT' INT
  trap 'pending=TERM' TERM
  old=$(stat -c %d:%i -- "$to" 2>/dev/null)
  if [[ $how != no && $old && $old != "$6" ]]; then
    code=exists
  elif [[ $how != no && $old ]] && is_served "$to"; then
    message="a server works in $to"
  elif [[ $how == remove && $old && $sync != sync ]] && ! message=$(sync -f -- "$from" 2>&1); then
    # The old one is not removed before the copy is on the disk, whatever was asked for.
    :
  elif ! { loosen "$from" "$to" && { [[ $how != remove ]] || loosen "$to" "$to"; }; }; then
    message="$1 or $to cannot be made writable, to be moved"
  elif message=$(place "$from" "$to" "$how" "$aside"); then
    placed=yes
    [[ -e $aside || -L $aside ]] || aside=''
    # Told at once: whatever happens now, it has its name. On trial it has it only when it is accepted.
    if [[ $on_trial ]]; then
      trial_aside=$aside
    else
      event published "$to" "$aside"
      is_published='done'
    fi
  elif [[ $how == no ]] && [[ -e $to || -L $to ]]; then
    code=exists
  fi
  [[ $how == remove && $old ]] && sync=sync
  if [[ $placed && $sync == sync ]] && ! message=$(sync -- "${to%/*}/" 2>&1); then
    # A name that may not last is none, and the old one must not go for it.
    place_back "$from" "$to" "$how" "$4" "$old" >/dev/null && placed='' is_published='' && event unpublished
    code=sync
  fi
  # What a power cut can bring back of a copy that has its name is an empty staging directory.
  [[ $placed && $sync != sync ]] && hasty=yes
  for mode in "${modes[@]}"; do undo "$guard" mode "$to" "${mode% *}" "${mode#* }"; done
  if [[ $placed && $code == publish ]]; then ok; else fail "$code" "$message"; fi
  obey_signals
  [[ $pending ]] && release "$pending"
}

# fill FROM TO SYNC HOW: gives all that is in FROM its names in TO, never over existing ones, and with SYNC `sync` makes them
# durable; with HOW `empty` nothing else may be there. Not in one step: whoever dies in between, what has its name already
# goes back, unless all have theirs.
fill() {
  local from into to=$2 sync=$3 message='' name='' pending='' code=publish REPLY
  local -a modes=()
  held "$1"
  from=$REPLY
  # The target directory itself, which is held, too.
  into=$to
  [[ -z ${target_directory+held} || $to != "$target_directory" ]] || into=/proc/self/fd/14
  trap 'pending=HUP' HUP
  trap 'pending=INT' INT
  trap 'pending=TERM' TERM
  [[ $4 == empty ]] && name=$(holds "$to")
  if [[ $name ]]; then
    code=exists message=$name
  elif is_served "$to"; then
    message="a server works in $to"
  elif ! { find "$from" -mindepth 1 -maxdepth 1 -printf '%i\0%f\0' >"$home/names" && sync -- "$home/names" "$home" &&
    record disk fill "$to" "$1"; }; then
    code=journal message="$home/journal or $home/names cannot be written"
  elif message=$(loosen_all "$from" "$to" && rename_all "$from" "$into") &&
    { [[ $sync != sync ]] || message=$(sync -- "$to/" 2>&1); } &&
    : >"$home/filled" && sync -- "$home/filled" "$home"; then
    code=ok
    rmdir -- "$from"
    event published "$to" ''
    is_published='done'
    [[ $sync == sync ]] || hasty=yes
  else
    rm -f -- "$home/filled"
    unfill "$guard" "$to" "$1"
  fi
  # Modes that were changed for it are in the journal, and are changed back at the release.
  if [[ $code == ok ]]; then ok; else fail "$code" "$message"; fi
  obey_signals
  [[ $pending ]] && release "$pending"
}

# loosen_all FROM TO: `loosen` for each directory in FROM, where we are not root.
loosen_all() {
  local name
  ((EUID == 0)) && return 0
  while IFS= read -r -d '' name; do loosen "$1/$name" "$2/$name" || return; done < <(
    find "$1" -mindepth 1 -maxdepth 1 -type d ! -perm -u+w -printf '%f\0')
}

# rename_all FROM TO: each of $home/names, never over an existing name. Prints why not.
rename_all() {
  # shellcheck disable=SC2016 # perl's variables
  perl -0 -e '
    my ($call, $list, $from, $to) = @ARGV;
    open(my $names, "<", $list) or print("$list: $!"), exit 1;
    while (defined(my $inode = <$names>)) {
      chomp(my $name = <$names>);
      my ($old, $new) = ("$from/$name", "$to/$name");
      syscall($call + 0, -100, $old, -100, $new, 1) == 0 or print("$new: $!"), exit 1;
    }' "$nr_renameat2" "$home/names" "$1" "$2"
}
