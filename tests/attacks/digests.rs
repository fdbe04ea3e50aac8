//! Files of an ordinary account that are replaced between the list of a tree and the digests of its files.

use std::path::Path;

use crate::assertions::{code_is_one_of, says};
use crate::support::attackers::eve::Eve;
use crate::support::holder::{OPEN, Point, Role};
use crate::support::output::Output;
use crate::support::roots;
use crate::support::scenes::{SOON, Scene};

/// Before a file is read that has been listed.
const READING: Point = Point::Before(OPEN, |call| Path::new(&call.opened()).ends_with("marked"));

/// A scene whose source belongs to eve.
fn hers() -> Option<Scene> {
    let scene = Scene::with_source(1)?;
    Eve::on(&scene.db1);
    scene.db1.sh(&format!("chown -R eve '{}'", scene.at("source")));
    Some(scene)
}

/// Runs a copy during which eve runs a script in the source.
#[track_caller]
fn attacked(scene: &Scene, script: &str, options: &[&str]) -> Output {
    let holder = roots::hold(&scene.db1, &[Role::Job], READING);
    let mut run = scene.spawn(&[&["--idle-timeout=5"], options].concat());
    holder.expect_held(&mut run);
    scene.db1.sh(&format!(
        "setpriv --reuid eve --regid eve --init-groups -- bash -c 'cd {} && {script}' >/dev/null 2>&1",
        scene.at("source")
    ));
    holder.open();
    let output = run.end_within(SOON);
    // A writer waits for a reader of its FIFO.
    scene.db1.run(&["pkill", "-KILL", "-u", "eve"]);
    output
}

#[track_caller]
fn nothing_is_published(scene: &Scene, output: &Output) {
    code_is_one_of(output, &[1, 3]);
    says(output, "marked");
    assert!(scene.arrived().is_empty(), "{output}");
}

#[test]
fn exclusive_swapped_in_fifo_does_not_block() {
    let Some(scene) = hers() else { return };
    let output = attacked(&scene, "rm -f marked && mkfifo marked", &[]);
    nothing_is_published(&scene, &output);
}

#[test]
fn exclusive_fifo_with_a_writer_is_not_read() {
    let Some(scene) = hers() else { return };
    let writer = "rm -f marked && mkfifo marked && { sleep 60 >marked & } && true";
    let output = attacked(&scene, writer, &["--checksum-algorithm=sha256"]);
    nothing_is_published(&scene, &output);
}

#[test]
fn exclusive_swapped_in_link_is_not_followed() {
    let Some(scene) = hers() else { return };
    // A file system with access times, and a time that any read changes.
    let disk = scene.scratch.small_disk(&scene.db1, "private", 1 << 20);
    scene.db1.sh(&format!(
        "chmod 0700 '{disk}'; echo only-for-root >'{disk}/secret'; touch -a -d 2001-01-01 '{disk}/secret'"
    ));
    let output = attacked(&scene, &format!("ln -sf {disk}/secret marked"), &[]);
    let read = scene.db1.sh(&format!("stat -c %x '{disk}/secret'"));
    assert!(read.starts_with("2001-01-01"), "what she may not read was read, at {read}: {output}");
    nothing_is_published(&scene, &output);
}

#[test]
fn exclusive_swapped_in_file_is_noticed() {
    let Some(scene) = hers() else { return };
    let output = attacked(&scene, "cp -p marked other && mv -f other marked", &[]);
    nothing_is_published(&scene, &output);
}

#[test]
fn exclusive_swapped_in_fifo_ends_with_ignore_changed() {
    let Some(scene) = hers() else { return };
    // After the copy, so the target has the file: the difference is explained by the change of the source.
    let output = attacked(&scene, "rm -f marked && mkfifo marked", &["--ignore-changed"]).expect_success();
    assert!(output.stdout.contains("source/marked"), "the change is not reported: {output}");
    assert_eq!(scene.arrived(), ["source"]);
}

#[test]
fn exclusive_stalled_digest_hits_idle_timeout() {
    let Some(scene) = Scene::with_source(1) else { return };
    for host in [&scene.db1, &scene.db2] {
        let _still = roots::hold(host, &[Role::Job], READING);
        let output = scene.transfer(&["--idle-timeout=5"]).expect_code(1);
        says(&output, "idle-timeout");
        assert!(scene.arrived().is_empty(), "{output}");
    }
}
