//! Requirements for a transfer that has ended, and for target directories when all transfers that share them
//! have.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use serde_json::Value;

use super::plan::{Case, Fault, LEASE, Place, WINDOW, Whom, places_of};
use super::{Ended, Soak};
use crate::support::hosts::Host;
use crate::support::trees::list;
use crate::support::waiting::eventually;

/// Limit for the rollback, after the lease time.
const SETTLE: Duration = Duration::from_secs(15);

/// Result that a run reports for one name in one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// The copy was published.
    Published,
    /// No process is left that could report it.
    Unknown,
    /// The copy was not published.
    No,
}

/// Claims of a run about its target directories.
pub(super) struct Member {
    index: usize,
    claims: Vec<Claim>,
    /// Staging directories that it reports as kept.
    kept: Vec<String>,
    /// Number of targets where one may be kept without a report.
    may_keep: bool,
    story: String,
}

/// Returns the end of a transfer as a word.
pub(super) fn outcome(ended: &Ended) -> String {
    match ended.output.as_ref().map(|output| (output.status.code(), output.status.signal())) {
        Some((Some(code), _)) => code.to_string(),
        Some((None, signal)) => format!("signal {}", signal.unwrap_or(0)),
        None => "no end".into(),
    }
}

/// Returns the end of a transfer as a line.
pub(super) fn line(index: usize, ended: &Ended) -> String {
    let struck = ended.struck.as_deref().map_or(String::new(), |what| format!(", struck: {}", what.trim()));
    format!("{index}: {} after {:.1} s{struck}", outcome(ended), ended.seconds)
}

fn report(ended: &Ended) -> Option<Value> {
    let last = ended.output.as_ref()?.stdout.lines().last()?;
    serde_json::from_str(last).ok().filter(|report: &Value| report["event"] == "report")
}

/// Returns the runs of a window, with their claims.
pub(super) fn members<'a>(soak: &Soak, ended: impl Iterator<Item = (&'a usize, &'a Ended)>) -> Vec<Member> {
    ended.map(|(index, ended)| soak.member(*index, ended)).collect()
}

/// Whether an agent of the run was killed, and so may not have reported its work.
fn lost_an_agent(case: &Case, ended: &Ended) -> bool {
    let struck = ended.struck.is_some();
    struck && matches!(&case.fault, Fault::Kill { whom, .. } if *whom != Whom::Stage)
}

impl Soak {
    /// Whether another run of the window has the same name in the same place.
    fn has_rivals(&self, index: usize) -> bool {
        let case = &self.cases[index];
        let first = index / WINDOW * WINDOW;
        (first..self.cases.len().min(first + WINDOW)).any(|other| {
            let rival = &self.cases[other];
            other != index
                && rival.name == case.name
                && rival.places.iter().any(|place| case.places.contains(place))
        })
    }

    /// Returns the errors in how a transfer has ended.
    pub(super) fn judge_end(&self, index: usize, ended: &Ended) -> Option<String> {
        let case = &self.cases[index];
        let outcome = outcome(ended);
        let fault = if ended.struck.is_some() { &case.fault } else { &Fault::None };
        // A run that was signalled before it was ready has done and reported nothing.
        let asleep = ended.output.as_ref().is_some_and(|output| output.stdout.is_empty());
        let by_fault: &[&str] = match fault {
            Fault::None => &[],
            Fault::Signal("INT", _) if asleep => &["signal 2"],
            Fault::Signal("TERM", _) if asleep => &["signal 15"],
            Fault::Signal("HUP", _) if asleep => &["signal 1"],
            Fault::Signal("INT", _) => &["130"],
            Fault::Signal("TERM", _) => &["143"],
            Fault::Signal("HUP", _) => &["129"],
            Fault::Signal(..) => &["signal 9"],
            Fault::Kill { whom: Whom::AgentAndController, .. } => &["signal 9", "1"],
            Fault::Kill { .. } => &["1"],
        };
        // The later run finds the name taken: before anything was changed, or afterwards.
        let by_rivals: &[&str] = match self.has_rivals(index) {
            true if case.options.iter().any(|option| option == "--skip-refused") => &["1", "4", "5"],
            true => &["4", "5"],
            false => &[],
        };
        let expected: Vec<&str> = ["0"].iter().chain(by_fault).chain(by_rivals).copied().collect();
        let wrong = if !expected.contains(&outcome.as_str()) {
            format!("ended with {outcome} and not one of {expected:?}")
        } else if outcome.starts_with("signal ") {
            return None;
        } else {
            match report(ended) {
                None => "has no report".into(),
                Some(report) if report["exit"].as_i64() != outcome.parse().ok() => {
                    format!("ended with {outcome} and reports {}", report["exit"])
                }
                Some(report) if report["leftovers"].as_array().is_none_or(|left| !left.is_empty()) => {
                    "has leftovers".into()
                }
                Some(report) if outcome == "0" && !self.all_done(index, &report) => {
                    "succeeded without all targets".into()
                }
                Some(_) => return None,
            }
        };
        Some(format!("{wrong}: {}", self.story(index, Some(ended))))
    }

