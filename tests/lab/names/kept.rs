//! Staging directories that are kept after a failure.

use nix::libc;

use super::moments::{EXCHANGE, RENAME, exchanges};
use crate::support::agents;
use crate::support::changes::Wrapper;
use crate::support::held::being_read;
use crate::support::holder::{Call, Point, Role};
use crate::support::roots;
use crate::support::scenes::{SOON, Scene};
use crate::support::waiting::eventually;

/// Result of a call that the file system does not know.
const INVALID: i64 = -(libc::EINVAL as i64);

impl Scene {
    /// Asserts that the data that has arrived is kept, where the output says, and nothing else; removes it.
    #[track_caller]
    fn expect_kept(&self, said: &str) {
        self.await_rollback();
        let all = self.arrived();
        assert!(all.len() == 1 && all[0].starts_with(".transfer-"), "{all:?}");
        let path = format!("{}/{}", self.at("in"), all[0]);
        assert!(said.contains(&path), "no {path} in {said}");
        self.db2.sh(&format!("test -e {path}/copy/data; rm -r {path}"));
        self.expect_no_runs();
    }
}

#[test]
fn exclusive_failed_copy_is_kept_where_reported() {
    let Some(scene) = Scene::large() else { return };
    let keep = "--keep-staging";
    // A disk that another process fills.
    let directory = scene.at("in");
    scene.db2.sh(&format!("mount -t tmpfs -o size=64M lab {directory}"));
    let fill = format!("head -c 40M /dev/zero >{directory}/filler");
    for json in [false, true] {
        let options = if json { &[keep, "--json"][..] } else { &[keep] };
        let output = scene.changed_before_unpacking(options, &fill).expect_code(1);
        scene.db2.sh(&format!("rm {directory}/filler"));
        if json {
            assert!(output.stdout.contains("\"kept_staging\":[\"/"), "{output}");
            scene.expect_kept(&output.stdout);
        } else {
            assert!(output.stderr.contains("partial copy kept (--keep-staging): "), "{output}");
            scene.expect_kept(&output.stderr);
        }
    }
    scene.unmount("in");
    // A source that is killed.
    let held = scene.held(&[keep]);
    being_read(&scene.db1, scene.scratch.path());
    scene.db1.sh("pkill -KILL -x tar");
    let output = held.go().expect_code(1);
    scene.expect_kept(&output.stderr);
}

#[test]
fn exclusive_interrupted_copy_is_kept() {
    let Some(scene) = Scene::large() else { return };
    let half = "[[ $* == *--extract* ]] && { { head -c 20M; sleep 100; } | \"$real\" \"$@\"; exit; }";
    let _tar = Wrapper::new(&scene.db2, "tar", half);
    for signal in ["INT", "TERM", "KILL"] {
        let run = scene.spawn(&["--keep-staging"]);
        let arrived = format!("test -s {}/.transfer-*/copy/data/large", scene.at("in"));
        let arrives = || scene.db2.run(&["bash", "-c", &arrived]).status.success();
        assert!(eventually(SOON, arrives), "nothing arrives");
        let path = format!("{}/.transfer-{}", scene.at("in"), agents::name(&scene.db2));
        run.signal(signal);
        if signal == "KILL" {
            drop(run);
            scene.expect_kept(&path);
        } else {
            scene.expect_kept(&run.wait().expect_code(if signal == "INT" { 130 } else { 143 }).stderr);
        }
    }
}

#[test]
fn exclusive_refused_run_keeps_nothing() {
    let Some(scene) = Scene::replacement() else { return };
    scene.transfer(&["--keep-staging"]).expect_code(4);
    scene.expect_untouched();
    // A file system that lacks a feature, for each of the steps that test it.
    let tries: fn(&Call) -> bool = |call| call.text(3) == ".exchange";
    let tries_an_exchange: fn(&Call) -> bool =
        |call| call.flags(4) == EXCHANGE && call.text(3) == ".exchange";
    for (refused, options) in [
        (tries, &["--keep-staging", "--as", "x"][..]),
        (tries_an_exchange, &["--keep-staging", "--replace", "--keep-old"]),
    ] {
        let _refused = roots::hold(&scene.db2, &[Role::Serve], Point::Instead(RENAME, refused, INVALID));
        let output = scene.transfer(options).expect_code(1);
        assert!(
            output.stderr.contains("the file system of ") && output.stderr.contains(" cannot "),
            "{output}"
        );
        scene.expect_untouched();
    }
    // Only a replacement needs the second one.
    let any_exchange: fn(&Call) -> bool = |call| call.flags(4) == EXCHANGE;
    let _refused = roots::hold(&scene.db2, &[Role::Serve], Point::Instead(RENAME, any_exchange, INVALID));
    scene.transfer(&["--as", "x"]).expect_success();
    assert_eq!(scene.arrived(), ["data", "x"]);
}

#[test]
fn exclusive_failed_replacement_keeps_the_copy() {
    let Some(scene) = Scene::replacement() else { return };
    let _refused = roots::hold(&scene.db2, &[Role::Serve], Point::Instead(RENAME, exchanges, INVALID));
    let output = scene.transfer(&["--replace", "--keep-old", "--keep-staging"]).expect_code(1);
    assert!(scene.is_old("in/data"));
    let kept = scene.arrived().remove(0);
    scene.expect_copied(&format!("in/{kept}/copy/data"));
    assert!(output.stderr.contains(&kept), "{output}");
    scene.db2.sh(&format!("rm -r {}/{kept}", scene.at("in")));
    scene.expect_untouched();
}
