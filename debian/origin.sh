#!/usr/bin/env bash
# origin.sh COMPILER LIBRARY...: prints the source packages of static libraries of a C compiler, as a relation.
set -euo pipefail

for library in "${@:2}"; do
    dpkg-query --search "$(realpath "$("$1" --print-file-name="$library")")"
done | cut -d : -f 1 | sort -u | xargs --no-run-if-empty dpkg-query --show --showformat "\${source:Package} (= \${source:Version})\n" |
    LC_ALL=C sort -u | paste -s -d ,
