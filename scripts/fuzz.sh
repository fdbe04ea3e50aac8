#!/usr/bin/env bash
# Runs each fuzz target of tests/fuzz (or those that are named) for FUZZ_SECONDS, and tells in a line what came of it. On
# the stable tool chain: what is looked for are panics, what is asserted, time and memory, and none needs a sanitizer.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
exec </dev/null

seconds=${FUZZ_SECONDS-60}
if [[ ! $seconds =~ ^[1-9][0-9]*$ ]]; then
    echo "fuzz: FUZZ_SECONDS is no number of seconds: $seconds" >&2
    exit 2
fi
scripts/setup.sh fuzz
# cargo fuzz would mend it.
cargo metadata --locked --format-version 1 --manifest-path tests/fuzz/Cargo.toml >/dev/null
fuzz=(--fuzz-dir tests/fuzz --sanitizer none)
targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(cargo fuzz list --fuzz-dir tests/fuzz)
cargo fuzz build "${fuzz[@]}"

log=$(mktemp "${TMPDIR:-/tmp}/transfer-fuzz.XXXXXX")
trap 'rm -f -- "$log"' EXIT
results=() status=0
for target in "${targets[@]}"; do
    # Long enough for several lines of the target's words.
    case $target in
        wire) length=256 ;;
        netcat | ssh) length=1024 ;;
        *) length=4096 ;;
    esac
    corpus=tests/fuzz/corpus/$target
    mkdir -p -- "$corpus"
    result=good
    if ! cargo fuzz run "${fuzz[@]}" "$target" "$corpus" "tests/fuzz/seeds/$target" -- -max_total_time="$seconds" \
        -max_len="$length" -timeout=5 -rss_limit_mb=512 -dict=tests/fuzz/words.dict -print_final_stats=1 \
        >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        result=FAILED status=1
    fi
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    results+=("$(printf 'fuzz: %-8s %10s executions, %s' "$target" "${executions:-unknown}" "$result")")
    echo "${results[-1]}"
done
((${#results[@]} > 1)) && printf '\n' && printf '%s\n' "${results[@]}"
exit "$status"
