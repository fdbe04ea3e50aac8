//! What stands against a run, found before anything is changed, each finding with its fix. Pure.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::endpoint::Endpoint;
use crate::host::facts::Facts;
use crate::host::wire::printable;
use crate::settings::Settings;

/// Something that must be mended first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The host.
    pub host: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.host, self.problem, self.fix)
    }
}

/// Programs that each end needs, besides one of several netcats, and the Debian packages that have them.
const TOOLS: [(&str, &str); 13] = [
    ("awk", "mawk"),
    ("find", "findutils"),
    ("flock", "util-linux"),
    ("gzip", "gzip"),
    ("ip", "iproute2"),
    ("md5sum", "coreutils"),
    ("perl", "perl-base"),
    ("sha256sum", "coreutils"),
    ("sort", "coreutils"),
    ("ss", "iproute2"),
    ("sync", "coreutils"),
    ("tar", "tar"),
    ("xargs", "findutils"),
];

/// The package of the netcat that is asked for where none will do.
const NETCAT: &str = "netcat-openbsd";

/// Findings against the source.
#[must_use]
pub fn source(settings: &Settings, endpoint: &Endpoint, facts: &Facts) -> Vec<Finding> {
    let mut findings = Findings::of(endpoint);
    findings.tools(settings, facts);
    let path = shown(&endpoint.path);
    let source = facts.source.clone().unwrap_or_default();
    match source.file_type.as_str() {
        _ if endpoint.name().is_none() => findings.add(
            &format!("{path} has no name of its own that it could get on the target"),
            "name a directory in it, and no . or .. at the end",
        ),
        "directory" | "regular file" | "regular empty file" => {
            if !source.readable {
                findings.add(
                    &format!("{path} cannot be read by user id {}", facts.uid),
                    "log in as a user who may",
                );
            }
        }
        "missing" | "" => findings.add(&format!("{path} does not exist"), "check the path"),
        "symbolic link" => findings.add(
            &format!("{path} is a symbolic link"),
            &format!("name what it points to: {}", shown(&source.real)),
        ),
        other => findings.add(&format!("{path} is a {other}"), "name a file or a directory"),
    }
    findings.list
}

/// Findings against one target.
#[must_use]
pub fn target(
    settings: &Settings,
    (source, source_facts): (&Endpoint, &Facts),
    (endpoint, facts): (&Endpoint, &Facts),
    addresses_known: bool,
) -> Vec<Finding> {
    let mut findings = Findings::of(endpoint);
    findings.tools(settings, facts);
    let path = shown(&endpoint.path);
    let of_target = facts.target.clone().unwrap_or_default();
    let of_source = source_facts.source.clone().unwrap_or_default();
    match of_target.file_type.as_str() {
        "directory" if !of_target.writable => findings.add(
            &format!("user id {} may not write into {path}", facts.uid),
            "log in as a user who may, or mount it writable",
        ),
        "directory" => {}
        "missing" | "" => findings.add(&format!("{path} does not exist"), &format!("mkdir {path}")),
        other => findings.add(&format!("{path} is a {other}"), "name a directory: the source arrives in it"),
    }
    if of_target.exists {
        findings.add(
            &format!("{} exists already", shown(&endpoint.path.join(source.name().unwrap_or_default()))),
            "move it away or choose another directory",
        );
    }
    let same_host = source.host == endpoint.host || same_machine(facts, source_facts);
    if same_host && of_source.file_type == "directory" && of_target.real.starts_with(&of_source.real) {
        findings.add(&format!("{path} is inside of the source"), "choose a directory outside of it");
    }
    if of_target.file_type == "directory" {
        if of_target.free_bytes < of_source.disk_bytes {
            findings.add(
                &format!(
                    "{path} has {} bytes free, the source takes {} bytes",
                    of_target.free_bytes, of_source.disk_bytes
                ),
                "free some space or choose another directory",
            );
        }
        if of_target.free_inodes.is_some_and(|free| free < of_source.entries) {
            findings.add(
                &format!("the file system of {path} has too few inodes free for {} files", of_source.entries),
                "choose another file system",
            );
        }
    }
    if !addresses_known {
        findings.no_way((source, source_facts), facts);
    }
    findings.list
}

/// A finding against a target that is a directory named before under another name.
#[must_use]
pub fn same_place(endpoint: &Endpoint, facts: &Facts, before: &[(&Endpoint, &Facts)]) -> Option<Finding> {
    let real = |facts: &Facts| facts.target.as_ref().map(|target| target.real.clone());
    let other = before.iter().find(|(other, of_other)| {
        (other.host == endpoint.host || same_machine(facts, of_other)) && real(facts) == real(of_other)
    })?;
    Some(Finding {
        host: endpoint.host.to_string(),
        problem: format!("{} is named twice as a target", shown(&other.0.path)),
        fix: "name it once".into(),
    })
}

