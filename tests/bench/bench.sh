#!/usr/bin/env bash
# Measures transfer against tar over netcat, the same stages written by hand, rsync and scp, side by side in a lab of its
# own (tests/lab/lab.sh), and prints medians, ratios and goals. What the figures include is in the header it prints.
#
#   bench.sh            all data sets, the fixed cost of a small transfer, the controller's memory
#   bench.sh million    a million files against 20,000 of the same size: time per file, the controller's memory
#
# Environment:
#   RUNS=5              rounds; each runs every method once, so that a drift of the machine hits all alike
#   SIZE_MB=1600        size of the big file, and about that of the MariaDB data directory
#   FILES=1000000       of `million`
#   ONLY='big hand-* transfer-*'
#                       patterns of data sets (fixed big datadir files hot; thousands million) and methods (bare hand-a to
#                       hand-e hand-z transfer-a to transfer-e transfer-z rsync scp); without one of a kind all of that
#                       kind are run
#   BENCH_OUT=FILE      the same table, tab-separated; FILE.runs gets every run
#   TRANSFER_BIN=target/release/transfer
#                       transfer-agent has to be beside it
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
lab=$here/../lab/lab.sh
id=bench$$
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/transfer-bench
binary=${TRANSFER_BIN:-$here/../../target/release/transfer}
what=${1-all}
size_mb=${SIZE_MB:-1600}
million=${FILES:-1000000}

die() {
    printf 'bench: %s\n' "$*" >&2
    exit 1
}

say() { printf 'bench: %s\n' "$*" >&2; }

on() { "$lab" exec "$id" "$@"; }

# ------------------------------------------------------------------------------------------------------- what to measure

# The data sets of this call, and the methods of one of them, in the order of the table.
sets_of() {
    case $what in
    all) echo fixed big datadir files hot ;;
    million) echo thousands million ;;
    esac
}

methods_of() {
    case $1 in
    fixed) echo bare transfer-d ;;
    thousands | million) echo hand-d transfer-d transfer-e ;;
    hot) echo hand-{z,c} transfer-{z,c} ;;
    any) echo bare hand-{e,a,b,c,d,z} rsync scp transfer-{e,a,b,c,d,z} ;;
    *) echo bare hand-{e,a,b,c,d} rsync scp transfer-{e,a,b,c,d} ;;
    esac
}

rounds_of() {
    case $1 in
    # Short enough to be run more often.
    fixed) echo $((runs * 2)) ;;
    *) echo "$runs" ;;
    esac
}

# Whether ONLY wants WORD; patterns that match none of the other words are of another kind and do not count.
wanted() { # WORD ALL...
    local word=$1 pattern other of_this_kind=0
    shift
    for pattern in "${only[@]}"; do
        # shellcheck disable=SC2053 # a pattern
        if [[ $word == $pattern ]]; then return 0; fi
        # shellcheck disable=SC2053
        for other; do
            if [[ $other == $pattern ]]; then of_this_kind=1; fi
        done
    done
    ((!of_this_kind))
}

read_only() {
    local word
    local -a all_sets all_methods
    read -ra only <<<"${ONLY-}"
    read -ra all_sets <<<"$(sets_of)"
    read -ra all_methods <<<"$(methods_of any)"
    sets=() methods=()
    for word in "${all_sets[@]}"; do if wanted "$word" "${all_sets[@]}"; then sets+=("$word"); fi; done
    for word in "${all_methods[@]}"; do if wanted "$word" "${all_methods[@]}"; then methods+=("$word"); fi; done
}

# -------------------------------------------------------------------------------------------------------------- the lab

