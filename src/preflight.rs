//! What stands against a run, found before anything is changed and all at once, each finding with its fix. Pure.

#[cfg(test)]
mod tests;
mod tools;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use indicatif::HumanBytes;
use serde::Serialize;

use crate::endpoint::Endpoint;
use crate::firewall;
use crate::host::facts::{Facts, SourceFacts, TargetFacts};
use crate::host::wire::printable;
use crate::settings::{Replace, Settings};
use crate::values::Owner;

/// The package of the netcat that is asked for where none will do.
const NETCAT: &str = "netcat-openbsd";
/// Clocks that differ by more than this many seconds are told of.
const MOST_SKEW: f64 = 5.0;
/// The longest name of a file, in bytes, on the file systems of Linux.
const LONGEST_NAME: usize = 255;
/// What `--keep-old` adds to a name: `.old-` and the name of the run.
pub const OLD_SUFFIX: usize = ".old-20261120-231502-9f3c1a".len();

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// The run is not begun.
    Refusal,
    /// It may surprise.
    Warning,
}

/// Something that must be mended first, or known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The host.
    pub host: String,
    /// How much it weighs.
    pub weight: Weight,
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

/// One end of a run as the probe found it.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// As the user wrote it.
    pub endpoint: &'a Endpoint,
    /// What it told.
    pub facts: &'a Facts,
    /// By how many seconds its clock is ahead of the controller's.
    pub skew: Option<f64>,
    /// The source's address on the data path, as far as it is known; of targets only.
    pub peer: Option<IpAddr>,
}

/// Findings against the source.
#[must_use]
pub fn source(settings: &Settings, side: Side<'_>) -> Vec<Finding> {
    let Side { endpoint, facts, .. } = side;
    let mut findings = Findings::of(endpoint);
    findings.tools(settings, facts);
    let path = shown(&endpoint.path);
    let source = facts.source.clone().unwrap_or_default();
    match source.file_type.as_str() {
        _ if endpoint.name().is_none() => findings.refuse(
            &format!("{path} has no name of its own that it could get on the target"),
            "name a directory in it, and no . or .. at the end",
        ),
        "directory" | "regular file" | "regular empty file" => {
            if !source.readable {
                findings.refuse(
                    &format!("{path} cannot be read by user id {}", facts.uid),
                    "log in as a user who may",
                );
            }
        }
        "missing" | "" => findings.refuse(&format!("{path} does not exist"), "check the path"),
        "symbolic link" => findings.refuse(
            &format!("{path} is a symbolic link"),
            &format!("name what it points to: {}", shown(&source.real)),
        ),
        other => findings.refuse(&format!("{path} is a {other}"), "name a file or a directory"),
    }
    if settings.stop_slave {
        findings
            .warn("--stop-slave has no effect on files", "leave it out, or stop its replication yourself");
    }
    findings.list
}

