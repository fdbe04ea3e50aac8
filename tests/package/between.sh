#!/usr/bin/env bash
# between.sh LAB: the installed program of its host ctl copies from db1 to db2, as its /etc/transfer/transfer.conf says.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
id=$1

on() { tests/lab/lab.sh exec "$id" "$@"; }

on db1 sh -c 'mkdir -p /srv/sqldata/shop && head -c 5000000 /dev/urandom >/srv/sqldata/shop/orders.ibd'
# The configuration file counts: a port that is not the first free one.
on ctl sed -i 's/^#:port = .*/port = 4477/' /etc/transfer/transfer.conf
on ctl grep -qx 'port = 4477' /etc/transfer/transfer.conf
on ctl transfer db1:/srv/sqldata db2:/srv --dry-run | grep -q 4477
on ctl transfer db1:/srv/sqldata db2:/srv
digest() { on "$1" sh -c 'cd /srv && find sqldata -type f -exec sha256sum {} + | sort'; }
[[ $(digest db1) == "$(digest db2)" ]]
on ctl transfer status db1 db2
echo "between: db2 has what db1 has"
