//! A copy from db1 to db2 that stays in mid-stream for as long as a test needs, on hosts that are compared whole with
//! what they were before it. For the tests of what may end a run before its time.

use std::thread;
use std::time::{Duration, Instant};

use crate::fixtures::FIREWALL;
use crate::harness::{Host, Invocation, Lab, Output, Running, Scratch, eventually};
use crate::processes::{FIND, FREEZER, Found};
use crate::snapshot::Snapshot;

/// `--lease-time` of the runs.
pub(crate) const LEASE: Duration = Duration::from_secs(4);
/// Enough for anything that waits for no timeout, and less than the stream takes.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// Two megabytes a second: the stream takes 24 seconds, unless a test opens the throttle.
pub(crate) const THROTTLE: &str = "tc qdisc replace dev e0 root tbf rate 16mbit burst 32k latency 50ms";
const BYTES: &str = "48M";

/// After a test that failed, so that the next one does not fail for it: wakes stopped agents, ends lost jobs.
const RESCUE: &str = r#"
    for home in /var/lib/transfer/*; do kill -CONT $(of 9 "$home/journal"); done
    for fd in /proc/[0-9]*/fd/8; do
        if [[ $(readlink "$fd") == /var/lib/transfer/* ]]; then fd=${fd#/proc/}; kill -KILL "${fd%%/*}"; fi
    done
    rm -rf /run/transfer"#;

/// The hosts, the data, and what the hosts were before any run.
pub(crate) struct Scene {
    pub(crate) lab: Lab,
    pub(crate) controller: Host,
    pub(crate) source: Host,
    pub(crate) target: Host,
    scratch: Scratch,
    before: [Snapshot; 3],
}

impl Scene {
    /// Sets the scene; `None` when tests in the lab are turned off. Nobody else may use the hosts meanwhile.
    pub(crate) fn set() -> Option<Self> {
        Self::set_with("")
    }

    /// The same after a script has changed the target, to what counts as its state before.
    pub(crate) fn set_with(script: &str) -> Option<Self> {
        let lab = Lab::get()?;
        let [controller, source, target] = ["ctl", "db1", "db2"].map(|name| lab.host(name));
        let scratch = lab.scratch(&["ctl", "db1", "db2"]);
        lab.transfer(&["--version"]).expect_success();
        source.sh(&format!(
            "mkdir -p '{0}/sub'; echo small >'{0}/sub/small'; head -c {BYTES} /dev/urandom >'{0}/big'",
            scratch.join("data")
        ));
        target.sh(&format!("mkdir '{}'; {FIREWALL}\n{script}", scratch.join("in")));
        let before = [&controller, &source, &target].map(|host| Snapshot::of(host, &[scratch.path()]));
        Some(Self { lab, controller, source, target, scratch, before })
    }

    /// Something in the directory that the test has on every host.
    pub(crate) fn join(&self, name: &str) -> String {
        self.scratch.join(name)
    }

    /// The arguments of the run.
    pub(crate) fn args(&self) -> [String; 4] {
        [
            format!("db1:{}", self.join("data")),
            format!("db2:{}", self.join("in")),
            "--lease-time".into(),
            LEASE.as_secs().to_string(),
        ]
    }

    /// Starts the run, with more options.
    pub(crate) fn start(&self, options: &[&str]) -> Running {
        let args = self.args();
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

    /// The same of a command that is or becomes the program, on the controller.
    #[track_caller]
    pub(crate) fn start_stream_of(&self, command: Invocation) -> Running {
        self.close_throttle();
        let mut run = command.spawn();
        self.await_stream(&mut run);
        run
    }

    /// Waits until more has arrived than had before.
    #[track_caller]
    pub(crate) fn await_more(&self) {
        let arrived =
            || self.target.sh(&format!("stat -c %s '{}'/.transfer-*/copy/data/big", self.join("in")));
        let before = arrived();
        assert!(eventually(SOON, || arrived() != before), "nothing more arrives");
    }

    /// Waits until a part of the data, and not all of it, has arrived in the staging directory.
    #[track_caller]
    pub(crate) fn await_stream(&self, run: &mut Running) {
        run.wait_for("copying", SOON);
        // One process that looks often, instead of many that look once.
        let look = format!(
            "for try in {{1..500}}; do [[ ! -s $(echo '{}'/.transfer-*/copy/data/big) ]] || exit 0; sleep 0.02; done; exit 1",
            self.join("in")
        );
        let streams = self.target.run(&["bash", "-c", &look]).status.success();
        assert!(streams && run.is_running(), "nothing arrives, or all has");
    }

    /// Kills everything of a run in mid-stream that could undo it on these hosts, without a moment in which one could
    /// act for the other; its jobs go on.
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
        self.source.sh(THROTTLE);
    }

    /// Lets the rest of the data through at once.
    pub(crate) fn open_throttle(&self) {
        self.source.sh("tc qdisc replace dev e0 root pfifo");
    }

    /// Brings back the target's rules, which end with its boot.
    pub(crate) fn restore_firewall(&self) {
        self.target.sh(FIREWALL);
    }

    /// What still differs from before on all hosts, once they have had time to get back.
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

    /// Waits until every host is what it was before.
    #[track_caller]
    pub(crate) fn expect_as_before(&self, within: Duration) {
        assert_eq!(self.remaining(within), Vec::<String>::new(), "not as before within {within:?}");
        self.expect_no_socket();
    }

    /// The same of some hosts while their connections to the controller are still open: ssh's own processes may stay.
    #[track_caller]
    pub(crate) fn expect_undone(&self, hosts: &[&Host], within: Duration) {
        let deadline = Instant::now() + within;
        for host in hosts {
            let index = self
                .hosts()
                .iter()
                .position(|(other, _)| std::ptr::eq(*other, *host))
                .expect("a host of ours");
            let mut lines = Vec::new();
            let undone = eventually(deadline.saturating_duration_since(Instant::now()), || {
                lines = Snapshot::diff(&self.before[index], &Snapshot::of(host, &[self.scratch.path()]));
                lines.retain(|line| !line.contains("process: sshd "));
                lines.is_empty()
            });
            for line in &mut lines {
                line.truncate(200);
            }
            assert!(undone, "not undone on {} within {within:?}: {lines:#?}", self.hosts()[index].1);
        }
    }

    /// No socket of a dead ssh master stays on the controller.
    #[track_caller]
    pub(crate) fn expect_no_socket(&self) {
        let found = self.controller.sh("find /run/transfer-ssh -mindepth 1 2>/dev/null || :");
        assert_eq!(found, "", "sockets stay on the controller");
    }

    /// Compares the copy with the source and takes it away.
    #[track_caller]
    pub(crate) fn expect_copied(&self) {
        let digest = |host: &Host, path: &str| {
            host.sh(&format!(
                "cd '{}'; find data -type f -print0 | sort -z | xargs -0 sha256sum",
                self.join(path)
            ))
        };
        assert_eq!(digest(&self.source, ""), digest(&self.target, "in"));
        self.target.sh(&format!("rm -r '{}'", self.join("in/data")));
    }

    /// The hosts, with the names that messages need.
    fn hosts(&self) -> [(&Host, &'static str); 3] {
        [(&self.controller, "ctl"), (&self.source, "db1"), (&self.target, "db2")]
    }
}

/// Waits for the end of a run, at most for a while.
#[track_caller]
pub(crate) fn finish(mut run: Running, within: Duration) -> Output {
    run.wait_end(within);
    run.wait()
}

/// The same of one that has to fail with this exit code; returns what it said.
#[track_caller]
pub(crate) fn expect_end(run: Running, code: i32, within: Duration) -> String {
    finish(run, within).expect_code(code).stderr
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Nothing here may panic, whatever state the hosts are in.
        self.source.run(&["tc", "qdisc", "del", "dev", "e0", "root"]);
        if thread::panicking() {
            for host in [&self.controller, &self.source, &self.target] {
                if !host.run(&["true"]).status.success() {
                    host.boot();
                }
            }
            for host in [&self.source, &self.target] {
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
        self.target.run(&["bash", "-c", &tidy]);
    }
}
