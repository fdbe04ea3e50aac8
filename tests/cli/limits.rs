//! Time limits: a stalled stream, a target that accepts no data, an output that is not read.

use std::fs::OpenOptions;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::local::holds::{Point, Role};
use crate::support::local::processes::names;
use crate::support::local::runs::{LONG, Running, wait_until};
use crate::support::local::sandbox::Sandbox;
use crate::support::local::trees::assert_same;

#[test]
fn stalled_stream_fails_after_idle_timeout() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Archive);
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let running = sandbox.spawn(&[&source, &target, &"--idle-timeout", &"2"]);
    hold.reached();
    let ended = running
        .wait(Duration::from_secs(15))
        .expect_code(1)
        .says("no byte has moved for 2 s (--idle-timeout)");
    assert!(ended.took >= Duration::from_secs(2), "{ended}");
    assert_eq!(names(&target), Vec::<String>::new());
    sandbox.is_clean(&[&target]);
}

#[test]
fn late_connection_close_fails_no_run() {
    let Some(sandbox) = Sandbox::new() else { return };
    // tar stops reading at the end of its archive, not at the end of its input.
    sandbox.replace(Role::Receive, r#""$real" "$@"; sleep 1"#);
    let source = sandbox.source("source");
    for (compress, encrypt) in [
        ("--compress", "--encrypt"),
        ("--compress", "--no-encrypt"),
        ("--no-compress", "--encrypt"),
        ("--no-compress", "--no-encrypt"),
    ] {
        let target = sandbox.dir(format!("target{compress}{encrypt}"));
        sandbox.run(&[&source, &target, &compress, &encrypt]).expect_success();
        assert_same(&source, &target.join("source"));
        sandbox.is_clean(&[&target]);
    }
}

#[test]
fn stalled_target_is_dropped_from_the_run() {
    let Some(sandbox) = Sandbox::new() else { return };
    let hold = sandbox.hold(Point::Unpack("stalled"));
    let source = sandbox.dir("source");
    // More than all pipes and socket buffers in between hold.
    sandbox.file(source.join("large"), crate::support::local::trees::noise(48 << 20));
    let (good, stalled) = (sandbox.dir("good"), sandbox.dir("stalled"));
    let running = sandbox.spawn(&[&source, &stalled, &good, &"--idle-timeout", &"2"]);
    hold.reached();
    let ended =
        running.wait(LONG).expect_code(1).says("it accepted no data for 2 s").says("good/source: done: ");
    assert!(!ended.stderr.contains("good: FAILED"), "{ended}");
    assert_same(&source, &good.join("source"));
    assert_eq!(names(&stalled), Vec::<String>::new());
    sandbox.is_clean(&[&good, &stalled]);
}

/// The copy completes while standard error is a full pipe; the run ends once it is read.
#[track_caller]
fn without_reader(options: &[&str]) {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let pipe = sandbox.path("full pipe");
    sandbox.fifo(&pipe);
    let mut reader =
        OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NONBLOCK).open(&pipe).unwrap();
    while reader.write(&[b'x'; 4096]).is_ok() {}
    let writer = OpenOptions::new().write(true).open(&pipe).unwrap();
    let mut command = sandbox.command(&[&source, &target]);
    let running = Running::unread(command.args(options).stdout(Stdio::null()).stderr(writer));
    let published = || target.join("source").exists();
    wait_until("the copy is there, with standard error full", Duration::from_secs(20), published);
    let over = Arc::new(AtomicBool::new(false));
    let drain = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            while !over.load(Ordering::Relaxed) {
                let _ = reader.read(&mut [0; 4096]);
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let ended = running.wait(LONG);
    over.store(true, Ordering::Relaxed);
    drain.join().unwrap();
    ended.expect_success();
    assert_same(&source, &target.join("source"));
    sandbox.is_clean(&[&target]);
}

#[test]
fn unread_progress_does_not_block_the_copy() {
    without_reader(&[]);
}

#[test]
fn unread_log_does_not_block_the_copy() {
    without_reader(&["--verbose"]);
}
