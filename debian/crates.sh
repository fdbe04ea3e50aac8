#!/usr/bin/env bash
# crates.sh PROGRAM: prints the crates that transfer or transfer-agent is linked with, and their licenses: the
# copyright notices must be distributed with it. The texts of the Apache licenses are left out, since every Debian
# system has them in /usr/share/common-licenses.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

program=$1
options=()
if [[ $program == transfer-agent ]]; then
    # The same list for all architectures: packages of several share the file.
    targets=(--target x86_64-unknown-linux-gnu --target aarch64-unknown-linux-gnu)
    cargo fetch --locked --quiet "${targets[@]}"
    options=(--no-default-features "${targets[@]}")
fi
echo "$program is linked with the following crates from https://crates.io. Each is followed by its own license texts, except"
echo "the Apache License 2.0, which is in /usr/share/common-licenses/Apache-2.0."
# NAME vVERSION LICENSE
tree=$(cargo tree --locked "${options[@]}" --edges normal --prefix none --no-dedupe --format '{p} {l}')
while read -r name version license; do
    [[ $name != transfer ]] || continue
    # Unpacked by cargo, or by `cargo vendor`.
    for source in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$name-${version#v}" "vendor/$name-${version#v}" "vendor/$name"; do
        [[ -d $source ]] && break
    done
    [[ -d $source ]] || { echo "crates: the source of $name ${version#v} was not found" >&2 && exit 1; }
    printf '\n%s\n%s %s: %s\n' "$(printf '=%.0s' {1..100})" "$name" "${version#v}" "$license"
    for text in "$source"/{LICEN[CS]E,COPYING,COPYRIGHT,NOTICE,licen[cs]e}*; do
        if [[ -f $text ]] && ! grep -Eq '^ +Apache License$' "$text"; then
            printf '\n'
            cat -- "$text"
        fi
    done
done < <(sed '/^$/d; s/ (\*)$//; s/ (proc-macro)//' <<<"$tree" | LC_ALL=C sort -u)
