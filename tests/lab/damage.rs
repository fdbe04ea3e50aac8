//! The damage matrix: every fault, at every moment of a run, with every variant of running it that leases something else. Each
//! cell is a real transfer between hosts of the lab, a test of its own, named `FAULT/MOMENT/VARIANT`. `damage/` has the tables
//! and how a cell is judged; `README.md` says how to run one.

#[expect(dead_code, reason = "shared with the tests in main.rs")]
mod fixtures;
#[expect(dead_code, reason = "shared with the tests in main.rs")]
mod harness;
#[expect(dead_code, reason = "shared with the tests in main.rs")]
mod processes;
#[expect(dead_code, reason = "shared with the tests in main.rs")]
mod snapshot;

mod damage {
    pub(crate) mod cell;
    pub(crate) mod faults;
    pub(crate) mod inspection;
    pub(crate) mod lane;
    pub(crate) mod matrix;
    pub(crate) mod moments;
    pub(crate) mod variants;
}

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let plants = damage::inspection::PLANTS.iter().map(|plant| {
        Trial::test(format!("inspection/{}", plant.name), || {
            plant.run();
            Ok(())
        })
    });
    let cells = damage::matrix::cells().into_iter().map(|cell| {
        Trial::test(cell.to_string(), move || {
            cell.run();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), plants.chain(cells).collect()).exit_code()
}
