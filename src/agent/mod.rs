//! The program that works on a host, `transfer-agent`: it makes changes, keeps their undos in a journal, and
//! rolls back. docs/design/agent.md describes it.
//!
//! The controller decides; nothing here does. All names of processes, sockets and files that other users of
//! the host could choose are checked by what the kernel vouches for: inodes, user IDs, peer credentials.

pub(crate) mod files;
pub(crate) mod tool;
