//! What a run does beyond a copy where its copies become replicas, as plain data.

use std::fmt;
use std::time::Duration;

use sha1::{Digest as _, Sha1};
use zeroize::Zeroizing;

use crate::endpoint::{Endpoint, HostName};
use crate::run_id::hex;
use crate::values::TableCheck;

/// Copies become replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaPlan {
    /// The server that they replicate from, as the user knows it.
    pub primary: String,
    /// Its port.
    pub port: u16,
    /// With TLS.
    pub ssl: bool,
    /// Whose position they begin from.
    pub position: Whose,
    /// By which account they log in there.
    pub account: AccountPlan,
    /// A replica is done when it has all that its source had so long ago.
    pub max_lag: Duration,
    /// How their tables are compared with those of the server that was copied.
    pub tables: Option<TableCheck>,
    /// Options for logins to servers; empty: the hosts' own.
    pub defaults_file: String,
    /// What is to be known of each target.
    pub targets: Vec<(HostName, Follow)>,
}

/// A position in a binary log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// In that of the server that was copied.
    Own,
    /// In that of the server which it replicates from itself.
    Upstream,
}

impl Whose {
    /// As jobs call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Upstream => "upstream",
        }
    }
}

/// Where in a server's binary log a replica begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// A GTID.
    Gtid(String),
    /// A file, and bytes of it.
    File(String, u64),
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gtid(gtid) => write!(f, "GTID {gtid}"),
            Self::File(file, position) => write!(f, "{file}:{position}"),
        }
    }
}

/// Whether a text is a GTID as MariaDB writes it: domain, server and number, of each domain.
#[must_use]
pub fn is_gtid(text: &str) -> bool {
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    text.split(',').all(|part| part.split('-').count() == 3 && part.split('-').all(is_number))
}

/// How one target follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Follow {
    /// The unit of its server.
    pub unit: String,
    /// Where that listens.
    pub socket: String,
    /// What it calls the host of the server that it replicates from.
    pub host: String,
    /// From which of its own addresses it gets there.
    pub own: String,
    /// The file that says for which version the system tables of its data were upgraded, and that version.
    pub upgraded: Option<(String, String)>,
    /// It may hold databases, which are replaced.
    pub holds: bool,
    /// Its configuration has the scheduler of events at work.
    pub events: bool,
    /// How long its server may take to stop.
    pub timeout: Duration,
}

/// The longest name of a user, and password, in bytes.
const MOST_BYTES: usize = 256;

/// An account for replication.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub user: String,
    password: Zeroizing<String>,
}

impl Account {
    /// An account. Neither of the two has control characters, or more bytes than a server takes.
    #[must_use]
    pub fn new(user: String, password: String) -> Option<Self> {
        let password = Zeroizing::new(password);
        let good = |word: &str| word.len() <= MOST_BYTES && !word.contains(char::is_control);
        (good(&user) && good(&password)).then_some(Self { user, password })
    }

    /// What its server keeps of the password (`mysql_native_password`: SHA-1 of SHA-1,
    /// <https://mariadb.com/docs/server/reference/plugins/authentication-plugins/authentication-plugin-mysql_native_password>), so
    /// that the password itself goes to its replica only.
    #[must_use]
    pub fn hash(&self) -> String {
        let twice = Sha1::digest(Sha1::digest(self.password.as_bytes()));
        format!("*{}", hex(&twice).to_uppercase())
    }

    /// Its password, for hosts only: never for an argument, a log or a report.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({:?})", self.user)
    }
}

/// Where the replicas' account comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountPlan {
    /// It is there already.
    Given(Account),
    /// One for each target is made.
    Create {
        /// The host of the server that the replicas replicate from, and its data directory.
        place: Endpoint,
        /// Its socket.
        socket: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_one_that_the_server_makes_of_the_password() {
        // SELECT PASSWORD('x')
        let account = Account::new("a".into(), "x".into()).unwrap();
        assert!(Account::new("a\n".into(), "x".into()).is_none());
        assert_eq!(account.hash(), "*B69027D44F6E5EDC07F1AEAD1477967B16F28227");
    }

    #[test]
    fn a_gtid_is_told_from_what_a_server_might_obey() {
        for good in ["0-1-6", "0-1-6,5-99-10000"] {
            assert!(is_gtid(good), "{good}");
        }
        for bad in ["", "0-1", "0-1-6,", "0-1-6'); DROP", "0-1-x", "0-1-6\n", "-1-1"] {
            assert!(!is_gtid(bad), "{bad}");
        }
    }
}
