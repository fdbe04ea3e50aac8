//! Sockets of a job on a port.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Socket on an address and port of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortSocket {
    /// A process of the job listens.
    Listening,
    /// Connection of the job, from this peer.
    Ours(SocketAddr),
    /// Connection that another process has accepted, from this peer.
    Other(SocketAddr),
    /// Another process listens at this address.
    Listener(SocketAddr),
}

/// Connection that a job has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Own address.
    pub own: SocketAddr,
    /// Address of the peer.
    pub peer: SocketAddr,
}
