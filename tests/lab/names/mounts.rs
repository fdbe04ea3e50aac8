//! File systems that are mounted at, in or beside the final name.

use super::moments::{RENAME, exchanges};
use crate::support::holder::{Point, Role};
use crate::support::roots;
use crate::support::scenes::{SOON, Scene};

impl Scene {
    /// Returns a command that mounts a directory with a precious file into the older tree.
    fn mount(&self, at: &str) -> String {
        let (precious, at) = (self.at("precious"), self.at(at));
        format!("mkdir -p {precious}; echo precious >{precious}/file; mount --bind {precious} {at}")
    }

    #[track_caller]
    fn expect_precious(&self) {
        assert_eq!(self.db2.sh(&format!("cat {}", self.at("precious/file"))), "precious\n");
    }

    pub(super) fn unmount(&self, at: &str) {
        self.db2.sh(&format!("umount {}", self.at(at)));
    }
}

#[test]
fn exclusive_mount_on_old_data_is_refused() {
    let Some(scene) = Scene::replacement() else { return };
    for at in ["in/data", "in/data/sub"] {
        scene.db2.sh(&scene.mount(at));
        for options in [&["--replace"][..], &["--replace", "--keep-old"]] {
            let output = scene.transfer(options).expect_code(4);
            assert!(output.stderr.contains("a file system is mounted at or below "), "{output}");
        }
        scene.expect_precious();
        scene.unmount(at);
        scene.expect_untouched();
    }
}

#[test]
fn exclusive_mount_during_copy_fails_the_publication() {
    let Some(scene) = Scene::replacement() else { return };
    for at in ["in/data", "in/data/sub"] {
        for options in [&["--replace"][..], &["--replace", "--keep-old"]] {
            let output = scene.changed_before_unpacking(options, &scene.mount(at)).expect_code(1);
            // What is mounted at the name itself is another directory than the old one.
            let reported =
                if at == "in/data" { "is left as it is" } else { "something is mounted at or below " };
            assert!(output.stderr.contains(reported), "{output}");
            scene.expect_precious();
            scene.unmount(at);
            scene.expect_untouched();
        }
    }
}

#[test]
fn exclusive_mount_at_last_moment_is_not_emptied() {
    let Some(scene) = Scene::replacement() else { return };
    let holder = roots::hold(&scene.db2, &[Role::Serve], Point::Before(RENAME, exchanges));
    let mut run = scene.spawn(&["--replace"]);
    holder.expect_held(&mut run);
    scene.db2.sh(&scene.mount("in/data/sub"));
    holder.open();
    let output = run.end_within(SOON).expect_code(6);
    assert!(output.stderr.contains("NOT ROLLED BACK: staging directory "), "{output}");
    scene.expect_precious();
    scene.expect_copied("in/data");
    scene.lab.transfer(&["clean", "db2"]).expect_code(6);
    scene.expect_precious();
    scene.db2.sh(&format!("umount {}/.transfer-*/copy/data/sub", scene.at("in")));
    scene.lab.transfer(&["clean", "db2"]).expect_success();
    assert_eq!(scene.arrived(), ["data"]);
    scene.expect_no_runs();
}

#[test]
fn exclusive_link_to_mount_point_is_replaced() {
    let Some(scene) = Scene::replacement() else { return };
    for (options, count) in [(&["--replace"][..], 1), (&["--replace", "--keep-old"], 2)] {
        scene.db2.sh(&format!("rm -r {0}; ln -s / {0}", scene.at("in/data")));
        scene.transfer(options).expect_success();
        scene.expect_copied("in/data");
        assert_eq!(scene.arrived().len(), count);
    }
}

#[test]
fn exclusive_source_is_recognized_through_bind_mount() {
    let Some(scene) = Scene::replacement() else { return };
    let (source, other) = (scene.at("data/dir"), scene.at("other"));
    scene.db1.sh(&format!("mkdir {other}; mount --bind {} {other}", scene.scratch.path()));
    let from = format!("db1:{source}");
    let holder = ["--replace", "--as", "data"];
    let output = scene.lab.transfer(&[&[from.as_str(), &format!("db1:{other}")], &holder[..]].concat());
    assert!(output.expect_code(4).stderr.contains("is or contains the source"));
    let inside = scene.lab.transfer(&[&from, &format!("db1:{other}/data/dir")]).expect_code(4);
    assert!(inside.stderr.contains("is inside the source"), "{inside}");
    scene.db1.sh(&format!("test -s {source}/more"));
}
