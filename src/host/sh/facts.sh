# shellcheck shell=bash
# facts.sh: everything that a run must know about a host before it changes anything, as lines `KEY FIELD...`. Changes
# nothing.

tools() {
  local tool
  local -a found=()
  for tool in awk b2sum find flock gzip ionice ip lz4 mariadb mbstream md5sum mysql nc openssl perl pigz sha256sum sort \
    sync systemctl tar xbstream xz zstd; do
    command -v "$tool" >/dev/null && found+=("$tool")
  done
  say tools "${found[@]}"
  say tar "$(tar --version 2>/dev/null | head -n 1)"
  # What it calls nc is whichever of the others its alternatives name.
  for tool in nc nc.openbsd ncat nc.traditional; do
    command -v "$tool" >/dev/null && say netcat "$tool" "$("$tool" -h 2>&1 </dev/null | head -n 1)"
  done
}

# Those that it will keep, of links that are up.
addresses() {
  local -a found=()
  mapfile -t found < <(ip -o address show up scope global 2>/dev/null |
    awk '!/ (temporary|tentative|deprecated|dadfailed) / { sub("/.*", "", $4); print $4 }')
  say addresses "${found[@]}"
}

# Which layers of a firewall see packets that come in. Nothing is listed whose listing would load or create it.
firewalls() {
  ((EUID == 0)) || return
  local family prefix table owner
  for family in 4 6; do
    prefix=iptables
    [[ $family == 6 ]] && prefix=ip6tables
    if command -v "$prefix-legacy" >/dev/null &&
      grep -qsx filter "/proc/net/${prefix%tables}_tables_names"; then
      say firewall iptables-legacy "$family"
    fi
    # An empty table is listed where there is none, and opening it would make it.
    if command -v "$prefix-nft-save" >/dev/null &&
      "$prefix-nft-save" -t filter 2>/dev/null | grep -Evq '^(#|\*|COMMIT|:[A-Z]+ ACCEPT )'; then
      say firewall iptables-nft "$family"
    fi
  done
  if command -v nft >/dev/null; then
    while read -r family table owner; do
      [[ $family == ip6 ]] || say firewall nftables 4
      [[ $family == ip ]] || say firewall nftables 6
      [[ $owner == free ]] || say firewall_owned "$family $table"
    done < <(input_chains | cut -d ' ' -f 1-3 | sort -u)
  fi
}

# Who owns it, by name: lines `owner KIND NAME NUMBER`. Only accounts of the host itself: of a directory service the
# numbers are the same everywhere.
owners() { # KIND FILE [NUMBER...]
  awk -F: -v kind="$1" -v wanted=" ${*:3} " '
    wanted == "  " || index(wanted, " " $3 " ") { printf "owner\t%s\t%s\t%s\n", kind, $1, $3; if (++n >= 1000) exit }
  ' "$2"
}

# backup_tools: those that copy a running server, with their versions. The older name of one may be a link to the newer.
backup_tools() {
  local tool
  for tool in mariadb-backup mariabackup xtrabackup; do
    command -v "$tool" >/dev/null && say backup_tool "$tool" "$("$tool" --version 2>&1 </dev/null | grep -m 1 -iE "version|based on")"
  done
}

# variables SOCKET DEFAULTS: those of a server that a run needs, and sets `datadir` and `log` (of the binary log) of them.
variables() {
  local answer name
  datadir='' log=''
  if ! answer=$(sql "$1" "$2" "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('bind_address', 'binlog_expire_logs_seconds', 'datadir',
    'gtid_mode', 'have_ssl', 'innodb_buffer_pool_size', 'innodb_data_home_dir', 'innodb_log_group_home_dir',
    'innodb_undo_directory', 'log_bin', 'log_bin_basename', 'log_slave_updates', 'port', 'relay_log_basename',
    'rpl_semi_sync_master_enabled', 'rpl_semi_sync_master_timeout', 'server_id', 'skip_networking', 'socket', 'version',
    'version_comment', 'wsrep_on')"); then
    say instance_error "${answer##*$'\n'}"
    return 1
  fi
  while IFS=$'\t' read -r name answer; do
    printf 'instance\t%s\t%s\n' "$name" "$answer"
    case $name in
      datadir) printf -v datadir %b "$answer" ;;
      log_bin_basename) printf -v log %b "$answer" ;;
    esac
  done < <(printf '%s\n' "$answer")
}

