//! Tests on real Debian hosts, in the lab that `lab.sh` brings up; `README.md` beside this file describes it.
//!
//! Tests share the hosts and run in parallel, each in directories of its own. Tests that inspect or break a
//! whole host have the prefix `exclusive_`; `.config/nextest.toml` runs each of them with no other test
//! beside it.

mod access;
mod ansible;
mod attributes;
mod bare_hosts;
mod concurrent_runs;
mod copies;
mod crashes;
mod cuts;
mod databases;
mod durability;
mod firewalls;
mod journal;
mod kills;
mod names;
mod networks;
mod preflight;
mod quoting;
mod secrets;
mod self_test;
mod signals;
mod soak;
mod syscalls;
mod targets;
mod wire;

#[path = "../support"]
mod support {
    pub(crate) mod accounts;
    pub(crate) mod agents;
    pub(crate) mod changes;
    pub(crate) mod commands;
    pub(crate) mod copies;
    pub(crate) mod documents;
    pub(crate) mod every_kind;
    pub(crate) mod firewall;
    pub(crate) mod held;
    pub(crate) mod holder;
    pub(crate) mod hosts;
    pub(crate) mod inputs;
    pub(crate) mod lab_scenes;
    pub(crate) mod lacks;
    pub(crate) mod midstream;
    pub(crate) mod outages;
    pub(crate) mod output;
    pub(crate) mod processes;
    #[allow(dead_code, reason = "the tests of the holder use the rest")]
    pub(crate) mod roots;
    pub(crate) mod scenes;
    pub(crate) mod schema;
    pub(crate) mod scratch;
    pub(crate) mod servers;
    pub(crate) mod snapshots;
    pub(crate) mod trees;
    pub(crate) mod waiting;
    pub(crate) mod words;
}
