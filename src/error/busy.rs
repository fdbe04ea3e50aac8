//! Resources of hosts that other runs or programs use.

use std::fmt;

use crate::base::endpoint::HostName;

/// Resource of a host that is in use. All texts are printable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Busy {
    /// The host.
    pub host: HostName,
    /// The resource.
    pub resource: Resource,
    /// Command that shows which runs use the host.
    pub status: String,
}

/// Resource in use, with what the host reported about its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    /// The only port that the run may use.
    Port {
        /// The port.
        port: u16,
        /// Holder of the port.
        holder: String,
    },
    /// All ports that the run may use.
    Ports {
        /// First and last port.
        range: (u16, u16),
        /// Number of ports by their kind of holder.
        holder: String,
    },
    /// The only port that the run may use, which was lost between its lock and the start of the receiver.
    LostPort(u16),
    /// All ports up to this one, each lost in this way.
    LostPorts(u16),
    /// As many ports as a run tries: each was lost, or accepted a connection from another client.
    TriedPorts(usize),
    /// The transfer's port, which kept accepting connections from other clients.
    Connection {
        /// The last connection.
        text: String,
        /// Number of attempts.
        attempts: usize,
    },
    /// A final name that another run writes to.
    Name {
        /// The path.
        path: String,
        /// Run that writes; empty if it has just started.
        holder: String,
    },
    /// A final name that another process created after the preflight.
    NewName(String),
    /// A directory to be filled that another process filled after the preflight.
    FilledName(String),
    /// A server that another run has quiesced.
    Server {
        /// Data directory.
        datadir: String,
        /// Run that has quiesced it.
        holder: String,
    },
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, resource, status } = self;
        write!(f, "{host}: ")?;
        match resource {
            Resource::Port { port, holder } => {
                write!(f, "port {port} is taken ({holder}); choose another --port, or 0 for any")
            }
            Resource::Ports { range: (first, last), holder } => {
                write!(f, "no free port in {first}-{last} ({holder}); see: {status}")
            }
            Resource::LostPort(port) => write!(f, "port {port} was taken; choose another --port"),
            Resource::LostPorts(last) => write!(f, "every port up to {last} was taken by other programs"),
            Resource::TriedPorts(tries) => write!(
                f,
                "gave up after {tries} ports: each was taken or accepted a connection from another client"
            ),
            Resource::Connection { text, attempts } => write!(f, "{text}; gave up after {attempts} attempts"),
            Resource::Name { path, holder } => {
                let holder = if holder.is_empty() { "a run that has just started" } else { holder };
                write!(f, "another run writes to {path}: {holder}; see: {status}")
            }
            Resource::NewName(path) => {
                write!(f, "{path} was created by another process since the preflight; it is left unchanged")
            }
            Resource::FilledName(path) => {
                write!(f, "{path} was filled by another process since the preflight; it is left unchanged")
            }
            Resource::Server { datadir, holder } => {
                write!(f, "another run has quiesced the server in {datadir}: {holder}; see: {status}")
            }
        }
    }
}
