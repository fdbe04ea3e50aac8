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

/// One of them. Its name is the one in a cell's.
pub(crate) struct Fault {
    pub(crate) name: String,
    pub(crate) strike: Deed,
    /// After the run's end: what was broken is whole again.
    pub(crate) mend: Deed,
    at: fn(&Moment) -> bool,
    by: fn(&Variant) -> bool,
    /// The exit codes that are right, and what the message must say where the code is not 0.
    pub(crate) codes: &'static [i32],
    pub(crate) says: &'static [&'static str],
    /// A program that it must name, besides.
    pub(crate) names: Option<&'static str>,
    /// From this moment on it may come too late to do any harm.
    pub(crate) late: &'static str,
    /// The hosts undo everything by themselves, after the lease time.
    pub(crate) vanishes: bool,
    /// Hosts on which nobody is left to undo anything.
    pub(crate) wrecks: fn(&Experiment) -> Vec<&'static str>,
    /// How long the run may take to end, if more than anything that waits for nothing.
    pub(crate) patience: Duration,
}

/// Within which a run has ended that waits for no timeout.
const SOON: Duration = Duration::from_secs(30);
/// The same of one that waits until it gives up a host: keepalives, and logins that are tried again.
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
        wrecks: |_| Vec::new(),
        patience: SOON,
    }
}

impl Fault {
    /// Only at these moments.
    fn at(self, at: fn(&Moment) -> bool) -> Self {
        Self { at, ..self }
    }

    /// Only in these variants.
    fn by(self, by: fn(&Variant) -> bool) -> Self {
        Self { by, ..self }
    }

    fn ends(self, codes: &'static [i32], says: &'static [&'static str]) -> Self {
        Self { codes, says, ..self }
    }

    /// It concerns the source, which has done its part then.
    fn of_source(self) -> Self {
        Self { late: "closing", ..self }
    }

    fn mend(self, mend: impl Fn(&mut Experiment) + Send + Sync + 'static) -> Self {
        Self { mend: Box::new(mend), ..self }
    }

    fn vanishes(self) -> Self {
        Self { vanishes: true, ..self }
    }

    fn wrecks(self, wrecks: fn(&Experiment) -> Vec<&'static str>) -> Self {
        Self { wrecks, ..self }
    }

    fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Whether there is such a cell.
    pub(crate) fn happens(&self, moment: &Moment, variant: &Variant) -> bool {
        (self.at)(moment) && (self.by)(variant) && variant.differs_at(moment)
    }
}

/// There is an agent on every host.
fn has_agent(moment: &Moment) -> bool {
    moment.is_from("target")
}

/// What is undone is no other thing in another variant: one, or those with something to undo on several hosts or by others.
fn plain(variant: &Variant) -> bool {
    variant.name == "plain"
}

fn few(variant: &Variant) -> bool {
    ["plain", "two-targets", "keep-old", "cold", "hot", "fill"].contains(&variant.name)
}

/// The source has something to undo.
fn cold(variant: &Variant) -> bool {
    ["plain", "cold", "hot"].contains(&variant.name)
}

/// All of them.
pub(crate) fn faults() -> Vec<Fault> {
    [
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
