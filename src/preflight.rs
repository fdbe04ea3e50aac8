//! What stands against a run, found before anything is changed and all at once, each finding with its fix. Pure.

mod attributes;
mod databases;
mod source;
mod target;
#[cfg(test)]
mod tests;
mod tools;

use std::fmt;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::Serialize;

pub(crate) use databases::own_remedy;

use crate::endpoint::Endpoint;
use crate::host::facts::Facts;
use crate::host::wire::printable;
use crate::settings::Settings;

/// The package of the netcat that is asked for where none will do.
const NETCAT: &str = "netcat-openbsd";
/// Clocks that differ by more than this many seconds are told of.
const MOST_SKEW: f64 = 5.0;

/// An end of a run.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Target,
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// The run is not begun.
    Refusal,
    /// It may surprise.
    Warning,
}

/// What programs may want to tell from other findings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// What the copy would be is there already.
    Exists,
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
    /// What it is, where a program may want to know.
    pub kind: Option<Kind>,
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
    /// The address that was said to be its own on the data path, and is not.
    pub foreign: Option<IpAddr>,
    /// The source's address on the data path, as far as it is known; of targets only.
    pub peer: Option<IpAddr>,
}

/// Findings against the source.
#[must_use]
pub fn source(settings: &Settings, side: Side<'_>) -> Vec<Finding> {
    let Side { endpoint, facts, .. } = side;
    let mut findings = Findings::of(endpoint);
    findings.tools(settings, facts);
    findings.foreign(side, "--source-address");
    findings.path(settings, side);
    findings.instance(settings, side);
    findings.archive(settings, side);
    findings.servers(settings, side, End::Source);
    if settings.servers.stop_replication && facts.instance.is_none() {
        findings.warn(
            "--stop-replication has no effect on files",
            "leave it out, or stop its replication yourself",
        );
    }
    findings.list
}

/// What counts for one target besides itself: those that were named before it, and what is to become of all of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before<'a> {
    /// They become replicas: their servers are started, whatever ran before.
    pub replicas: bool,
    /// All of them.
    pub named: &'a [Side<'a>],
    /// Those that nothing stands against, so that they will take their space.
    pub accepted: &'a [Side<'a>],
}

/// Findings against one target.
#[must_use]
pub fn target(settings: &Settings, source: Side<'_>, side: Side<'_>, before: Before<'_>) -> Vec<Finding> {
    let mut findings = Findings::of(side.endpoint);
    findings.tools(settings, side.facts);
    let of_target = side.facts.target.clone().unwrap_or_default();
    let of_source = source.facts.source.clone().unwrap_or_default();
    findings.directory(settings, side, &of_target);
    findings.name(settings, source, side.endpoint, &of_target);
    findings.overlap(settings, source, side, (&of_source, &of_target));
    if of_target.file_type == "directory" {
        findings.space(settings, (source, side), before.accepted, (&of_source, &of_target));
        findings.case(&of_source, &of_target, side.endpoint);
        findings.attributes(settings, side, (&of_source, &of_target));
    }
    findings.owners(settings, source, side);
    findings.servers(settings, side, End::Target);
    if !before.replicas {
        findings.rests(settings, source, side);
    }
    findings.taking(settings, source, side);
    findings.foreign(side, "--target-address");
    if let Some(peer) = side.peer {
        findings.firewall(settings, side.facts, peer);
    } else {
        findings.no_way(source, side);
    }
    let beside = before.accepted.iter().any(|other| same_machine(side, *other));
    if settings.ports.first == settings.ports.last && beside {
        findings.refuse(
            &format!("port {} is for another target on this host", settings.ports),
            "leave out --port, or say a range with --port-range",
        );
    }
    if let Some(other) = before.named.iter().find(|other| same_place(side, **other)) {
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
    let of = |side: Side<'_>| side.facts.target.clone().unwrap_or_default();
    let (here, there) = (of(one), of(other));
    let same = |here: &Path, there: &Path| !here.as_os_str().is_empty() && here == there;
    same_machine(one, other) && (same(&here.real, &there.real) || same(&here.place, &there.place))
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

    /// The same, of what is there already.
    fn refuse_existing(&mut self, problem: &str, fix: &str) {
        let (host, problem, fix) = (self.host.clone(), problem.into(), fix.into());
        self.list.push(Finding { host, weight: Weight::Refusal, problem, fix, kind: Some(Kind::Exists) });
    }

    fn warn(&mut self, problem: &str, fix: &str) {
        self.add(Weight::Warning, problem, fix);
    }

    fn add(&mut self, weight: Weight, problem: &str, fix: &str) {
        let (host, problem, fix) = (self.host.clone(), problem.into(), fix.into());
        self.list.push(Finding { host, weight, problem, fix, kind: None });
    }
}

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}