/// Findings against one target. `before`: the targets that were named before it.
#[must_use]
pub fn target(settings: &Settings, source: Side<'_>, side: Side<'_>, before: &[Side<'_>]) -> Vec<Finding> {
    let mut findings = Findings::of(side.endpoint);
    findings.tools(settings, side.facts);
    let of_target = side.facts.target.clone().unwrap_or_default();
    let of_source = source.facts.source.clone().unwrap_or_default();
    findings.directory(side, &of_target);
    findings.name(settings, source.endpoint, side.endpoint, &of_target);
    findings.overlap(settings, source, side, (&of_source, &of_target));
    if of_target.file_type == "directory" {
        findings.space(side, before, (&of_source, &of_target));
        findings.case(&of_source, &of_target, side.endpoint);
    }
    findings.owners(settings.chown.as_ref(), source, side);
    if let Some(peer) = side.peer {
        findings.firewall(settings, side.facts, peer);
    } else {
        findings.no_way(source, side);
    }
    if let Some(other) = before.iter().find(|other| same_place(side, **other)) {
        findings
            .refuse(&format!("{} is named twice as a target", shown(&other.endpoint.path)), "name it once");
    }
    if let Some(skew) = source.skew.zip(side.skew).map(|(there, here)| here - there) {
        if skew.abs() > MOST_SKEW {
            let direction = if skew > 0.0 { "ahead of" } else { "behind" };
            findings.warn(
                &format!("its clock is {:.0} s {direction} that of {}", skew.abs(), source.endpoint.host),
                "times in the copy are the source's; look after NTP",
            );
        }
    }
    findings.list
}

/// Two names of one host.
fn same_machine(one: Side<'_>, other: Side<'_>) -> bool {
    one.endpoint.host == other.endpoint.host || one.facts.same_machine(other.facts)
}

/// Two names of one directory.
fn same_place(one: Side<'_>, other: Side<'_>) -> bool {
    let real = |side: Side<'_>| side.facts.target.as_ref().map(|target| target.real.clone());
    same_machine(one, other) && real(one).is_some() && real(one) == real(other)
}

struct Findings {
    host: String,
    list: Vec<Finding>,
}

impl Findings {
    fn of(endpoint: &Endpoint) -> Self {
        Self { host: endpoint.host.to_string(), list: Vec::new() }
    }

    fn refuse(&mut self, problem: &str, fix: &str) {
        self.add(Weight::Refusal, problem, fix);
    }

    fn warn(&mut self, problem: &str, fix: &str) {
        self.add(Weight::Warning, problem, fix);
    }

    fn add(&mut self, weight: Weight, problem: &str, fix: &str) {
        self.list.push(Finding { host: self.host.clone(), weight, problem: problem.into(), fix: fix.into() });
    }

    /// The directory that the copy arrives in.
    fn directory(&mut self, side: Side<'_>, of_target: &TargetFacts) {
        let path = shown(&side.endpoint.path);
        match of_target.file_type.as_str() {
            "directory" if of_target.read_only => {
                self.refuse(
                    &format!("{path} is on a file system that is mounted read-only"),
                    "mount it writable",
                );
            }
            "directory" if !of_target.writable => self.refuse(
                &format!("user id {} may not write into {path}", side.facts.uid),
                "log in as a user who may",
            ),
            "directory" => {}
            "missing" | "" => self.refuse(&format!("{path} does not exist"), &format!("mkdir {path}")),
            other => {
                self.refuse(&format!("{path} is a {other}"), "name a directory: the source arrives in it");
            }
        }
    }

    /// The name that the copy gets.
    fn name(&mut self, settings: &Settings, source: &Endpoint, endpoint: &Endpoint, of_target: &TargetFacts) {
        let name: &OsStr = settings.final_name(source);
        let final_path = shown(&endpoint.path.join(name));
        let longest = LONGEST_NAME - if settings.replace == Replace::Keep { OLD_SUFFIX } else { 0 };
        if name.len() > longest {
            self.refuse(
                &format!(
                    "the name {} has {} bytes, {longest} are possible",
                    printable(name.as_bytes()),
                    name.len()
                ),
                "give it another one with --as",
            );
        }
        if of_target.exists.is_some() {
            if settings.replace == Replace::No {
                self.refuse(
                    &format!("{final_path} exists already"),
                    "move it away, choose another directory or name (--as), or replace it (--replace)",
                );
            } else if of_target.mounted {
                self.refuse(
                    &format!("something is mounted at {final_path} or below it"),
                    "unmount it, or choose another directory or name (--as)",
                );
            }
        }
    }

    /// Source and target on one host must not be in each other.
    fn overlap(
        &mut self,
        settings: &Settings,
        source: Side<'_>,
        side: Side<'_>,
        (of_source, of_target): (&SourceFacts, &TargetFacts),
    ) {
        if !same_machine(source, side) || of_target.real.as_os_str().is_empty() {
            return;
        }
        let path = shown(&side.endpoint.path);
        // By inodes, too: a bind mount is another path to the same place.
        let inside =
            of_target.real.starts_with(&of_source.real) || of_target.above.contains(&of_source.inode);
        if of_source.file_type == "directory" && inside {
            self.refuse(&format!("{path} is inside of the source"), "choose a directory outside of it");
        }
        let final_path = of_target.real.join(settings.final_name(source.endpoint));
        let is_source = of_target.exists.as_ref() == Some(&of_source.inode) && !of_source.inode.is_empty();
        let holds_it = of_target.exists.as_ref().is_some_and(|old| of_source.above.contains(old));
        if settings.replace != Replace::No
            && (is_source || holds_it || of_source.real.starts_with(&final_path))
        {
            self.refuse(
                &format!("{} is the source, or holds it", shown(&final_path)),
                "choose another directory or name (--as)",
            );
        }
    }

    fn space(
        &mut self,
        side: Side<'_>,
        before: &[Side<'_>],
        (of_source, of_target): (&SourceFacts, &TargetFacts),
    ) {
        let path = shown(&side.endpoint.path);
        let device = |other: &Side<'_>| other.facts.target.as_ref().map(|target| target.device.clone());
        let sharing = before
            .iter()
            .filter(|other| {
                same_machine(side, **other)
                    && !of_target.device.is_empty()
                    && device(other) == Some(of_target.device.clone())
            })
            .count() as u64;
        let (copies, verb) = match sharing {
            0 => ("the source".to_owned(), "takes"),
            n => (format!("{} copies on this file system", n + 1), "take"),
        };
        let needed = of_source.disk_bytes.saturating_mul(sharing + 1);
        if of_target.free_bytes < needed {
            self.refuse(
                &format!(
                    "{path} has {} free ({} bytes), {copies} {verb} {} ({needed} bytes)",
                    HumanBytes(of_target.free_bytes),
                    of_target.free_bytes,
                    HumanBytes(needed),
                ),
                "free some space or choose another directory",
            );
        }
        let entries = of_source.entries.saturating_mul(sharing + 1);
        if of_target.free_inodes.is_some_and(|free| free < entries) {
            self.refuse(
                &format!("the file system of {path} has too few inodes free for {entries} files"),
                "choose another file system",
            );
        }
    }

    /// Names that are two on the source and one on the target.
    fn case(&mut self, of_source: &SourceFacts, of_target: &TargetFacts, endpoint: &Endpoint) {
        if let (true, Some(twin)) = (of_target.folds_case, &of_source.twin) {
            self.refuse(
                &format!(
                    "the file system of {} does not tell {twin} from the same name in another case",
                    shown(&endpoint.path)
                ),
                "choose another file system, or rename it on the source",
            );
        }
    }

    /// The source has no way to any address of the target.
    fn no_way(&mut self, source: Side<'_>, side: Side<'_>) {
        let has: Vec<String> = side.facts.addresses.iter().map(ToString::to_string).collect();
        self.refuse(
            &format!(
                "no address of it is known by which the source can reach it (it has {})",
                if has.is_empty() { "none".into() } else { has.join(", ") }
            ),
            "name both hosts as SSH hosts with addresses of one family (IPv4 or IPv6), or say --target-address",
        );
        for end in [source, side] {
            let facts = end.facts;
            if !facts.netcats.is_empty() && facts.netcat(&[IpAddr::V6(Ipv6Addr::LOCALHOST)]).is_none() {
                self.list.push(Finding {
                    host: end.endpoint.host.to_string(),
                    weight: Weight::Refusal,
                    problem: "its only netcat is the traditional one, which has no IPv6".into(),
                    fix: format!("apt install {NETCAT}"),
                });
            }
        }
    }

    /// Layers of the firewall that nobody but their owner opens.
    fn firewall(&mut self, settings: &Settings, facts: &Facts, peer: IpAddr) {
        let ports = match settings.ports {
            ports if ports.first == ports.last => format!("port {ports}"),
            ports => format!("the ports {ports}"),
        };
        for table in firewall::not_ours_to_open(facts, settings.firewall, peer) {
            self.refuse(
                &format!(
                    "its nftables table {table} filters what comes in, and only the program that owns it may change it"
                ),
                &format!("open {ports} for the source in that program and give --firewall none"),
            );
        }
    }

    /// Whose the copy will be.
    fn owners(&mut self, chown: Option<&Owner>, source: Side<'_>, side: Side<'_>) {
        let (there, here) = (source.facts, side.facts);
        if chown.is_none() {
            // Without root on both sides the copy belongs to the account.
            if there.uid == 0 && here.uid == 0 {
                self.numbers("user", &there.users, &here.users, source);
                self.numbers("group", &there.groups, &here.groups, source);
            }
            return;
        }
        if here.uid != 0 {
            self.refuse("only root may give files away (--chown)", "log in as root, or with --sudo");
        }
        for unknown in here.target.iter().flat_map(|target| &target.unknown_owners) {
            self.refuse(&format!("there is no {unknown} for --chown"), "create it, or say its number");
        }
    }

    fn numbers(
        &mut self,
        kind: &str,
        there: &BTreeMap<String, u32>,
        here: &BTreeMap<String, u32>,
        source: Side<'_>,
    ) {
        for (name, number) in there {
            let Some(other) = here.get(name).filter(|other| *other != number) else { continue };
            let holder = here.iter().find(|(_, of)| *of == number).map_or("nobody", |(holder, _)| holder);
            self.warn(
                &format!(
                    "files of the {kind} {name}, {number} on {}, will be those of {number}, {holder}: {name} is {other} \
                     here",
                    source.endpoint.host
                ),
                "give the copy its owner with --chown USER:GROUP",
            );
        }
    }
}

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}
