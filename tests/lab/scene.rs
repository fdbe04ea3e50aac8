//! A copy from db1 to db2 that stays in mid-stream for as long as a test needs, on hosts that are compared whole with
//! what they were before it. For the tests of what may end a run before its time.

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{Host, Lab, Output, Running, Scratch, eventually};
use crate::snapshot::Snapshot;

/// `--lease-time` of the runs.
pub(crate) const LEASE: Duration = Duration::from_secs(4);
/// Enough for anything that waits for no timeout.
pub(crate) const SOON: Duration = Duration::from_secs(10);

/// Four megabytes a second: the stream takes twelve seconds, unless a test opens the throttle.
const THROTTLE: &str = "tc qdisc replace dev e0 root tbf rate 32mbit burst 32k latency 50ms";
const BYTES: &str = "48M";

/// A target that lets nobody in but ssh: a hole is needed, and one that stays is seen.
const FIREWALL: &str = "nft -f - <<'RULES'
    add table inet scene
    delete table inet scene
    table inet scene {
        chain input {
            type filter hook input priority 0; policy drop;
            ct state established,related accept
            iif lo accept
            tcp dport 22 accept
            meta l4proto { icmp, ipv6-icmp } accept
        }
    }
RULES";

/// Shell functions that find the processes of a run, by the descriptors that only they have. `$home` is the directory
/// of the guard.
const FIND: &str = r#"
    of() {
        local fd
        for fd in /proc/[0-9]*/fd/"$1"; do
            if [[ $fd -ef $2 ]]; then fd=${fd#/proc/}; echo "${fd%%/*}"; fi
        done
    }
    parent() { awk '$1 == "PPid:" { print $2 }' "/proc/$1/status"; }
    guard() {
        local pid
        for pid in $(of 9 "$home/journal"); do
            if [[ $(<"/proc/$(parent "$pid")/comm") == sshd ]]; then echo "$pid"; fi
        done
    }
    session() { parent "$(guard)"; }
    sentinel() {
        local pid
        for pid in $(of 9 "$home/journal"); do
            if [[ ! -e /proc/$pid/fd/3 ]]; then echo "$pid"; fi
        done
    }
    # process JOB COMMAND ARGUMENTS: one process of a job, by its name and a part of its arguments.
    process() {
        local pid
        for pid in $(of 8 "$home/$1.job"); do
            if [[ $(<"/proc/$pid/comm") == "$2" && " $(tr '\0' ' ' <"/proc/$pid/cmdline")" == *" $3 "* ]]; then
                echo "$pid"
            fi
        done
    }
    home=$(echo /var/lib/transfer/*)
"#;

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
            "mkdir -p '{0}/sub'; echo small >'{0}/sub/small'; head -c {BYTES} /dev/urandom >'{0}/big'; {THROTTLE}",
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
        let run = self.start(options);
        self.await_stream();
        run
    }

    /// Waits until a part of the data, and not all of it, has arrived in the staging directory.
    #[track_caller]
    pub(crate) fn await_stream(&self) {
        let look =
            format!("find '{}'/.transfer-*/data/big -size +0 2>/dev/null | grep -q .", self.join("in"));
        let streams = eventually(SOON, || self.target.run(&["bash", "-c", &look]).status.success());
        assert!(streams, "nothing arrives");
    }

    /// Lets the rest of the data through at once.
    pub(crate) fn open_throttle(&self) {
        self.source.sh("tc qdisc del dev e0 root");
    }

    /// Brings back the target's rules, which end with its boot.
    pub(crate) fn restore_firewall(&self) {
        self.target.sh(FIREWALL);
    }

    /// Runs a script with `$home` and the functions that find processes: `guard`, `session`, `sentinel`, `process`.
    #[track_caller]
    pub(crate) fn sh(&self, host: &Host, script: &str) -> String {
        host.sh(&format!("{FIND}{script}"))
    }

    /// All processes that some of these functions find now; each of them has to find one.
    #[track_caller]
    pub(crate) fn find(&self, host: &Host, whom: &[&str]) -> Found {
        let finds: String =
            whom.iter().map(|who| format!("found=$({who}); echo ${{found:?no {who}}}\n")).collect();
        let pids = self.sh(host, &finds).split_whitespace().map(ToOwned::to_owned).collect();
        Found { host: host.clone(), pids }
    }

    /// The name of the one run that has a journal on the host.
    #[track_caller]
    pub(crate) fn guard(&self, host: &Host) -> String {
        self.sh(host, "[[ -e $home/journal ]]; echo -n \"${home##*/}\"")
    }

    /// What still differs from before on all hosts, sooner or later; the controller is looked at first.
    pub(crate) fn remaining(&self, within: Duration) -> Vec<String> {
        let deadline = Instant::now() + within;
        let mut lines = Vec::new();
        for ((host, name), before) in self.hosts().into_iter().zip(&self.before) {
            let rest = before.remaining(host, deadline.saturating_duration_since(Instant::now()));
            lines.extend(rest.into_iter().map(|line| format!("{name}: {line}")));
        }
        lines
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
            assert!(undone, "not undone on {} within {within:?}: {lines:#?}", self.hosts()[index].1);
        }
    }

    /// No socket of a dead ssh master stays on the controller.
    #[track_caller]
    pub(crate) fn expect_no_socket(&self) {
        let found = self.controller.sh("find /run/transfer-ssh -mindepth 1 2>/dev/null || :");
        assert_eq!(found, "", "sockets stay on the controller");
    }

    /// Waits for the end of a run that has to fail with this exit code, and returns what it said. The data must not
    /// have got its final name.
    #[track_caller]
    pub(crate) fn expect_end(&self, run: Running, code: i32, within: Duration) -> String {
        let output = finish(run, within).expect_code(code);
        self.target.sh(&format!("! test -e '{}'", self.join("in/data")));
        output.stderr
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

/// Processes that were found once, whatever has become of their parents.
pub(crate) struct Found {
    host: Host,
    pids: Vec<String>,
}

impl Found {
    /// Sends a signal to all of them at once.
    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        self.host.sh(&format!("kill -s {name} {}", self.pids.join(" ")));
    }

    /// Whether none of them is left.
    pub(crate) fn are_gone(&self) -> bool {
        self.pids.iter().all(|pid| !self.host.run(&["test", "-e", &format!("/proc/{pid}")]).status.success())
    }
}

/// Waits for the end of a run, at most for a while.
#[track_caller]
pub(crate) fn finish(mut run: Running, within: Duration) -> Output {
    run.wait_end(within);
    run.wait()
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Not what panics: a host may be down.
        self.source.run(&["tc", "qdisc", "del", "dev", "e0", "root"]);
        self.target.run(&["nft", "delete", "table", "inet", "scene"]);
        if thread::panicking() {
            // What one test left behind must not fail the next one: stopped guards and dead runs.
            for host in [&self.source, &self.target] {
                host.run(&[
                    "bash",
                    "-c",
                    &format!(
                        "{FIND}\nkill -CONT $(for home in /var/lib/transfer/*; do of 9 $home/journal; done)"
                    ),
                ]);
            }
            self.lab.transfer(&["clean", "db1", "db2"]);
        }
    }
}
