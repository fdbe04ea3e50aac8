//! Data that cannot be read: never taken for a file that has changed or has gone, whatever a tool reports.

use nix::libc;

use crate::assertions::says;
use crate::support::changes::Wrapper;
use crate::support::held::{Held, MORE_THAN_BUFFERS, being_read};
use crate::support::holder::{Call, Point, Role};
use crate::support::hosts::Host;
use crate::support::output::Output;
use crate::support::roots;
use crate::support::scenes::{SOON, Scene};
use crate::support::trees::names;

/// Mounts a disk of 32 MiB at `$1` with a file of 20 MiB, half of which cannot be read.
const HALF: &str = r#"
    [[ -e /dev/loop-control ]] || mknod /dev/loop-control c 10 237
    for n in {0..63}; do [[ -e /dev/loop$n ]] || mknod /dev/loop$n b 7 $n; done
    truncate -s 32M "$1.image"; mkfs.ext4 -q -O ^has_journal "$1.image"; mkdir "$1"
    mount -o loop "$1.image" "$1"; rmdir "$1/lost+found"
    echo kept >"$1/small"; head -c 20M /dev/urandom >"$1/half"; sync -f "$1"
    first=$(filefrag -v "$1/half" | awk '$1 == "0:" { sub(/\.\..*/, "", $4); print $4; exit }')
    umount "$1"; mount -o loop,ro "$1.image" "$1"
    truncate -s $(((first + 2560) * $(stat -f -c %S "$1"))) "$1.image""#;

fn half_a_file(scene: &Scene) -> String {
    let path = scene.at("disk");
    scene.db1.run(&["bash", "-ec", HALF, "half", &path]).expect_success();
    let read = scene.db1.run(&["cat", &format!("{path}/half")]);
    assert!(read.stderr.contains("Input/output error"), "the disk does not fail: {}", read.stderr);
    path
}

/// Asserts that the run failed because of a file that could not be read, and published nothing.
#[track_caller]
fn is_failure(scene: &Scene, name: &str, output: Output) {
    let output = output.expect_code(1);
    says(&output, name);
    assert!(scene.arrived().is_empty(), "{output}");
}

#[test]
fn exclusive_read_error_in_file_is_no_change() {
    let Some(scene) = Scene::with_source(1) else { return };
    let ends = [format!("db1:{}", half_a_file(&scene)), format!("db2:{}", scene.at("in"))];
    for options in [
        &["--ignore-changed", "--parallel-checksum"][..],
        &["--ignore-changed"],
        &["--ignore-changed", "--parallel-checksum", "--no-encrypt"],
    ] {
        let args = [&ends.each_ref().map(String::as_str)[..], options].concat();
        is_failure(&scene, "half", scene.lab.transfer_spawn(&args).end_within(SOON));
    }
}

#[test]
fn exclusive_read_error_leaves_no_archive() {
    let Some(scene) = Scene::with_source(1) else { return };
    let ends = [format!("db1:{}", half_a_file(&scene)), format!("db2:{}", scene.at("in"))];
    let args = [&ends[0], &ends[1], "--type=compress", "--no-compress"];
    is_failure(&scene, "half", scene.lab.transfer_spawn(&args).end_within(SOON));
}

/// Makes one kind of system call of a tool fail for paths below a directory.
fn failing(host: &Host, program: &str, condition: &str, call: &str, path: &str) -> Wrapper {
    let script = format!(
        "[[ {condition} ]] && exec strace -qqq -o /dev/null -P {path} -e trace={call} -e inject={call}:error=EIO $real \"$@\""
    );
    Wrapper::new(host, program, &script)
}

#[test]
fn exclusive_unlistable_directory_is_no_change() {
    let Some(scene) = Scene::with_source(1) else { return };
    scene.db1.sh(&format!("mkdir '{0}/sub'; echo x >'{0}/sub/file'", scene.at("source")));
    let (source, copy) = (scene.at("source/sub"), scene.at("in"));
    let of_tar = failing(&scene.db1, "tar", "$* == *--create*", "getdents64", &source);
    is_failure(&scene, "sub", scene.transfer(&["--ignore-changed", "--parallel-checksum"]));
    drop(of_tar);
    let lists: fn(&Call) -> bool = |call| call.descriptor(0).ends_with("source/sub");
    let fails = Point::Instead(&[libc::SYS_getdents64], lists, -i64::from(libc::EIO));
    let fails = roots::hold(&scene.db1, &[Role::Job], fails);
    let output = scene.transfer(&["--ignore-changed"]);
    assert!(fails.has_come(), "the directory was not listed: {output}");
    assert!(matches!(output.status.code(), Some(1 | 3)), "a list that cannot be read was believed: {output}");
    assert_eq!(names(&scene.db2, &copy), Vec::<String>::new(), "{output}");
}

#[test]
fn exclusive_unreadable_copy_is_no_change() {
    let Some(scene) = Scene::with_source(1) else { return };
    let reads: fn(&Call) -> bool = |call| call.descriptor(0).ends_with("copy/source/marked");
    let fails = Point::Instead(&[libc::SYS_read, libc::SYS_pread64], reads, -i64::from(libc::EIO));
    let fails = roots::hold(&scene.db2, &[Role::Job], fails);
    let output = scene.transfer(&["--ignore-changed"]);
    assert!(fails.has_come(), "the copy was not read: {output}");
    assert!(matches!(output.status.code(), Some(1 | 3)), "a copy that cannot be read has its name: {output}");
    assert!(scene.arrived().is_empty(), "{output}");
}

#[test]
fn exclusive_shrinking_file_is_a_named_change() {
    let Some(scene) = Scene::with_source(MORE_THAN_BUFFERS) else { return };
    let ends = [format!("db1:{}", scene.at("source")), format!("db2:{}", scene.at("in"))];
    let options = ["--ignore-changed", "--parallel-checksum"];
    let args = [&ends.each_ref().map(String::as_str)[..], &options].concat();
    let held = Held::start(&scene.lab, &args, &scene.db2, &scene.at("in"));
    let path = being_read(&scene.db1, scene.scratch.path());
    scene.db1.run(&["truncate", "-s", "1M", &path]).expect_success();
    let output = held.go().expect_success();
    assert!(output.stdout.contains("source/file"), "{output}");
    scene.db2.run(&["test", "-e", &scene.at("in/source/file")]).expect_success();
}
