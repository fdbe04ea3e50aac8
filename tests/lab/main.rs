//! Tests on real Debian hosts, in the lab that `lab.sh` brings up; `README.md` beside this file describes it.
//!
//! Tests share the hosts and run in parallel, each in directories of its own. Tests that inspect or break a whole host
//! have the prefix `exclusive_`; `.config/nextest.toml` runs each of them with no other test beside it.

mod access;
mod ansible;
mod attributes;
mod concurrent_runs;
mod copies;
mod crashes;
mod databases;
mod durability;
mod firewalls;
mod fixtures;
#[allow(dead_code, reason = "shared with damage.rs")]
mod harness;
mod journal;
mod kills;
#[path = "../markdown/mod.rs"]
mod markdown;
mod names;
mod networks;
mod preflight;
mod processes;
mod quoting;
mod scene;
#[path = "../schema/mod.rs"]
mod schema;
mod secrets;
mod self_test;
mod signals;
mod snapshot;
mod soak;
mod syscalls;
mod targets;
mod wire;
