//! The final name: what is under it at every moment of a publication, who may write to it, what stays of a run that fails,
//! and what a run makes of changes under its eyes.

mod changes;
mod claimed;
mod kept;
mod moments;
mod mounts;

use crate::fixtures::{
    Held, MORE_THAN_BUFFERS, OLD, SOON, Wrapper, assert_same, being_read, is_old, make_random, names,
};
use crate::harness::{Host, Lab, Output, Running, Scratch, eventually};
use crate::processes;

/// db1 has a tree `data`, db2 a directory `in` with an older one of that name.
struct Scene {
    lab: Lab,
    db1: Host,
    db2: Host,
    scratch: Scratch,
}

impl Scene {
    fn set() -> Option<Self> {
        let lab = Lab::get()?;
        let (db1, db2) = (lab.host("db1"), lab.host("db2"));
        let scratch = lab.scratch(&["db1", "db2"]);
        let scene = Self { lab, db1, db2, scratch };
        scene.db1.sh(&format!(
            "mkdir -p {0}/dir; echo new >{0}/file; head -c 100000 /dev/urandom >{0}/dir/more",
            scene.at("data")
        ));
        scene.reset();
        Some(scene)
    }

    /// The same with a source that does not fit into the buffers between the hosts, and nothing on the target.
    fn set_large() -> Option<Self> {
        let scene = Self::set()?;
        make_random(&scene.db1, &scene.at("data/large"), MORE_THAN_BUFFERS);
        scene.db2.sh(&format!("rm -r {}/*", scene.at("in")));
        Some(scene)
    }

    fn at(&self, name: &str) -> String {
        self.scratch.join(name)
    }

    /// The target as it was in the beginning.
    fn reset(&self) {
        let (directory, gate) = (self.at("in"), self.at("gate"));
        self.db2.sh(&format!("rm -rf {directory} {gate}; mkdir {gate}; set -- {directory}/data; {OLD}"));
    }

    fn args(&self, options: &[&str]) -> Vec<String> {
        let ends = [format!("db1:{}", self.at("data")), format!("db2:{}", self.at("in"))];
        ends.into_iter().chain(options.iter().map(ToString::to_string)).collect()
    }

    fn spawn(&self, options: &[&str]) -> Running {
        let args = self.args(options);
        self.lab.transfer_spawn(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn transfer(&self, options: &[&str]) -> Output {
        self.spawn(options).wait()
    }

    /// Starts a run, into the empty directory, that stands still in mid-stream.
    fn held(&self, options: &[&str]) -> Held {
        let args = self.args(options);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let held = Held::start(&self.lab, &args, &self.db2, &self.at("in"));
        held.port();
        held
    }

    /// What is in the target directory.
    fn names(&self) -> Vec<String> {
        names(&self.db2, &self.at("in"))
    }

    /// Whether a tree of the target is the older one, of which every file counts.
    fn is_old(&self, path: &str) -> bool {
        is_old(&self.db2, &self.at(path), &self.at("gate/old"))
    }

    /// Nothing but the older tree is in the target directory.
    #[track_caller]
    fn expect_untouched(&self) {
        assert_eq!(self.names(), ["data"]);
        assert!(self.is_old("in/data"), "the old one is not what it was");
        self.expect_no_runs();
    }

    #[track_caller]
    fn expect_no_runs(&self) {
        let status = self.lab.transfer(&["status", "db1", "db2"]).expect_success().stdout;
        assert_eq!(status, "db1: no runs\ndb2: no runs\n");
        self.db2.sh("[[ ! -e /run/transfer && ! -e /var/lib/transfer ]]");
    }

    /// Waits until nobody is at work any more.
    #[track_caller]
    fn await_undone(&self) {
        for (host, name) in [(&self.db1, "db1"), (&self.db2, "db2")] {
            let undone = || host.run(&["test", "!", "-e", "/var/lib/transfer"]).status.success();
            assert!(eventually(SOON, undone), "not undone on {name}");
        }
    }

    #[track_caller]
    fn expect_copied(&self, path: &str) {
        self.db2.sh(&format!("mv {} {}", self.at(path), self.at("data")));
        assert_same((&self.db1, &self.at("data")), (&self.db2, &self.at("data")));
        self.db2.sh(&format!("mv {} {}", self.at("data"), self.at(path)));
    }
}

#[test]
fn exclusive_the_longest_time_ends_a_run_in_the_stream_and_in_the_verification() {
    let Some(scene) = Scene::set_large() else { return };
    let held = scene.held(&["--max-duration", "4"]);
    let output = held.transfer.wait().expect_code(1);
    assert!(output.stderr.contains("not done within 4 s (--max-duration)"), "{output}");
    assert_eq!(scene.names(), Vec::<String>::new());
    scene.expect_no_runs();
    let _md5sum = Wrapper::new(&scene.db2, "md5sum", "[[ $PWD == *.transfer-* ]] && sleep 100");
    let output = scene.transfer(&["--max-duration", "8"]).expect_code(1);
    assert!(output.stderr.contains("verifying"), "{output}");
    assert!(output.stderr.contains("not done within 8 s (--max-duration)"), "{output}");
    assert_eq!(scene.names(), Vec::<String>::new());
    scene.expect_no_runs();
}

#[test]
fn exclusive_without_fsync_a_copy_is_the_same_and_replaces_as_well() {
    let Some(scene) = Scene::set() else { return };
    scene.transfer(&["--replace", "--no-fsync"]).expect_success();
    assert_eq!(scene.names(), ["data"]);
    scene.expect_copied("in/data");
    scene.expect_no_runs();
}
