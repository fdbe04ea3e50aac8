#!/usr/bin/env bash
# All tests, those on real hosts in a lab of their own, and a sample of the damage matrix. LAB=off skips these. Arguments go
# to `cargo nextest run`; with arguments there is no matrix.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

scripts/setup.sh test
cargo test --doc --locked
tests=(cargo nextest run --locked --no-fail-fast "$@")
if [[ ${LAB-} == off ]]; then
    unset TRANSFER_LAB
    exec "${tests[@]}"
fi
if ! tests/lab/lab.sh check; then
    echo "test: the tests on real hosts cannot run here; LAB=off make test runs the others" >&2
    exit 1
fi
# What is drawn is drawn by the commit: another sample for each, and the same again for the same.
commit=$(git rev-parse --short=8 HEAD 2>/dev/null) || commit=0
export SOAK_SEED=${SOAK_SEED:-$((16#$commit))} DAMAGE_SEED=${DAMAGE_SEED:-$((16#$commit))}
# Sweeps what an earlier run left, and removes its own lab however the tests end.
status=0
tests/lab/lab.sh with "${tests[@]}" || status=$?
((status < 128)) || exit "$status"
if (($# == 0)); then scripts/damage.sh "${DAMAGE_CELLS:-50}" || status=$?; fi
exit "$status"
