.PHONY: help setup build demo generated test test-damage soak fuzz lint bench deb deb-twice deb-trixie test-package agent-arm64 test-arm64 clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## install what this machine lacks, with apt
	scripts/setup.sh test

build: ## target/release/transfer, and transfer-agent beside it
	scripts/build.sh

demo: ## build it and watch it copy a made-up database on this machine
	scripts/demo.sh

generated: ## options in the documents and in transfer.conf.example, from their declarations
	cargo run --locked --features manual --bin transfer-manual -- --documents .

test: ## all tests; LAB=off: without those on real hosts; ARGS='...': for cargo nextest run
	scripts/test.sh $(ARGS)

test-damage: ## the whole damage matrix, DAMAGE_LANES (6) cells at a time; ARGS='...': for cargo nextest run
	scripts/damage.sh all $(ARGS)

soak: ## 300 transfers with faults in ten minutes, from SOAK_SEED or a new one, in a lab of its own
	scripts/soak.sh $(ARGS)

lint: ## formatting, clippy, shellcheck
	cargo fmt --check
	cargo clippy --locked --all-targets --features manual -- -D warnings
	scripts/lint.sh

fuzz: ## what hostile hosts may answer, made up: FUZZ_SECONDS (60) for each target, TARGETS='...' for some
	scripts/fuzz.sh $(TARGETS)

bench: build ## measure it, in a lab of its own
	scripts/setup.sh test
	tests/bench/bench.sh

deb: ## the Debian packages, in target/debian, checked with lintian; installs with apt, or rustup, what that needs
	scripts/deb.sh

deb-twice: ## the same, and a second time elsewhere: both have to be identical
	scripts/deb.sh twice

deb-trixie: ## make deb in a fresh Debian 13, with that release's own Rust
	tests/package/trixie.sh

test-package: ## the packages installed, used, upgraded, removed and purged in a host of the lab
	tests/package/lifecycle.sh

agent-arm64: ## the agent for hosts with arm64; installs a compiler with apt, and a target with rustup
	scripts/agent-arm64.sh

test-arm64: ## conversations with that agent, on an emulated CPU; ARGS='...': for cargo nextest run
	scripts/agent-arm64.sh test $(ARGS)

clean: ## remove what was built
	cargo clean
