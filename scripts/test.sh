#!/usr/bin/env bash
# All tests, those on real hosts in labs of their own, and a sample of the damage matrix. LAB=off skips these. Arguments go
# to `cargo nextest run`; with arguments there is no matrix, and only one lab.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

scripts/setup.sh test
cargo test --doc --locked
tests=(cargo nextest run --locked --features manual --no-fail-fast "$@")
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
if (($#)); then
    tests/lab/lab.sh with "${tests[@]}" || status=$?
    exit "$status"
fi
# Hosts do not boot beside compilers.
cargo nextest run --locked --features manual --no-run
# Database servers, which are started and stopped and waited for, have a lab beside that of all the others, and share it with
# Ansible, so that both take equally long. What is said of them is shown behind the rest.
databases='(binary(lab) & test(/^(databases|ansible)::/)) | (binary(attacks) & test(/^(servers|accounts|configuration)::/))'
said=$(mktemp -d "${TMPDIR:-/tmp}/transfer-test.XXXXXX")
trap 'rm -rf -- "$said"' EXIT
# A process group, so that it can be ended as a whole.
set -m
tests/lab/lab.sh with "${tests[@]}" -E "$databases" </dev/null >"$said/databases" 2>&1 &
set +m
trap 'kill -TERM -- -$! 2>/dev/null; wait; cat -- "$said/databases"; exit 143' HUP INT TERM
tests/lab/lab.sh with "${tests[@]}" -E "not ($databases)" 2>&1 | tee -- "$said/others" || status=$?
((status < 128)) || kill -TERM -- -$! || :
beside=0
wait $! || beside=$?
cat -- "$said/databases"
((status < 128)) || exit "$status"
cells=0
scripts/damage.sh "${DAMAGE_CELLS:-40}" || cells=$?
# What failed is told where people look first: at the end.
for part in "$status others" "$beside databases" "$cells damage"; do
    read -r code name <<<"$part"
    ((code)) || continue
    status=$code
    echo "test: FAILED, with status $code: $name"
    [[ ! -e $said/$name ]] || sed -n '/^ *Summary /,$p' -- "$said/$name" | grep . || tail -n 20 -- "$said/$name"
done
exit "$status"
