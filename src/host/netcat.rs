//! The netcats that a Debian host may have: how each is told from the others, what it wants to be called with, and what
//! it says. They agree on nothing but the bytes.

use std::net::IpAddr;

/// A netcat of a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netcat {
    /// Whose it is.
    pub dialect: Dialect,
    /// The program's name on that host: `nc` is any of them.
    pub program: String,
}

/// Whose netcat it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenBSD's (package netcat-openbsd).
    OpenBsd,
    /// Hobbit's, the first one (package netcat-traditional). IPv4 only.
    Traditional,
    /// Nmap's (package ncat).
    Ncat,
}

impl Default for Netcat {
    fn default() -> Self {
        Self { dialect: Dialect::OpenBsd, program: "nc".into() }
    }
}

impl Netcat {
    /// Reads the first line of a program's help. `None` for one that we do not know.
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

    /// It can use addresses of that family.
    #[must_use]
    pub fn speaks(&self, address: IpAddr) -> bool {
        address.is_ipv4() || self.dialect != Dialect::Traditional
    }

    /// The command that accepts one connection and writes what comes, until the peer closes it. Its input is empty.
    #[must_use]
    pub fn listen(&self, address: IpAddr, port: u16) -> Vec<String> {
        let (address, port) = (address.to_string(), port.to_string());
        match self.dialect {
            Dialect::OpenBsd => self.words(&["-n", "-d", "-l", &address, &port]),
            // Without -v it does not say that the port is taken, and tries for long.
            Dialect::Traditional => self.words(&["-n", "-v", "-l", "-s", &address, "-p", &port]),
            // --recv-only would close its half of the connection, at which the traditional one ends as if it were done.
            Dialect::Ncat => self.words(&["-n", "--no-shutdown", "-l", &address, &port]),
        }
    }

    /// The command that connects, from one of its addresses if it is said, and sends its input, to the end, however long
    /// that takes to begin.
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
        // -v, or the first two do not say that they were refused. `complain.pl` drops what they say of a success.
        match self.dialect {
            Dialect::OpenBsd => self.words(&["-n", "-N", "-v", address, port]),
            Dialect::Traditional => self.words(&["-n", "-v", "-q", "0", address, port]),
            Dialect::Ncat => self.words(&["-n", "--send-only", address, port]),
        }
    }

    /// A line may be its own.
    #[must_use]
    pub fn wrote(&self, line: &str) -> bool {
        match self.dialect {
            Dialect::OpenBsd => line.starts_with("nc"),
            // It begins with the name of its peer, if it has one.
            Dialect::Traditional => line.contains('['),
            Dialect::Ncat => line.starts_with("Ncat: "),
        }
    }

    /// A line says that there is no connection to there and will be none. ncat does not name the peer: its word counts
    /// only where there is one alone.
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

    /// A line of a listener of any dialect says that somebody else has the port.
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
    fn each_is_known_by_its_help_and_no_other_program_is() {
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
    fn what_each_says_of_a_closed_port_is_understood_and_other_words_are_not() {
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
