#!/usr/bin/env bash
# Runs on db1: makes one data set in /srv/bench/data. All but the data directory are the same bytes every time.
#
#   data.sh big NAME MB         one file, a third random, the rest records that look alike: about 2.5 with zstd -1
#   data.sh files NAME N MAX    N files of 1 KB to MAX KB, 100 in a directory, of the same content
#   data.sh datadir NAME MB     a MariaDB data directory, made by a server that was shut down in order
#   data.sh ratio NAME          its bytes, and how many zstd -1 makes of them
set -euo pipefail
export LC_ALL=C
cd /srv/bench/data

# MB of random bytes that are the same every time.
random() { head -c "$1M" /dev/zero | openssl enc -aes-256-ctr -K 01 -iv 00 2>/dev/null; }

# Pages of 16 KB, as a database has them: 5 KB random, then records.
pages() { # MB
    random $((($1 * 10 + 31) / 32)) | perl -e '
        my ($pages, $record) = (shift() * 64, 0);
        while ($pages-- > 0) {
            read(STDIN, my $page, 5120);
            $page .= sprintf "%09d|customer %d|2024-%02d-%02d|delivered|-----------------------|", $record++,
                $record * 7919 % 100003, $record % 12 + 1, $record % 28 + 1 while length $page < 16384;
            print substr $page, 0, 16384;
        }
        # The rest, or its writer would die of a broken pipe.
        1 while read STDIN, my $rest, 65536;' "$1"
}

big() { pages "$2" >"$1"; }

files() {
    mkdir "$1"
    # 64 MB are enough: each file is cut from another place.
    # shellcheck disable=SC2016 # perl's variables
    pages 64 | perl -e '
        my ($directory, $files, $most) = @ARGV;
        my ($pages, $state) = (do { local $/; <STDIN> }, 1);
        sub random { ($state = ($state * 1103515245 + 12345) % 2147483648) / 2147483648 }
        for my $number (0 .. $files - 1) {
            my $inner = sprintf "%s/%05d", $directory, $number / 100;
            mkdir $inner if $number % 100 == 0;
            open my $file, ">", "$inner/$number" or die "$inner/$number: $!\n";
            print $file substr $pages, random() * (length($pages) - 16384), 1024 + int random() * ($most - 1) * 1024;
            close $file or die "$inner/$number: $!\n";
        }' "$@"
}

sql() { # ROWS TABLES
    local table
    echo 'CREATE DATABASE shop; USE shop;'
    for ((table = 1; table <= $2; table++)); do
        cat <<SQL
CREATE TABLE orders$table (id INT UNSIGNED PRIMARY KEY, customer INT UNSIGNED NOT NULL, name VARCHAR(64),
    note VARCHAR(255), token VARBINARY(160), KEY (customer)) ENGINE=InnoDB;
INSERT INTO orders$table SELECT seq, seq * 7919 % 100003, CONCAT('customer ', seq),
    REPEAT(CONCAT('order of type ', seq % 100, ', '), 7), RANDOM_BYTES(120) FROM seq_1_to_$1;
SQL
    done
}

datadir() { # NAME MB
    local directory=$PWD/$1 socket=/tmp/bench-mysqld.sock server
    mariadb-install-db --no-defaults --user=mysql --datadir="$directory" --skip-test-db \
        --auth-root-authentication-method=normal >/dev/null
    # Nothing is to be durable while it is made. Logs and system tables have about 130 MB.
    mariadbd --no-defaults --user=mysql --datadir="$directory" --socket="$socket" --skip-networking \
        --innodb-buffer-pool-size=1G --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 \
        --innodb-flush-method=fsync --innodb-use-native-aio=0 >/tmp/mysqld.log 2>&1 &
    server=$!
    until mariadb-admin --no-defaults --socket="$socket" ping >/dev/null 2>&1; do
        kill -0 "$server" || { cat /tmp/mysqld.log >&2 && return 1; }
        sleep 0.1
    done
    sql $(((${2} > 180 ? ${2} - 130 : 50) * 2900 / 8)) 8 | mariadb --no-defaults --socket="$socket"
    mariadb-admin --no-defaults --socket="$socket" shutdown
    wait "$server"
}

# A server at work on a data directory, until the lab goes.
serve() { # NAME
    chown -R mysql: "$1"
    (cd / && setsid mariadbd --no-defaults --user=mysql --datadir="/srv/bench/data/$1" --socket=/srv/bench/server.sock \
        --skip-networking --innodb-buffer-pool-size=256M >/tmp/mysqld.log 2>&1 &)
    for ((try = 0; try < 600; try++)); do
        mariadb-admin --no-defaults --socket=/srv/bench/server.sock ping >/dev/null 2>&1 && return
        sleep 0.1
    done
    echo "the server does not start: $(tail -n 3 /tmp/mysqld.log)" >&2
    return 1
}

ratio() {
    printf '%d %d\n' "$(find "$1" -type f -printf '%s\n' | awk '{ n += $1 } END { printf "%.0f", n }')" \
        "$(tar -cf - "$1" 2>/dev/null | zstd -q -1 -T0 -c | wc -c)"
}

"$@"
