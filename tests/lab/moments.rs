//! Kills at every moment of a run, not only in mid-stream: when a lease is in the journal and its effect is not made yet,
//! and at random.

/// Each test compares whole hosts.
mod alone {
    use std::thread;
    use std::time::{Duration, SystemTime};

    use crate::harness::{Host, Running};
    use crate::scene::{LEASE, SOON, Scene, expect_end};

    /// Waits until a lease of kind `$1` is in the journal of a run, and sends the signal `$2` to its guard. The record is
    /// synced before the effect is made, and nothing is started here that takes as long.
    const AT_LEASE: &str = r#"
        guard_of() {
            local key value
            for fd in /proc/[0-9]*/fd/9; do
                pid=${fd#/proc/} pid=${pid%%/*}
                [[ $fd -ef $1 && -e /proc/$pid/fd/3 ]] || continue
                while read -r key value; do
                    if [[ $key == PPid: && $(<"/proc/$value/comm") == sshd ]]; then return 0; fi
                done <"/proc/$pid/status"
            done
            return 1
        }
        echo watching
        shopt -s nullglob
        journal=
        until [[ $journal ]]; do for journal in /var/lib/transfer/*/journal; do :; done; done
        until guard_of "$journal"; do :; done
        until mapfile -t lines <"$journal" && [[ "${lines[*]}" == *$'\t'"$1"$'\t'* ]]; do :; done
        kill -s "$2" "$pid"
        echo "guard $pid""#;

    /// Those of a target, in order.
    const LEASES: [&str; 4] = ["staging", "port", "rule", "job"];

    /// Starts a run whose guard on that host gets a signal at that lease; returns it with the guard's pid.
    fn start_until(scene: &Scene, host: &Host, lease: &str, signal: &str) -> (Running, String) {
        let mut watcher = host.spawn(&["bash", "-c", AT_LEASE, "watcher", lease, signal]);
        watcher.wait_for("watching", SOON);
        let run = scene.start(&[]);
        watcher.wait_for("guard ", SOON);
        let output = watcher.wait().expect_success().stdout;
        let pid =
            output.lines().last().and_then(|line| line.strip_prefix("guard ")).expect("a pid").to_owned();
        (run, pid)
    }

    /// Every lease of either end.
    fn leases(scene: &Scene) -> impl Iterator<Item = (&Host, &'static str)> {
        LEASES.iter().map(|lease| (&scene.target, *lease)).chain([(&scene.source, "job")])
    }

    #[test]
    fn a_controller_killed_at_any_lease_leaves_nothing() {
        let Some(scene) = Scene::set() else { return };
        for (host, lease) in leases(&scene) {
            println!("killing at the lease '{lease}'");
            let (run, guard) = start_until(&scene, host, lease, "STOP");
            run.signal("KILL");
            host.run(&["kill", "-CONT", &guard]).expect_success();
            scene.expect_as_before(LEASE);
        }
    }

    #[test]
    fn a_guard_killed_at_any_lease_fails_the_run_and_leaves_nothing() {
        let Some(scene) = Scene::set() else { return };
        for (host, lease) in leases(&scene) {
            println!("killing at the lease '{lease}'");
            let (run, _) = start_until(&scene, host, lease, "KILL");
            let said = expect_end(run, 1, SOON);
            assert!(said.contains("lost the guard of this run"), "{lease}: {said}");
            scene.expect_as_before(LEASE);
        }
    }

    #[test]
    fn a_controller_and_a_guard_killed_at_any_lease_leave_nothing() {
        let Some(scene) = Scene::set() else { return };
        for (host, lease) in leases(&scene) {
            println!("killing at the lease '{lease}'");
            let (run, guard) = start_until(&scene, host, lease, "STOP");
            run.signal("KILL");
            host.run(&["kill", "-KILL", &guard]).expect_success();
            scene.expect_as_before(LEASE);
        }
    }

    #[test]
    fn a_controller_killed_at_random_leaves_nothing() {
        let Some(scene) = Scene::set() else { return };
        let seed = u64::from(SystemTime::UNIX_EPOCH.elapsed().expect("a clock").subsec_nanos());
        // One moment of each 35 milliseconds of the first 700.
        for step in 0..20 {
            let moment = Duration::from_millis(step * 35 + (seed >> step) % 35);
            println!("killing after {moment:?}");
            let run = scene.start(&[]);
            thread::sleep(moment);
            run.signal("KILL");
            scene.expect_as_before(LEASE);
        }
    }
}
