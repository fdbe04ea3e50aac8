//! Faults: what happens at a moment, how it is repaired after the end of the run, and how the run has to end.

mod data;
mod disks;
mod hosts;
mod outages;
mod ports;
mod processes;
mod tools;

use std::time::Duration;

use super::experiment::Experiment;
use super::moments::Moment;
use super::variants::Variant;

type Deed = Box<dyn Fn(&mut Experiment) + Send + Sync>;

/// One fault. Its name is a part of the cell's name.
pub(crate) struct Fault {
    pub(crate) name: String,
    pub(crate) strike: Deed,
    /// Repairs the damage, after the end of the run.
    pub(crate) mend: Deed,
    at: fn(&Moment) -> bool,
    by: fn(&Variant) -> bool,
    /// Permitted exit codes, and texts that the output must have when the code is not 0.
    pub(crate) codes: &'static [i32],
    pub(crate) says: &'static [&'static str],
    /// A program that the output must name, too.
    pub(crate) names: Option<&'static str>,
    /// Name of the first moment at which it may be too late to do harm.
    pub(crate) late: &'static str,
    /// Whether the hosts roll back on their own, after the lease time.
    pub(crate) vanishes: bool,
    /// Hosts on which no process is left that could roll back.
    pub(crate) orphans: fn(&Experiment) -> Vec<&'static str>,
    /// Limit for the end of the run.
    pub(crate) patience: Duration,
}

/// Limit for a run that waits for no timeout.
const SOON: Duration = Duration::from_secs(30);
/// Limit for a run that waits until it gives up a host: keepalives, and repeated logins.
const GIVEN_UP: Duration = Duration::from_secs(75);

fn fault(name: &str, strike: impl Fn(&mut Experiment) + Send + Sync + 'static) -> Fault {
    Fault {
        name: name.to_owned(),
        strike: Box::new(strike),
        mend: Box::new(|_| {}),
        at: |_| true,
        by: |variant| variant.name != "small",
        codes: &[1],
        says: &[],
        names: None,
        late: "publishing",
        vanishes: false,
        orphans: |_| Vec::new(),
        patience: SOON,
    }
}

impl Fault {
    /// Restricts it to some moments.
    fn at(self, at: fn(&Moment) -> bool) -> Self {
        Self { at, ..self }
    }

    /// Restricts it to some variants.
    fn by(self, by: fn(&Variant) -> bool) -> Self {
        Self { by, ..self }
    }

    fn ends(self, codes: &'static [i32], says: &'static [&'static str]) -> Self {
        Self { codes, says, ..self }
    }

    /// Restricts it to the time until the source has done its part.
    fn of_source(self) -> Self {
        Self { late: "closing", ..self }
    }

    fn mend(self, mend: impl Fn(&mut Experiment) + Send + Sync + 'static) -> Self {
        Self { mend: Box::new(mend), ..self }
    }

    fn vanishes(self) -> Self {
        Self { vanishes: true, ..self }
    }

    fn orphans(self, orphans: fn(&Experiment) -> Vec<&'static str>) -> Self {
        Self { orphans, ..self }
    }

    fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Whether the matrix has such a cell.
    pub(crate) fn happens(&self, moment: &Moment, variant: &Variant) -> bool {
        (self.at)(moment) && (self.by)(variant) && variant.differs_at(moment)
    }
}

/// Whether every host has an agent.
fn has_agent(moment: &Moment) -> bool {
    moment.is_from("target")
}

/// The rollback is the same in all other variants: these are the plain one, and those that have leases on
/// several hosts or of other kinds.
fn plain(variant: &Variant) -> bool {
    variant.name == "plain"
}

fn few(variant: &Variant) -> bool {
    ["plain", "two-targets", "keep-old", "cold", "hot", "fill"].contains(&variant.name)
}

/// Variants in which the source has leases.
fn cold(variant: &Variant) -> bool {
    ["plain", "cold", "hot"].contains(&variant.name)
}

/// No fault: each moment comes, and a run that was held there succeeds.
fn nothing() -> Vec<Fault> {
    let some =
        |variant: &Variant| few(variant) && variant.name != "two-targets" || variant.name == "local-source";
    vec![fault("nothing", |_| {}).by(some).ends(&[0], &[])]
}

/// Returns all faults.
pub(crate) fn faults() -> Vec<Fault> {
    [
        nothing(),
        processes::signals(),
        processes::deaths(),
        processes::stages(),
        outages::crashes(),
        outages::networks(),
        disks::disks(),
        data::sources(),
        data::wires(),
        ports::ports(),
        tools::tools(),
        hosts::hosts(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
