//! The real binary on this machine: no SSH, no lab, and no root but where owners and other users' rights matter.
//!
//! Each test has a [`harness::Sandbox`]: directories, an account and a state of its own, so that tests may run side by
//! side. What has to be caught in the middle of a run is held there by [`hold`]; nothing waits for luck.

mod archives;
mod choices;
mod configuration;
mod copies;
mod damage;
mod deciding;
mod evidence;
mod failures;
mod harness;
mod history;
mod hold;
mod hooks;
mod hostile;
mod interrupts;
mod json;
mod kills;
mod limits;
mod options;
mod output;
mod procs;
mod refusals;
mod running;
#[path = "../schema/mod.rs"]
mod schema;
mod screens;
mod secrets;
mod targets;
mod terminal;
mod tree;
