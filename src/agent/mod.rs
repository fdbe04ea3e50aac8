//! The program that works on a host, `transfer-agent`: it makes changes, keeps their undos in a journal, and
//! rolls back. docs/design/agent.md describes it.
//!
//! The controller decides; nothing here does. All names of processes, sockets and files that other users of
//! the host could choose are checked by what the kernel vouches for: inodes, user IDs, peer credentials.

pub(crate) mod accounts;
pub(crate) mod facts;
pub(crate) mod files;
pub(crate) mod firewall;
pub(crate) mod flock;
pub(crate) mod holders;
pub(crate) mod job;
pub(crate) mod jobs;
pub(crate) mod journal;
pub(crate) mod locks;
pub(crate) mod mounts;
pub(crate) mod proc;
pub(crate) mod processes;
pub(crate) mod programs;
pub(crate) mod rollback;
#[cfg(test)]
pub(crate) mod scenes;
pub(crate) mod service;
pub(crate) mod sockets;
pub(crate) mod state;
pub(crate) mod tool;
pub(crate) mod trust;
pub(crate) mod units;
