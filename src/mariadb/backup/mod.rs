//! Choice of the backup program for a running server. Pure.
//!
//! mariadb-backup supports its own series only
//! (<https://mariadb.com/docs/server/server-usage/backup-and-restore/mariadb-backup>). Percona's xtrabackup 2.4
//! supports MySQL 5.6 and 5.7. From 8.0 on, each xtrabackup series supports the MySQL series of the same
//! name, up to its own version
//! (<https://docs.percona.com/percona-xtrabackup/8.0/server-version-support.html>).

pub(crate) mod log;

use std::fmt;

use crate::host::facts::{Facts, Instance};

/// Family of a server, by the format of its data files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vendor {
    /// MariaDB
    MariaDb,
    /// MySQL and Percona Server
    MySql,
}

impl Vendor {
    /// Returns the vendor of a server.
    #[must_use]
    pub(crate) fn of(instance: &Instance) -> Self {
        Self::named(instance.version())
    }

    /// Returns the vendor by a server's version string.
    fn named(version: &str) -> Self {
        if version.contains("MariaDB") { Self::MariaDb } else { Self::MySql }
    }

    /// Returns the program that unpacks the vendor's backup streams.
    #[must_use]
    pub(crate) fn extractor(self) -> &'static str {
        match self {
            Self::MariaDb => "mbstream",
            Self::MySql => "xbstream",
        }
    }
}

/// Version of a server or a backup program: major, minor, patch. The first two are the series.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32, u32, u32);

impl Version {
    /// Finds the first version in a text such as `10.11.6-MariaDB`.
    #[must_use]
    pub(crate) fn find(text: &str) -> Option<Self> {
        text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|word| {
            let mut numbers = word.split('.').map(str::parse);
            match (numbers.next()?, numbers.next()?, numbers.next()?) {
                (Ok(major), Ok(minor), Ok(patch)) => Some(Self(major, minor, patch)),
                _ => None,
            }
        })
    }

    /// Returns whether both versions are of the same series.
    #[must_use]
    pub(crate) fn is_of(self, other: Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A backup program on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Name of the program on the host.
    pub program: String,
    /// Version of the program.
    pub version: Version,
}

/// Reason why a host has no suitable backup program for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mismatch {
    /// Description of the problem.
    pub problem: String,
    /// Suggested fix.
    pub fix: String,
}

/// Returns the host's backup program for a server, if its version supports the server.
pub(crate) fn tool(facts: &Facts, instance: &Instance) -> Result<Tool, Mismatch> {
    let vendor = Vendor::of(instance);
    let names: &[&str] = match vendor {
        Vendor::MariaDb => &["mariadb-backup", "mariabackup"],
        Vendor::MySql => &["xtrabackup"],
    };
    let found: Vec<Tool> = tools(facts).filter(|tool| names.contains(&tool.program.as_str())).collect();
    let Some(server) = Version::find(instance.version()) else {
        return Err(Mismatch {
            problem: format!("cannot parse the server's version {:?}", instance.version()),
            fix: "make a cold copy with --type file --stop-server source".into(),
        });
    };
    if let Some(tool) = found.iter().find(|tool| supports(vendor, tool.version, server)) {
        return Ok(tool.clone());
    }
    let package = package(vendor, server);
    Err(match found.first() {
        None => Mismatch {
            problem: format!("{} for {} {server} is not installed", names[0], name(vendor)),
            fix: format!("apt install {package}"),
        },
        Some(tool) => Mismatch {
            problem: format!("{} {} does not support {} {server}", tool.program, tool.version, name(vendor)),
            fix: format!("install {package} of the server's version"),
        },
    })
}

/// Returns the installed extractor, for a stream of unknown origin: both programs read the same format.
#[must_use]
pub(crate) fn extractor_at_hand(facts: &Facts) -> &'static str {
    if facts.has("mbstream") { Vendor::MariaDb.extractor() } else { Vendor::MySql.extractor() }
}

/// Chooses the program for a backup by the server's version string; the first program if that has no version.
/// The error describes the mismatch.
pub(crate) fn choose<'a>(tools: &'a [Tool], server: &str) -> Result<&'a Tool, String> {
    let first = tools.first().ok_or("no backup program is installed")?;
    let Some(version) = Version::find(server) else { return Ok(first) };
    let vendor = Vendor::named(server);
    let is_for = |tool: &&Tool| {
        (tool.program == "xtrabackup") == (vendor == Vendor::MySql) && supports(vendor, tool.version, version)
    };
    tools.iter().find(is_for).ok_or_else(|| {
        format!("{} {} does not support {} {version}", first.program, first.version, name(vendor))
    })
}

