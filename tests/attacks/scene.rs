//! What most attacks begin with: a tree on db1, a directory for it on db2, and eve on both.

use std::time::Duration;

use crate::fixtures::{make_random, names};
use crate::harness::{Host, Lab, Output, Running, Scratch};

/// A text in each source, by which its bytes are found again wherever they are.
pub(crate) const MARKER: &str = "only-for-the-target";
/// How long a run may take that has nothing to wait for.
pub(crate) const LONG_ENOUGH: Duration = Duration::from_secs(60);

/// Two hosts, and a directory of the test on each.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) db1: Host,
    pub(crate) db2: Host,
    pub(crate) scratch: Scratch,
}

impl Scene {
    /// `None` where there is to be no lab.
    #[track_caller]
    pub(crate) fn new() -> Option<Self> {
        let lab = Lab::get()?;
        let (db1, db2) = (lab.host("db1"), lab.host("db2"));
        let scratch = lab.scratch(&["db1", "db2"]);
        Some(Self { lab, db1, db2, scratch })
    }

    /// The same with a tree `source` on db1: a file with [`MARKER`] and one of some MiB. The target is `in` on db2.
    #[track_caller]
    pub(crate) fn with_source(mib: u32) -> Option<Self> {
        let scene = Self::new()?;
        scene.db1.sh(&format!("mkdir '{0}'; echo {MARKER} >'{0}/marked'", scene.at("source")));
        make_random(&scene.db1, &scene.at("source/file"), mib);
        scene.db2.run(&["mkdir", &scene.at("in")]).expect_success();
        Some(scene)
    }

    pub(crate) fn at(&self, name: &str) -> String {
        self.scratch.join(name)
    }

    /// Starts the copy of `source` to `in`.
    pub(crate) fn spawn(&self, options: &[&str]) -> Running {
        let ends = [format!("db1:{}", self.at("source")), format!("db2:{}", self.at("in"))];
        self.lab.transfer_spawn(&[&ends.each_ref().map(String::as_str)[..], options].concat())
    }

    /// Copies `source` to `in`. A run that does not end fails the test.
    #[track_caller]
    pub(crate) fn transfer(&self, options: &[&str]) -> Output {
        ended(self.spawn(options))
    }

    /// The names in `in`.
    #[track_caller]
    pub(crate) fn arrived(&self) -> Vec<String> {
        names(&self.db2, &self.at("in"))
    }
}

/// Waits for a run that has to end by itself.
#[track_caller]
pub(crate) fn ended(mut run: Running) -> Output {
    run.wait_end(LONG_ENOUGH);
    run.wait()
}

/// Asserts that a text was told.
#[track_caller]
pub(crate) fn told(output: &Output, text: &str) {
    assert!(output.stderr.contains(text), "no '{text}': {output}");
}

/// Asserts one of some exit codes.
#[track_caller]
pub(crate) fn code_is_one_of(output: &Output, codes: &[i32]) {
    assert!(output.status.code().is_some_and(|code| codes.contains(&code)), "not one of {codes:?}: {output}");
}
