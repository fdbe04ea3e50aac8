//! Attacks by ordinary accounts of the hosts, by a hostile end and on the wire, run on hosts of the lab.
//!
//! `eve` is the attacker. Each test asserts that she gains nothing, the run's exit code, and a message that names the cause.
//! Tests that change a whole host have the prefix `exclusive_`.

#[path = "../lab/fixtures.rs"]
#[allow(dead_code, reason = "shared with the tests of the lab")]
mod fixtures;
#[path = "../lab/harness.rs"]
#[allow(dead_code, reason = "shared with the tests of the lab")]
mod harness;
#[path = "../lab/processes.rs"]
#[allow(dead_code, reason = "shared with the tests of the lab")]
mod processes;
#[path = "../lab/snapshot.rs"]
#[allow(dead_code, reason = "shared with the tests of the lab")]
mod snapshot;

mod accounts;
mod configuration;
mod denial;
mod digests;
mod eve;
mod evidence;
mod gate;
mod impostor;
mod locks;
mod paths;
mod scene;
mod servers;
mod source;
mod staging;
mod stand;
