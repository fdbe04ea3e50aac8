//! Findings about one end of a run, of all subjects: the preflight's own, the engine's and the databases'.

#[cfg(test)]
mod tests;

use crate::config::settings::Settings;
use crate::mariadb;
use crate::plan::Engine;
use crate::preflight::{self, Before, Finding, Side};

/// Checks the source.
#[must_use]
pub fn source(settings: &Settings, side: Side<'_>) -> Vec<Finding> {
    let requirements = Engine::of(settings).requirements(settings);
    let mut findings = preflight::source(settings, &requirements, side);
    findings.extend(mariadb::preflight::source(settings, side));
    findings
}

/// Checks one target.
#[must_use]
pub fn target(settings: &Settings, source: Side<'_>, side: Side<'_>, before: Before<'_>) -> Vec<Finding> {
    let requirements = Engine::of(settings).requirements(settings);
    let mut findings = preflight::target(settings, &requirements, source, side, before);
    findings.extend(mariadb::preflight::target(settings, source, side, before));
    findings
}
