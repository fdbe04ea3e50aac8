#!/usr/bin/env bash
# The soak in full, in a lab of its own: 300 transfers with faults in at most ten minutes, and 50 times two controllers
# that begin in the same instant. SOAK_SEED=N repeats a soak. Arguments go to `cargo nextest run`.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

scripts/setup.sh test
tests/lab/lab.sh check >&2
export SOAK_TRANSFERS=${SOAK_TRANSFERS-300} SOAK_SECONDS=${SOAK_SECONDS-600} CONCURRENT_ROUNDS=${CONCURRENT_ROUNDS-50}
# Not captured: the seed is shown first, and each transfer when it has ended.
exec tests/lab/lab.sh with cargo nextest run --locked --profile soak --no-capture --no-fail-fast \
    -E 'binary(lab) & test(/^(soak|concurrent_runs)::/)' "$@"
