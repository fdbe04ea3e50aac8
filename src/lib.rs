//! Copies databases and large directory trees between the hosts of a data center.
//!
//! ```text
//! argv ─▶ cli ─▶ config ─▶ probe ─▶ preflight ─▶ plan ─▶ run ─▶ report ─▶ exit code
//!                  ▲          │                           │
//!                 file        └── host/ (ssh | local,     ├── engine/: connect, stream ─▶ a verdict per target
//!                                        agent)           ├── mariadb/: backup, quiesce, replicate
//!                                                         └── lease: port, firewall, staging
//! ```
//!
//! Dependencies point down the list of modules in `docs/architecture.md` and never back; `tests/layers.rs` checks
//! that.

pub mod admin;
#[allow(dead_code, reason = "in work: the controller still sends scripts")]
pub mod agent;
pub mod base;
pub mod cli;
pub mod config;
pub mod engine;
pub mod error;
mod firewall;
pub mod history;
pub mod host;
pub mod lease;
pub mod mariadb;
mod pipeline;
pub mod plan;
pub mod preflight;
pub mod probe;
mod progress;
pub mod proto;
pub mod report;
pub mod run;
mod shape;
pub mod verify;
