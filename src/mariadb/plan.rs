//! Replication of copies that become replicas, as plain data.

use std::fmt;
use std::time::Duration;

use sha1::{Digest as _, Sha1};
use zeroize::Zeroizing;

use crate::base::endpoint::{Endpoint, HostName};
use crate::base::run_id::hex;
use crate::config::values::TableCheck;

/// Plan of the replication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaPlan {
    /// The upstream, as the user named it.
    pub primary: String,
    /// Port of the upstream.
    pub port: u16,
    /// Whether replicas connect with TLS.
    pub ssl: bool,
    /// Binlog position that the replicas start from.
    pub position: Whose,
    /// Replication account on the upstream.
    pub account: AccountPlan,
    /// Maximum lag of a replica that counts as caught up.
    pub max_lag: Duration,
    /// Comparison of the replicas' tables with the donor's.
    pub tables: Option<TableCheck>,
    /// File with login options for servers; empty: the host's default.
    pub defaults_file: String,
    /// Replication settings of each target.
    pub targets: Vec<(HostName, Follow)>,
}

/// Owner of a binlog position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// The donor itself: its copies replicate from it.
    Own,
    /// The upstream of the donor, which is a replica.
    Upstream,
}

/// Binlog position that a replica starts from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// GTID.
    Gtid(String),
    /// Binlog file and offset.
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

/// Returns whether a text is a GTID in MariaDB's format: domain, server ID and sequence number for each
/// domain.
#[must_use]
pub(crate) fn is_gtid(text: &str) -> bool {
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
    text.split(',').all(|part| part.split('-').count() == 3 && part.split('-').all(is_number))
}

/// Replication settings of one target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Follow {
    /// The systemd unit of its server.
    pub unit: String,
    /// Socket of its server.
    pub socket: String,
    /// Host of the upstream, as the target reaches it.
    pub host: String,
    /// Own address that the target connects from.
    pub own: String,
    /// File that records the version for which the system tables of the copy were upgraded, and that version.
    pub upgraded: Option<(String, String)>,
    /// Whether the old data may contain databases, which are replaced.
    pub holds: bool,
    /// Whether its configuration enables the event scheduler.
    pub events: bool,
    /// Maximum time for its server to stop.
    pub timeout: Duration,
}

/// Maximum length of a user name and a password, in bytes.
const MOST_BYTES: usize = 256;

/// Account for replication.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// User name.
    pub user: String,
    password: Zeroizing<String>,
}

impl Account {
    /// Creates an account; `None` if the name or the password has control characters or is too long for a
    /// server.
    #[must_use]
    pub(crate) fn new(user: String, password: String) -> Option<Self> {
        let password = Zeroizing::new(password);
        let good = |word: &str| word.len() <= MOST_BYTES && !word.contains(char::is_control);
        (good(&user) && good(&password)).then_some(Self { user, password })
    }

    /// Returns an account with a name and a password of our own making, which are good.
    #[must_use]
    pub(crate) fn made(user: String, password: String) -> Self {
        Self { user, password: Zeroizing::new(password) }
    }

    /// Hash of the password as the server stores it (`mysql_native_password`: SHA-1 of SHA-1,
    /// <https://mariadb.com/docs/server/reference/plugins/authentication-plugins/authentication-plugin-mysql_native_password>).
    /// With the hash, the password itself is sent to its replica only.
    #[must_use]
    pub(crate) fn hash(&self) -> String {
        let twice = Sha1::digest(Sha1::digest(self.password.as_bytes()));
        format!("*{}", hex(&twice).to_uppercase())
    }

    /// Password, for hosts only: never for an argument, a log or a report.
    #[must_use]
    pub(crate) fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({:?})", self.user)
    }
}

/// Origin of the replicas' account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountPlan {
    /// Existing account.
    Given(Account),
    /// One account to be created for each target.
    Create {
        /// Host of the upstream, and its data directory.
        place: Endpoint,
        /// Socket of the upstream.
        socket: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_that_of_mysql_native_password() {
        // SELECT PASSWORD('x')
        let account = Account::new("a".into(), "x".into()).unwrap();
        assert!(Account::new("a\n".into(), "x".into()).is_none());
        assert_eq!(account.hash(), "*B69027D44F6E5EDC07F1AEAD1477967B16F28227");
    }

    #[test]
    fn gtid_is_distinguished_from_other_text() {
        for good in ["0-1-6", "0-1-6,5-99-10000"] {
            assert!(is_gtid(good), "{good}");
        }
        for bad in ["", "0-1", "0-1-6,", "0-1-6'); DROP", "0-1-x", "0-1-6\n", "-1-1"] {
            assert!(!is_gtid(bad), "{bad}");
        }
    }
}
