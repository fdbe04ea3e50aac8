//! Attacks by ordinary accounts of the hosts, by a hostile end and on the wire, run on hosts of the lab.
//!
//! `eve` is the attacker. Each test asserts that she gains nothing, the run's exit code, and a message that
//! names the cause. Tests that change a whole host have the prefix `exclusive_`.

mod accounts;
mod assertions;
mod configuration;
mod denial;
mod digests;
mod evidence;
mod gate;
mod locks;
mod paths;
mod servers;
mod source;
mod staging;

#[path = "../support"]
mod support {
    pub(crate) mod accounts;
    pub(crate) mod attackers;
    pub(crate) mod changes;
    pub(crate) mod commands;
    pub(crate) mod copies;
    pub(crate) mod held;
    pub(crate) mod holder;
    pub(crate) mod hosts;
    pub(crate) mod output;
    #[allow(dead_code, reason = "the tests of the holder use the rest")]
    pub(crate) mod roots;
    pub(crate) mod scenes;
    pub(crate) mod scratch;
    pub(crate) mod servers;
    pub(crate) mod trees;
    pub(crate) mod waiting;
}
