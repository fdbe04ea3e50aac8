#!/usr/bin/env bash
# `make deb` on a fresh Debian 13, with that release's own Rust: in a root that mmdebstrap makes for it and removes. The
# package is in target/trixie afterwards.
#
# The tree goes in without target/. The machine's crates go in, too, so that cargo needs no network in there; what is missing
# it fetches. The machine's certificates are those that its network needs, so they are taken as well.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.."
suite=trixie
out=$PWD/target/trixie

# hook ROOT: what is done in the root.
hook() {
    local root=$1
    # As a user who cloned it.
    mkdir -p "$root/home/build/transfer" "$root/root/.cargo/registry"
    tar -c --exclude=./target --exclude=./.git . | tar -x --no-same-owner -C "$root/home/build/transfer"
    cp -r "${CARGO_HOME:-$HOME/.cargo}"/registry/{cache,index} "$root/root/.cargo/registry/" || true
    cp -L /etc/resolv.conf "$root/etc/resolv.conf"
    mkdir -p "$root/usr/local/share/ca-certificates"
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/root/machine.crt"
    # shellcheck disable=SC2016 # for the root's shell
    chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 CARGO_HTTP_CAINFO=/root/machine.crt \
        bash -euo pipefail -c 'exec </dev/null
            cd /home/build/transfer
            . /etc/os-release && echo "trixie: $PRETTY_NAME" && [[ $VERSION_ID == 13 ]]
            make deb
            rustc --version | tee target/debian/rustc | grep "^rustc 1\.85\."
            lintian --version'
    rm -rf "$out"
    mkdir -p "$out"
    cp "$root"/home/build/transfer/target/debian/*.{deb,changes,buildinfo} "$root"/home/build/transfer/target/debian/rustc "$out"
}

# The machine's own mirror, as far as its sources name one; the keys are those of all releases.
sources() {
    local file
    for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list; do
        [[ ! -f $file ]] || sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' "$file"
    done | grep -m 1 '/debian/*$' || echo http://deb.debian.org/debian
}

if [[ ${1-} == _hook ]]; then
    hook "$2"
    exit
fi
scripts/setup.sh test
# Fetches everything in Cargo.lock into the machine's cache.
cargo fetch --locked --quiet
mmdebstrap --mode=root --variant=minbase --format=null --include=make,ca-certificates --dpkgopt=force-unsafe-io \
    --customize-hook="'$PWD/tests/package/trixie.sh' _hook \"\$1\"" \
    "$suite" /dev/null "deb $(sources) $suite main"
ls -l "$out"
