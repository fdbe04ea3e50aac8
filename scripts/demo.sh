#!/usr/bin/env bash
# Shows the program at work, between two directories of this machine: needs neither other hosts nor root.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

show() {
    printf '\n$ %s\n' "$*"
    "$@"
}

# About 200 MB in some 30 files, in pages of 16 KiB as a database's: rows, random bytes, and room for more rows.
generate() {
    # shellcheck disable=SC2016 # perl's variables
    perl -e '
        use strict; use warnings;
        my %mib = ("ibdata1" => 12, "ib_logfile0" => 48, "undo_001" => 10, "undo_002" => 10, "ibtmp1" => 12);
        $mib{sprintf "shop/orders_%02d.ibd", $_} = 6 for 1 .. 12;
        $mib{sprintf "shop/customers_%02d.ibd", $_} = 3 for 1 .. 8;
        $mib{sprintf "mysql/table_%02d.ibd", $_} = 1 for 1 .. 10;
        open(my $random, "<:raw", "/dev/urandom") or die "/dev/urandom: $!";
        chdir $ARGV[0] or die "$ARGV[0]: $!";
        mkdir $_ for "shop", "mysql";
        my $row = 0;
        for my $name (sort keys %mib) {
            open(my $file, ">:raw", $name) or die "$name: $!";
            for (1 .. 64 * $mib{$name}) {
                read($random, my $page, 5000);
                $page .= sprintf "%010d|customer %d|order %d|%s|EUR %.2f\n", $row, $row % 9973, 7 * $row,
                    $row++ % 3 ? "delivered" : "on its way", $row * 1.37 for 1 .. 120;
                print $file pack("a16384", $page) or die "$name: $!";
            }
            close $file or die "$name: $!";
        }' "$1"
}

scripts/setup.sh demo
transfer=${TRANSFER_LAB_PROGRAM-}
if [[ ! $transfer ]]; then
    scripts/build.sh
    transfer=${CARGO_TARGET_DIR:-target}/release/transfer
fi

tmp=$(mktemp -d "${TMPDIR:-/tmp}/transfer-demo.XXXXXX")
trap 'rm -rf -- "$tmp"' EXIT
trap 'exit 130' INT TERM HUP
mkdir -p "$tmp/source/sqldata" "$tmp/target" "$tmp/target2"
generate "$tmp/source/sqldata"
show du -sh "$tmp/source/sqldata"
show "$transfer" "localhost:$tmp/source/sqldata" "localhost:$tmp/target" --parallel-checksum
show "$transfer" "localhost:$tmp/source/sqldata" "localhost:$tmp/target2"
show ls -lh "$tmp/target" "$tmp/target/sqldata"
show diff -r "$tmp/source/sqldata" "$tmp/target2/sqldata" && echo "no difference"
show "$transfer" status localhost
