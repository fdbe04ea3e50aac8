#!/usr/bin/env bash
# Installs what this machine lacks, on Debian.
#
#   setup.sh demo     to build the program and to run it between two directories of this machine
#   setup.sh test     the same, and what the tests, their lab of hosts and the linters need
#   setup.sh fuzz     what the fuzz targets need
#   setup.sh arm64    to build the agent for hosts with arm64
set -euo pipefail

# PROGRAM:PACKAGE; type -P below, since `time` is also a word of the shell.
demo=(make:make awk:mawk find:findutils flock:util-linux setpriv:util-linux gzip:gzip ip:iproute2
    md5sum:coreutils openssl:openssl perl:perl-base pigz:pigz ps:procps lz4:lz4 tar:tar zstd:zstd)
test=(mmdebstrap:mmdebstrap systemd-nspawn:systemd-container iptables:iptables nft:nftables ssh:openssh-client
    shellcheck:shellcheck setfacl:acl setfattr:attr rsync:rsync mkfs.ext4:e2fsprogs time:time)
fuzz=(g++:g++)
arm64=(aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu)

# Prints the packages that are missing, each once.
missing() {
    local pair libc
    for pair in "$@"; do
        type -P "${pair%%:*}" >/dev/null || echo "${pair#*:}"
    done
    # Another netcat, under the same name, does not do.
    [[ $(nc -h 2>&1 || true) == OpenBSD* ]] || echo netcat-openbsd
    # Asks for the C library's own file: a compiler comes without the library's development files.
    libc=$(cc -print-file-name=crt1.o 2>/dev/null || true)
    [[ $libc == /* ]] || printf '%s\n' gcc libc6-dev
    libc=$(aarch64-linux-gnu-gcc -print-file-name=libc.a 2>/dev/null || true)
    [[ $* != *aarch64* || $libc == /* ]] || echo libc6-dev-arm64-cross
}

install() {
    local root=()
    if ((EUID != 0)); then
        type -P sudo >/dev/null || give_up "$@"
        root=(sudo)
    fi
    type -P apt-get >/dev/null || give_up "$@"
    echo "setup: installing $*"
    # A mirror of something else that does not answer is no reason to stop; one that is needed stops the next command.
    "${root[@]}" apt-get update -qq </dev/null || true
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" \
        </dev/null >/dev/null || give_up "$@"
}

give_up() {
    echo "setup: cannot install what is missing; as root, on Debian: apt-get install $*" >&2
    exit 1
}

case ${1-test} in
demo) wanted=("${demo[@]}") ;;
test) wanted=("${demo[@]}" "${test[@]}") ;;
fuzz) wanted=("${fuzz[@]}") ;;
arm64) wanted=("${arm64[@]}") ;;
*)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
# Programs of the administrator count although a user's path may not lead to them.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
type -P cargo >/dev/null || { echo "setup: cargo is missing; see https://rustup.rs" >&2 && exit 1; }
mapfile -t packages < <(missing "${wanted[@]}" | sort -u)
if ((${#packages[@]})); then install "${packages[@]}"; fi
if [[ ${1-test} == test ]] && ! cargo nextest --version &>/dev/null; then
    cargo install cargo-nextest --locked
fi
if [[ ${1-test} == fuzz ]] && ! cargo fuzz --version &>/dev/null; then
    cargo install cargo-fuzz --locked
fi
if [[ ${1-test} == arm64 ]] && type -P rustup >/dev/null; then
    rustup --quiet target add aarch64-unknown-linux-gnu
fi