/// Two names of one host.
pub(crate) fn same_machine(one: &Facts, other: &Facts) -> bool {
    !one.machine_id.is_empty() && one.machine_id == other.machine_id && one.boot == other.boot
}

struct Findings {
    host: String,
    list: Vec<Finding>,
}

impl Findings {
    fn of(endpoint: &Endpoint) -> Self {
        Self { host: endpoint.host.to_string(), list: Vec::new() }
    }

    fn add(&mut self, problem: &str, fix: &str) {
        self.list.push(Finding { host: self.host.clone(), problem: problem.into(), fix: fix.into() });
    }

    /// The source has no way to any address of the target.
    fn no_way(&mut self, (source, source_facts): (&Endpoint, &Facts), facts: &Facts) {
        let has: Vec<String> = facts.addresses.iter().map(ToString::to_string).collect();
        self.add(
            &format!(
                "no address of it is known by which the source can reach it (it has {})",
                if has.is_empty() { "none".into() } else { has.join(", ") }
            ),
            "name both hosts as SSH hosts with addresses of one family (IPv4 or IPv6)",
        );
        let only_ipv4 = |facts: &Facts| {
            !facts.netcats.is_empty() && facts.netcat(&[IpAddr::V6(Ipv6Addr::LOCALHOST)]).is_none()
        };
        let (source, target) = (source.host.to_string(), self.host.clone());
        for (host, facts) in [(source, source_facts), (target, facts)] {
            if only_ipv4(facts) {
                self.list.push(Finding {
                    host,
                    problem: "its only netcat is the traditional one, which has no IPv6".into(),
                    fix: format!("apt install {NETCAT}"),
                });
            }
        }
    }

