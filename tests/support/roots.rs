//! Processes on hosts of the lab, by their numbers on this machine, from which the tracer starts.

use std::fs;
use std::process::Command;
use std::time::Duration;

use nix::unistd::Pid;

use crate::support::commands::{Invocation, Running};
use crate::support::holder::{Held, Holder, Point, Program, Role, Spec, Status};
use crate::support::hosts::{Host, LAB_SH};

/// Pipe on a host, in front of a command that waits for its tracer.
const GATE: &str = "/run/holder-gate";

/// Limit for a run to come to a point.
const SOON: Duration = Duration::from_secs(60);

/// Holds the first agent at a point that a login to a host starts.
#[track_caller]
pub(crate) fn hold(host: &Host, roles: &'static [Role], point: Point) -> Holder {
    Holder::arm(Spec { roles, point }, &[sshd(host)]).expect("sshd cannot be traced")
}

impl Holder {
    /// Waits until a process of this run is held.
    #[track_caller]
    pub(crate) fn expect_held(&self, run: &mut Running) -> Held {
        let held = self.await_held(SOON, || run.is_running());
        if held.is_none() {
            run.signal("TERM");
        }
        held.expect("the point does not come")
    }
}

/// Returns the sshd that accepts the logins of a host.
pub(crate) fn sshd(host: &Host) -> Pid {
    let init = init(host);
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).unwrap_or_default();
    let mut children = children.split_whitespace().filter_map(|pid| Some(Pid::from_raw(pid.parse().ok()?)));
    let is_sshd = |pid: &Pid| Program::of(*pid).is_some_and(|program| program.file == "sshd");
    children.find(is_sshd).expect("the host has no sshd")
}

/// Starts a command on a host, and traces it from its first instruction on.
pub(crate) fn start(spec: Spec, host: &Host, command: Invocation) -> (Holder, Running) {
    host.sh(&format!("rm -f {GATE}; mkfifo -m 0666 {GATE}"));
    let run = command.in_script(&format!("read -r _ <{GATE}; exec \"$0\" \"$@\"")).spawn();
    let holder = Holder::arm(spec, &[process(host, run.pid())]).expect("the command cannot be traced");
    host.sh(&format!("timeout 10 bash -c 'echo >{GATE}'; rm {GATE}"));
    (holder, run)
}

/// Returns the process with a number on a host.
fn process(host: &Host, number: u32) -> Pid {
    let namespace = |pid: Pid| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let of_host = namespace(init(host));
    let processes = fs::read_dir("/proc").expect("there is a /proc");
    let mut pids =
        processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).map(Pid::from_raw);
    let is_it = |pid: &Pid| {
        Status::of(*pid).is_some_and(|status| status.namespaces.last() == Some(&number))
            && namespace(*pid) == of_host
    };
    pids.find(is_it).expect("no such process on the host")
}

fn init(host: &Host) -> Pid {
    let list = Command::new(LAB_SH).args(["list", &host.lab]).output().expect("lab.sh cannot be started");
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let pid = list.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        if words.next()? == host.name { words.nth(1)?.parse().ok() } else { None }
    });
    Pid::from_raw(pid.unwrap_or_else(|| panic!("the host is down: {list}")))
}
