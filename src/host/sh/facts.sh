# shellcheck shell=bash
# facts.sh: everything that a run must know about a host before it changes anything, as lines `KEY FIELD...`. Changes
# nothing. main ROLE PATH, ROLE being source, target or none.

fact() {
  line "$@"
  printf '%s\n' "$REPLY"
}

tools() {
  local tool
  local -a found=()
  for tool in awk find flock ip nc openssl perl pigz gzip zstd sha256sum md5sum sort ss sync tar xargs; do
    command -v "$tool" >/dev/null && found+=("$tool")
  done
  fact tools "${found[@]}"
  fact tar "$(tar --version 2>/dev/null | head -n 1)"
  fact netcat "$(nc -h 2>&1 | head -n 1)"
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
      fact firewall iptables-legacy "$family"
    fi
    # An empty table is listed where there is none, and opening it would make it.
    if command -v "$prefix-nft-save" >/dev/null &&
      "$prefix-nft-save" -t filter 2>/dev/null | grep -Evq '^(#|\*|COMMIT|:[A-Z]+ ACCEPT )'; then
      fact firewall iptables-nft "$family"
    fi
  done
  if command -v nft >/dev/null; then
    chains=$(nft list ruleset 2>/dev/null | awk '
      $1 == "table" { family = $2 }
      $1 == "type" && $2 == "filter" && $4 == "input" { seen[family] = 1 }
      END { if (seen["ip"] || seen["inet"]) print 4; if (seen["ip6"] || seen["inet"]) print 6 }')
    for family in $chains; do fact firewall nftables "$family"; done
  fi
}

source_facts() {
  local path=$1 type
  type=$(stat -c %F -- "$path" 2>/dev/null) || type=missing
  fact source_type "$type"
  [[ -r $path ]] && fact source_readable
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
  fact target_type "$type"
  [[ $type == directory ]] || return
  fact target_real "$(readlink -f -- "$path")"
  [[ -w $path && -x $path ]] && fact target_writable
  [[ -e ${path%/}/$name || -L ${path%/}/$name ]] && fact target_exists
  stat -f -c $'target_free\t%a\t%S\t%d\t%c\t%T' -- "$path"
}

# main ROLE PATH NAME
main() {
  this_boot
  fact facts 1
  fact host "$(uname -n)" "$(uname -m)" "$boot" "$(cat /etc/machine-id 2>/dev/null)"
  fact user "$EUID"
  # shellcheck disable=SC2086 # four words
  fact ssh ${SSH_CONNECTION-}
  fact cores "$(nproc)"
  fact bash "${BASH_VERSINFO[0]}" "${BASH_VERSINFO[1]}"
  find_syscalls && fact syscalls
  tools
  firewalls
  case $1 in
    source)
      fact source_real "$(readlink -f -- "$2")"
      source_facts "$2"
      ;;
    target) target_facts "$2" "$3" ;;
  esac
  fact end
}
