//! The program on this machine: without SSH and the lab, and without root except where owners and permissions
//! matter.
//!
//! Each test has a [`support::local::sandbox::Sandbox`]: directories, an account and a state of its own, so
//! that tests can run in parallel. [`support::local::holds`] stops a run at a chosen point; no test depends
//! on timing.

mod archives;
mod choices;
mod configuration;
mod copies;
mod damage;
mod deciding;
mod evidence;
mod failures;
mod history;
mod hooks;
mod hostile;
mod interrupts;
mod json;
mod kills;
mod limits;
mod options;
mod output;
mod refusals;
mod screens;
mod secrets;
mod targets;
mod terminal;

#[path = "../support"]
mod support {
    #[allow(unused_imports, reason = "the tests of the lab use the rest")]
    pub(crate) mod holder;
    pub(crate) mod local;
    pub(crate) mod output;
    pub(crate) mod schema;
    pub(crate) mod waiting;
}
