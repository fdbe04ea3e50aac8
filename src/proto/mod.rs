//! Messages between controller and agents, and records of the journal: types with one encoding, used by both
//! ends. No input or output here.
//!
//! A host may be hostile, and so may its other users. Every decoder here is bounded: [`frame`] limits the size
//! of a message, [`Text`] and [`HostBytes`] that of their contents. docs/design/agent.md describes the
//! conversation.

pub mod attach;
mod bounded;
mod bytes;
pub mod command;
pub mod facts;
pub mod files;
pub mod frame;
pub mod hello;
pub mod job;
pub mod journal;
pub mod locks;
pub mod name;
pub mod secret;
pub mod server;
pub mod sockets;
pub mod status;
pub mod task;
pub mod vault;

pub use bytes::{HostBytes, Text};