/// Returns a host's programs that make and prepare backups.
pub(crate) fn tools(facts: &Facts) -> impl Iterator<Item = Tool> {
    let of =
        |(name, text): &(String, String)| Some(Tool { program: name.clone(), version: Version::find(text)? });
    facts.backup_tools.iter().filter_map(of)
}

fn name(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::MariaDb => "MariaDB",
        Vendor::MySql => "MySQL",
    }
}

fn supports(vendor: Vendor, tool: Version, server: Version) -> bool {
    match (vendor, server) {
        (Vendor::MariaDb, _) => tool.is_of(server),
        (Vendor::MySql, Version(5, 6 | 7, _)) => tool.is_of(Version(2, 4, 0)),
        (Vendor::MySql, _) => tool.is_of(server) && tool >= server,
    }
}

/// Returns the Debian package of the backup program for a server.
#[must_use]
pub(crate) fn package(vendor: Vendor, Version(major, minor, _): Version) -> String {
    match vendor {
        Vendor::MariaDb => "mariadb-backup".into(),
        Vendor::MySql if major == 5 => "percona-xtrabackup-24".into(),
        Vendor::MySql => format!("percona-xtrabackup-{major}{minor}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(server: &str, tools: &[(&str, &str)]) -> Result<String, Mismatch> {
        let mut instance = Instance::default();
        instance.variables.insert("version".into(), server.into());
        let backup_tools =
            tools.iter().map(|(name, version)| ((*name).to_owned(), (*version).to_owned())).collect();
        let facts = Facts { backup_tools, ..Facts::default() };
        tool(&facts, &instance).map(|tool| tool.program)
    }

    const MARIADB: &str = "mariadb-backup based on MariaDB server 10.11.6-MariaDB debian-linux-gnu (x86_64)";
    const XTRABACKUP: &str =
        "xtrabackup version 8.0.35-30 based on MySQL server 8.0.35 Linux (x86_64) (revision id: 6beb4b49)";

    #[test]
    fn program_is_chosen_by_vendor_and_series() {
        let both = [("mariadb-backup", MARIADB), ("xtrabackup", XTRABACKUP)];
        assert_eq!(found("10.11.4-MariaDB-log", &both).unwrap(), "mariadb-backup");
        assert_eq!(found("10.11.9-MariaDB", &[("mariabackup", MARIADB)]).unwrap(), "mariabackup");
        assert_eq!(found("8.0.35", &both).unwrap(), "xtrabackup");
        assert_eq!(found("8.0.34-26", &both).unwrap(), "xtrabackup");
        let old = [("xtrabackup", "xtrabackup version 2.4.29 based on MySQL server 5.7.44")];
        assert_eq!(found("5.7.44-log", &old).unwrap(), "xtrabackup");
    }

    #[test]
    fn mismatch_names_the_package() {
        let refused = |server: &str, tools: &[(&str, &str)]| {
            let mismatch = found(server, tools).unwrap_err();
            format!("{}; {}", mismatch.problem, mismatch.fix)
        };
        let maria = [("mariadb-backup", MARIADB)];
        assert_eq!(
            refused("11.4.2-MariaDB", &maria),
            "mariadb-backup 10.11.6 does not support MariaDB 11.4.2; install mariadb-backup of the server's \
             version"
        );
        assert_eq!(
            refused("8.0.36", &maria),
            "xtrabackup for MySQL 8.0.36 is not installed; apt install percona-xtrabackup-80"
        );
        let percona = [("xtrabackup", XTRABACKUP)];
        assert!(refused("8.0.36", &percona).starts_with("xtrabackup 8.0.35 does not support MySQL 8.0.36"));
        assert!(refused("8.4.0", &percona).contains("percona-xtrabackup-84"));
        assert!(refused("5.7.44", &percona).contains("percona-xtrabackup-24"));
        assert_eq!(
            refused("10.11.6-MariaDB", &percona),
            "mariadb-backup for MariaDB 10.11.6 is not installed; apt install mariadb-backup"
        );
        assert!(refused("next", &maria).contains("cannot parse the server's version \"next\""));
    }
}
