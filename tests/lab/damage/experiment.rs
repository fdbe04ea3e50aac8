//! A run between the hosts of a lane, and what happens to it and to them.

use std::time::Duration;

use super::cell::HELD;
use super::lane::{DATA, Lane};
use super::moments::{Armed, End, Moment};
use super::variants::{Variant, host_of};
use crate::support::commands::{Invocation, Running};
use crate::support::hosts::{Host, Lab};
use crate::support::outages::Cut;
use crate::support::output::Output;
use crate::support::trees;

/// `--lease-time` and `--idle-timeout` of the runs.
pub(crate) const LEASE: Duration = Duration::from_secs(4);
/// File on the controller with the offset of its wall clock.
const CLOCK: &str = "/run/damage-clock";

/// Hosts, run and faults of one cell.
pub(crate) struct Experiment {
    pub(super) lane: Lane,
    pub(super) moment: &'static Moment,
    pub(super) variant: &'static Variant,
    pub(super) run: Option<Running>,
    pub(super) armed: Option<Armed>,
    cuts: Vec<Cut>,
    pub(super) down: Vec<&'static str>,
    pub(super) others: Vec<Running>,
    pub(super) altered: Option<Vec<String>>,
}

impl Experiment {
    pub(crate) fn new(main: &Lab, moment: &'static Moment, variant: &'static Variant) -> Self {
        Self {
            lane: Lane::take(main),
            moment,
            variant,
            run: None,
            armed: None,
            cuts: Vec::new(),
            down: Vec::new(),
            others: Vec::new(),
            altered: None,
        }
    }

    /// Returns the lane, whose hosts are as they were.
    pub(crate) fn give_back(self) {
        self.lane.give_back();
    }

