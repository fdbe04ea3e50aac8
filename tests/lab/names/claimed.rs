//! Other runs with the same final name, and names that appear after the preflight.

use nix::libc;

use crate::support::agents;
use crate::support::holder::{Call, OPEN, Point, Role};
use crate::support::output::Output;
use crate::support::roots;
use crate::support::scenes::{SOON, Scene};

#[test]
fn exclusive_name_is_busy_until_its_run_ends() {
    let Some(scene) = Scene::large() else { return };
    let (directory, link, bind) = (scene.at("in"), scene.at("link"), scene.at("bind"));
    scene.db2.sh(&format!("ln -s {directory} {link}; mkdir {bind}; mount --bind {directory} {bind}"));
    let held = scene.held(&[]);
    let run = agents::name(&scene.db2).replace("-target1", "");
    let source = format!("db1:{}", scene.at("data"));
    for path in [&directory, &link, &bind] {
        for options in [&[][..], &["--replace"]] {
            let target = format!("db2:{path}");
            let all = [&[source.as_str(), target.as_str()][..], options].concat();
            let output = scene.lab.transfer(&all).expect_code(5);
            let writer = format!(
                "another run writes to {path}/data: run {run} of ctl (pid {}), since 20",
                held.transfer.pid()
            );
            assert!(output.stderr.contains(&writer), "no '{writer}': {output}");
        }
    }
    // Another name is free.
    scene.transfer(&["--as", "other"]).expect_success();
    held.transfer.signal("KILL");
    scene.await_rollback();
    assert_eq!(scene.arrived(), ["other"]);
    scene.transfer(&[]).expect_success();
    scene.expect_copied("in/data");
    scene.expect_no_runs();
}

/// Runs a copy, and a script on the target between the preflight and the lock of the name.
#[track_caller]
fn after_preflight(scene: &Scene, script: &str, options: &[&str]) -> Output {
    let locks: fn(&Call) -> bool = |call| {
        let creates = call.flags(2) & u64::from(libc::O_CREAT.unsigned_abs()) != 0;
        creates && call.opened().to_string_lossy().contains("/target.")
    };
    let holder = roots::hold(&scene.db2, &[Role::Serve], Point::Before(OPEN, locks));
    let mut run = scene.spawn(options);
    holder.expect_held(&mut run);
    scene.db2.sh(script);
    holder.open();
    run.end_within(SOON)
}

#[test]
fn exclusive_name_created_after_preflight_is_busy() {
    let Some(scene) = Scene::large() else { return };
    let output = after_preflight(&scene, &format!("mkdir -p {}", scene.at("in/data")), &[]).expect_code(5);
    assert!(output.stderr.contains("was created by another process since the preflight"), "{output}");
    assert_eq!(scene.arrived(), ["data"]);
    scene.expect_no_runs();
}

#[test]
fn exclusive_data_swapped_after_preflight_is_busy() {
    let Some(scene) = Scene::replacement() else { return };
    let data = scene.at("in/data");
    let script = format!("cp -a {data} {data}.new; rm -r {data}; mv {data}.new {data}");
    let output = after_preflight(&scene, &script, &["--replace"]).expect_code(5);
    assert!(output.stderr.contains("was created by another process since the preflight"), "{output}");
    assert!(!output.stderr.contains("copying"), "{output}");
    scene.expect_untouched();
    scene.transfer(&["--replace"]).expect_success();
    scene.expect_copied("in/data");
}
