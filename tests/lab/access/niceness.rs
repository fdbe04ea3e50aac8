//! Lower priority and the number of threads, on both hosts.

use crate::support::held::{MORE_THAN_BUFFERS, being_read};
use crate::support::hosts::Host;
use crate::support::scenes::Scene;

#[test]
fn exclusive_nice_and_threads_apply_on_both_hosts() {
    let Some(scene) = Scene::with_file(MORE_THAN_BUFFERS) else { return };
    let held = scene.held_between(["db1", "db2"], &["--nice=7", "--threads=1", "--compress=zstd"]);
    being_read(&scene.db1, scene.scratch.path());
    let ours = |host: &Host| -> Vec<(String, String)> {
        let all = host.sh("ps -ww -eo ni=,args=");
        let ours = all.lines().filter_map(|line| line.trim().split_once(' ')).filter(|(_, args)| {
            ["tar --", "zstd ", "openssl ", "nc ", "transfer-agent job"]
                .iter()
                .any(|program| args.starts_with(program))
        });
        ours.map(|(nice, args)| (nice.to_owned(), args.to_owned())).collect()
    };
    // A host that a test has booted may have a lower priority as a whole.
    let usual = |host: &Host| -> u8 { host.sh("ps -o ni= -p 1").trim().parse().expect("a number") };
    let back = |host: &Host| (usual(host) + 7).min(19).to_string();
    for (host, needed) in [
        (&scene.db1, ["tar --create", "zstd -q -1 -T1 -c", "openssl enc", "nc -n -N", "transfer-agent job"]),
        (&scene.db2, ["tar --extract", "zstd -q -d -c", "openssl enc", "nc -n -d -l", "transfer-agent job"]),
    ] {
        let running = ours(host);
        for program in needed {
            assert!(running.iter().any(|(_, args)| args.starts_with(program)), "no {program}: {running:?}");
        }
        assert!(running.iter().all(|(nice, _)| *nice == back(host)), "{running:?}");
        // The agent itself must not be delayed.
        let agents = host.sh("ps -ww -eo ni=,args= | grep -E '[0-9] [^ ]*/transfer-agent serve$'");
        assert!(agents.lines().all(|line| line.trim().starts_with(&format!("{} ", usual(host)))), "{agents}");
        let disks = host.sh("for pid in $(pgrep -x 'tar|openssl'); do ionice -p $pid; done | sort -u");
        assert_eq!(disks, "best-effort: prio 7\n");
    }
    held.go().expect_success();
    scene.take_copy();
    // Not without the option.
    let held = scene.held_between(["db1", "db2"], &["--compress=zstd"]);
    being_read(&scene.db1, scene.scratch.path());
    assert!(
        [&scene.db1, &scene.db2]
            .iter()
            .all(|host| ours(host).iter().all(|(nice, _)| *nice == usual(host).to_string()))
    );
    held.go().expect_success();
}
