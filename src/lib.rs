//! Copies databases and large directory trees between the hosts of a data center.
//!
//! ```text
//! argv ─▶ cli ─▶ settings ─▶ probe ─▶ preflight ─▶ plan ─▶ transfer (1 → N) ─▶ report ─▶ exit code
//!                  ▲            │                              │
//!                 file          └── host/ (ssh | local, agent) ┴── lease: port, firewall, staging
//!                                                                  pipeline/: stages, render
//!                                                                  verify
//! ```
//!
//! Dependencies point down the list of modules in `docs/architecture.md` and never back; `tests/layers.rs` checks
//! that.

pub mod admin;
mod backup;
mod busy;
pub mod cli;
pub mod dry_run;
pub mod endpoint;
pub mod error;
pub mod exit;
mod firewall;
mod fleet;
pub mod history;
mod hooks;
pub mod host;
pub mod json;
pub mod lease;
pub mod log;
#[cfg(feature = "manual")]
pub mod manual;
pub mod memory;
mod metrics;
mod options;
mod pipeline;
pub mod plan;
pub mod preflight;
mod printable;
pub mod probe;
mod progress;
pub mod recorded;
mod replace;
mod replica;
pub mod report;
pub mod run;
pub mod run_id;
pub mod settings;
mod shape;
pub mod signals;
mod terminal;
pub mod transfer;
mod trust;
pub mod values;
pub mod verify;
