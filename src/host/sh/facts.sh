# shellcheck shell=bash
# facts.sh: everything that a run must know about a host before it changes anything, as lines `KEY FIELD...`. Changes
# nothing. main ROLE PATH, ROLE being source, target or none.

tools() {
  local tool
  local -a found=()
  for tool in awk find flock ip nc openssl perl pigz gzip zstd sha256sum md5sum sort ss sync tar xargs; do
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
  local family prefix chains
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
    chains=$(nft list ruleset 2>/dev/null | awk '
      $1 == "table" { family = $2 }
      $1 == "type" && $2 == "filter" && $4 == "input" { seen[family] = 1 }
      END { if (seen["ip"] || seen["inet"]) print 4; if (seen["ip6"] || seen["inet"]) print 6 }')
    for family in $chains; do say firewall nftables "$family"; done
  fi
}

source_facts() {
  local path=$1 type
  type=$(stat -c %F -- "$path" 2>/dev/null) || type=missing
  say source_type "$type"
  [[ -r $path ]] && say source_readable
  [[ $type == directory && ! -x $path || $path == / ]] && return
  case $type in
    directory | 'regular file' | 'regular empty file')
      # Blocks of a file with several names count once.
      find "$path" -type s -o -printf '%y %s %b %n %D:%i\n' 2>/dev/null | awk '
        { entries++ }
        $1 == "f" { files++; bytes += $2 }
        $4 < 2 || $1 == "d" || !seen[$5]++ { blocks += $3 }
        END { printf "source_size\t%.0f\t%.0f\t%.0f\t%.0f\n", entries, files, bytes, blocks * 512 }'
      ;;
  esac
}

target_facts() {
  local path=$1 name=$2 type
  type=$(stat -L -c %F -- "$path" 2>/dev/null) || type=missing
  say target_type "$type"
  [[ $type == directory ]] || return
  say target_real "$(readlink -f -- "$path")"
  [[ -w $path && -x $path ]] && say target_writable
  [[ -e ${path%/}/$name || -L ${path%/}/$name ]] && say target_exists
  stat -f -c $'target_free\t%a\t%S\t%d\t%c\t%T' -- "$path"
}

# main ROLE PATH NAME
main() {
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
      source_facts "$2"
      ;;
    target) target_facts "$2" "$3" ;;
  esac
  say end
}
