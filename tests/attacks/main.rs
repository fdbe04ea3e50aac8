//! Attacks by local users of the hosts, and by hostile hosts, each a real run in the lab.

#[expect(dead_code, reason = "shared with the tests of the lab")]
#[path = "../lab/fixtures.rs"]
mod fixtures;
#[expect(dead_code, reason = "shared with the tests of the lab")]
#[path = "../lab/harness.rs"]
mod harness;

mod accounts;
mod impostor;
mod servers;
mod stand;
