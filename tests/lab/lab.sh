#!/usr/bin/env bash
# A lab of real Debian hosts on one machine: booted systemd, sshd, firewalls and MariaDB, each host with its own file
# system, addresses and processes. tests/lab/README.md has the picture.
#
#   lab.sh check                        can this machine boot a lab? one line, and the reason when not
#   lab.sh base                         build the root file system that all hosts share (once, cached)
#   lab.sh up ID [--owner PID] [HOST…]  make the lab ID; `sweep` removes it when PID (default: the caller) is gone
#   lab.sh list ID                      its hosts: NAME ADDRESS INIT_PID ('-' when it is down)
#   lab.sh exec ID HOST [--] CMD…       run CMD inside a host, as root, without ssh
#   lab.sh put ID HOST FILE PATH [MODE] copy FILE into a host (mode 0755 when none is given)
#   lab.sh crash ID HOST                cut the power
#   lab.sh poweroff ID HOST             shut down in order
#   lab.sh boot ID HOST                 start a host that is down, on the disk that it had
#   lab.sh cut ID A B | heal ID A B     drop, and no longer drop, all frames between two hosts
#   lab.sh switch ID CMD…               run CMD where the hosts' cables end (ports are named after the hosts)
#   lab.sh with CMD…                    run CMD with $TRANSFER_LAB naming a lab of its own, which is removed afterwards,
#                                       and with it those that CMD made with --owner $TRANSFER_LAB_OWNER
#   lab.sh down ID                      remove the lab and all its traces
#   lab.sh sweep                        remove the labs whose owner is gone
#
# Everything is kept under $TRANSFER_LAB_HOME (default: the user's cache directory, transfer-lab). A lab's hosts mount
# in mount namespaces of their own, so the machine's mount table never sees them.
set -euo pipefail
umask 022

home=${TRANSFER_LAB_HOME:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/transfer-lab}
labs=$home/labs
suite=bookworm
packages=(systemd systemd-sysv dbus openssh-server openssh-client mariadb-server mariadb-backup netcat-openbsd pigz zstd
    openssl iptables nftables iproute2 procps psmisc acl attr rsync time e2fsprogs strace ca-certificates
    netcat-traditional ncat lz4 xz-utils sudo fish tcsh ferm ufw firewalld faketime
    ansible-core python3-apt busybox)
network=10.77.0
network6=fd77:
# Seconds until a host that does not answer is given up.
patience=60

die() {
    printf 'lab: %s\n' "$*" >&2
    exit 1
}

# The directory of this script, as an absolute path.
source_dir() {
    cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd
}

# ---------------------------------------------------------------------------------------------------------- the machine

# Where the machine has its unified cgroup tree; some mount it beside the old ones.
cgroup_root() {
    local dir
    for dir in /sys/fs/cgroup /sys/fs/cgroup/unified; do
        if [[ $(stat -f -c %T "$dir" 2>/dev/null) == cgroup2fs ]]; then
            echo "$dir"
            return
        fi
    done
    return 1
}

# Prints why this machine cannot boot a lab, and nothing when it can. Tries the real thing rather than versions.
obstacle() {
    local tool group
    [[ $(uname -s) == Linux ]] || { echo "this is not Linux" && return; }
    ((EUID == 0)) || { echo "not root" && return; }
    for tool in mmdebstrap:mmdebstrap systemd-nspawn:systemd-container ip:iproute2 nft:nftables ssh-keygen:openssh-client \
        nsenter:util-linux flock:util-linux; do
        command -v "${tool%%:*}" >/dev/null || { echo "${tool%%:*} is missing: apt-get install ${tool#*:}" && return; }
    done
    group=$(cgroup_root) || { echo "no unified cgroup tree is mounted" && return; }
    [[ -w $group/cgroup.procs ]] || { echo "$group is read-only: a container without its own cgroups?" && return; }
    mkdir -p "$home" || { echo "cannot write to $home" && return; }
    unshare --mount --net bash -s "$home" 2>&1 >/dev/null <<'TRY' || true
        try=$(mktemp -d "$1/check.XXXXXX") && trap 'cd /; umount "$try/root" 2>/dev/null; rm -rf "$try"' EXIT
        cd "$try" && mkdir lower upper work root
        mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work root 2>/dev/null ||
            { echo "cannot mount an overlay on $1" >&2; exit; }
        ip link add port type veth peer name e0 && ip link add bridge type bridge 2>/dev/null ||
            { echo "cannot make a network (veth, bridge)" >&2; exit; }
        nft add table bridge lab || echo "cannot filter on a bridge (nftables)" >&2
TRY
}