    fn tools(&mut self, settings: &Settings, facts: &Facts) {
        let mut needed: Vec<(&str, &str)> = TOOLS.to_vec();
        if settings.encrypt {
            needed.push(("openssl", "openssl"));
        }
        if facts.netcats.is_empty() {
            needed.push(("nc", NETCAT));
        }
        let missing: Vec<_> = needed.into_iter().filter(|(tool, _)| !facts.has(tool)).collect();
        if !missing.is_empty() {
            let tools: Vec<&str> = missing.iter().map(|(tool, _)| *tool).collect();
            let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
            packages.sort_unstable();
            packages.dedup();
            self.add(
                &format!("programs are missing: {}", tools.join(", ")),
                &format!("apt install {}", packages.join(" ")),
            );
        }
        if facts.netcats.is_empty() && facts.has("nc") {
            self.add(
                "its nc is neither OpenBSD's netcat nor the traditional one nor ncat",
                &format!("apt install {NETCAT}"),
            );
        }
        if facts.has("tar") && !facts.tar.contains("GNU tar") {
            self.add("its tar is not GNU tar", "apt install tar");
        }
        // Before 5.1 the key would pass through a temporary file.
        if facts.bash < (5, 1) {
            self.add(
                &format!("its bash is {}.{}", facts.bash.0, facts.bash.1),
                "bash 5.1 or newer is needed",
            );
        }
        if !facts.syscalls_known {
            self.add(&format!("its processor ({}) is not known", facts.machine), "x86_64 and aarch64 are");
        }
    }
}

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use crate::host::facts::{SourceFacts, TargetFacts};
    use crate::host::netcat::{Dialect, Netcat};
    use clap::Parser;
    use std::ffi::OsStr;

    fn settings(words: &[&str]) -> Settings {
        let words = ["transfer", "a:/x", "b:/y"].into_iter().chain(words.iter().copied());
        Settings::load(Cli::parse_from(words).options).unwrap()
    }

    fn endpoint(word: &str) -> Endpoint {
        Endpoint::parse(OsStr::new(word)).unwrap()
    }

    fn facts() -> Facts {
        Facts {
            bash: (5, 2),
            syscalls_known: true,
            tools: TOOLS.iter().map(|(tool, _)| (*tool).to_owned()).chain(["openssl".to_owned()]).collect(),
            tar: "tar (GNU tar) 1.34".into(),
            netcats: vec![Netcat::default()],
            source: Some(SourceFacts {
                file_type: "directory".into(),
                readable: true,
                real: "/srv/data".into(),
                entries: 10,
                disk_bytes: 1000,
                ..SourceFacts::default()
            }),
            target: Some(TargetFacts {
                file_type: "directory".into(),
                writable: true,
                real: "/srv".into(),
                free_bytes: 2000,
                free_inodes: Some(20),
                ..TargetFacts::default()
            }),
            ..Facts::default()
        }
    }

    fn against_target(change: impl FnOnce(&mut Facts)) -> String {
        let mut changed = facts();
        change(&mut changed);
        let findings = target(
            &settings(&[]),
            (&endpoint("db1:/srv/data"), &facts()),
            (&endpoint("db2:/srv"), &changed),
            true,
        );
        findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    fn against_source(change: impl FnOnce(&mut Facts)) -> String {
        let mut changed = facts();
        change(&mut changed);
        let findings = source(&settings(&[]), &endpoint("db1:/srv/data"), &changed);
        findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn nothing_stands_against_a_good_run() {
        assert_eq!(against_target(|_| ()), "");
        assert_eq!(against_source(|_| ()), "");
    }

    #[test]
    fn each_finding_names_its_host_and_its_fix() {
        assert_eq!(
            against_target(|f| {
                f.netcats.clear();
                f.tools.remove("flock");
            }),
            "db2: programs are missing: flock, nc; apt install netcat-openbsd util-linux"
        );
        assert_eq!(
            against_target(|f| f.target.as_mut().unwrap().exists = true),
            "db2: /srv/data exists already; move it away or choose another directory"
        );
        assert_eq!(
            against_target(|f| f.target.as_mut().unwrap().free_bytes = 999),
            "db2: /srv has 999 bytes free, the source takes 1000 bytes; free some space or choose another directory"
        );
        assert!(against_target(|f| f.target.as_mut().unwrap().free_inodes = Some(9)).contains("inodes"));
        assert_eq!(against_target(|f| f.target = None), "db2: /srv does not exist; mkdir /srv");
        assert!(
            against_target(|f| f.target.as_mut().unwrap().writable = false)
                .contains("may not write into /srv")
        );
        assert_eq!(
            against_target(|f| {
                f.netcats.clear();
                f.tools.insert("nc".into());
            }),
            "db2: its nc is neither OpenBSD's netcat nor the traditional one nor ncat; apt install netcat-openbsd"
        );
        assert!(against_source(|f| f.source = None).contains("db1: /srv/data does not exist"));
        assert!(against_source(|f| f.source.as_mut().unwrap().readable = false).contains("cannot be read"));
        assert!(
            against_source(|f| f.source.as_mut().unwrap().file_type = "socket".into())
                .contains("is a socket")
        );
        assert!(
            against_source(|f| f.source.as_mut().unwrap().file_type = "symbolic link".into())
                .contains("name what it points to")
        );
    }

    #[test]
    fn a_target_inside_of_the_source_is_refused() {
        let inside = |f: &mut Facts| f.target.as_mut().unwrap().real = "/srv/data/x".into();
        assert_eq!(against_target(inside), "", "another host");
        let mut changed = facts();
        inside(&mut changed);
        let end = endpoint("db1:/srv/data/x");
        let found = target(&settings(&[]), (&endpoint("db1:/srv/data"), &facts()), (&end, &changed), true);
        assert!(found[0].to_string().contains("is inside of the source"));
    }

    #[test]
    fn where_no_address_fits_the_end_that_has_no_netcat_for_ipv6_is_told() {
        let traditional = Netcat { dialect: Dialect::Traditional, program: "nc".into() };
        let found = |source: Facts, changed: Facts| {
            let ends = (endpoint("db1:/srv/data"), endpoint("db2:/srv"));
            let findings = target(&settings(&[]), (&ends.0, &source), (&ends.1, &changed), false);
            findings.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let ipv6 = Facts { addresses: vec!["fd77::12".parse().unwrap()], ..facts() };
        let nothing = "db2: no address of it is known by which the source can reach it (it has fd77::12); name both hosts \
                       as SSH hosts with addresses of one family (IPv4 or IPv6)";
        assert_eq!(found(facts(), ipv6.clone()), [nothing]);
        let only = "its only netcat is the traditional one, which has no IPv6; apt install netcat-openbsd";
        let of_source = found(Facts { netcats: vec![traditional.clone()], ..facts() }, ipv6.clone());
        assert_eq!(of_source, [nothing.to_owned(), format!("db1: {only}")]);
        let of_target = found(facts(), Facts { netcats: vec![traditional], ..ipv6 });
        assert_eq!(of_target, [nothing.to_owned(), format!("db2: {only}")]);
    }

    #[test]
    fn openssl_is_needed_only_to_encrypt() {
        let mut without = facts();
        without.tools.remove("openssl");
        let end = endpoint("db1:/srv/data");
        assert_eq!(source(&settings(&[]), &end, &without).len(), 1);
        assert!(source(&settings(&["--no-encrypt"]), &end, &without).is_empty());
    }
}
