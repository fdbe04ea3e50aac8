#!/usr/bin/env bash
# The damage matrix: faults at moments of transfers between hosts of labs of its own, each judged by the whole state of all
# hosts afterwards. All of it takes hours on two cores.
#
#   damage.sh all [OPTION...]    all cells; options are those of `cargo nextest run`, -E 'test(/REGEX/)' say
#   damage.sh N [OPTION...]      N cells, drawn by $DAMAGE_SEED, which is printed; without it, another one each time
#   damage.sh results            totals of the cells that ran with the newest program, and what is missing
#
# $DAMAGE_LANES (default 6) cells at a time. $DAMAGE_PART=I/N runs only the I-th of N parts of all cells. The results of
# `all` are added to a file in target/damage, one for each part, and `results` counts those of the program that was tested
# last, in all of them: a full run can be made of parts, in any order, and repeated where it failed.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-target}
records=$target/damage

# Prints all cells, one a line.
cells() {
    env -u DAMAGE_PART -u DAMAGE_CELLS cargo nextest list --locked --profile damage --message-format oneline |
        awk '$1 ~ /damage$/ { print $NF }'
}

# Prints the last result of each cell, and what is missing. Fails when there is something to do.
results() {
    local newest
    newest=$(find "$records" -name '*.tsv' -printf '%T@ %p\n' 2>/dev/null | sort -n | tail -n 1 | cut -d ' ' -f 2-)
    if [[ ! $newest ]]; then
        echo "damage: no results in $records; run scripts/damage.sh all" >&2
        return 1
    fi
    cells | awk -F '\t' -v version="$(tail -n 1 "$newest" | cut -f 4)" '
        NR == FNR { cell[++cells] = $1; next }
        $4 != version { next }
        # A cell whose end is missing was killed, or still runs.
        { result[$1] = $2; seconds[$1] = $3 }
        $2 == "fail" { failures[$1]++ }
        END {
            for (i = 1; i <= cells; i++) {
                name = cell[i]
                number[result[name] == "" ? "missing" : result[name]]++
                time += seconds[name]
                if (result[name] == "pass" && failures[name]) retried++
                if (result[name] == "fail") text = text "failed: " name "\n"
                if (result[name] == "start") text = text "not ended: " name "\n"
                if (result[name] == "") text = text "missing: " name "\n"
            }
            printf "program: %s\n", version
            printf "cells: %d; passed: %d (%d after a failure), failed: %d, not ended: %d, missing: %d\n",
                cells, number["pass"], retried, number["fail"], number["start"], number["missing"]
            printf "time of cells: %d h %d min\n%s", time / 3600, time % 3600 / 60, text
            exit number["pass"] != cells
        }' - "$records"/*.tsv
}

cells=${1-all}
(($#)) && shift
if [[ $cells == results ]]; then
    results
    exit
fi
unset DAMAGE_CELLS DAMAGE_RESULTS
if [[ $cells != all ]]; then
    export DAMAGE_CELLS=$cells DAMAGE_SEED=${DAMAGE_SEED:-$EPOCHSECONDS}
    echo "damage: $cells cells; the same again: DAMAGE_SEED=$DAMAGE_SEED scripts/damage.sh $cells"
fi
export DAMAGE_LANES=${DAMAGE_LANES:-6}
scripts/setup.sh test
if ! tests/lab/lab.sh check; then
    echo "damage: the matrix needs the lab, which cannot run here" >&2
    exit 1
fi
# What users get is what is damaged: what is built for them, or the program that was named.
if [[ ! ${TRANSFER_LAB_PROGRAM-} ]]; then
    scripts/build.sh
    TRANSFER_LAB_PROGRAM=$(realpath "$target/release/transfer")
fi
export TRANSFER_LAB_PROGRAM
if [[ $cells == all ]]; then
    part=${DAMAGE_PART-all}
    mkdir -p "$records"
    DAMAGE_RESULTS=$(realpath "$records")/${part/\//-of-}.tsv
    digest=$(cat "$TRANSFER_LAB_PROGRAM" "${TRANSFER_LAB_PROGRAM%/*}/transfer-agent" | sha256sum | head -c 16)
    DAMAGE_VERSION="$("$TRANSFER_LAB_PROGRAM" --version | head -n 1), SHA-256 $digest"
    export DAMAGE_RESULTS DAMAGE_VERSION
fi
# What the lanes know of their hosts.
DAMAGE_HOME=$(mktemp -d "${TMPDIR:-/tmp}/transfer-damage.XXXXXX")
export DAMAGE_HOME
trap 'rm -rf -- "$DAMAGE_HOME"' EXIT
tests/lab/lab.sh with cargo nextest run --locked --profile damage -j "$DAMAGE_LANES" "$@"
