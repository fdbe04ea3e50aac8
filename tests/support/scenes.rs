//! A copy from db1 to db2, and a directory of the test on both.

use std::time::Duration;

use super::commands::Running;
use super::hosts::{Host, Lab};
use super::output::Output;
use super::scratch::Scratch;
use super::trees::names;

/// Limit for anything that waits for no timeout of the program.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// Limit for a whole run: less than the time after which wrappers have no effect.
const LONGEST_RUN: Duration = Duration::from_secs(150);

pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) db1: Host,
    pub(crate) db2: Host,
    pub(crate) scratch: Scratch,
    /// Path of the data on db1. By default `source` in the directory of the test.
    pub(crate) source: String,
    /// Directory of db2 that the copy goes to. By default `in` in the directory of the test.
    pub(crate) target: String,
}

impl Scene {
    /// Creates the directories of the test on db1 and db2, but neither data nor target. `None` when labs are
    /// turned off.
    #[track_caller]
    pub(crate) fn new() -> Option<Self> {
        Self::on(&["db1", "db2"])
    }

    /// As [`Scene::new`], with a directory of the test on each of these hosts.
    #[track_caller]
    pub(crate) fn on(hosts: &[&str]) -> Option<Self> {
        let lab = Lab::get()?;
        let (db1, db2) = (lab.host("db1"), lab.host("db2"));
        let scratch = lab.scratch(hosts);
        let (source, target) = (scratch.join("source"), scratch.join("in"));
        Some(Self { lab, db1, db2, scratch, source, target })
    }

    /// Returns the path of an entry of the test's directory.
    pub(crate) fn at(&self, name: &str) -> String {
        self.scratch.join(name)
    }

    /// Returns the arguments of the run.
    pub(crate) fn args(&self, options: &[&str]) -> Vec<String> {
        let ends = [format!("db1:{}", self.source), format!("db2:{}", self.target)];
        ends.into_iter().chain(options.iter().map(ToString::to_string)).collect()
    }

    /// Starts the run.
    pub(crate) fn spawn(&self, options: &[&str]) -> Running {
        let args = self.args(options);
        self.lab.transfer_spawn(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Runs the copy to its end. A run that does not end fails the test.
    #[track_caller]
    pub(crate) fn transfer(&self, options: &[&str]) -> Output {
        self.spawn(options).end_within(LONGEST_RUN)
    }

    /// Returns the names in the target directory.
    #[track_caller]
    pub(crate) fn arrived(&self) -> Vec<String> {
        names(&self.db2, &self.target)
    }
}

impl Lab {
    /// Starts the program under test on the controller.
    pub(crate) fn transfer_spawn(&self, args: &[&str]) -> Running {
        self.program(args).spawn()
    }
}

impl Running {
    /// Waits for the end of a command that has to end by itself.
    #[track_caller]
    pub(crate) fn end_within(mut self, within: Duration) -> Output {
        self.wait_end(within);
        self.wait()
    }
}
