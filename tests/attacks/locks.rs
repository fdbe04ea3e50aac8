//! Names of transferpy's locks in /tmp, where any account can create some: only directories of root's are
//! locks.

use crate::assertions::says;
use crate::support::attackers::eve::Eve;
use crate::support::changes::Changed;
use crate::support::copies::assert_same;
use crate::support::scenes::Scene;

/// Creates `/tmp/trnsfr_x_PORT.lock` as eve, by a command, for each port of a range that no other test uses.
#[track_caller]
fn occupied(scene: &Scene, make: &str, first: u16, last: u16) -> Changed {
    let names = format!("/tmp/trnsfr_x_{{{first}..{last}}}.lock");
    Eve::on(&scene.db2).sh(&format!("for lock in {names}; do {make} $lock; done"), &[]);
    Changed::new(&scene.db2, ":", &format!("rm -rf {names}"))
}

/// Asserts that the run gets its port, and that the names that do not count are reported.
#[track_caller]
fn is_ignored(make: &str, first: u16, last: u16) {
    let Some(scene) = Scene::with_source(1) else { return };
    let _occupied = occupied(&scene, make, first, last);
    let output = scene.transfer(&["-v", &format!("--port-range={first}-{last}")]).expect_success();
    assert_same((&scene.db1, &scene.at("source")), (&scene.db2, &scene.at("in/source")));
    says(&output, &format!("/tmp/trnsfr_x_{first}.lock"));
}

#[test]
fn files_of_another_user_are_no_locks() {
    is_ignored("touch", 4710, 4713);
}

#[test]
fn directories_of_another_user_are_no_locks() {
    is_ignored("mkdir", 4720, 4723);
}

#[test]
fn links_of_another_user_are_no_locks() {
    is_ignored("ln -s /etc", 4730, 4733);
}

#[test]
fn requested_port_is_not_lost_to_foreign_file() {
    let Some(scene) = Scene::with_source(1) else { return };
    let _occupied = occupied(&scene, "touch", 4740, 4740);
    scene.transfer(&["--port=4740"]).expect_success();
}

#[test]
fn lock_directory_of_root_is_respected_and_named() {
    let Some(scene) = Scene::with_source(1) else { return };
    let names = "/tmp/trnsfr_db9_{4750..4751}.lock";
    let _locked = Changed::new(&scene.db2, &format!("mkdir {names}"), &format!("rmdir {names}"));
    let output = scene.transfer(&["--port-range=4750-4751"]).expect_code(5);
    says(&output, "/tmp/trnsfr_db9_4750.lock");
    assert!(scene.arrived().is_empty(), "{output}");
    scene.transfer(&["--port-range=4750-4752"]).expect_success();
}
