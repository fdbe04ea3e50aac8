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
//! that. Without the feature `controller` there is only what the agent needs.

#![cfg_attr(
    not(feature = "controller"),
    allow(dead_code, unreachable_pub, reason = "used by the controller")
)]

#[cfg(feature = "controller")]
pub mod admin;
pub mod agent;
pub mod base;
#[cfg(feature = "controller")]
pub mod cli;
#[cfg(feature = "controller")]
pub mod config;
#[cfg(feature = "controller")]
pub mod engine;
#[cfg(feature = "controller")]
pub mod error;
#[cfg(feature = "controller")]
mod firewall;
#[cfg(feature = "controller")]
pub mod history;
#[cfg(feature = "controller")]
pub mod host;
#[cfg(feature = "controller")]
pub mod lease;
#[cfg(feature = "controller")]
pub mod mariadb;
#[cfg(feature = "controller")]
mod pipeline;
#[cfg(feature = "controller")]
pub mod plan;
#[cfg(feature = "controller")]
pub mod preflight;
#[cfg(feature = "controller")]
pub mod probe;
#[cfg(feature = "controller")]
mod progress;
pub mod proto;
#[cfg(feature = "controller")]
pub mod report;
#[cfg(feature = "controller")]
pub mod run;
#[cfg(feature = "controller")]
mod shape;
#[cfg(feature = "controller")]
pub mod verify;
