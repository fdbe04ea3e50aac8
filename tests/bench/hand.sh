#!/usr/bin/env bash
# The hand-written way: what a careful administrator would type with the same tools as transfer, mode by mode. ctl.sh
# runs it on the source and on the target.
#
#   hand.sh send MODE NAME HOST PORT    in the parent of NAME
#   hand.sh receive MODE NAME PORT      in the directory for NAME; says `ready` once it listens
#
# The modes are transfer's (bench.sh has their options), and `bare`, which neither checks nor syncs. Both ends print
# what has to be equal.
set -euo pipefail
export LC_ALL=C

here=$(dirname -- "${BASH_SOURCE[0]}")
work=$(mktemp -d /tmp/hand.XXXXXX)
trap 'rm -rf -- "$work"' EXIT

digest() { openssl dgst -sha256 -r <"$work/pipe" >"$work/sha256"; }

cipher() { openssl enc -aes-256-ctr -bufsize 64k -pass "file:$here/key" -pbkdf2 -iter 1 "$@"; }

# The digests of all files as one sorted list. Every worker has a file of its own, since lines that several write into
# one would mix. As many workers and files per call as transfer has.
list_digests() { # WORKERS
    local workers=$1 files batch
    files=$(find "./$name" -type f -printf x | wc -c)
    batch=$((files / (workers * 8)))
    batch=$((batch < 1 ? 1 : batch > 256 ? 256 : batch))
    # shellcheck disable=SC2016 # the inner shell's
    find "./$name" -type f -print0 | xargs -0 -r -P "$workers" -n "$batch" --process-slot-var=slot \
        bash --norc -c 'exec md5sum -- "${@:2}" >>"$1.$slot"' md5 "$work/md5"
    cat "$work"/md5.* | sort -k 2 | sha256sum
}

clamp() { echo $(($1 > 4 ? 4 : $1)); }

# Makes the next read come from the disk; on a tmpfs, only the cost of the step itself counts. Of coreutils, only dd can
# do it, with one process per file, which is not practical for many files.
drop_cache() {
    local fadvise=221
    [[ $(uname -m) == x86_64 ]] || fadvise=223
    find "./$name" -type f -print0 |
        perl -0 -e 'while (<STDIN>) { chomp; open my $f, "<", $_ or next; syscall($ARGV[0] + 0, fileno $f, 0, 0, 4) }' \
            "$fadvise"
}

# --------------------------------------------------------------------------------------------------------------- source

produce() {
    if [[ $name == hot ]]; then
        mariadb-backup --backup --stream=xbstream --socket=/srv/bench/server.sock --datadir="$PWD/hot" --target-dir="$work/hot" \
            --parallel=$((($(nproc) + 1) / 2)) 2>"$work/log" || { cat "$work/log" >&2 && return 1; }
    else
        tar -cf - "$name"
    fi
}

put() { nc -N "$host" "$port"; }

send() {
    mkfifo "$work/pipe"
    case $mode in
    bare | e) produce | put ;;
    z) produce | zstd -q -1 -T1 -c | put ;;
    a) digest & produce | tee "$work/pipe" | put ;;
    b) digest & produce | tee "$work/pipe" | cipher | put ;;
    c) digest & produce | zstd -q -1 -T1 -c | tee "$work/pipe" | cipher | put ;;
    d)
        list_digests "$(clamp $((($(nproc) + 1) / 2)))" >"$work/list" &
        digest &
        produce | zstd -q -1 -T1 -c | tee "$work/pipe" | cipher | put
        ;;
    esac
    finish
}

# --------------------------------------------------------------------------------------------------------------- target

# Tells when the sender can be started, which by hand is seen with ss.
say_when_listening() {
    until ss -Hltn "sport = :$port" | grep -q .; do sleep 0.005; done
    echo ready
}

get() { nc -d -l "$port"; }

consume() {
    if [[ $name == hot ]]; then
        mkdir hot && mbstream -x --parallel=$((($(nproc) + 1) / 2)) -C hot
    else
        tar -xf -
    fi
}

receive() {
    mkfifo "$work/pipe"
    say_when_listening &
    case $mode in
    bare | e) get | consume ;;
    z) get | zstd -q -d -c | consume ;;
    a) digest & get | tee "$work/pipe" | consume ;;
    b) digest & get | cipher -d | tee "$work/pipe" | consume ;;
    c | d) digest & get | cipher -d | tee "$work/pipe" | zstd -q -d -c | consume ;;
    esac
    [[ $mode == bare ]] || sync -f .
    if [[ $mode == d ]]; then
        drop_cache
        list_digests "$(clamp "$(nproc)")" >"$work/list"
    fi
    finish
}

finish() {
    local job
    for job in $(jobs -p); do wait "$job"; done
    [[ ! -e $work/sha256 ]] || cat "$work/sha256"
    [[ ! -e $work/list ]] || cat "$work/list"
}

command=$1 mode=$2 name=$3
case $command in
send) host=$4 port=$5 ;;
receive) port=$4 ;;
esac
"$command"