    fn all_done(&self, index: usize, report: &Value) -> bool {
        let places = &self.cases[index].places;
        places.iter().all(|place| self.target(report, place)["status"] == "done")
    }

    fn target(&self, report: &Value, place: &Place) -> Value {
        let directory = self.directory(place);
        let of_place = |target: &&Value| target["host"] == place.host && target["path"] == directory.as_str();
        report["targets"].as_array().and_then(|all| all.iter().find(of_place)).cloned().unwrap_or_default()
    }

    fn member(&self, index: usize, ended: &Ended) -> Member {
        let case = &self.cases[index];
        let report = report(ended);
        let lost = lost_an_agent(case, ended);
        let claim = |place: &Place| match &report {
            None => Claim::Unknown,
            Some(report) => match self.target(report, place)["status"].as_str() {
                Some("done" | "published") => Claim::Published,
                _ if lost => Claim::Unknown,
                _ => Claim::No,
            },
        };
        let kept = report.iter().flat_map(|report| {
            let targets = report["targets"].as_array().cloned().unwrap_or_default();
            targets
                .into_iter()
                .flat_map(|target| target["kept_staging"].as_array().cloned().unwrap_or_default())
        });
        let kept = kept.filter_map(|path| path.as_str().map(ToOwned::to_owned)).collect();
        Member {
            index,
            claims: case.places.iter().map(claim).collect(),
            kept,
            may_keep: case.keep_staging && (report.is_none() || lost),
            story: self.story(index, Some(ended)),
        }
    }

    /// Returns the errors in the directories of a window, and empties them.
    pub(super) fn judge_window(&self, window: usize, members: &[Member]) -> Vec<String> {
        let mut failures = Vec::new();
        for place in places_of(window) {
            let of_place: Vec<(&Member, Claim)> = members
                .iter()
                .filter_map(|member| {
                    let places = &self.cases[member.index].places;
                    let at = places.iter().position(|other| *other == place)?;
                    Some((member, member.claims[at]))
                })
                .collect();
            if !of_place.is_empty() {
                let wrong = self.judge_place(&place, &of_place);
                if !wrong.is_empty() {
                    let stories: Vec<&str> =
                        of_place.iter().map(|(member, _)| member.story.as_str()).collect();
                    failures.push(format!(
                        "{} on {}: {}\nits runs were:\n{}",
                        self.directory(&place),
                        place.host,
                        wrong.join("; "),
                        stories.join("\n")
                    ));
                }
                self.lab
                    .host(place.host)
                    .sh(&format!("find '{}' -mindepth 1 -delete", self.directory(&place)));
            }
        }
        for member in members {
            let host = self.lab.host(self.cases[member.index].source);
            host.run(&["rm", "-rf", &self.source(member.index)]).expect_success();
        }
        failures
    }

