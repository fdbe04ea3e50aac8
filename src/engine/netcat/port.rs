//! Sockets on a transfer port, as reported by the agents.

use std::net::SocketAddr;

use crate::proto::sockets::{Connection, PortSocket};

/// Maximum number of sockets of a port that are evaluated.
const MOST_SOCKETS: usize = 64;

/// Sockets on the port of a target, as reported by its agent.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// Whether our receiver listens.
    pub(super) listens: bool,
    /// Peers whose connections our receiver has accepted.
    pub(super) ours: Vec<SocketAddr>,
    /// Description of the connections and listeners of other processes.
    pub(super) others: Option<String>,
    /// Peers whose connections other processes have accepted.
    unexpected: Vec<SocketAddr>,
}

impl Port {
    /// Evaluates the sockets that an agent has reported.
    #[must_use]
    pub fn of(sockets: &[PortSocket]) -> Self {
        let mut port = Self::default();
        let mut others = Vec::new();
        for socket in sockets.iter().take(MOST_SOCKETS) {
            match socket {
                PortSocket::Listening => port.listens = true,
                PortSocket::Ours(peer) => port.ours.push(canonical(*peer)),
                PortSocket::Other(peer) => {
                    port.unexpected.push(canonical(*peer));
                    others.push(format!("a connection from {peer}"));
                }
                PortSocket::Listener(own) => others.push(format!("a listener on {own}")),
            }
        }
        port.others = (!others.is_empty()).then(|| others.join(", "));
        port
    }

    /// Returns whether there is exactly one connection, it is ours at both ends, and no other process uses
    /// the port.
    #[must_use]
    pub fn is_only(&self, made: &[SocketAddr]) -> bool {
        self.others.is_none() && self.ours.len() == 1 && self.ours == made
    }

    /// Returns the peers of all accepted connections, those of our receiver first.
    pub(super) fn accepted(&self) -> Vec<SocketAddr> {
        [&self.ours[..], &self.unexpected].concat()
    }
}

/// Returns the local addresses of those of our connections that lead to a target's socket.
#[must_use]
pub fn made_to(connections: &[Connection], to: SocketAddr) -> Vec<SocketAddr> {
    let to = canonical(to);
    let made = connections.iter().take(MOST_SOCKETS).filter(|made| canonical(made.peer) == to);
    made.map(|made| canonical(made.own)).collect()
}

/// Returns an IPv4-mapped address as IPv4.
fn canonical(socket: SocketAddr) -> SocketAddr {
    SocketAddr::new(socket.ip().to_canonical(), socket.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn gate_opens_only_for_a_single_connection_of_ours() {
        use PortSocket::{Listener, Other, Ours};
        let [ours, second, other] = ["10.0.0.1:40000", "10.0.0.1:40001", "10.0.0.2:5"].map(socket);
        let is_only = |sockets: &[PortSocket]| Port::of(sockets).is_only(&[ours]);
        assert!(is_only(&[Ours(ours)]));
        assert!(is_only(&[Ours(socket("[::ffff:10.0.0.1]:40000")), PortSocket::Listening]));
        assert!(!is_only(&[]));
        assert!(!is_only(&[Ours(other)]));
        assert!(!is_only(&[Ours(ours), Ours(other)]));
        assert!(!is_only(&[Ours(ours), Other(other)]));
        assert!(!is_only(&[Ours(ours), Listener(socket("0.0.0.0:4400"))]));
        assert!(!is_only(&[Other(ours)]));
        assert!(!Port::of(&[Ours(ours)]).is_only(&[ours, second]));
    }

    #[test]
    fn only_connections_to_the_target_count() {
        let made = |own, peer| Connection { own: socket(own), peer: socket(peer) };
        let connections = [
            made("10.0.0.1:40000", "10.0.0.2:4400"),
            made("10.0.0.1:40001", "10.0.0.3:4400"),
            made("[fd77::1]:40002", "[fd77::2]:4400"),
        ];
        assert_eq!(made_to(&connections, socket("10.0.0.2:4400")), [socket("10.0.0.1:40000")]);
        assert_eq!(made_to(&connections, socket("[fd77::2]:4400")), [socket("[fd77::1]:40002")]);
    }
}
