#!/usr/bin/env bash
# Builds the Debian packages into target/debian, and checks them with lintian. Installs with apt what the machine lacks for
# that, and where neither its cargo nor its release's is new enough, a Rust of the build's own with rustup, below target/debian.
#
#   deb.sh          the packages
#   deb.sh twice    the packages, and once more elsewhere: both have to be the same, byte for byte
#   deb.sh arm64    only the agent, for hosts with arm64, into target/debian/arm64; needs rustup
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
# Cargo.toml's rust-version, and Build-Depends'.
rust=1.85
out=$PWD/target/debian
rustup=https://static.rust-lang.org/rustup/dist

die() {
    printf 'deb: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if ((EUID == 0)); then "$@"; else sudo -n -- "$@"; fi
}

install() {
    echo "deb: installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" </dev/null >/dev/null ||
        die "cannot install what is missing; as root: apt-get install $*"
}

installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# Whether a version of cargo is new enough.
new_enough() { [[ $1 ]] && dpkg --compare-versions "$1" ge "$rust~"; }

# What a fresh machine lacks, and a Rust: the one in PATH, the release's, or rustup's.
prepare() {
    local package packages=() version
    for package in build-essential ca-certificates debhelper lintian; do
        installed "$package" || packages+=("$package")
    done
    if ((${#packages[@]})); then
        # A mirror of something else that does not answer is no reason to stop; one that is needed stops the next command.
        as_root apt-get update -qq </dev/null || true
        install "${packages[@]}"
    fi
    version=$(cargo --version 2>/dev/null | cut -d ' ' -f 2) || true
    new_enough "$version" && return
    version=$(apt-cache policy cargo | sed -n 's/^  Candidate: //p')
    if new_enough "${version#(none)}"; then
        install cargo rustc
    else
        take_rustup
    fi
}

take_rustup() {
    local target from=$out/rustup-init
    export RUSTUP_HOME=$out/rust/rustup CARGO_HOME=$out/rust/cargo
    PATH=$CARGO_HOME/bin:$PATH
    if ! new_enough "$(cargo --version 2>/dev/null | cut -d ' ' -f 2 || true)"; then
        installed curl || install curl
        target=$(uname -m)-unknown-linux-gnu
        echo "deb: installing Rust with rustup below $out/rust"
        curl -fsS --retry 3 -o "$from" "$rustup/$target/rustup-init"
        [[ $(curl -fsS --retry 3 "$rustup/$target/rustup-init.sha256") == "$(sha256sum <"$from" | cut -d ' ' -f 1)"* ]] ||
            die "$from is not what it should be"
        chmod +x "$from"
        "$from" -y --quiet --no-modify-path --profile minimal --default-toolchain stable
        rm -f "$from"
    fi
}

# check PACKAGE...: nothing that lintian finds is too small to stop. Which version of Debian's policy is the newest depends on
# the release that looks, and this is one source for several.
check() {
    lintian --suppress-tags out-of-date-standards-version --allow-root --info --display-info --display-experimental --pedantic \
        --tag-display-limit 0 --fail-on error,warning,info,pedantic,experimental "$@"
}

# build NAME [OPTION...]: builds a copy of the tree below $out/NAME, where the packages are then, too. What was built there
# before counts, since cargo goes by the times of files. Options are those of dpkg-buildpackage.
build() {
    local at=$out/$1 options=(-us -uc -b "${@:2}")
    rm -rf "${at:?}/transfer"
    mkdir -p "$at/transfer"
    rm -f "$at"/*.{deb,changes,buildinfo,dsc,tar.xz}
    tar -c --exclude=./target --exclude=./.git --exclude=./debian/{build,cargo-home,generated,transfer,transfer-agent,.debhelper} . |
        tar -x -C "$at/transfer"
    # The source package, for lintian to look at.
    (cd "$at" && dpkg-source -b transfer >/dev/null)
    # Packages cannot say that a cargo in PATH is as good: debian/rules looks at it.
    (cd "$at/transfer" && dpkg-checkbuilddeps) || options+=(-d)
    (cd "$at/transfer" && CARGO_TARGET_DIR=$at/cargo dpkg-buildpackage "${options[@]}")
    rm -rf "${at:?}/transfer"
}

case ${1-once} in
once | twice) ;;
arm64)
    prepare
    scripts/setup.sh arm64
    # Build-Depends would require the tools of arm64 itself.
    DEB_BUILD_OPTIONS=nocheck build arm64 -d --host-arch arm64 --build-profiles=cross,nocheck,pkg.transfer.agent
    check "$out"/arm64/*.changes
    ls -l "$out"/arm64/*.deb
    exit
    ;;
*)
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
mkdir -p "$out"
prepare
build build
rm -f "$out"/*.{deb,changes,buildinfo}
cp "$out"/build/*.{deb,changes,buildinfo} "$out"
# One after the other: of both at once lintian counts what is overridden.
check "$out"/*.changes
check "$out"/build/*.dsc
if [[ ${1-once} == twice ]]; then
    # Another directory, another home directory, and the crates in another place, which are copied since they are there.
    export RUSTUP_HOME=${RUSTUP_HOME:-$HOME/.rustup}
    rm -rf "$out/again"
    mkdir -p "$out/again/crates/registry"
    cp -a "${CARGO_HOME:-$HOME/.cargo}"/registry/{cache,index} "$out/again/crates/registry" || :
    (umask 0002 && HOME=$out/again CARGO_HOME=$out/again/crates TZ=Asia/Kathmandu LC_ALL=C build again/somewhere/else)
    for package in "$out"/*.deb; do cmp "$package" "$out/again/somewhere/else/${package##*/}"; done
    rm -rf "$out/again"
    echo "deb: built twice, with the same bytes"
fi
ls -l "$out"/*.deb