    fn judge_place(&self, place: &Place, members: &[(&Member, Claim)]) -> Vec<String> {
        let host = self.lab.host(place.host);
        let directory = self.directory(place);
        let mut wrong = Vec::new();

        // Runs whose controller is gone are rolled back after the lease time.
        let reported: Vec<&String> = members.iter().flat_map(|(member, _)| &member.kept).collect();
        let silent = members.iter().filter(|(member, _)| member.may_keep).count();
        let mut all = Vec::new();
        let mut staging = Vec::new();
        let rolled_back = eventually(LEASE + SETTLE, || {
            all = entries(&host, &directory);
            staging = all.iter().filter(|name| name.starts_with(".transfer-")).cloned().collect();
            staging.retain(|name| !reported.contains(&&format!("{directory}/{name}")));
            staging.len() <= silent
        });
        if !rolled_back {
            wrong.push(format!("{staging:?} is still there"));
        }
        all.retain(|name| !name.starts_with(".transfer-"));

        for name in &all {
            let old = name.split_once(".old-").map(|(name, _)| name);
            let named = |member: &Member| self.cases[member.index].name == old.unwrap_or(name);
            let may_be: Vec<&Member> = members
                .iter()
                .filter(|(member, claim)| named(member) && *claim != Claim::No)
                .map(|(member, _)| *member)
                .collect();
            let kept_old = |member: &&Member| self.cases[member.index].keep_old;
            if old.is_some() && !may_be.iter().any(kept_old) {
                wrong.push(format!("{name:?} was kept by no run"));
            }
            let copy = list_alone(&host, &format!("{directory}/{name}"), &format!("{directory}/.judged"));
            let mut differences = Vec::new();
            let identical = may_be.iter().any(|member| {
                let source = self.list_source(member.index);
                differences = differ(&source, &copy);
                differences.is_empty()
            });
            if !identical {
                let of: Vec<usize> = may_be.iter().map(|member| member.index).collect();
                wrong.push(format!("{name:?} is no copy of any of the transfers {of:?}: {differences:#?}"));
            }
        }
        for (member, claim) in members {
            let name = self.cases[member.index].name;
            if *claim == Claim::Published && !all.iter().any(|other| other == name) {
                wrong.push(format!("transfer {} says that {name:?} is there, and it is not", member.index));
            }
        }
        wrong.extend(self.given_to_several(members));
        wrong
    }

    /// Returns the names that several runs claim: without --replace, only one can have a name.
    fn given_to_several(&self, members: &[(&Member, Claim)]) -> Vec<String> {
        let mut wrong = Vec::new();
        for (member, claim) in members {
            let case = &self.cases[member.index];
            let replaced = members.iter().any(|(other, claim)| {
                let other = &self.cases[other.index];
                other.name == case.name && other.replace && *claim != Claim::No
            });
            let others = members.iter().filter(|(other, claim)| {
                other.index != member.index
                    && self.cases[other.index].name == case.name
                    && *claim == Claim::Published
            });
            if *claim == Claim::Published && !replaced && others.count() > 0 {
                wrong.push(format!("{:?} was given to several", case.name));
            }
        }
        wrong
    }

    fn list_source(&self, index: usize) -> Vec<String> {
        let (host, directory) = (self.lab.host(self.cases[index].source), self.source(index));
        let script = r#"[ -e "$1/x" ] || [ -L "$1/x" ] || mv -T -- "$1/$2" "$1/x""#;
        host.run(&["sh", "-ec", script, "sh", &directory, self.cases[index].own_name]).expect_success();
        list(&host, &format!("{directory}/x"))
    }
}

/// Lists the tree at a path, without its own name.
fn list_alone(host: &Host, path: &str, room: &str) -> Vec<String> {
    let script = r#"rm -rf -- "$2"; mkdir -- "$2"; mv -T -- "$1" "$2/x""#;
    host.run(&["sh", "-ec", script, "sh", path, room]).expect_success();
    list(host, &format!("{room}/x"))
}

/// Returns the names in a directory.
fn entries(host: &Host, directory: &str) -> Vec<String> {
    let script = r"find . -mindepth 1 -maxdepth 1 ! -name .judged -printf '%f\0'";
    let found = host.sh(&format!("cd '{directory}'; {script}"));
    found.split_terminator('\0').map(ToOwned::to_owned).collect()
}

/// Returns the first lines that only one of two lists has.
fn differ(source: &[String], copy: &[String]) -> Vec<String> {
    let only = |these: &[String], those: &[String], sign: char| -> Vec<String> {
        these
            .iter()
            .filter(|line| !those.contains(line))
            .map(|line| format!("{sign} {line}"))
            .take(5)
            .collect()
    };
    [only(source, copy, '-'), only(copy, source, '+')].concat()
}