# instance_facts SOCKET DEFAULTS: what the server tells that listens there.
instance_facts() {
  local answer name io sql datadir log
  # Once for all that is asked, each in a process of its own.
  vouch "$1" || :
  variables "$@" || return
  if ! answer=$(connections "$1" "$2"); then
    say instance_error "${answer##*$'\n'}"
    return
  fi
  while IFS=$'\t' read -r name io sql; do
    [[ $name ]] && say connection "${name#=}" "$io" "$sql"
  done < <(printf '%s\n' "$answer")
  say instance_owner "$(stat -L -c %U:%G -- "$datadir")"
  # A backup has neither logs nor what is temporary.
  find -H "${datadir%/}/" ! -path "$log.*" ! -name 'ib_logfile*' ! -name 'ibtmp*' ! -name '*-relay-bin.*' \
    -printf '%y %s %b\n' 2>/dev/null | awk '
      { entries++; blocks += $3 }
      $1 == "f" { files++; bytes += $2 }
      END { printf "source_size\t%.0f\t%.0f\t%.0f\t%.0f\n", entries, files, bytes, blocks * 512 }'
}

# reading FILE COMMAND...: runs it with the file as its input. Whoever owns the file may have put a pipe in its place, for whose
# writer nobody is to wait.
reading() {
  # shellcheck disable=SC2016 # the inner shell's
  timeout -k 5 60 bash --norc -p -c 'exec "${@:2}" <"$1"' reading "$@"
}

# head_of FILE COMMAND...: the first 512 bytes of what the command makes of it, in hexadecimal.
head_of() {
  reading "$@" 2>/dev/null | head -c 512 | od -An -v -tx1 | tr -d ' \n'
}

# little_endian HEX: sets REPLY to the number.
little_endian() {
  local index number=''
  for ((index = ${#1} - 2; index >= 0; index -= 2)); do number+=${1:index:2}; done
  REPLY=$((16#$number))
}

# archive_facts FILE: `archive FORMAT CONTENT BYTES HOW`: by what is in it and not by its name. BYTES are those of what it unpacks
# to, as far as the format tells; HOW is exact, at_least or unknown.
archive_facts() {
  local magic format=none content=unknown bytes='' how=unknown size
  local -a decode=()
  magic=$(head_of "$1" cat)
  size=$(stat -L -c %s -- "$1")
  case $magic in
    1f8b*)
      format=gzip decode=(gzip -dc)
      if ((size < 1 << 20)); then
        # Not more than a GiB, whose length nothing else tells: a file may have several members.
        bytes=$(reading "$1" gzip -dc 2>/dev/null | wc -c) how=exact
      else
        # The last four bytes are the length of the last member, without what is beyond 32 bits.
        little_endian "$(timeout -k 5 60 tail -c 4 -- "$1" | od -An -v -tx1 | tr -d ' \n')"
        bytes=$REPLY how=at_least
        while ((bytes + 1024 < size)); do ((bytes += 1 << 32)); done
      fi
      ;;
    28b52ffd*)
      format=zstd decode=(zstd -q -dc)
      bytes=$(timeout -k 5 60 zstd -lv -- "$1" 2>/dev/null | sed -n 's/^Decompressed Size: .*(\([0-9]*\) B).*/\1/p')
      [[ $bytes ]] && how=exact
      ;;
    04224d18*)
      format=lz4 decode=(lz4 -q -dc)
      if (((16#${magic:8:2} & 8) != 0)); then
        little_endian "${magic:12:16}"
        bytes=$REPLY how=exact
      fi
      ;;
    fd377a585a00*)
      format=xz decode=(xz -q -dc)
      bytes=$(timeout -k 5 60 xz --robot -l -- "$1" 2>/dev/null | awk '$1 == "totals" { print $5 }')
      [[ $bytes ]] && how=exact
      ;;
    *)
      decode=(cat)
      bytes=$size how=exact
      ;;
  esac
  if command -v "${decode[0]}" >/dev/null; then
    magic=$(head_of "$1" "${decode[@]}")
    # The first bytes of mbstream's and xbstream's chunks, and what stands in each header of a tar.
    case $magic in
      58425354434b3031*) content=xbstream ;;
      *) if [[ ${magic:514:10} == 7573746172 ]]; then content=tar; else content=other; fi ;;
    esac
  fi
  say archive "$format" "$content" "$bytes" "$how"
}

# source_facts KIND PATH NAME DEFAULTS PATTERN...
source_facts() {
  local kind=$1 path=$2 name=$3 defaults=$4 type size users groups pattern target
  local -a skip=()
  shift 2
  type=$(stat -c %F -- "$path" 2>/dev/null) || type=missing
  say source_type "$type"
  [[ -r $path ]] && say source_readable
  [[ $type == directory && ! -x $path || $path == / ]] && return
  shift 2
  for pattern; do skip+=(-path "$pattern" -prune -o); done
  case $type in
    directory | 'regular file' | 'regular empty file')
      say source_inode "$(stat -c %d:%i -- "$path")"
      cd -- "${path%/*}/" || return
      # Blocks of a file with several names count once.
      { read -r size; read -r users; read -r groups; } < <(
        find "./$name" "${skip[@]}" -type s -o -printf '%y %s %b %n %D:%i %U %G\n' 2>/dev/null | awk '
          { entries++; users[$6]; groups[$7] }
          $1 == "f" { files++; bytes += $2 }
          $4 < 2 || $1 == "d" || !seen[$5]++ { blocks += $3 }
          function list(numbers, number, joined, n) {
            for (number in numbers) if (n++ < 1000) joined = joined " " number
            print joined
          }
          END {
            printf "%.0f\t%.0f\t%.0f\t%.0f\n", entries, files, bytes, blocks * 512
            list(users)
            list(groups)
          }'
      )
      printf 'source_size\t%s\n' "$size"
      owners user /etc/passwd "$users"
      owners group /etc/group "$groups"
      servers_near "$path" "$defaults"
      # It may rest, for somebody else.
      target=$runtime/server.$(stat -L -c %D.%i -- "$path")
      is_locked "$target" && say source_rests "$(cat -- "$target")"
      if [[ $kind == decompress && $type == regular* ]]; then archive_facts "$path"; fi
      ;;
    socket) [[ $kind == file ]] || instance_facts "$path" "$defaults" ;;
  esac
}

