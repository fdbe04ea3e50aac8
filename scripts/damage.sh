#!/usr/bin/env bash
# The damage matrix: faults at moments of transfers between hosts of labs of its own, each judged by the whole state of all
# hosts afterwards. All of it takes about an hour on two cores.
#
#   damage.sh all [OPTION...]    all cells; options are those of `cargo nextest run`, -E 'test(/REGEX/)' say
#   damage.sh N [OPTION...]      N cells, drawn by $DAMAGE_SEED, which is printed; without it, another one each time
#
# $DAMAGE_LANES (default 6) cells at a time.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

cells=${1-all}
(($#)) && shift
unset DAMAGE_CELLS
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
    cargo build --release --locked
    TRANSFER_LAB_PROGRAM=$(realpath "${CARGO_TARGET_DIR:-target}/release/transfer")
fi
export TRANSFER_LAB_PROGRAM
# What the lanes know of their hosts.
DAMAGE_HOME=$(mktemp -d "${TMPDIR:-/tmp}/transfer-damage.XXXXXX")
export DAMAGE_HOME
trap 'rm -rf -- "$DAMAGE_HOME"' EXIT
tests/lab/lab.sh with cargo nextest run --locked --profile damage -j "$DAMAGE_LANES" "$@"
