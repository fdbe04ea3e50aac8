#!/usr/bin/env bash
# Builds the agent for hosts with arm64, and tests it. Installs what the machine lacks for that.
#
#   agent-arm64.sh                     target/aarch64-unknown-linux-gnu/release/transfer-agent
#   agent-arm64.sh test [OPTION...]    the same, and conversations with it (tests/agent); options are those of
#                                      `cargo nextest run`. Needs root, and Linux 6.7 or newer.
#
# The tests run on this machine's CPU and only the agent on an emulated one. Its kernel is the machine's own. The emulator does
# not pass on the system calls of Landlock: the agent reports that it cannot confine its programs, and goes on.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
backports='http://deb.debian.org/debian bookworm-backports main'

die() {
    printf 'agent-arm64: %s\n' "$*" >&2
    exit 1
}

# take_emulator: sets $emulator to one that knows openat2, as Debian 13 has it. Debian 12 has an older one: the newer one of its
# backports is unpacked below target/, and not installed.
take_emulator() {
    local at=$target/arm64 version options
    emulator=$(type -P qemu-aarch64 || true)
    version=$("${emulator:-false}" --version 2>/dev/null | awk 'NR == 1 { print $3 }' || true)
    ! dpkg --compare-versions "${version:-0}" ge 10 || return 0
    emulator=$at/qemu/usr/bin/qemu-aarch64
    [[ ! -x $emulator ]] || return 0
    mkdir -p "$at/lists/partial"
    options=(-qq -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o APT::Sandbox::User=root)
    if grep -qx 'VERSION_ID="12"' /etc/os-release; then
        echo "deb $backports" >"$at/sources.list"
        options+=(-o Dir::Etc::SourceList="$at/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$at/lists")
    fi
    apt-get "${options[@]}" update
    (cd "$at" && rm -f qemu-user_*.deb && apt-get "${options[@]}" download qemu-user)
    dpkg-deb -x "$at"/qemu-user_*.deb "$at/qemu"
    [[ -x $emulator ]] || die "there is no $emulator in the package qemu-user"
}

# inside COMMAND...: runs a command in the namespace that `emulated` made, where programs for arm64 can be started.
inside() {
    # As binfmt.d(5) has it. F: the emulator is opened now, O: and gets the program as a descriptor.
    local header='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
    local mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
    mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    printf '%s' ":arm64:M::$header:$mask:$emulator:OF" >/proc/sys/fs/binfmt_misc/register
    exec "$@"
}

# emulated COMMAND...: runs a command where programs for arm64 can be started, and only there: the kernel has such a list for each
# user namespace. All accounts keep their numbers in it.
emulated() {
    local pid own
    own=$(readlink /proc/self/ns/user)
    # shellcheck disable=SC2016 # for the inner shell
    unshare --user --mount bash -c 'until [[ $(</proc/self/gid_map) ]]; do sleep 0.01; done
        exec setpriv --reuid 0 --regid 0 --clear-groups "$@"' bash "$PWD/scripts/agent-arm64.sh" _inside "$@" &
    pid=$!
    while [[ $(readlink "/proc/$pid/ns/user") == "$own" ]]; do sleep 0.01; done
    echo '0 0 4294967295' | tee "/proc/$pid/uid_map" >"/proc/$pid/gid_map"
    wait "$pid"
}

case ${1-build} in
_inside) inside "${@:2}" ;;
build | test) ;;
*)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
scripts/setup.sh arm64
scripts/build.sh agent aarch64
[[ ${1-build} == test ]] || exit 0
((EUID == 0)) || die "the tests need root"
scripts/setup.sh test
take_emulator
export emulator TRANSFER_AGENT_PROGRAM=$target/aarch64-unknown-linux-gnu/release/transfer-agent
# Built here: compilers need nothing of the namespace.
cargo nextest run --locked --test agent --no-run
emulated "$TRANSFER_AGENT_PROGRAM" ready
emulated cargo nextest run --locked --test agent --no-fail-fast "${@:2}"
