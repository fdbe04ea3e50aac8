//! The final name: its state at every moment of a publication, other runs that use it, what is kept of a
//! failed run, and changes during a run.

mod changes;
mod claimed;
mod kept;
mod moments;
mod mounts;

use crate::support::changes::Wrapper;
use crate::support::copies::{OLD, assert_same, make_random};
use crate::support::held::{Held, MORE_THAN_BUFFERS};
use crate::support::holder::{OPEN, Point, Role};
use crate::support::output::Output;
use crate::support::roots;
use crate::support::scenes::{SOON, Scene};
use crate::support::waiting::eventually;

impl Scene {
    /// A scene with a tree `data` on db1, and a directory on db2 with an older tree of that name.
    fn replacement() -> Option<Self> {
        let mut scene = Self::new()?;
        scene.source = scene.at("data");
        scene.db1.sh(&format!(
            "mkdir -p {0}/dir; echo new >{0}/file; head -c 100000 /dev/urandom >{0}/dir/more",
            scene.source
        ));
        scene.reset();
        Some(scene)
    }

    /// A scene with a source that does not fit into the buffers between the hosts, and an empty target
    /// directory.
    fn large() -> Option<Self> {
        let scene = Self::replacement()?;
        make_random(&scene.db1, &scene.at("data/large"), MORE_THAN_BUFFERS);
        scene.db2.sh(&format!("rm -r {}/*", scene.target));
        Some(scene)
    }

    /// Restores the initial state of the target.
    fn reset(&self) {
        let directory = self.at("in");
        self.db2.sh(&format!("rm -rf {directory}; set -- {directory}/data; {OLD}"));
    }

    /// Starts a run into the empty directory, which stops in mid-stream.
    fn held(&self, options: &[&str]) -> Held {
        let args = self.args(options);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let held = Held::start(&self.lab, &args, &self.db2, &self.at("in"));
        held.port();
        held
    }

    /// Runs the copy, and a script on the target before tar unpacks there.
    #[track_caller]
    fn changed_before_unpacking(&self, options: &[&str], script: &str) -> Output {
        let go = self.at("go");
        let wait = format!("[[ $* == *--extract* ]] && until [[ -e {go} ]]; do sleep 0.02; done");
        let _tar = Wrapper::new(&self.db2, "tar", &wait);
        let run = self.spawn(options);
        let staging = format!("test -e {}/.transfer-*/copy", self.at("in"));
        let begins = || self.db2.run(&["bash", "-c", &staging]).status.success();
        assert!(eventually(SOON, begins), "there is no staging directory");
        self.db2.sh(&format!("{script}; touch {go}"));
        let output = run.end_within(SOON);
        self.db2.sh(&format!("rm {go}"));
        output
    }

    /// Asserts that the target directory has only the older tree.
    #[track_caller]
    fn expect_untouched(&self) {
        assert_eq!(self.arrived(), ["data"]);
        assert!(self.is_old("in/data"), "the old one is not what it was");
        self.expect_no_runs();
    }

    #[track_caller]
    fn expect_no_runs(&self) {
        let status = self.lab.transfer(&["status", "db1", "db2"]).expect_success().stdout;
        assert_eq!(status, "db1: no runs\ndb2: no runs\n");
        self.db2.sh("[[ ! -e /run/transfer && ! -e /var/lib/transfer ]]");
    }

    /// Waits until no agent is at work.
    #[track_caller]
    fn await_rollback(&self) {
        for (host, name) in [(&self.db1, "db1"), (&self.db2, "db2")] {
            let rolled_back = || host.run(&["test", "!", "-e", "/var/lib/transfer"]).status.success();
            assert!(eventually(SOON, rolled_back), "not rolled back on {name}");
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
fn exclusive_max_duration_ends_stream_and_verification() {
    let Some(scene) = Scene::large() else { return };
    let held = scene.held(&["--max-duration", "4"]);
    let output = held.transfer.wait().expect_code(1);
    assert!(output.stderr.contains("not done within 4 s (--max-duration)"), "{output}");
    assert_eq!(scene.arrived(), Vec::<String>::new());
    scene.expect_no_runs();
    // A disk that does not answer when the copy is read.
    let reads = Point::Before(OPEN, |call| call.opened().to_string_lossy().ends_with("large"));
    let _reader = roots::hold(&scene.db2, &[Role::Job], reads);
    let output = scene.transfer(&["--max-duration", "8"]).expect_code(1);
    assert!(output.stderr.contains("verifying"), "{output}");
    assert!(output.stderr.contains("not done within 8 s (--max-duration)"), "{output}");
    assert_eq!(scene.arrived(), Vec::<String>::new());
    scene.expect_no_runs();
}

#[test]
fn exclusive_no_fsync_copies_and_replaces_correctly() {
    let Some(scene) = Scene::replacement() else { return };
    scene.transfer(&["--replace", "--no-fsync"]).expect_success();
    assert_eq!(scene.arrived(), ["data"]);
    scene.expect_copied("in/data");
    scene.expect_no_runs();
}
