//! Preflight: read-only checks of the probed hosts. All findings are reported at once, each with its fix,
//! before anything is changed. Pure.

mod archive;
mod attributes;
mod source;
mod target;
mod tools;

use std::fmt;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::Serialize;

use crate::base::endpoint::{Endpoint, HostName};
use crate::base::printable::printable;
use crate::config::settings::Settings;
use crate::host::facts::{Facts, PathType, SourceFacts, TargetFacts};

/// Clock difference in seconds above which a warning is given.
const MOST_SKEW: f64 = 5.0;

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Weight {
    /// Prevents the run.
    Refusal,
    /// Reported, but does not prevent the run.
    Warning,
}

/// Machine-readable kind of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The destination of the copy already exists.
    Exists,
}

/// Result of a failed check: a refusal or a warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Host that the finding is about.
    pub host: String,
    /// Severity.
    pub weight: Weight,
    /// Description of the problem.
    pub problem: String,
    /// Suggested fix.
    pub fix: String,
    /// Kind, for findings that programs need to tell apart.
    pub kind: Option<Kind>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.host, self.problem, self.fix)
    }
}

/// Requirements of an engine for every host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Requirements {
    /// Programs, with their Debian packages.
    pub programs: Vec<(&'static str, &'static str)>,
    /// Package to suggest where a netcat is required and none is usable.
    pub netcat: Option<&'static str>,
}

/// One end of a run, with the results of its probe.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    /// Endpoint from the command line.
    pub endpoint: &'a Endpoint,
    /// Facts that the probe collected.
    pub facts: &'a Facts,
    /// Seconds by which its clock is ahead of the controller's.
    pub skew: Option<f64>,
    /// Address given for it on the data path that is not one of its own.
    pub foreign: Option<IpAddr>,
    /// Source address on the data path, if known. Set for targets only.
    pub peer: Option<IpAddr>,
}

/// Checks the source.
#[must_use]
pub(crate) fn source(settings: &Settings, requirements: &Requirements, side: Side<'_>) -> Vec<Finding> {
    let Side { endpoint, facts, .. } = side;
    let mut findings = Findings::of(endpoint);
    findings.tools(settings, requirements, facts);
    findings.foreign(side, "--source-address");
    findings.path(settings, side);
    findings.archive(settings, side);
    findings.list
}

/// Context of the check of one target: the targets before it, and the purpose of the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before<'a> {
    /// Targets become replicas: their servers are started even if they were not running before.
    pub replicas: bool,
    /// All targets before this one.
    pub named: &'a [Side<'a>],
    /// Targets before this one without refusals, which will use disk space and ports.
    pub accepted: &'a [Side<'a>],
}

/// Copy of the source to one target.
#[derive(Clone, Copy)]
struct Copying<'a> {
    settings: &'a Settings,
    source: Side<'a>,
    target: Side<'a>,
    /// Facts about the data to copy.
    of_source: &'a SourceFacts,
    /// Facts about the directory that receives the copy.
    of_target: &'a TargetFacts,
}

/// Checks one target.
#[must_use]
pub(crate) fn target(
    settings: &Settings,
    requirements: &Requirements,
    source: Side<'_>,
    side: Side<'_>,
    before: Before<'_>,
) -> Vec<Finding> {
    let mut findings = Findings::of(side.endpoint);
    findings.tools(settings, requirements, side.facts);
    let of_target = side.facts.target.clone().unwrap_or_default();
    let of_source = source.facts.source.clone().unwrap_or_default();
    let copying = Copying { settings, source, target: side, of_source: &of_source, of_target: &of_target };
    findings.directory(copying);
    findings.name(copying);
    findings.overlap(copying);
    if of_target.path_type == PathType::Directory {
        findings.space(copying, before.accepted);
        findings.case(copying);
        findings.attributes(copying);
    }
    findings.owners(settings, source, side);
    findings.unpacker(settings, source, side);
    findings.foreign(side, "--target-address");
    if let Some(peer) = side.peer {
        findings.firewall(settings, side.facts, peer);
    } else {
        findings.no_route(requirements, source, side);
    }
    let beside = before.accepted.iter().any(|other| same_machine(side, *other));
    if settings.ports.first == settings.ports.last && beside {
        findings.refuse(
            &format!("port {} is already used for another target on this host", settings.ports),
            "omit --port, or give a range with --port-range",
        );
    }
    if let Some(other) = before.named.iter().find(|other| same_place(side, **other)) {
        findings
            .refuse(&format!("{} is given twice as a target", shown(&other.endpoint.path)), "give it once");
    }
    if let Some(skew) = source.skew.zip(side.skew).map(|(there, here)| here - there) {
        if skew.abs() > MOST_SKEW {
            let direction = if skew > 0.0 { "ahead of" } else { "behind" };
            findings.warn(
                &format!("the clock is {:.0} s {direction} that of {}", skew.abs(), source.endpoint.host),
                "check NTP (file times in the copy are those of the source)",
            );
        }
    }
    findings.list
}

/// Returns whether both endpoints are on the same host.
fn same_machine(one: Side<'_>, other: Side<'_>) -> bool {
    one.endpoint.host == other.endpoint.host || one.facts.same_machine(other.facts)
}

/// Returns whether both endpoints are the same directory.
fn same_place(one: Side<'_>, other: Side<'_>) -> bool {
    let of = |side: Side<'_>| side.facts.target.clone().unwrap_or_default();
    let (here, there) = (of(one), of(other));
    let same = |here: &Path, there: &Path| !here.as_os_str().is_empty() && here == there;
    same_machine(one, other) && (same(&here.real, &there.real) || same(&here.place, &there.place))
}

/// Findings about one host.
pub(crate) struct Findings {
    host: String,
    pub(crate) list: Vec<Finding>,
}

impl Findings {
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        Self::about(&endpoint.host)
    }

    pub(crate) fn about(host: &HostName) -> Self {
        Self { host: host.to_string(), list: Vec::new() }
    }

    pub(crate) fn refuse(&mut self, problem: &str, fix: &str) {
        self.add(Weight::Refusal, problem, fix);
    }

    /// Adds a refusal of kind [`Kind::Exists`].
    fn refuse_existing(&mut self, problem: &str, fix: &str) {
        let (host, problem, fix) = (self.host.clone(), problem.into(), fix.into());
        self.list.push(Finding { host, weight: Weight::Refusal, problem, fix, kind: Some(Kind::Exists) });
    }

    pub(crate) fn warn(&mut self, problem: &str, fix: &str) {
        self.add(Weight::Warning, problem, fix);
    }

    /// Refuses a host that lacks a program.
    pub(crate) fn needs(&mut self, facts: &Facts, program: &str, package: &str) {
        if !facts.has(program) {
            self.refuse(&format!("not installed: {program}"), &format!("apt install {package}"));
        }
    }

    fn add(&mut self, weight: Weight, problem: &str, fix: &str) {
        let (host, problem, fix) = (self.host.clone(), problem.into(), fix.into());
        self.list.push(Finding { host, weight, problem, fix, kind: None });
    }
}

/// Formats a number with its noun: `1 client`, `2 clients`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

pub(crate) fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}