# target_facts KIND PATH NAME OWNER DEFAULTS: NAME is empty where the copy fills the directory itself.
target_facts() {
  local kind=$1 path=$2 name=$3 owner=$4 defaults=$5 type final attributes line
  type=$(stat -L -c %F -- "$path" 2>/dev/null) || type=missing
  say target_type "$type"
  [[ $type == directory ]] || return
  # Beside everything else, which does not depend on it.
  exec {attributes}< <(lacks "$path")
  say target_real "$(readlink -f -- "$path")"
  say target_place "$(place "$path")"
  # Accounts of servers are looked up only where they matter.
  if ! { shared_component "$path" && { [[ -z $REPLY ]] || { server_uids; shared_component "$path" data "${server_uids[@]}"; }; }; }; then
    say target_shared "$path" unknown unknown
  elif [[ $REPLY ]]; then
    # The component may hold tabs itself.
    type=${REPLY%$'\t'*}
    say target_shared "${type%$'\t'*}" "${type##*$'\t'}" "${REPLY##*$'\t'}"
  fi
  say target_owner "$(stat -L -c %U -- "$path")"
  [[ -w $path && -x $path ]] && say target_writable
  [[ ,$(findmnt -n -o OPTIONS -T "$path" 2>/dev/null), == *,ro,* ]] && say target_readonly
  final=${path%/}/$name
  if [[ -z $name ]]; then
    name=.
    say target_holds "$(holds "$path")"
    servers_near "$path" "$defaults"
  elif [[ -e $final || -L $final || $kind == compress && (-e $final.sha256 || -e $final.md5) ]]; then
    say target_exists "$(stat -c %d:%i -- "$final" 2>/dev/null)"
    mounted "$final" && say target_mounted
    servers_near "$final" "$defaults"
  else
    servers_near "$path" "$defaults" | awk -F '\t' '$2 == "within"'
  fi
  target_lock "$path" "$name" && is_locked "$REPLY" && say target_busy "$(cat -- "$REPLY")"
  stat -f -c $'target_free\t%a\t%S\t%d\t%c\t%T' -- "$path"
  stat -L -c $'target_device\t%d' -- "$path"
  [[ $(lsattr -d -- "$path" 2>/dev/null) =~ ^[^\ ]*F ]] && say target_folds_case
  while IFS= read -r line <&"$attributes"; do printf '%s\n' "$line"; done
  exec {attributes}<&-
  owners user /etc/passwd
  owners group /etc/group
  unknown_owner user passwd "${owner%%:*}"
  [[ $owner == *:* ]] && unknown_owner group group "${owner#*:}"
}