    pub(crate) fn variant(&self) -> &'static Variant {
        self.variant
    }

    pub(crate) fn moment(&self) -> &'static Moment {
        self.moment
    }

    pub(crate) fn run(&mut self) -> &mut Running {
        self.run.as_mut().expect("a run")
    }

    pub(crate) fn host(&self, end: End) -> Host {
        self.lane.host(self.name_of(end))
    }

    pub(super) fn name_of(&self, end: End) -> &'static str {
        match end {
            End::Controller => "ctl",
            End::Source => host_of(self.variant.source),
            End::Target => "db2",
        }
    }

    /// Runs a script on a host.
    pub(crate) fn on(&self, host: &str, script: &str) {
        self.lane.host(host).sh(script);
    }

    /// Runs a script on the host of an end.
    pub(crate) fn sh(&self, end: End, script: &str) -> String {
        self.host(end).sh(script)
    }

    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![format!("{}{}", self.variant.source, self.variant.data)];
        arguments
            .extend(self.variant.targets.iter().map(|target| format!("{target}{}", self.variant.directory)));
        for option in ["--lease-time", "--idle-timeout"] {
            arguments.extend([option.to_owned(), LEASE.as_secs().to_string()]);
        }
        arguments.extend(self.variant.options.iter().map(ToString::to_string));
        arguments
    }

    /// Returns the command of the run, with a wall clock that [`Experiment::jump`] can set if needed.
    pub(super) fn program(&self, on_our_clock: bool) -> Invocation {
        let arguments = self.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut program = self.lane.lab.program(&arguments);
        if on_our_clock {
            // A missing library would go unnoticed.
            let library = self.lane.host("ctl").sh("echo -n /usr/lib/*/faketime/libfaketime.so.1");
            self.lane.host("ctl").sh(&format!("test -e {library}"));
            self.jump("+0");
            program = program
                .env("LD_PRELOAD", &library)
                .env("FAKETIME_TIMESTAMP_FILE", CLOCK)
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        program
    }

    pub(super) fn transfer(&self, arguments: &[&str]) -> Output {
        self.lane.lab.transfer(arguments)
    }

    /// Sets the wall clock of the controller.
    pub(crate) fn jump(&self, by: &str) {
        self.lane.host("ctl").sh(&format!("echo {by} >{CLOCK}"));
    }

    /// Lets the held program continue.
    pub(crate) fn let_go(&self) {
        if let Some(armed) = &self.armed {
            armed.open();
        }
    }

    pub(crate) fn cut(&mut self, a: &'static str, b: &'static str) {
        self.cuts.push(self.lane.lab.cut(a, b));
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    pub(crate) fn crash(&mut self, host: &'static str) {
        self.lane.host(host).crash();
        self.down.push(host);
    }

    pub(crate) fn boot(&mut self, host: &'static str) {
        self.lane.boot(host);
        self.down.retain(|down| *down != host);
    }

    /// Kills the controller's ssh master for a host.
    pub(crate) fn kill_master(&self, host: &str) {
        let script = format!("pkill -KILL -f -- 'ssh -M -N .* -- (dba@)?{host}$'");
        self.lane.host("ctl").sh(&script);
    }

    /// Kills the sshd processes of a host's sessions.
    pub(crate) fn kill_session(&self, host: &str) {
        self.lane.host(host).sh("pkill -KILL -f '^sshd: (root|dba)'");
    }

    /// Kills all sshd processes of logins, on all hosts.
    pub(crate) fn end_sessions(&self) {
        for host in self.hosts() {
            self.on(host, "pkill -KILL -f '^sshd: (root|dba|\\[)' || :");
        }
    }

    pub(crate) fn stop_sshd(&self, host: &str) {
        self.lane.host(host).sh("systemctl stop ssh");
    }

    pub(crate) fn start_sshd(&self, host: &str) {
        self.lane.host(host).sh("systemctl start ssh");
    }

    /// Starts a command that runs until the end of the run.
    pub(crate) fn spawn(&mut self, end: End, command: &[&str]) {
        let running = self.host(end).spawn(command);
        self.others.push(running);
    }

    /// Connects to the port before our own sender.
    pub(crate) fn send_unexpected_peer(&mut self, then: &str) {
        let script =
            format!("exec 3<>/dev/tcp/10.77.0.12/{} || exit; echo connected; {then}", self.variant.port());
        let mut peer = self.host(End::Source).spawn(&["bash", "--norc", "-c", &script]);
        peer.wait_for("connected", HELD);
        self.others.push(peer);
    }

    /// Listens on the port before our own receiver.
    pub(crate) fn take_port(&mut self) {
        let port = self.variant.port().to_string();
        self.spawn(End::Target, &["nc", "-l", "-k", "-d", &port]);
        let listening = format!("until [[ $(ss -Hltn 'sport = :{port}') ]]; do sleep 0.01; done");
        self.sh(End::Target, &listening);
    }

    /// Makes a program fail from now on.
    pub(crate) fn break_tool(&self, end: End, tool: &str, status: &str) {
        let text = format!("#!/bin/sh\necho '{tool}: broken' >&2\nexit {status}\n");
        // Before the directory of the script that holds the run.
        self.host(end).put(text, &format!("/usr/local/sbin/{tool}"), 0o755);
    }

    pub(crate) fn mend_tool(&self, end: End, tool: &str) {
        // The broken program may be rm.
        self.sh(end, &format!("/usr/bin/rm /usr/local/sbin/{tool}"));
    }

    /// Filters the data that netcat sends through perl code, which has all of it in `$all`.
    pub(crate) fn damage_wire(&self, how: &str) {
        let text = format!(
            "#!/bin/bash\n[[ $* == *-h* ]] && exec /usr/bin/nc \"$@\"\n\
             perl -e 'undef $/; my $all = <STDIN>; {how}; print $all' | /usr/bin/nc \"$@\"\nexit \"${{PIPESTATUS[1]}}\"\n"
        );
        self.host(End::Source).put(text, "/usr/local/sbin/nc", 0o755);
    }

    /// Changes the source: the copy may have the former or the new state.
    pub(crate) fn alter_source(&mut self, script: &str) {
        self.sh(End::Source, script);
        self.altered = Some(trees::list(&self.host(End::Source), DATA));
    }
}