bring_up() {
    say "lab $id"
    trap finish EXIT
    trap 'exit 130' INT TERM HUP
    "$lab" up "$id" --owner $$ ctl db1 db2 >/dev/null
    local host limit=$((5 * size_mb + 500))
    ((limit > 5120)) || limit=5120
    [[ $what != million ]] || limit=$((million / 150 + 1024))
    for host in db1 db2; do
        on "$host" sh -c "mkdir -p /srv/bench /root/bench && mount -t tmpfs -o size=${limit}M,nr_inodes=4m tmpfs /srv/bench"
        on "$host" mkdir /srv/bench/data /srv/bench/target
        "$lab" put "$id" "$host" "$here/hand.sh" /root/bench/hand.sh
    done
    openssl rand -hex 32 >"$scratch/key"
    for host in db1 db2; do "$lab" put "$id" "$host" "$scratch/key" /root/bench/key 0600; done
    "$lab" put "$id" db1 "$here/data.sh" /root/bench/data.sh
    # For rsync and scp, which log in from the source to the target.
    on ctl cat /root/.ssh/id_ed25519 >"$scratch/login"
    "$lab" put "$id" db1 "$scratch/login" /root/.ssh/id_ed25519 0600
    on ctl mkdir -p /root/bench
    "$lab" put "$id" ctl "$here/ctl.sh" /root/bench/ctl.sh
    "$lab" put "$id" ctl "$binary" /root/bench/transfer
    "$lab" put "$id" ctl "${binary%/*}/transfer-agent" /root/bench/transfer-agent
    on_controller ctl.sh prepare
}

# Also when it was stopped half-way, since the runs until then are worth as much.
finish() {
    "$lab" down "$id"
    if [[ -s $scratch/runs ]]; then report; fi
    rm -rf -- "$scratch"
}

# Processes that we start on the controller count for the lab's processor time, as those of its sshd do.
on_controller() { # SCRIPT ARGUMENT...
    (
        [[ ! $group ]] || { mkdir -p "$group/bench" && echo "$BASHPID" >"$group/bench/cgroup.procs"; }
        exec "$lab" exec "$id" ctl bash "/root/bench/$1" "${@:2}"
    )
}

# Prints microseconds, 0 when the machine does not count them.
processor_time() {
    # Taken as text: mawk would print a large number as 1e+10.
    awk '$1 == "usage_usec" { n = $2 } END { print n == "" ? 0 : n }' "$group/cpu.stat" 2>/dev/null || echo 0
}

find_group() {
    local root
    for root in /sys/fs/cgroup /sys/fs/cgroup/unified; do
        if [[ -e $root/transfer-lab-$id/cpu.stat ]]; then group=$root/transfer-lab-$id; fi
    done
}

# ------------------------------------------------------------------------------------------------------------- the data

make_set() {
    say "data set $1"
    case $1 in
    fixed) on db1 bash /root/bench/data.sh big fixed 1 ;;
    big) on db1 bash /root/bench/data.sh big big "$size_mb" ;;
    datadir) make_datadir datadir ;;
    hot)
        make_datadir hot
        on db1 bash /root/bench/data.sh serve hot
        ;;
    files) on db1 bash /root/bench/data.sh files files 20000 16 ;;
    # A page of memory each, so that a million fit on both sides.
    thousands) on db1 bash /root/bench/data.sh files thousands 20000 1 ;;
    million) on db1 bash /root/bench/data.sh files million "$million" 1 ;;
    esac
}

# Making it takes a minute or two, so it is kept.
make_datadir() { # NAME
    local hash kept
    hash=$(sed -n '/^sql()/,/^ratio()/p' "$here/data.sh" | sha256sum)
    kept=$cache/datadir-$size_mb-${hash:0:16}.tar.zst
    if [[ ! -e $kept ]]; then
        say "making the data directory, to be kept as $kept"
        on db1 bash /root/bench/data.sh datadir datadir "$size_mb"
        mkdir -p "$cache"
        on db1 tar -C /srv/bench/data --zstd -cf - datadir >"$scratch/datadir"
        mv "$scratch/datadir" "$kept"
        on db1 rm -rf /srv/bench/data/datadir
    fi
    # Always the kept one, which has no holes.
    on db1 tar -C /srv/bench/data --zstd --transform "s|^datadir|$1|" -xf - <"$kept"
}

# ----------------------------------------------------------------------------------------------------------------- runs

# Appends to the list of runs: SET METHOD ROUND SECONDS PROCESSOR-SECONDS PEAK-KB, or SET METHOD ROUND failed.
run_one() { # SET METHOD ROUND
    local before after result status=0
    before=$(processor_time)
    result=$(on_controller ctl.sh run "$2" "/srv/bench/data/$1") || status=$?
    after=$(processor_time)
    ((status)) || on_controller ctl.sh check "/srv/bench/data/$1" || status=$?
    on_controller ctl.sh clear
    if ((status)); then
        say "$2 of $1 failed in round $3"
        printf '%s\t%s\t%d\tfailed\n' "$1" "$2" "$3" >>"$scratch/runs"
        return
    fi
    awk -v OFS='\t' -v set="$1" -v method="$2" -v round="$3" -v used=$((after - before)) \
        '{ print set, method, round, $1, (used ? sprintf("%.2f", used / 1e6) : "-"), $2 }' <<<"$result" >>"$scratch/runs"
}