check() {
    local reason
    reason=$(obstacle)
    [[ -z $reason ]] || die "this machine cannot boot the lab: $reason"
    echo "lab: this machine can boot the lab"
}

# ------------------------------------------------------------------------------------------------------------- the base

# The base's directory, named after all that goes into it.
base_dir() {
    local dir hash
    dir=$(source_dir)
    hash=$(cd "$dir" && { echo "$suite ${packages[*]}" && cat base.sh && find base -type f -print0 | sort -z | xargs -0 tail -n +1; } |
        sha256sum)
    echo "$home/base-${hash:0:16}"
}

# The machine's own files of Debian sources, so that its mirror, its proxy and its keys are used; none means that
# mmdebstrap takes its default.
debian_sources() {
    local file
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list; do
        if [[ -f $file ]] && grep -Eq "(^|[[:space:]])$suite([[:space:]]|$)" "$file" &&
            grep -Eq '(^|[[:space:]])main([[:space:]]|$)' "$file"; then
            echo "$file"
        fi
    done
}

# Builds the base unless it is there. Two callers do not both build, and a killed build is not taken for a base.
base() {
    local base dir building sources lock
    base=$(base_dir)
    dir=$(source_dir)
    mkdir -p "$home"
    exec {lock}>"$home/base.lock"
    flock "$lock"
    if [[ ! -d $base ]]; then
        rm -rf --one-file-system "$home"/building.*
        building=$(mktemp -d "$home/building.XXXXXX")
        chmod 0755 "$building"
        mapfile -t sources < <(debian_sources)
        # The copied files come before the packages are configured, since MariaDB makes its data directory then.
        mmdebstrap --mode=root --variant=minbase --include="$(IFS=, && echo "${packages[*]}")" \
            --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' \
            --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
            --essential-hook="cp -r '$dir/base/.' \"\$1\"" --customize-hook="'$dir/base.sh' \"\$1\"" \
            "$suite" "$building/root" "${sources[@]}" >"$building/log" 2>&1 {lock}>&- ||
            { tail -n 20 "$building/log" >&2 && die "the base could not be built"; }
        ssh-keygen -q -t ed25519 -N '' -C transfer-lab -f "$building/key"
        mv -T "$building" "$base"
    fi
    exec {lock}>&-
}

# ---------------------------------------------------------------------------------------------------------------- names

valid_id() { [[ $1 =~ ^[a-z0-9]{1,16}$ ]] || die "a lab's id is 1 to 16 of a-z 0-9, not '$1'"; }
# Also the name of an interface, hence 15.
valid_host() { [[ $1 =~ ^[a-z][a-z0-9-]{0,14}$ ]] || die "not a host name for the lab: '$1'"; }

lab_group() { echo "$(cgroup_root)/transfer-lab-$1"; }
switch_ns() { echo "tl-$1"; }
host_ns() { echo "tl-$1-$2"; }

# The hosts of a lab, in the order in which `up` was given them; the first holds the key to all others.
hosts_of() { cat "$labs/$1/hosts"; }

