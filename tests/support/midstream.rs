//! A copy that stays in mid-stream for as long as a test needs, on hosts whose whole state is compared with
//! the one before.

use std::ops::Deref;
use std::thread;
use std::time::{Duration, Instant};

use super::agents::{FREEZER, Found};
use super::commands::{Invocation, Running};
use super::firewall::FIREWALL;
use super::hosts::Host;
use super::processes::FIND;
use super::scenes::Scene;
use super::snapshots::Snapshot;
use super::waiting::eventually;

/// `--lease-time` of the runs.
pub(crate) const LEASE: Duration = Duration::from_secs(4);
/// Limit for anything that waits for no timeout: less than the stream takes.
pub(crate) const PROMPTLY: Duration = Duration::from_secs(15);

/// 2 MB/s: the stream takes 24 seconds, unless a test opens the throttle.
pub(crate) const THROTTLE: &str = "tc qdisc replace dev e0 root tbf rate 16mbit burst 32k latency 50ms";
const BYTES: &str = "48M";

/// After a failed test, so that the next one does not fail, too: continues stopped agents, ends orphaned
/// jobs.
const RESCUE: &str = r#"
    for home in /var/lib/transfer/*; do kill -CONT $(with "$home/journal.bin"); done
    for fd in /proc/[0-9]*/fd/8; do
        if [[ $(readlink "$fd") == /var/lib/transfer/* ]]; then fd=${fd#/proc/}; kill -KILL "${fd%%/*}"; fi
    done
    rm -rf /run/transfer"#;

/// A scene with a run in mid-stream, and the state of the hosts before it. Only for exclusive tests.
pub(crate) struct MidStream {
    scene: Scene,
    pub(crate) ctl: Host,
    before: [Snapshot; 3],
}

impl Deref for MidStream {
    type Target = Scene;

    fn deref(&self) -> &Scene {
        &self.scene
    }
}

impl MidStream {
    /// Creates the data, and takes the state of the hosts. `None` when labs are turned off.
    pub(crate) fn set() -> Option<Self> {
        Self::set_with("")
    }

    /// As [`MidStream::set`]; the state of the target is taken after a script has changed it.
    pub(crate) fn set_with(script: &str) -> Option<Self> {
        let mut scene = Scene::on(&["ctl", "db1", "db2"])?;
        let ctl = scene.lab.host("ctl");
        scene.source = scene.at("data");
        scene.lab.transfer(&["--version"]).expect_success();
        scene.db1.sh(&format!(
            "mkdir -p '{0}/sub'; echo small >'{0}/sub/small'; head -c {BYTES} /dev/urandom >'{0}/big'",
            scene.source
        ));
        scene.db2.sh(&format!("mkdir '{}'; {FIREWALL}\n{script}", scene.target));
        let before = [&ctl, &scene.db1, &scene.db2].map(|host| Snapshot::of(host, &[scene.scratch.path()]));
        Some(Self { scene, ctl, before })
    }

    /// Returns the arguments of the run.
    pub(crate) fn command_line(&self) -> Vec<String> {
        self.args(&["--lease-time", &LEASE.as_secs().to_string()])
    }

    /// Starts the run, with more options.
    pub(crate) fn start(&self, options: &[&str]) -> Running {
        let args = self.command_line();
        let args: Vec<&str> = args.iter().map(String::as_str).chain(options.iter().copied()).collect();
        self.lab.transfer_spawn(&args)
    }

    /// Starts the run and waits until it is in mid-stream.
    #[track_caller]
    pub(crate) fn start_stream(&self, options: &[&str]) -> Running {
        self.close_throttle();
        let mut run = self.start(options);
        self.await_stream(&mut run);
        run
    }

    /// As [`MidStream::start_stream`], with a command of the controller that is or becomes the program.
    #[track_caller]
    pub(crate) fn start_stream_of(&self, command: Invocation) -> Running {
        self.close_throttle();
        let mut run = command.spawn();
        self.await_stream(&mut run);
        run
    }

    /// Waits until more data arrives.
    #[track_caller]
    pub(crate) fn await_more(&self) {
        let arrived = || self.db2.sh(&format!("stat -c %s '{}'/.transfer-*/copy/data/big", self.at("in")));
        let before = arrived();
        assert!(eventually(PROMPTLY, || arrived() != before), "nothing more arrives");
    }

    /// Waits until some of the data, but not all, is in the staging directory.
    #[track_caller]
    pub(crate) fn await_stream(&self, run: &mut Running) {
        run.wait_for("copying", PROMPTLY);
        // One process that polls, instead of one process per poll.
        let look = format!(
            "for try in {{1..500}}; do [[ ! -s $(echo '{}'/.transfer-*/copy/data/big) ]] || exit 0; sleep 0.02; done; exit 1",
            self.at("in")
        );
        let streams = self.db2.run(&["bash", "-c", &look]).status.success();
        assert!(streams && run.is_running(), "nothing arrives, or all has");
    }

    /// Starts a run and kills, in mid-stream, the controller and on these hosts agent and watchdog. All of
    /// them are stopped first, so that none can act for another one. The jobs of the run continue.
    #[track_caller]
    pub(crate) fn orphan(&self, hosts: &[&Host]) {
        let run = self.start_stream(&[]);
        let found: Vec<Found> = hosts.iter().map(|host| Found::of(host, &["watchdog", "agent"])).collect();
        for found in &found {
            found.signal("STOP");
        }
        run.signal("KILL");
        for found in &found {
            found.signal("KILL");
        }
    }

    fn close_throttle(&self) {
        self.db1.sh(THROTTLE);
    }

    /// Removes the bandwidth limit.
    pub(crate) fn open_throttle(&self) {
        self.db1.sh("tc qdisc replace dev e0 root pfifo");
    }

    /// Loads the target's firewall rules again, which a boot removes.
    pub(crate) fn restore_firewall(&self) {
        self.db2.sh(FIREWALL);
    }

    /// Waits until all hosts are in their former state, for at most `within`; returns the differences that
    /// remain.
    pub(crate) fn remaining(&self, within: Duration) -> Vec<String> {
        let look = |(host, name): (&Host, &str), before: &Snapshot| -> Vec<String> {
            before.remaining(host, within).iter().map(|line| format!("{name}: {line:.200}")).collect()
        };
        thread::scope(|scope| {
            let lookers: Vec<_> = (self.hosts().into_iter().zip(&self.before))
                .map(|(host, before)| scope.spawn(move || look(host, before)))
                .collect();
            lookers.into_iter().flat_map(|looker| looker.join().expect("a snapshot failed")).collect()
        })
    }

    /// Asserts that all hosts return to their former state.
    #[track_caller]
    pub(crate) fn expect_as_before(&self, within: Duration) {
        assert_eq!(self.remaining(within), Vec::<String>::new(), "not as before within {within:?}");
        self.expect_no_socket();
    }

    /// Asserts that hosts roll back while their connections to the controller are still open: processes of
    /// sshd may stay.
    #[track_caller]
    pub(crate) fn expect_rolled_back(&self, hosts: &[&Host], within: Duration) {
        let deadline = Instant::now() + within;
        for host in hosts {
            let index = self
                .hosts()
                .iter()
                .position(|(other, _)| std::ptr::eq(*other, *host))
                .expect("a host of ours");
            let mut lines = Vec::new();
            let rolled_back = eventually(deadline.saturating_duration_since(Instant::now()), || {
                lines = Snapshot::diff(&self.before[index], &Snapshot::of(host, &[self.scratch.path()]));
                lines.retain(|line| !line.contains("process: sshd "));
                lines.is_empty()
            });
            for line in &mut lines {
                line.truncate(200);
            }
            assert!(
                rolled_back,
                "not rolled back on {} within {within:?}: {lines:#?}",
                self.hosts()[index].1
            );
        }
    }

    /// Asserts that no socket of a former ssh master is on the controller.
    #[track_caller]
    pub(crate) fn expect_no_socket(&self) {
        let found = self.ctl.sh("find /run/transfer-ssh -mindepth 1 2>/dev/null || :");
        assert_eq!(found, "", "sockets stay on the controller");
    }

    /// Compares the copy with the source, and removes it.
    #[track_caller]
    pub(crate) fn expect_copied(&self) {
        let digest = |host: &Host, path: &str| {
            host.sh(&format!(
                "cd '{}'; find data -type f -print0 | sort -z | xargs -0 sha256sum",
                self.at(path)
            ))
        };
        assert_eq!(digest(&self.db1, ""), digest(&self.db2, "in"));
        self.db2.sh(&format!("rm -r '{}'", self.at("in/data")));
    }

    /// Returns the hosts and their names.
    fn hosts(&self) -> [(&Host, &'static str); 3] {
        [(&self.ctl, "ctl"), (&self.db1, "db1"), (&self.db2, "db2")]
    }
}

/// Waits for the end of a run, which has to fail with this exit code; returns its standard error.
#[track_caller]
pub(crate) fn expect_end(run: Running, code: i32, within: Duration) -> String {
    run.end_within(within).expect_code(code).stderr
}

impl Drop for MidStream {
    fn drop(&mut self) {
        // No panics: the hosts may be in any state.
        self.db1.run(&["tc", "qdisc", "del", "dev", "e0", "root"]);
        if thread::panicking() {
            for host in [&self.ctl, &self.db1, &self.db2] {
                if !host.run(&["true"]).status.success() {
                    host.boot();
                }
            }
            for host in [&self.db1, &self.db2] {
                host.run(&["bash", "-c", &format!("{FIND}{RESCUE}")]);
            }
            for name in ["db1", "db2"] {
                self.lab.transfer(&["clean", name]);
            }
        }
        let tidy = format!(
            "nft delete table inet closed; umount -q /run/transfer /var/lib/transfer; \
             rmdir /run/transfer /var/lib/transfer {FREEZER}"
        );
        self.db2.run(&["bash", "-c", &tidy]);
    }
}