run_set() { # SET
    local set=$1 round method rounds
    local -a here_too
    read -ra here_too <<<"$(methods_of "$set")"
    rounds=$(rounds_of "$set")
    for ((round = 1; round <= rounds; round++)); do
        say "$set, round $round of $rounds"
        for method in "${here_too[@]}"; do
            # The fixed cost is a difference of two.
            if [[ $set == fixed || " ${methods[*]} " == *" $method "* ]]; then run_one "$set" "$method" "$round"; fi
        done
    done
}

# --------------------------------------------------------------------------------------------------------------- output

header() {
    local set count bytes packed
    cat <<HEADER
transfer $(on ctl /root/bench/transfer --version | awk '{ print $2 }'), $(date -u '+%Y-%m-%d %H:%M UTC'); $(nproc) cores, Linux $(uname -r), load $(cut -d ' ' -f 1-3 /proc/loadavg) at the start
three lab hosts on this one machine, so both ends share its cores; db1 to db2, tmpfs to tmpfs; medians of $runs (fixed: $((runs * 2)))
  bare       tar | nc, receiver and sender started through SSH connections that stand already; no sync
  hand-X     the same with the stages of transfer's mode X, likewise started, and sync -f on the target
  rsync, scp rsync -a and scp -r from db1 to db2, started likewise; their own log-in from db1 to db2 counts; no sync
  transfer-X the whole command on the controller: its log-ins, questions, agents, clean-up and sync count
hot: a running server, mariadb-backup and mbstream instead of tar; hand-z is mariadb-backup | zstd -1 | nc and its like
modes: z zstd -1 alone; e nothing; a sha256 of the stream; b a + AES; c b + zstd -1; d c + md5 of every file on both disks (the default)
cpu s: processor time of all three hosts per run; the time of removing the copy is in no column
data sets (as zstd -1 packs them):
HEADER
    for set in "${sets[@]}"; do
        read -r bytes packed < <(on db1 bash /root/bench/data.sh ratio "$set")
        count=$(on db1 find "/srv/bench/data/$set" -type f -printf x | wc -c)
        awk -v set="$set" -v files="$count" -v bytes="$bytes" -v packed="$packed" \
            'BEGIN { printf "  %-10s %8d files %9.1f MB  1:%.2f\n", set, files, bytes / 1e6, bytes / packed }'
    done
    echo
}

# The table of the list of runs, on the screen and, if wanted, in files.
report() {
    table >"$scratch/table"
    if [[ ${BENCH_OUT-} ]]; then
        cp "$scratch/table" "$BENCH_OUT"
        cp "$scratch/runs" "$BENCH_OUT.runs"
    fi
    column -t -s $'\t' <"$scratch/table"
}

table() { awk -F '\t' -v files="$million" -v size_mb="$size_mb" -f "$here/table.awk" "$scratch/runs"; }

main() {
    [[ $what == all || $what == million ]] || { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2 && exit 2; }
    [[ -x $binary && -x ${binary%/*}/transfer-agent ]] ||
        die "$binary or transfer-agent beside it is missing: make build, or set TRANSFER_BIN"
    local set default=5 need free
    [[ $what == all ]] || default=3
    runs=${RUNS:-$default}
    read_only
    # Sources and a copy, with some air. In a tmpfs a file of one page takes about 5.5 KB.
    need=$((size_mb * 6))
    [[ $what == all ]] || need=$((million / 90))
    free=$(awk '$1 == "MemAvailable:" { print int($2 / 1024) }' /proc/meminfo)
    ((free > need + 1024)) || die "$free MB of memory are free, this takes $need MB and one GB to spare"

    scratch=$(mktemp -d)
    bring_up
    find_group
    for set in "${sets[@]}"; do make_set "$set"; done
    header
    : >"$scratch/runs"
    for set in "${sets[@]}"; do run_set "$set"; done
    if grep -q $'\tfailed$' "$scratch/runs"; then exit 1; fi
}

declare -a only sets methods
runs=0 group='' scratch=''
main
