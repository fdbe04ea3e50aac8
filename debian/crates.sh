#!/usr/bin/env bash
# Prints which crates the program is linked with, and under which terms: their copyright notices have to go with it. The
# texts of the Apache licenses are left out, since every Debian system has them in /usr/share/common-licenses.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

echo "transfer is linked with the following crates of https://crates.io. Behind each are its own texts, but for that of the"
echo "Apache License 2.0, which is /usr/share/common-licenses/Apache-2.0."
# NAME vVERSION LICENSE
tree=$(cargo tree --locked --edges normal --prefix none --no-dedupe --format '{p} {l}')
while read -r name version license; do
    [[ $name != transfer ]] || continue
    # As cargo unpacks them, or as `cargo vendor` does.
    for source in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/"$name-${version#v}" "vendor/$name-${version#v}" "vendor/$name"; do
        [[ -d $source ]] && break
    done
    [[ -d $source ]] || { echo "crates: the source of $name ${version#v} is not where cargo keeps such" >&2 && exit 1; }
    printf '\n%s\n%s %s: %s\n' "$(printf '=%.0s' {1..100})" "$name" "${version#v}" "$license"
    for text in "$source"/{LICEN[CS]E,COPYING,COPYRIGHT,NOTICE,licen[cs]e}*; do
        if [[ -f $text ]] && ! grep -Eq '^ +Apache License$' "$text"; then
            printf '\n'
            cat -- "$text"
        fi
    done
done < <(sed 's/ (\*)$//; s/ (proc-macro)//' <<<"$tree" | LC_ALL=C sort -u)