# The last number of a host's addresses: ctl 10, db1 11, db2 12 …, any other from 50 on by its place.
number_of() {
    local host=$1 place=$2
    case $host in
    ctl) echo 10 ;;
    db[1-9]) echo $((10 + ${host#db})) ;;
    *) echo $((50 + place)) ;;
    esac
}

# Sets REPLY to the start time of a process: with it a pid is not mistaken for a later process's. No fork, `exec` is
# called hundreds of times.
start_time() {
    local stat fields
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    read -ra fields <<<"${stat##*) }"
    [[ ${fields[0]} != Z ]] || return 1
    REPLY=${fields[19]}
}

# Whether the process written down in a file as "PID START" still runs; sets REPLY to its pid.
runs() {
    local pid start
    { read -r pid start <"$1"; } 2>/dev/null || return 1
    start_time "$pid" && [[ $REPLY == "$start" ]] || return 1
    REPLY=$pid
}

# Sets REPLY to the pid of a host's init.
init_of() {
    local dir=$labs/$1/$2 supervisor child ids
    runs "$dir/init" && return
    runs "$dir/supervisor" || return 1
    supervisor=$REPLY
    # The kernel ends this line with no newline, which read calls a failure.
    { read -ra children <"/proc/$supervisor/task/$supervisor/children"; } 2>/dev/null || true
    for child in "${children[@]}"; do
        ids=$(grep '^NSpid:' "/proc/$child/status" 2>/dev/null) || continue
        if [[ $ids == *$'\t'*$'\t'1 ]] && start_time "$child"; then
            printf '%s %s\n' "$child" "$REPLY" >"$dir/init.$BASHPID"
            mv -f "$dir/init.$BASHPID" "$dir/init"
            REPLY=$child
            return
        fi
    done
    return 1
}

# --------------------------------------------------------------------------------------------------------------- inside

# Replaces this process by a command inside a host. The environment is a login's, not the caller's.
enter() {
    local id=$1 host=$2
    shift 2
    [[ ${1-} != -- ]] || shift
    (($#)) || die "exec: what?"
    init_of "$id" "$host" || die "host $host of lab $id is not up"
    exec nsenter --target "$REPLY" --all --root --wd -- /usr/bin/env -i \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root LOGNAME=root LANG=C.UTF-8 "$@"
}

put() {
    local id=$1 host=$2 file=$3 path=$4 mode=${5:-0755}
    # shellcheck disable=SC2016 # for the host's shell
    enter "$id" "$host" sh -c 'cat >"$1.$$" && chmod "$2" "$1.$$" && mv -fT "$1.$$" "$1" || { rm -f "$1.$$"; exit 1; }' \
        put "$path" "$mode" <"$file"
}

# --------------------------------------------------------------------------------------------------------------- a host

# Everything on a host's disk that is its own, written once into the mounted root, before its first boot.
personalise() {
    local id=$1 host=$2 root=$3 number mysql_uid mysql_gid old_uid old_gid base=$labs/$1/base
    read -r number <"$labs/$id/$host/number"
    echo "$host" >"$root/etc/hostname"
    tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
    cp "$labs/$id/etc-hosts" "$root/etc/hosts"
    cp "$labs/$id/known_hosts" "$root/etc/ssh/ssh_known_hosts"
    install -m 0600 "$labs/$id/$host/hostkey" "$root/etc/ssh/ssh_host_ed25519_key"
    install -m 0644 "$labs/$id/$host/hostkey.pub" "$root/etc/ssh/ssh_host_ed25519_key.pub"
    allow_logins "$id" "$host" "$root" root /root
    allow_logins "$id" "$host" "$root" dba /home/dba
    printf '[mariadbd]\nserver_id = %d\n' "$number" >"$root/etc/mysql/mariadb.conf.d/99-lab-host.cnf"
    # Ids of one host mean nothing on another: the copy of a data directory has to show that it knows.
    if [[ $host =~ ^db([0-9]+)$ ]]; then
        IFS=: read -r _ _ old_uid old_gid _ < <(grep '^mysql:' "$root/etc/passwd")
        mysql_uid=$((101 + 10 * BASH_REMATCH[1]))
        mysql_gid=$((mysql_uid + 1))
        sed -i "s/^mysql:\([^:]*\):$old_uid:$old_gid:/mysql:\1:$mysql_uid:$mysql_gid:/" "$root/etc/passwd"
        sed -i "s/^mysql:\([^:]*\):$old_gid:/mysql:\1:$mysql_gid:/" "$root/etc/group"
        (
            cd "$root"
            sed -z 's|^/|./|' "$base/mysql-files" | xargs -0 chown -h --from="$old_uid" "$mysql_uid"
            sed -z 's|^/|./|' "$base/mysql-files" | xargs -0 chown -h --from=":$old_gid" ":$mysql_gid"
        )
    fi
}

# Gives the key to all hosts to an account of the lab's first host, and lets its holder in on every host.
allow_logins() {
    local id=$1 host=$2 root=$3 user=$4 ids dir=$3$5/.ssh
    ids=$(awk -F: -v u="$user" '$1 == u { print $3 ":" $4 }' "$root/etc/passwd")
    install -d -m 0700 "$dir"
    install -m 0600 "$labs/$id/base/key.pub" "$dir/authorized_keys"
    if [[ $host == "$(hosts_of "$id" | head -n 1)" ]]; then
        install -m 0600 "$labs/$id/base/key" "$dir/id_ed25519"
    fi
    chown -R "$ids" "$dir"
}

# Becomes the host: runs in a mount namespace of its own, detached from `up`, and ends as systemd-nspawn.
become_host() {
    local id=$1 host=$2 dir=$labs/$1/$2 group
    start_time $$
    printf '%d %s\n' $$ "$REPLY" >"$dir/supervisor"
    group=$(lab_group "$id")/$host
    mkdir -p "$group"
    echo $$ >"$group/cgroup.procs"
    # Hosts get the unified cgroup tree even on a machine with the old ones.
    [[ $(stat -f -c %T /sys/fs/cgroup) == cgroup2fs ]] || mount -t cgroup2 cgroup2 /sys/fs/cgroup
    cd "$dir"
    # Relative, because colons and commas in a path mean something to overlay.
    mount -t overlay overlay -o lowerdir=../base/root,upperdir=upper,workdir=work root
    if [[ ! -e personalised ]]; then
        personalise "$id" "$host" "$dir/root"
        : >personalised
    fi
    # As a host of metal: no system call filter, and /tmp on the disk as Debian 12 has it.
    exec env -i PATH="$PATH" SYSTEMD_SECCOMP=0 SYSTEMD_NSPAWN_TMPFS_TMP=0 systemd-nspawn --quiet --directory="$dir/root" \
        --boot --machine="tl-$id-$host" --hostname="$host" --network-namespace-path="/run/netns/$(host_ns "$id" "$host")" \
        --register=no --keep-unit --capability=all --bind="${dir//:/\\:}/srv:/srv" --resolv-conf=off --timezone=off \
        --link-journal=no --console=read-only
}

# Plugs a new network namespace into the switch. New on every boot: rules and sockets do not outlive a power cut.
plug() {
    local id=$1 host=$2 number switch ns
    read -r number <"$labs/$id/$host/number"
    switch=$(switch_ns "$id")
    ns=$(host_ns "$id" "$host")
    unplug "$id" "$host"
    ip netns add "$ns"
    ip -n "$switch" link add "$host" type veth peer name e0 netns "$ns"
    # shellcheck disable=SC2016 # for the inner shell
    ip netns exec "$ns" sh -c 'for f in /proc/sys/net/ipv6/conf/*/accept_dad; do echo 0 >"$f"; done'
    # A fixed address, so that a neighbour's cache is right again after a reboot.
    ip -n "$ns" -batch - <<BATCH
link set lo up
link set e0 address 02:77:00:00:00:$(printf %02x "$number") up
address add $network.$number/24 dev e0
address add $network6:$number/64 dev e0 nodad
BATCH
    ip -n "$switch" link set "$host" master bridge up
}

unplug() {
    local ns
    ns=$(host_ns "$1" "$2")
    [[ -e /run/netns/$ns ]] || return 0
    # Removing the interface does not wait for the last socket in the namespace.
    ip -n "$(switch_ns "$1")" link delete "$2" 2>/dev/null || true
    ip netns delete "$ns"
}

# Starts a host that is down; returns when its init runs.
start() {
    local id=$1 host=$2 dir=$labs/$1/$2 end=$((SECONDS + patience))
    rm -f "$dir/init" "$dir/supervisor"
    plug "$id" "$host"
    setsid unshare --mount --propagation slave "$(source_dir)/lab.sh" _host "$id" "$host" </dev/null >>"$dir/console" 2>&1 &
    until init_of "$id" "$host"; do
        if ((SECONDS >= end)) || ! kill -0 $! 2>/dev/null; then give_up "$id" "$host" "did not start"; fi
        sleep 0.02
    done
}

# Waits until a host lets its administrator in and has no start-up job left.
await() {
    local id=$1 host=$2 first init state end=$((SECONDS + patience))
    init_of "$id" "$host" || give_up "$id" "$host" "is gone"
    init=$REPLY
    first=$(hosts_of "$id" | head -n 1)
    # Port 22 (0016) in state LISTEN (0A): cheaper than a login, which is tried once it can work.
    until grep -q ':0016 0*:0000 0A ' "/proc/$init/net/tcp" 2>/dev/null; do
        if ((SECONDS >= end)) || ! runs "$labs/$id/$host/init"; then give_up "$id" "$host" "has no sshd listening"; fi
        sleep 0.05
    done
    state=$(enter "$id" "$host" systemctl is-system-running --wait) || true
    [[ $state == running ]] || {
        enter "$id" "$host" systemctl --failed --plain --no-legend >&2 || true
        give_up "$id" "$host" "came up in state '$state'"
    }
    until init_of "$id" "$first" && (enter "$id" "$first" ssh -n -o BatchMode=yes -o ConnectTimeout=2 "$host" true); do
        ((SECONDS < end)) || give_up "$id" "$host" "does not answer over ssh"
        sleep 0.05
    done
}

give_up() {
    local id=$1 host=$2
    tail -n 20 "$labs/$id/$host/console" >&2 || true
    die "host $host of lab $id $3; its console is above"
}

# Waits until the supervisor of a host has ended, and with it the host's mounts.
await_end() {
    local id=$1 host=$2 end=$((SECONDS + patience))
    while runs "$labs/$id/$host/supervisor"; do
        ((SECONDS < end)) || die "host $host of lab $id does not end"
        sleep 0.01
    done
    rm -f "$labs/$id/$host/init" "$labs/$id/$host/supervisor"
    unplug "$id" "$host"
}

# The cable goes first: a host without power says no goodbye to its peers, while dying processes would.
crash() {
    local id=$1 host=$2
    init_of "$id" "$host" || die "host $host of lab $id is not up"
    ip -n "$(switch_ns "$id")" link set "$host" down
    kill -9 "$REPLY"
    await_end "$id" "$host"
}

poweroff() {
    local id=$1 host=$2
    runs "$labs/$id/$host/supervisor" || die "host $host of lab $id is not up"
    kill -TERM "$REPLY"
    await_end "$id" "$host"
}

boot() {
    local id=$1 host=$2
    if init_of "$id" "$host"; then die "host $host of lab $id is up"; fi
    ! runs "$labs/$id/$host/supervisor" || await_end "$id" "$host"
    start "$id" "$host"
    await "$id" "$host"
}

# ---------------------------------------------------------------------------------------------------------------- a lab

# The switch: a bridge in a namespace that has no way out, with a table of the pairs that are cut off.
make_switch() {
    local ns
    ns=$(switch_ns "$1")
    ip netns add "$ns"
    ip -n "$ns" link add bridge type bridge forward_delay 0 stp_state 0 mcast_snooping 0
    ip -n "$ns" link set bridge up
    ip netns exec "$ns" nft -f - <<'NFT'
table bridge lab {
    set cut { type ifname . ifname; }
    chain forward {
        type filter hook forward priority 0; policy accept;
        iifname . oifname @cut drop
    }
}
NFT
}

cut() {
    ip netns exec "$(switch_ns "$1")" nft add element bridge lab cut "{ $2 . $3, $3 . $2 }"
}

heal() {
    # Adding first makes it no error that nothing was cut.
    ip netns exec "$(switch_ns "$1")" nft -f - <<NFT
add element bridge lab cut { $2 . $3, $3 . $2 }
delete element bridge lab cut { $2 . $3, $3 . $2 }
NFT
}

# Gives all hosts the addresses, names and keys of each other. A plain name is IPv4 only, as at most sites;
# NAME6 is IPv6 only and NAME46 has both.
write_directory() {
    local id=$1 host number place=0
    printf '127.0.0.1 localhost\n::1 localhost ip6-localhost\n' >"$labs/$id/etc-hosts"
    while read -r host; do
        number=$(number_of "$host" $((place++)))
        mkdir -p "$labs/$id/$host"/{upper,work,root,srv}
        echo "$number" >"$labs/$id/$host/number"
        ssh-keygen -q -t ed25519 -N '' -C "$host" -f "$labs/$id/$host/hostkey"
        printf '%s\n' "$network.$number $host ${host}46" "$network6:$number ${host}6 ${host}46" >>"$labs/$id/etc-hosts"
        echo "$host,${host}6,${host}46,$network.$number,$network6:$number $(<"$labs/$id/$host/hostkey.pub")" \
            >>"$labs/$id/known_hosts"
    done < <(hosts_of "$id")
}

# Kernels with modules load those of legacy iptables only on the machine's own request.
load_modules() {
    modprobe --all --quiet overlay bridge veth nf_tables ip_tables ip6_tables iptable_filter ip6table_filter 2>/dev/null ||
        true
}

# A booted systemd takes six of the machine's inotify instances, of which there are 128 by default: enough for 21 hosts.
raise_limits() {
    local limit=/proc/sys/fs/inotify/max_user_instances
    (($(<"$limit") >= 1024)) || echo 1024 >"$limit" || true
}

up() {
    local id=$1 owner=$PPID owner_start hosts=() host jobs=() job failed=0 base new
    valid_id "$id"
    shift
    while (($#)); do
        case $1 in
        --owner)
            owner=$2
            shift
            ;;
        *)
            valid_host "$1"
            hosts+=("$1")
            ;;
        esac
        shift
    done
    ((${#hosts[@]})) || hosts=(ctl db1 db2 db3)
    start_time "$owner" || die "the owner, process $owner, does not run"
    owner_start=$REPLY
    check >/dev/null
    base
    base=$(base_dir)
    load_modules
    raise_limits
    mkdir -p "$labs"
    # A lab of the same name is removed only when its owner is gone.
    if [[ -d $labs/$id ]]; then
        ! owned "$id" || die "lab $id is up already; lab.sh down $id"
        down "$id"
    fi
    # With its owner in it from the start, or a sweep at the same time would take it for an orphan.
    new=$(mktemp -d "$labs/.new.XXXXXX")
    printf '%s %s %s\n' "$owner" "$owner_start" "$(</proc/sys/kernel/random/boot_id)" >"$new/owner"
    mv -T "$new" "$labs/$id" 2>/dev/null || { rm -rf "$new" && die "lab $id is being created by another process"; }
    # shellcheck disable=SC2064 # the id of now
    trap "kill \$(jobs -p) 2>/dev/null || true; down $id" EXIT
    trap 'exit 130' INT TERM HUP
    ln -s "$base" "$labs/$id/base"
    printf '%s\n' "${hosts[@]}" >"$labs/$id/hosts"
    write_directory "$id"
    make_switch "$id"
    for host in "${hosts[@]}"; do
        (
            start "$id" "$host"
            await "$id" "$host"
        ) &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job" || failed=1; done
    ((!failed)) || die "lab $id did not come up"
    trap - EXIT INT TERM HUP
    list "$id"
}

list() {
    local host number
    [[ -e $labs/$1/hosts ]] || die "there is no lab $1"
    while read -r host; do
        read -r number <"$labs/$1/$host/number"
        init_of "$1" "$host" || REPLY=-
        echo "$host $network.$number $REPLY"
    done < <(hosts_of "$1")
}

# Whether the process for which a lab was made still runs.
owned() {
    local pid start boot
    { read -r pid start boot <"$labs/$1/owner"; } 2>/dev/null || return 1
    [[ $boot == "$(</proc/sys/kernel/random/boot_id)" ]] && start_time "$pid" && [[ $REPLY == "$start" ]]
}

# Asks nothing of the lab's state, since that may be half made: whatever carries its name goes.
down() {
    local id=$1 group ns pid end=$((SECONDS + patience))
    valid_id "$id"
    group=$(lab_group "$id")
    for ns in $(ip netns list | awk -v s="$(switch_ns "$id")" '$1 == s || index($1, s "-") == 1 { print $1 }'); do
        for pid in $(ip netns pids "$ns"); do kill -9 "$pid" 2>/dev/null || true; done
    done
    if [[ -d $group ]]; then
        echo 1 >"$group/cgroup.kill"
        until grep -q '^populated 0' "$group/cgroup.events"; do
            ((SECONDS < end)) || die "processes of lab $id do not end"
            sleep 0.01
        done
        find "$group" -depth -type d -exec rmdir {} +
    fi
    for ns in $(ip netns list | awk -v s="$(switch_ns "$id")" '$1 == s || index($1, s "-") == 1 { print $1 }'); do
        ip netns delete "$ns"
    done
    rm -rf --one-file-system "${labs:?}/$id"
}

# One lab for one command, such as all tests. The status is the command's.
with() {
    local id=t$$ status=0
    trap down_mine EXIT
    trap 'exit 130' INT TERM HUP
    sweep
    # A small machine that is busy with other things may need a second try.
    "$(source_dir)/lab.sh" up "$id" --owner $$ >&2 || "$(source_dir)/lab.sh" up "$id" --owner $$ >&2
    TRANSFER_LAB=$id TRANSFER_LAB_OWNER=$$ "$@" || status=$?
    exit "$status"
}

# Removes the labs that this process owns.
down_mine() {
    local dir owner
    for dir in "$labs"/*/; do
        { read -r owner _ <"$dir/owner"; } 2>/dev/null || continue
        [[ $owner != "$$" ]] || down "$(basename "$dir")"
    done
}

sweep() {
    local dir
    # Those that are being made may be gone before they are looked at.
    [[ ! -d $labs ]] || find "$labs" -maxdepth 1 -ignore_readdir_race -name '.new.*' -mmin +1 -exec rm -rf {} +
    for dir in "$labs"/*/; do
        [[ ! -d $dir ]] || owned "$(basename "$dir")" || down "$(basename "$dir")"
    done
}

# ----------------------------------------------------------------------------------------------------------------- main

usage() {
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

command=${1-}
(($#)) && shift
case $command:$# in
check:0 | base:0 | sweep:0) "$command" ;;
up:[1-9]*) up "$@" ;;
with:[1-9]*) with "$@" ;;
list:1 | down:1) "$command" "$@" ;;
exec:0 | exec:1) usage ;;
exec:*) enter "$@" ;;
put:4 | put:5) put "$@" ;;
crash:2 | poweroff:2 | boot:2 | cut:3 | heal:3) "$command" "$@" ;;
switch:[2-9] | switch:[1-9][0-9]) ip netns exec "$(switch_ns "$1")" "${@:2}" ;;
_host:2) become_host "$@" ;;
*) usage ;;
esac
