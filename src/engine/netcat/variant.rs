//! Dialects of netcat on Debian: how to recognize them, their command lines and their messages, which have
//! nothing in common.

use std::net::IpAddr;

/// A netcat of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netcat {
    /// Implementation.
    pub dialect: Dialect,
    /// Name of the program on the host: `nc` can be any of them.
    pub program: String,
}

/// Implementation of netcat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Package netcat-openbsd.
    OpenBsd,
    /// Package netcat-traditional, by Hobbit. IPv4 only.
    Traditional,
    /// Package ncat, of the Nmap project.
    Ncat,
}

impl Default for Netcat {
    fn default() -> Self {
        Self { dialect: Dialect::OpenBsd, program: "nc".into() }
    }
}

impl Netcat {
    /// Recognizes a netcat by the first line of its help. `None` for an unknown one.
    #[must_use]
    pub fn from_help(program: &str, help: &str) -> Option<Self> {
        let dialect = match help {
            _ if help.starts_with("OpenBSD netcat") => Dialect::OpenBsd,
            _ if help.starts_with("[v1.1") => Dialect::Traditional,
            _ if help.starts_with("Ncat ") => Dialect::Ncat,
            _ => return None,
        };
        Some(Self { dialect, program: program.to_owned() })
    }

    /// Returns whether the program supports the family of an address.
    #[must_use]
    pub(crate) fn speaks(&self, address: IpAddr) -> bool {
        address.is_ipv4() || self.dialect != Dialect::Traditional
    }

    /// Returns the command that accepts one connection and writes the received data until the peer closes
    /// it. Its input is empty.
    #[must_use]
    pub fn listen(&self, address: IpAddr, port: u16) -> Vec<String> {
        let (address, port) = (address.to_string(), port.to_string());
        match self.dialect {
            Dialect::OpenBsd => self.words(&["-n", "-d", "-l", &address, &port]),
            // Without -v it does not report that the port is taken, and retries for a long time.
            Dialect::Traditional => self.words(&["-n", "-v", "-l", "-s", &address, "-p", &port]),
            // --recv-only would close its half of the connection, and a traditional sender would end at that
            // as if it were done.
            Dialect::Ncat => self.words(&["-n", "--no-shutdown", "-l", &address, &port]),
        }
    }

    /// Returns the command that connects, optionally from a given local address, and sends its input to the
    /// end, without a time limit for the first byte.
    #[must_use]
    pub fn connect(&self, from: Option<IpAddr>, address: IpAddr, port: u16) -> Vec<String> {
        let (address, port) = (address.to_string(), port.to_string());
        let mut words = self.connect_to(&address, &port);
        if let Some(from) = from {
            words.splice(1..1, ["-s".to_owned(), from.to_string()]);
        }
        words
    }

    fn connect_to(&self, address: &str, port: &str) -> Vec<String> {
        // Without -v the first two do not report a refused connection. The agent drops their messages of
        // success.
        match self.dialect {
            Dialect::OpenBsd => self.words(&["-n", "-N", "-v", address, port]),
            Dialect::Traditional => self.words(&["-n", "-v", "-q", "0", address, port]),
            Dialect::Ncat => self.words(&["-n", "--send-only", address, port]),
        }
    }

    /// Returns whether a line of standard error may come from this netcat.
    #[must_use]
    pub(crate) fn wrote(&self, line: &str) -> bool {
        match self.dialect {
            Dialect::OpenBsd => line.starts_with("nc"),
            // Its lines begin with the peer's name, if there is one.
            Dialect::Traditional => line.contains('['),
            Dialect::Ncat => line.starts_with("Ncat: "),
        }
    }

    /// Returns whether a line reports that the connection to a peer failed for good. ncat does not name the
    /// peer: its message counts only if there is just one (`alone`).
    #[must_use]
    pub fn gives_up(&self, line: &str, address: IpAddr, port: u16, alone: bool) -> bool {
        match self.dialect {
            Dialect::OpenBsd => line.contains(&format!(" {address} port {port} (tcp) failed: ")),
            Dialect::Traditional => line
                .split_once(&format!(" [{address}] {port} ("))
                .is_some_and(|(_, rest)| rest.contains(") : ")),
            Dialect::Ncat => alone && line.starts_with("Ncat: "),
        }
    }

    /// Returns whether a line of a listener, of any dialect, reports that the port is in use.
    #[must_use]
    pub fn finds_port_taken(line: &str) -> bool {
        line.contains("Address already in use")
    }

    fn words(&self, arguments: &[&str]) -> Vec<String> {
        std::iter::once(self.program.as_str())
            .chain(arguments.iter().copied())
            .map(ToOwned::to_owned)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn netcat(help: &str) -> Netcat {
        Netcat::from_help("nc", help).unwrap()
    }

    #[test]
    fn dialects_are_recognized_by_their_help() {
        assert_eq!(netcat("OpenBSD netcat (Debian patchlevel 1.219-1)").dialect, Dialect::OpenBsd);
        assert_eq!(netcat("[v1.10-47]").dialect, Dialect::Traditional);
        assert_eq!(netcat("Ncat 7.93 ( https://nmap.org/ncat )").dialect, Dialect::Ncat);
        for other in
            ["BusyBox v1.35.0 (Debian 1:1.35.0-4+b3) multi-call binary.", "GNU netcat 0.7.1, a rewrite", ""]
        {
            assert_eq!(Netcat::from_help("nc", other), None, "{other}");
        }
    }

    #[test]
    fn failed_connections_are_recognized_in_each_dialect() {
        let address = IpAddr::from([10, 77, 0, 11]);
        for (help, line) in [
            (
                "OpenBSD netcat",
                "nc.openbsd: connect to 10.77.0.11 port 4400 (tcp) failed: Connection refused",
            ),
            ("[v1.10-47]", "(UNKNOWN) [10.77.0.11] 4400 (?) : No route to host"),
            ("Ncat 7.93", "Ncat: Connection refused."),
        ] {
            let netcat = netcat(help);
            assert!(netcat.gives_up(line, address, 4400, true) && netcat.wrote(line), "{line}");
            assert!(!netcat.wrote("bash: line 1: zstd: command not found"));
            assert_eq!(
                netcat.gives_up(line, address, 4400, false),
                netcat.dialect != Dialect::Ncat,
                "{line}"
            );
            let other = netcat.gives_up(line, address, 4401, false);
            assert!(!other && !netcat.gives_up("tar: ./x: socket ignored", address, 4400, true), "{line}");
        }
    }
}
