#!/usr/bin/env bash
# Builds transfer and the agent that it sends to hosts, both for release and beside each other: target/release/transfer and
# target/release/transfer-agent. The agent is linked statically, so that it runs on hosts with another C library.
#
#   build.sh [OPTION...]     both; options are those of `cargo build`
#   build.sh agent [CPU]     only the agent; CPU (aarch64) is that of other hosts: target/CPU-unknown-linux-gnu/release
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

target=${CARGO_TARGET_DIR:-target}
# Bytes. Each run sends the agent to each host.
largest=$((3 << 20))

die() {
    printf 'build: %s\n' "$*" >&2
    exit 1
}

# agent [CPU]
agent() {
    local cpu=${1-} below=$target options=() linker file bytes
    if [[ $cpu ]]; then
        below=$target/$cpu-unknown-linux-gnu
        options=(--target "$cpu-unknown-linux-gnu")
        # The crates that compile C find the compiler by this name, too.
        linker=CARGO_TARGET_${cpu^^}_UNKNOWN_LINUX_GNU_LINKER
        export "$linker=${!linker:-$cpu-linux-gnu-gcc}"
    fi
    # A linker that cannot pack relocations leaves them as they are.
    cargo rustc --profile agent --locked --no-default-features --bin transfer-agent "${options[@]}" -- \
        -C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs
    file=$below/release/transfer-agent
    # Replaced, not written: cargo's own file is a link to another one.
    install -D "$below/agent/transfer-agent" "$file"
    ! LC_ALL=C readelf --dynamic --program-headers "$file" | grep -E 'NEEDED|INTERP' || die "$file is not linked statically"
    bytes=$(stat -c %s "$file")
    ((bytes <= largest)) || die "$file has $bytes bytes, more than $largest; what is it linked with?"
}

case ${1-} in
agent)
    (($# <= 2)) || die "expected a CPU, found: ${*:2}"
    agent "${2-}"
    ;;
*)
    cargo build --release --locked --bin transfer "$@"
    agent
    ;;
esac
