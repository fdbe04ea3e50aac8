#!/usr/bin/env bash
# Builds the programs and what makes the manual with the oldest Rust that Cargo.toml promises, and the agent without the
# crates of the controller. The tests may need a newer one.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

version=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
rustup run "$version" rustc --version 2>/dev/null || rustup toolchain install "$version" --profile minimal --no-self-update
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/minimum
cargo "+$version" build --locked --bins --features manual
cargo "+$version" build --locked --bin transfer-agent --no-default-features
