#!/usr/bin/env bash
# All tests, those on real hosts in a lab of their own. LAB=off skips these. Arguments go to `cargo nextest run`.
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
# Sweeps what an earlier run left, and removes its own lab however the tests end.
exec tests/lab/lab.sh with "${tests[@]}"
