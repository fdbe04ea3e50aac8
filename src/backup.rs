//! Which program copies which running server. Pure.
//!
//! mariadb-backup knows the data files of its own series only (<https://mariadb.com/docs/server/server-usage/backup-and-restore/mariadb-backup>);
//! Percona's xtrabackup 2.4 those of MySQL 5.6 and 5.7, and of 8.0 and later each series that of its name, up to its own
//! version (<https://docs.percona.com/percona-xtrabackup/8.0/server-version-support.html>).

pub mod log;

use std::fmt;

use crate::host::facts::{Facts, Instance};

/// Who made a server, as far as its files are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// MariaDB
    MariaDb,
    /// MySQL, and Percona's
    MySql,
}

impl Vendor {
    /// That of a server.
    #[must_use]
    pub fn of(instance: &Instance) -> Self {
        Self::named(instance.version())
    }

    /// That of a server's own word for its version.
    fn named(version: &str) -> Self {
        if version.contains("MariaDB") { Self::MariaDb } else { Self::MySql }
    }

    /// What unpacks its backups' streams.
    #[must_use]
    pub fn extractor(self) -> &'static str {
        match self {
            Self::MariaDb => "mbstream",
            Self::MySql => "xbstream",
        }
    }
}

/// A version: series and what comes behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32, u32, u32);

impl Version {
    /// The first number of that kind in a text, such as `10.11.6-MariaDB`.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        text.split(|c: char| !c.is_ascii_digit() && c != '.').find_map(|word| {
            let mut numbers = word.split('.').map(str::parse);
            match (numbers.next()?, numbers.next()?, numbers.next()?) {
                (Ok(major), Ok(minor), Ok(patch)) => Some(Self(major, minor, patch)),
                _ => None,
            }
        })
    }

    /// Of one series.
    #[must_use]
    pub fn is_of(self, other: Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

/// A program that copies running servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// As it is called on the host.
    pub program: String,
    /// Its version.
    pub version: Version,
}

/// Why a host's programs are not for a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

/// The host's program for a server, if it has one whose version goes with the server's.
pub fn tool(facts: &Facts, instance: &Instance) -> Result<Tool, Mismatch> {
    let vendor = Vendor::of(instance);
    let names: &[&str] = match vendor {
        Vendor::MariaDb => &["mariadb-backup", "mariabackup"],
        Vendor::MySql => &["xtrabackup"],
    };
    let found: Vec<Tool> = tools(facts).filter(|tool| names.contains(&tool.program.as_str())).collect();
    let Some(server) = Version::find(instance.version()) else {
        return Err(Mismatch {
            problem: format!("the version of the server is not understood: {:?}", instance.version()),
            fix: "copy it cold, with --type file --stop-server source".into(),
        });
    };
    if let Some(tool) = found.iter().find(|tool| goes_with(vendor, tool.version, server)) {
        return Ok(tool.clone());
    }
    let package = package(vendor, server);
    Err(match found.first() {
        None => Mismatch {
            problem: format!("no {} is there, for {} {server}", names[0], name(vendor)),
            fix: format!("apt install {package}"),
        },
        Some(tool) => Mismatch {
            problem: format!("its {} {} is not for {} {server}", tool.program, tool.version, name(vendor)),
            fix: format!("install {package} of the server's version"),
        },
    })
}

/// What takes a stream apart of which nothing is known: both know the same format.
#[must_use]
pub fn extractor_at_hand(facts: &Facts) -> &'static str {
    if facts.has("mbstream") { Vendor::MariaDb.extractor() } else { Vendor::MySql.extractor() }
}

/// The program for the backup of a server, by the server's own word for its version; the first one where that is not known. An
/// error says what is wrong with it.
pub fn choose<'a>(tools: &'a [Tool], server: &str) -> Result<&'a Tool, String> {
    let first = tools.first().ok_or("no program is there for it")?;
    let Some(version) = Version::find(server) else { return Ok(first) };
    let vendor = Vendor::named(server);
    let is_for = |tool: &&Tool| {
        (tool.program == "xtrabackup") == (vendor == Vendor::MySql)
            && goes_with(vendor, tool.version, version)
    };
    tools.iter().find(is_for).ok_or_else(|| {
        format!("its {} {} is not for {} {version}", first.program, first.version, name(vendor))
    })
}

/// The programs of a host that copy running servers, and make copies ready.
pub fn tools(facts: &Facts) -> impl Iterator<Item = Tool> {
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

fn goes_with(vendor: Vendor, tool: Version, server: Version) -> bool {
    match (vendor, server) {
        (Vendor::MariaDb, _) => tool.is_of(server),
        (Vendor::MySql, Version(5, 6 | 7, _)) => tool.is_of(Version(2, 4, 0)),
        (Vendor::MySql, _) => tool.is_of(server) && tool >= server,
    }
}

/// The Debian package of the program for a server.
#[must_use]
pub fn package(vendor: Vendor, Version(major, minor, _): Version) -> String {
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
    fn a_server_is_copied_by_a_program_of_its_vendor_and_series() {
        let both = [("mariadb-backup", MARIADB), ("xtrabackup", XTRABACKUP)];
        assert_eq!(found("10.11.4-MariaDB-log", &both).unwrap(), "mariadb-backup");
        assert_eq!(found("10.11.9-MariaDB", &[("mariabackup", MARIADB)]).unwrap(), "mariabackup");
        assert_eq!(found("8.0.35", &both).unwrap(), "xtrabackup");
        assert_eq!(found("8.0.34-26", &both).unwrap(), "xtrabackup");
        let old = [("xtrabackup", "xtrabackup version 2.4.29 based on MySQL server 5.7.44")];
        assert_eq!(found("5.7.44-log", &old).unwrap(), "xtrabackup");
    }

    #[test]
    fn pairs_that_do_not_go_together_are_named_with_the_package() {
        let refused = |server: &str, tools: &[(&str, &str)]| {
            let mismatch = found(server, tools).unwrap_err();
            format!("{}; {}", mismatch.problem, mismatch.fix)
        };
        let maria = [("mariadb-backup", MARIADB)];
        assert_eq!(
            refused("11.4.2-MariaDB", &maria),
            "its mariadb-backup 10.11.6 is not for MariaDB 11.4.2; install mariadb-backup of the server's version"
        );
        assert_eq!(
            refused("8.0.36", &maria),
            "no xtrabackup is there, for MySQL 8.0.36; apt install percona-xtrabackup-80"
        );
        let percona = [("xtrabackup", XTRABACKUP)];
        assert!(refused("8.0.36", &percona).starts_with("its xtrabackup 8.0.35 is not for MySQL 8.0.36"));
        assert!(refused("8.4.0", &percona).contains("percona-xtrabackup-84"));
        assert!(refused("5.7.44", &percona).contains("percona-xtrabackup-24"));
        assert_eq!(
            refused("10.11.6-MariaDB", &percona),
            "no mariadb-backup is there, for MariaDB 10.11.6; apt install mariadb-backup"
        );
        assert!(refused("next", &maria).contains("not understood"));
    }
}
