# shellcheck shell=bash
# facts.sh: everything that a run must know about a host before it changes anything, as lines `KEY FIELD...`. Changes
# nothing. main ROLE PATH, ROLE being source, target or none.

tools() {
  local tool
  local -a found=()
  for tool in awk b2sum find flock gzip ionice ip lz4 md5sum nc openssl perl pigz sha256sum sort ss sync tar xargs zstd; do
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

source_facts() {
  local path=$1 name=$2 type size users groups pattern
  local -a skip=()
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
      ;;
  esac
}

target_facts() {
  local path=$1 name=$2 owner=$3 type final
  type=$(stat -L -c %F -- "$path" 2>/dev/null) || type=missing
  say target_type "$type"
  [[ $type == directory ]] || return
  say target_real "$(readlink -f -- "$path")"
  say target_place "$(place "$path")"
  [[ -w $path && -x $path ]] && say target_writable
  [[ ,$(findmnt -n -o OPTIONS -T "$path" 2>/dev/null), == *,ro,* ]] && say target_readonly
  final=${path%/}/$name
  if [[ -e $final || -L $final ]]; then
    say target_exists "$(stat -c %d:%i -- "$final")"
    mounted "$final" && say target_mounted
  fi
  # Asked for without being taken, so that nobody else who asks is kept from it.
  target_lock "$path" "$name" && is_locked "$REPLY" && say target_busy "$(cat -- "$REPLY")"
  stat -f -c $'target_free\t%a\t%S\t%d\t%c\t%T' -- "$path"
  stat -L -c $'target_device\t%d' -- "$path"
  [[ $(lsattr -d -- "$path" 2>/dev/null) =~ ^[^\ ]*F ]] && say target_folds_case
  owners user /etc/passwd
  owners group /etc/group
  unknown_owner user passwd "${owner%%:*}"
  [[ $owner == *:* ]] && unknown_owner group group "${owner#*:}"
}

unknown_owner() { # KIND DATABASE NAME-OR-NUMBER
  [[ $3 =~ ^[0-9]*$ ]] || getent "$2" -- "$3" >/dev/null || say target_unknown_owner "$1" "$3"
}

# place PATH: where a directory or a file is in its file system: the device, and the path from that one's root, which is the same
# through every bind mount. Nothing where that cannot be told.
place() {
  local key value real id device root point
  [[ -d $1 || -f $1 ]] && { exec 8<"$1"; } 2>/dev/null || return
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

# is_locked FILE: whether somebody has locked it, as the kernel tells.
is_locked() {
  local inode device
  owns_runtime || return
  read -r device inode < <(stat -c '%d %i' -- "$1" 2>/dev/null) || return
  printf -v device '%02x:%02x' $((device >> 8 & 0xfff)) $((device & 0xff | device >> 12 & 0xfff00))
  grep -qs " FLOCK .* $device:$inode " /proc/locks
}

# main source PATH NAME PATTERN..., or main target PATH FINAL-NAME OWNER.
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
  case $1 in
    source)
      say source_real "$(readlink -f -- "$2")"
      say source_place "$(place "$2")"
      source_facts "${@:2}"
      ;;
    target) target_facts "${@:2}" ;;
  esac
  # Last: what took its time before must not count.
  say clock "$EPOCHREALTIME"
  say end
}
