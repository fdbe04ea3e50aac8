//! Signals to the controller in mid-stream.

use std::time::{Duration, Instant};

use nix::libc;

use crate::support::agents;
use crate::support::holder::{Point, Role};
use crate::support::midstream::{LEASE, MidStream, PROMPTLY, expect_end};
use crate::support::roots;
use crate::support::waiting::eventually;

/// Limit for pipelines, port and firewall rule to be gone after a signal.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn exclusive_signal_rolls_back_and_sets_exit_code() {
    let Some(scene) = MidStream::set() else { return };
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let run = scene.start_stream(&[]);
        run.signal(signal);
        scene.expect_rolled_back(&[&scene.db1, &scene.db2], AT_ONCE);
        let said = expect_end(run, code, AT_ONCE);
        assert!(said.contains(&format!("transfer: interrupted by SIG{signal}")), "{said}");
        scene.expect_as_before(AT_ONCE);
    }
}

#[test]
fn exclusive_slow_removal_outlasts_the_controller() {
    let Some(scene) = MidStream::set() else { return };
    let removal = Point::After(&[libc::SYS_unlinkat], |call| call.descriptor(0).ends_with("many"));
    let holder = roots::hold(&scene.db2, &[Role::Serve], removal);
    let mut run = scene.start_stream(&[]);
    let staging = scene.at(&format!("in/.transfer-{}", agents::name(&scene.db2)));
    let make = "mkdir $ARGV[0]; for (1 .. 110_000) { open(my $file, '>', \"$ARGV[0]/$_\") or die $! }";
    scene.db2.run(&["perl", "-e", make, &format!("{staging}/many")]).expect_success();

    let began = Instant::now();
    run.signal("INT");
    let closed = eventually(AT_ONCE, || {
        let script = "[[ -z $(ss -Hltn 'sport >= 4400 and sport <= 4500') ]]
            [[ -z $(nft list ruleset | grep transfer-) ]]
            for home in /var/lib/transfer/*; do
                for lock in \"$home\"/*.job; do [[ ! -e $lock || -z $(with \"$lock\" 8) ]]; done
            done";
        agents::holds(&scene.db2, script) && agents::holds(&scene.db1, script)
    });
    assert!(closed, "not closed after {:?}", began.elapsed());
    holder.expect_held(&mut run);
    scene.db2.sh(&format!("test -d '{staging}'"));
    assert!(run.is_running(), "ended before the rollback was complete");

    run.signal("INT");
    let said = expect_end(run, 130, Duration::from_secs(1));
    for command in ["transfer status", "transfer clean"] {
        assert!(said.contains(command), "no '{command}' in\n{said}");
    }
    scene.db2.sh(&format!("test -d '{staging}'"));
    holder.open();
    // A snapshot lists files, many of which disappear during this.
    assert!(eventually(PROMPTLY, || scene.db2.run(&["test", "!", "-e", &staging]).status.success()));
    scene.expect_as_before(PROMPTLY);
}

#[test]
fn exclusive_ignored_hangup_stays_ignored() {
    let Some(scene) = MidStream::set() else { return };
    let args = scene.command_line();
    let mut words = vec!["nohup", "transfer"];
    words.extend(args.iter().map(String::as_str));
    let run = scene.start_stream_of(scene.ctl.command(&words));
    run.signal("HUP");
    scene.await_more();
    scene.open_throttle();
    run.end_within(PROMPTLY).expect_success();
    scene.expect_copied();
    scene.expect_as_before(PROMPTLY);
}

#[test]
fn exclusive_controller_stopped_beyond_lease_is_rolled_back() {
    let Some(scene) = MidStream::set() else { return };
    let run = scene.start_stream(&[]);
    run.signal("STOP");
    scene.expect_rolled_back(&[&scene.db1, &scene.db2], 2 * LEASE);
    run.signal("CONT");
    let said = expect_end(run, 1, PROMPTLY);
    assert!(said.contains("--lease-time"), "it does not say what happened: {said}");
    scene.expect_as_before(PROMPTLY);
}

#[test]
fn exclusive_controller_stopped_within_lease_continues() {
    let Some(scene) = MidStream::set() else { return };
    let run = scene.start_stream(&[]);
    run.signal("STOP");
    // Twice: data that was sent before the stop may arrive after it.
    scene.await_more();
    scene.await_more();
    run.signal("CONT");
    scene.await_more();
    scene.open_throttle();
    run.end_within(PROMPTLY).expect_success();
    scene.expect_copied();
    scene.expect_as_before(PROMPTLY);
}
