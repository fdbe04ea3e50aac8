//! Tests on real Debian hosts, in the lab that `lab.sh` brings up; `README.md` beside this file says how it is made and
//! how to run one. Tests share the hosts and run at the same time, each in directories of its own; the ones that look
//! at or break a whole host are in a module called `alone`, which `.config/nextest.toml` runs by itself.

mod ansible;
mod attributes;
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
mod odd;
mod preflight;
mod processes;
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
mod twins;
mod ways;
mod wire;
