//! Preflight of a run: the plan, or the reasons why there is none.

use std::fmt;

use super::{Begun, findings};
use crate::base::endpoint::Endpoint;
use crate::base::run_id::RunId;
use crate::error::busy::Busy;
use crate::error::{Error, chain};
use crate::lease;
use crate::plan::{Plan, SourceFactsOf, TargetFactsOf};
use crate::preflight::{Before, Finding, Side, Weight};
use crate::probe::ProbedTarget;
use crate::report::{Report, TargetReport};
use crate::shape::final_name;

/// Runs the preflight and makes the plan. Findings and skipped targets go into the report.
pub(super) fn plan(id: &RunId, begun: &Begun, report: &mut Report) -> Result<Plan, Error> {
    let Begun { settings, source, replica, probe, .. } = begun;
    let of_source = Side {
        endpoint: source,
        facts: &probe.source.facts,
        skew: probe.source.skew,
        foreign: probe.source.foreign,
        peer: None,
    };
    let refusals = note(&mut report.findings, findings::source(settings, of_source));
    let Checked { accepted, left_out } = check_targets(begun, of_source, &mut report.findings);
    let goes_on =
        refusals.is_empty() && !accepted.is_empty() && (left_out.is_empty() || settings.skip_refused);
    if !goes_on {
        return Err(no_run(begun, refusals, left_out, report));
    }
    // The other targets are changed, so the run as a whole is no longer refused.
    report.targets.extend(left_out.into_iter().map(|LeftOut { endpoint, reasons }| {
        let text = format!("left out (--skip-refused): {}", listed(&reasons, "; "));
        TargetReport::without_copy(endpoint.clone(), Error::Failed(text))
    }));
    let plan = Plan::new(id, settings, SourceFactsOf { endpoint: source, facts: of_source.facts }, &accepted);
    Ok(match replica {
        Some(replica) => plan.for_replicas(replica.clone()),
        None => plan,
    })
}

/// Targets by the result of the preflight.
struct Checked<'a> {
    accepted: Vec<TargetFactsOf<'a>>,
    left_out: Vec<LeftOut<'a>>,
}

/// Target that was refused.
struct LeftOut<'a> {
    endpoint: &'a Endpoint,
    reasons: Vec<Reason>,
}

/// Checks all targets, each against those before it.
fn check_targets<'a>(begun: &'a Begun, of_source: Side<'a>, findings: &mut Vec<Finding>) -> Checked<'a> {
    let Begun { settings, targets, replica, probe, .. } = begun;
    let mut checked = Checked { accepted: Vec::new(), left_out: Vec::new() };
    let (mut named, mut good): (Vec<Side<'_>>, Vec<Side<'_>>) = Default::default();
    for (endpoint, probed) in targets.iter().zip(&probe.targets) {
        let reasons = match probed {
            Ok(ProbedTarget { end, address, peer, .. }) => {
                let addresses = address.zip(*peer);
                let side = Side {
                    endpoint,
                    facts: &end.facts,
                    skew: end.skew,
                    foreign: end.foreign,
                    peer: addresses.map(|(_, peer)| peer),
                };
                let before = Before { replicas: replica.is_some(), named: &named, accepted: &good };
                let reasons = note(findings, findings::target(settings, of_source, side, before));
                named.push(side);
                let writer = end.facts.target.as_ref().and_then(|target| target.busy.as_deref());
                match (addresses, writer) {
                    (Some((address, peer)), None) if reasons.is_empty() => {
                        checked.accepted.push(TargetFactsOf { endpoint, facts: &end.facts, address, peer });
                        good.push(side);
                        continue;
                    }
                    (_, Some(writer)) if reasons.is_empty() => {
                        let name = final_name(settings, of_source.endpoint, Some(of_source.facts));
                        let path = endpoint.path.join(name.unwrap_or_default());
                        vec![Reason::Busy(lease::busy(&end.host, lease::busy_name(&path, writer)))]
                    }
                    _ => reasons,
                }
            }
            Err(error) => vec![Reason::Refusal(chain(error))],
        };
        checked.left_out.push(LeftOut { endpoint, reasons });
    }
    checked
}

/// Returns the error of a refused run, which lists everything for people. Programs want a status for each target:
/// these go into the report. `refusals`: those of the source.
fn no_run(
    begun: &Begun,
    mut refusals: Vec<Reason>,
    left_out: Vec<LeftOut<'_>>,
    report: &mut Report,
) -> Error {
    report.targets.extend(begun.targets.iter().map(|endpoint| {
        let found = left_out.iter().find(|other| std::ptr::eq(other.endpoint, endpoint));
        let error = match found {
            Some(LeftOut { reasons, .. }) => {
                all_busy(reasons).map_or_else(|| Error::Refused(listed(reasons, "; ")), Error::Busy)
            }
            None => {
                Error::Refused("no finding for this target; the run was refused for other reasons".into())
            }
        };
        TargetReport::without_copy(endpoint.clone(), error)
    }));
    refusals.extend(left_out.into_iter().flat_map(|other| other.reasons));
    all_busy(&refusals).map_or_else(|| refused(&refusals), Error::Busy)
}

/// Reason why a run, or one of its targets, is refused.
pub(super) enum Reason {
    /// A finding of the preflight, or a host that cannot be probed.
    Refusal(String),
    /// Another run writes to the final name, which is temporary.
    Busy(Busy),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refusal(text) => f.write_str(text),
            Self::Busy(busy) => busy.fmt(f),
        }
    }
}

/// Returns the resources in use if there are no other reasons.
fn all_busy(reasons: &[Reason]) -> Option<Vec<Busy>> {
    let busy = |reason: &Reason| match reason {
        Reason::Busy(busy) => Some(busy.clone()),
        Reason::Refusal(_) => None,
    };
    reasons.iter().map(busy).collect()
}

/// Lists reasons. A host with two roles can have the same finding twice, which is listed once.
fn listed(reasons: &[Reason], separator: &str) -> String {
    let mut listed: Vec<String> = Vec::new();
    for reason in reasons {
        let text = reason.to_string();
        if !listed.contains(&text) {
            listed.push(text);
        }
    }
    listed.join(separator)
}

/// Adds findings to the report, logs warnings, and returns the refusals.
pub(super) fn note(findings: &mut Vec<Finding>, found: Vec<Finding>) -> Vec<Reason> {
    let (refusals, warnings): (Vec<&Finding>, Vec<&Finding>) =
        found.iter().partition(|finding| finding.weight == Weight::Refusal);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let refusals = refusals.into_iter().map(|finding| Reason::Refusal(finding.to_string())).collect();
    findings.extend(found);
    refusals
}

/// Error that lists all refusals.
pub(super) fn refused(reasons: &[Reason]) -> Error {
    Error::Refused(format!("refused, nothing was changed:\n  {}", listed(reasons, "\n  ")))
}
