//! Sockets on a transfer port, as reported by the agents.

use std::net::SocketAddr;

use crate::host::wire::printable;

/// Maximum number of sockets of a port that are evaluated.
const MOST_SOCKETS: usize = 64;

/// Sockets on the port of a target, as reported by `sockets.pl` there.
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
    /// Parses an agent's reply.
    #[must_use]
    pub fn parse(fields: &[Vec<u8>]) -> Self {
        let mut port = Self { listens: fields.iter().any(|field| field == b"listening"), ..Self::default() };
        let mut others = Vec::new();
        for field in fields.iter().take(MOST_SOCKETS) {
            let text = printable(field);
            match text.split_once(' ') {
                Some(("ours", peer)) => port.ours.extend(socket(peer)),
                Some(("other", peer)) => {
                    port.unexpected.extend(socket(peer));
                    others.push(format!("a connection from {peer}"));
                }
                Some(("listener", own)) => others.push(format!("a listener on {own}")),
                _ => {}
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

/// Parses the reply of the source's agent and returns the local addresses of our connections to a target's
/// socket.
#[must_use]
pub fn made_to(fields: &[Vec<u8>], to: SocketAddr) -> Vec<SocketAddr> {
    let to = SocketAddr::new(to.ip().to_canonical(), to.port());
    let made = |field: &Vec<u8>| {
        let text = printable(field);
        let mut ends = text.strip_prefix("ours ")?.split(' ').map(socket);
        let (own, peer) = (ends.next()??, ends.next()??);
        (peer == to).then_some(own)
    };
    fields.iter().take(MOST_SOCKETS).filter_map(made).collect()
}

/// Parses a socket address and converts an IPv4-mapped one to IPv4.
fn socket(text: &str) -> Option<SocketAddr> {
    let socket = text.parse::<SocketAddr>().ok()?;
    Some(SocketAddr::new(socket.ip().to_canonical(), socket.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(rows: &[&str]) -> Vec<Vec<u8>> {
        rows.iter().map(|row| row.as_bytes().to_vec()).collect()
    }

    fn sockets(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn gate_opens_only_for_a_single_connection_of_ours() {
        let made = sockets(&["10.0.0.1:40000"]);
        let is_only = |rows: &[&str]| Port::parse(&fields(rows)).is_only(&made);
        assert!(is_only(&["ours 10.0.0.1:40000"]));
        assert!(is_only(&["ours [::ffff:10.0.0.1]:40000", "rubbish"]));
        assert!(!is_only(&[]));
        assert!(!is_only(&["ours 10.0.0.2:40000"]));
        assert!(!is_only(&["ours 10.0.0.1:40000", "ours 10.0.0.2:5"]));
        assert!(!is_only(&["ours 10.0.0.1:40000", "other 10.0.0.2:5"]));
        assert!(!is_only(&["ours 10.0.0.1:40000", "listener 0.0.0.0:4400"]));
        assert!(!is_only(&["other 10.0.0.1:40000"]));
        assert!(
            !Port::parse(&fields(&["ours 10.0.0.1:40000"]))
                .is_only(&sockets(&["10.0.0.1:40000", "10.0.0.1:40001"]))
        );
    }

    #[test]
    fn only_connections_to_the_target_count() {
        let rows = fields(&[
            "ours 10.0.0.1:40000 10.0.0.2:4400",
            "ours 10.0.0.1:40001 10.0.0.3:4400",
            "ours [fd77::1]:40002 [fd77::2]:4400",
            "10.0.0.1:1 10.0.0.2:4400",
        ]);
        assert_eq!(made_to(&rows, "10.0.0.2:4400".parse().unwrap()), sockets(&["10.0.0.1:40000"]));
        assert_eq!(made_to(&rows, "[fd77::2]:4400".parse().unwrap()), sockets(&["[fd77::1]:40002"]));
    }
}