# lacks DIRECTORY: the kinds of extended attributes that its file system cannot hold, tried on a file that never gets a name. Where
# there is no such file nothing is known.
lacks() {
  local -a kinds=()
  find_syscalls || return
  # shellcheck disable=SC2016 # perl's variables
  read -r -a kinds < <(perl -e '
    use Fcntl qw(O_DIRECTORY O_RDWR);
    my ($directory, $fsetxattr, $user) = @ARGV;
    my ($o_tmpfile, $eperm, $eopnotsupp) = (0x400000 | O_DIRECTORY, 1, 95);
    sysopen(my $file, $directory, $o_tmpfile | O_RDWR, 0600) or exit;
    # An ACL for one more user, and a permitted capability, as the kernel stores them.
    my @kinds = (
      [xattrs => "user.transfer", "1"],
      [acls => "system.posix_acl_access", pack("V(vvV)5", 2, 1, 6, 0xffffffff, 2, 4, $user, 4, 4, 0xffffffff, 16, 4, 0xffffffff, 32, 0, 0xffffffff)],
      $user == 0 ? [capabilities => "security.capability", pack("V5", 0x02000000, 1 << 13, 0, 0, 0)] : (),
    );
    for (@kinds) {
      my ($kind, $name, $value) = @$_;
      next if syscall($fsetxattr + 0, fileno $file, $name, $value, length $value, 0) == 0;
      print "$kind " if $! == $eperm || $! == $eopnotsupp;
    }
    print "\n";
  ' "$1" "$nr_fsetxattr" "$EUID" 2>/dev/null)
  [[ ${kinds[*]} ]] && say target_lacks "${kinds[@]}"
}

unknown_owner() { # KIND DATABASE NAME-OR-NUMBER
  [[ $3 =~ ^[0-9]*$ ]] || getent "$2" -- "$3" >/dev/null || say target_unknown_owner "$1" "$3"
}

# place PATH: where a directory or a file is in its file system: the device, and the path from that one's root, which is the same
# through every bind mount. Nothing where that cannot be told.
place() {
  local key value real id device root point
  local REPLY
  if [[ -d $1 ]]; then hold 8 "$1/."; else [[ -f $1 ]] && hold 8 "$1"; fi || return
  while read -r key value; do [[ $key == mnt_id: ]] && break; done </proc/self/fdinfo/8
  exec 8<&-
  real=$(readlink -f -- "$1")
  while read -r id _ device root point _; do
    [[ $id == "$value" ]] || continue
    printf -v point %b "$point"
    printf -v root %b "$root"
    printf '/%s/%s/%s' "$device" "$root" "${real#"$point"}"
    return
  done </proc/self/mountinfo
}

# is_locked FILE: whether somebody has locked it. Taken for a moment to learn it, which keeps nobody from it: who takes such a
# lock waits for a second.
is_locked() {
  owns_runtime && [[ -f $1 ]] || return
  (
    exec 7<"$1" || exit
    ! flock -n 7
  ) 2>/dev/null
}

# main source KIND PATH NAME DEFAULTS PATTERN..., or main target KIND PATH FINAL-NAME OWNER DEFAULTS; KIND is what is transferred: file,
# mariabackup, decompress or compress.
main() {
  find_directories
  this_boot
  say host "$(uname -m)" "$boot" "$(cat /etc/machine-id 2>/dev/null)"
  say user "$EUID"
  # shellcheck disable=SC2086 # four words
  say ssh ${SSH_CONNECTION-}
  say cores "$(nproc)"
  say bash "${BASH_VERSINFO[0]}" "${BASH_VERSINFO[1]}"
  find_syscalls && say syscalls
  tools
  addresses
  firewalls
  [[ $2 == file ]] || backup_tools
  case $1 in
    server) installed_facts "${@:2}" ;;
    source)
      say source_real "$(readlink -f -- "$3")"
      say source_place "$(place "$3")"
      source_facts "${@:2}"
      ;;
    target)
      say memory "$(awk '$1 == "MemAvailable:" { printf "%.0f", $2 * 1024 }' /proc/meminfo)"
      target_facts "${@:2}"
      ;;
  esac
  # Last: what took its time before must not count.
  say clock "$EPOCHREALTIME"
  say end
}
