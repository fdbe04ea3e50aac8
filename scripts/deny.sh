#!/usr/bin/env bash
# Checks the crates: their licenses, where they come from and that none is forbidden, without the network; and where the
# database of advisories can be reached, that none is known to be bad.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

if ! cargo deny --version &>/dev/null; then
    # Not as fast as it could be, but there much sooner.
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=0 \
        cargo install cargo-deny --locked --quiet
fi
cargo fetch --locked --quiet
cargo deny --offline --locked check --hide-inclusion-graph licenses bans sources
if timeout 120 cargo deny fetch db &>/dev/null; then
    cargo deny --offline --locked check advisories
else
    echo "deny: the database of advisories cannot be reached, so they were not checked"
fi
