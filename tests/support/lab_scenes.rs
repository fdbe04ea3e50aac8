//! Scenes whose hosts have other names, and scenes with an older tree.

use super::copies::{is_old, make_random};
use super::output::Output;
use super::scenes::Scene;

impl Scene {
    /// A scene with a file of random bytes as its data, and the directory of the test as its target. All
    /// hosts have the directory.
    pub(crate) fn with_file(mib: u32) -> Option<Self> {
        let mut scene = Self::on(&["ctl", "db1", "db2", "db3"])?;
        scene.target = scene.scratch.path().to_owned();
        make_random(&scene.db1, &scene.source, mib);
        Some(scene)
    }

    /// Returns the arguments of a run from and to hosts by these names.
    pub(crate) fn args_between(&self, [from, to]: [&str; 2], options: &[&str]) -> Vec<String> {
        let ends = [format!("{from}:{}", self.source), format!("{to}:{}", self.target)];
        ends.into_iter().chain(options.iter().map(ToString::to_string)).collect()
    }

    /// Runs a copy from and to hosts by these names.
    pub(crate) fn transfer_between(&self, hosts: [&str; 2], options: &[&str]) -> Output {
        let args = self.args_between(hosts, options);
        self.lab.transfer(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Whether an entry of the test's directory on db2 is exactly the older tree. Needs a directory `gate`
    /// there.
    pub(crate) fn is_old(&self, path: &str) -> bool {
        is_old(&self.db2, &self.at(path), &self.at("gate/old"))
    }
}
