# Prints the state of a host that a transfer could leave changed, one fact a line: SECTION, a tab, the fact. Sent to
# bash on a host by snapshots.rs; the arguments are directories to list besides the usual ones.
# Facts that change by themselves (pids, counters, random names, the number of logins) are left out.
# shellcheck shell=bash
set -uo pipefail
export LC_ALL=C

section() { sed "s|^|$1\t|"; }

# All but this script and what it starts.
ps -ww -eo pid=,ppid=,comm=,args= |
    awk -v me=$$ '
        { parent[$1] = $2; $1 = $1; pid[NR] = $1; line[NR] = $0 }
        END {
            for (n = 1; n <= NR; n++) {
                for (p = pid[n]; p != me && p > 0; p = parent[p]);
                if (p != me) { sub(/^[0-9]+ [0-9]+ /, "", line[n]); print line[n] }
            }
        }' |
    # One that has ended and is about to be forgotten is none.
    sed '/<defunct>$/d; s/\[listener\].*/[listener]/' | section process

ss -Hlntup | awk '{ print $1, $5, $7 }' | sed 's/pid=[0-9]*,//g; s/fd=[0-9]*//g' | section listening
cut -d ' ' -f 2,3 /proc/mounts | grep -v '^/run/credentials/' | section mount
systemctl list-units --plain --no-legend --type=service,scope --state=active,activating,failed |
    awk '{ print $1, $4 }' | section unit

# The first rule makes a table with chains that accept everything, and nothing removes those: they are left out, and
# every rule and every other policy is not.
for kind in iptables-legacy ip6tables-legacy iptables-nft ip6tables-nft; do
    "$kind-save" 2>/dev/null | sed 's/ *\[[0-9]*:[0-9]*\]//' |
        awk '/^\*/ { table = substr($1, 2) } /^:.* ACCEPT/ || /^[*#]/ || /^COMMIT/ { next } { print table, $0 }' |
        section "$kind"
done
# A rule with the table and the chain it is in.
nft list ruleset 2>/dev/null | sed 's/ packets [0-9]* bytes [0-9]*//' | awk '
    /^table / { table = $2 " " $3; made = table ~ /^ip6? (filter|nat|mangle|raw|security)$/; if (!made) print "table", table; next }
    /^}/ || /^\t}/ || /^$/ { inner = ""; next }
    /^\t[a-z]+ .*{$/ { inner = $1 " " $2; if (!made) print table, inner; next }
    made && /policy accept;/ { next }
    { sub(/^[\t ]+/, ""); print table, inner ":", $0 }' | section nft

# Where mysqld's private /tmp is has a random end.
files() { sed -E 's/(systemd-private-)[0-9a-f]+(-[^/ ]*)-[A-Za-z0-9]{6}/\1\2/' | section "$1"; }
# The directory for the sockets of an account's logins stays until a reboot.
find /run/transfer /var/lib/transfer /run/lock /tmp -mindepth 1 ! -regex '/tmp/transfer-ssh-[0-9]+' -printf '%p %y %m %U:%G %s %l\n' 2>/dev/null | files file
for dir in "$@"; do
    find "$dir" \( -type d -printf '%p %y %m %U:%G\n' -o -printf '%p %y %m %U:%G %s %T@ %l\n' \) 2>/dev/null | files file
done
# A directory that is not there is a state, too.
:
