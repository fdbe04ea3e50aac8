//! Preflight of a run: the plan, or the reasons why there is none.

use std::fmt;

use super::{Begun, findings};
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
    let Begun { settings, source, targets, replica, probe } = begun;
    let of_source = Side {
        endpoint: source,
        facts: &probe.source.facts,
        skew: probe.source.skew,
        foreign: probe.source.foreign,
        peer: None,
    };
    let mut refusals = note(&mut report.findings, findings::source(settings, of_source));
    let source_is_good = refusals.is_empty();
    let mut accepted = Vec::new();
    let mut left_out = Vec::new();
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
                let reasons = note(&mut report.findings, findings::target(settings, of_source, side, before));
                named.push(side);
                let writer = end.facts.target.as_ref().and_then(|target| target.busy.as_deref());
                match (addresses, writer) {
                    (Some((address, peer)), None) if reasons.is_empty() => {
                        accepted.push(TargetFactsOf { endpoint, facts: &end.facts, address, peer });
                        good.push(side);
                        continue;
                    }
                    (_, Some(writer)) if reasons.is_empty() => {
                        let name = final_name(settings, source, Some(of_source.facts)).unwrap_or_default();
                        let resource = lease::busy_name(&endpoint.path.join(name), writer);
                        vec![Reason::Busy(lease::busy(&end.host, resource))]
                    }
                    _ => reasons,
                }
            }
            Err(error) => vec![Reason::Refusal(chain(error))],
        };
        left_out.push((endpoint, reasons));
    }
    let goes_on = source_is_good && !accepted.is_empty() && (left_out.is_empty() || settings.skip_refused);
    if !goes_on {
        // The run's own error lists everything for people; programs want a status for each target.
        report.targets.extend(targets.iter().map(|endpoint| {
            let found = left_out.iter().find(|(other, _)| std::ptr::eq(*other, endpoint));
            let error = match found {
                Some((_, reasons)) => {
                    all_busy(reasons).map_or_else(|| Error::Refused(listed(reasons, "; ")), Error::Busy)
                }
                None => {
                    Error::Refused("no finding for this target; the run was refused for other reasons".into())
                }
            };
            TargetReport::without_copy(endpoint.clone(), error)
        }));
        refusals.extend(left_out.into_iter().flat_map(|(_, reasons)| reasons));
        return Err(all_busy(&refusals).map_or_else(|| refused(&refusals), Error::Busy));
    }
    // The other targets are changed, so the run as a whole is no longer refused.
    report.targets.extend(left_out.into_iter().map(|(endpoint, reasons)| {
        let text = format!("left out (--skip-refused): {}", listed(&reasons, "; "));
        TargetReport::without_copy(endpoint.clone(), Error::Failed(text))
    }));
    let plan = Plan::new(id, settings, SourceFactsOf { endpoint: source, facts: of_source.facts }, &accepted);
    Ok(match replica {
        Some(replica) => plan.for_replicas(replica.clone()),
        None => plan,
    })
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
