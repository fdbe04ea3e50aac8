//! The damage matrix: every fault, at every moment of a run, with every variant of the run that takes other
//! leases. Each cell is a real transfer between hosts of the lab, and a test named `FAULT/MOMENT/VARIANT`.
//! `damage/` has the tables and the judgement of a cell; `README.md` tells how to run one.

#[path = "../support"]
mod support {
    pub(crate) mod commands;
    pub(crate) mod firewall;
    pub(crate) mod holder;
    pub(crate) mod hosts;
    pub(crate) mod labs;
    pub(crate) mod outages;
    pub(crate) mod output;
    pub(crate) mod processes;
    pub(crate) mod roots;
    pub(crate) mod snapshots;
    pub(crate) mod trees;
    pub(crate) mod waiting;
}

mod damage {
    pub(crate) mod cell;
    pub(crate) mod experiment;
    pub(crate) mod faults;
    pub(crate) mod inspection;
    pub(crate) mod lane;
    pub(crate) mod matrix;
    pub(crate) mod moments;
    pub(crate) mod parts;
    pub(crate) mod places;
    pub(crate) mod published;
    pub(crate) mod results;
    pub(crate) mod state;
    pub(crate) mod variants;
}

mod holder;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if let Some(actions) = holder::agent::actions() {
        return holder::agent::run(&actions);
    }
    let plants = damage::inspection::PLANTS.iter().map(|plant| {
        let name = format!("inspection/{}", plant.name);
        (name, Box::new(|| plant.run()) as Run)
    });
    let cells = damage::matrix::cells().into_iter().map(|cell| {
        let name = cell.to_string();
        (name, Box::new(move || cell.run()) as Run)
    });
    let chosen = damage::parts::chosen(plants.chain(cells).collect());
    let trials = chosen.into_iter().map(|(name, run)| {
        Trial::test(name.clone(), move || {
            damage::results::record(&name, run);
            Ok(())
        })
    });
    let trials = trials.chain(holder::trials()).chain(tables()).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Returns the tests of the tables, which need no lab.
fn tables() -> [Trial; 1] {
    let test = |name: &str, test: fn()| {
        Trial::test(format!("tables/{name}"), move || {
            test();
            Ok(())
        })
    };
    [test("have_fair_parts", damage::parts::parts_are_fair)]
}

/// Test of the matrix.
type Run = Box<dyn FnOnce() + Send>;
