#!/usr/bin/env bash
# Runs on the controller: one method, timed from its first command to its last, on source db1 and target db2.
#
#   ctl.sh prepare              connections, for the methods by hand only
#   ctl.sh run METHOD SOURCE    prints SECONDS and, of transfer, its peak memory in KB (otherwise `-`)
#   ctl.sh check SOURCE         whether what arrived has the files of the source, and their sizes
#   ctl.sh clear                removes what arrived
set -euo pipefail

readonly bench=/root/bench target=/srv/bench/target port=5000

on() { ssh -S "/run/bench-$1" -o BatchMode=yes "$1" "${@:2}"; }

prepare() {
    local host
    for host in db1 db2; do ssh -M -N -f -S "/run/bench-$host" -o BatchMode=yes "$host"; done
}

by_hand() { # MODE SOURCE
    local mode=$1 parent=${2%/*} name=${2##*/} word sent received
    exec 3< <(on db2 "cd $target && exec bash $bench/hand.sh receive $mode $name $port")
    # Before the sender, which needs a listener.
    read -r word <&3
    [[ $word == ready ]]
    sent=$(on db1 "cd $parent && exec bash $bench/hand.sh send $mode $name db2 $port")
    received=$(cat <&3)
    wait $!
    [[ $sent == "$received" ]] || { printf 'sent:\n%s\nreceived:\n%s\n' "$sent" "$received" >&2 && return 1; }
}

by_transfer() { # MODE SOURCE
    local options=()
    case $1 in
    a) options=(--no-compress --no-encrypt --parallel-checksum) ;;
    b) options=(--no-compress --encrypt --parallel-checksum) ;;
    c) options=(--parallel-checksum) ;;
    d) ;;
    e) options=(--no-compress --no-encrypt --no-checksum) ;;
    z) options=(--no-encrypt --no-checksum) ;;
    esac
    if [[ $2 == */hot ]]; then
        options+=(--type mariabackup)
        set -- "$1" /srv/bench/server.sock
    fi
    /usr/bin/time -o "$bench/rss" -f %M "$bench/transfer" "${options[@]}" "db1:$2" "db2:$target" >"$bench/output" 2>&1 ||
        { cat "$bench/output" >&2 && return 1; }
}

method() { # METHOD SOURCE
    case $1 in
    bare) by_hand bare "$2" ;;
    hand-?) by_hand "${1#hand-}" "$2" ;;
    transfer-?) by_transfer "${1#transfer-}" "$2" ;;
    rsync) on db1 "rsync -a $2 db2:$target" ;;
    scp) on db1 "scp -q -r $2 db2:$target" ;;
    esac
}

run() {
    local began rss=-
    rm -f "$bench/rss"
    began=${EPOCHREALTIME/./}
    method "$@"
    printf '%d' $((${EPOCHREALTIME/./} - began)) | awk '{ printf "%.3f ", $1 / 1e6 }'
    [[ ! -s $bench/rss ]] || rss=$(tail -n 1 "$bench/rss")
    echo "$rss"
}

check() {
    # Directories have sizes of their own on each side.
    if [[ $1 == */hot ]]; then
        on db2 "cd $target && { [[ ! -d hot ]] || cd hot; } && [[ -s xtrabackup_checkpoints && -s ibdata1 && -d shop ]]"
        return
    fi
    local name=${1##*/} list='-type d -printf "d %P\n" -o -printf "%s %P\n" | LC_ALL=C sort | sha256sum'
    [[ $(on db1 "find $1 $list") == $(on db2 "find $target/$name $list") ]] || { echo "the copy differs" >&2 && return 1; }
}

clear() { on db2 "rm -rf $target && mkdir -p $target"; }

"$@"
