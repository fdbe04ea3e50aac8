//! Agents on hosts of the lab.

use std::time::Duration;

use nix::libc;

use super::agent::NAME;
use crate::support::commands::Running;
use crate::support::holder::{Point, Role, Spec};
use crate::support::hosts::{Host, Lab};
use crate::support::roots;
use crate::support::waiting::eventually;

/// Limit for logins.
const SOON: Duration = Duration::from_secs(30);
/// Directory of the agent on a host.
const HOME: &str = "/root/holder";
/// Before the removal of a file.
const UNLINK: Spec = Spec {
    roles: Role::ALL,
    point: Point::Before(&[libc::SYS_unlinkat], |call| call.text(1) == "/run/holder-file"),
};

/// Puts the agent on a host.
fn install(host: &Host) -> String {
    let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    let path = format!("{HOME}/{NAME}");
    host.sh(&format!("mkdir -p {HOME}; touch /run/holder-file"));
    host.put(program, &path, 0o755);
    path
}

/// Waits until the agent has removed the file, and removes the agent.
fn expect_let_go(host: &Host, run: Running) {
    let output = run.wait();
    assert_eq!((output.status.code(), output.stdout.trim()), (Some(0), "unlink done"), "{output}");
    host.sh(&format!("test ! -e /run/holder-file; rm -r {HOME}"));
}

pub(super) fn agents_are_followed_from_sshd() {
    let Some(lab) = Lab::get() else { return };
    let (ctl, db3) = (lab.host("ctl"), lab.host("db3"));
    for sudo in [false, true] {
        let path = install(&db3);
        if sudo {
            db3.sh("echo 'dba ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/holder");
        }
        let holder = roots::hold(&db3, UNLINK.roles, UNLINK.point);
        let agent = format!(
            "exec sh -c \"true; exec {} {path} serve 'unlink /run/holder-file'\"",
            if sudo { "sudo -n" } else { "env" }
        );
        let login = if sudo { "dba@db3" } else { "db3" };
        let mut run = ctl.spawn(&["ssh", "-n", "-o", "BatchMode=yes", login, &agent]);
        let held = holder.expect_held(&mut run);
        assert_eq!(held.role, Role::Serve);
        db3.sh("test -e /run/holder-file; rm -f /etc/sudoers.d/holder");
        holder.open();
        expect_let_go(&db3, run);
    }
}

pub(super) fn exclusive_crash_ends_the_held_agent() {
    let Some(lab) = Lab::get() else { return };
    let (ctl, db3) = (lab.host("ctl"), lab.host("db3"));
    let path = install(&db3);
    let holder = roots::hold(&db3, UNLINK.roles, UNLINK.point);
    let agent = format!("{path} serve 'unlink /run/holder-file'");
    let mut run = ctl.spawn(&["ssh", "-n", "-o", "BatchMode=yes", "db3", &agent]);
    let held = holder.expect_held(&mut run);
    db3.crash();
    let process = format!("/proc/{}", held.process);
    assert!(eventually(SOON, || !std::path::Path::new(&process).exists()));
    // The host comes back while the tracer is still there.
    db3.boot();
    holder.open();
    db3.sh(&format!("rm -r {HOME}"));
}

pub(super) fn local_agents_are_followed_from_their_controller() {
    let Some(lab) = Lab::get() else { return };
    let ctl = lab.host("ctl");
    let path = install(&ctl);
    let script = format!("sh -c \"{path} serve 'unlink /run/holder-file'\"");
    let (holder, mut run) = roots::start(UNLINK, &ctl, ctl.command(&["bash", "--norc", "-c", &script]));
    holder.expect_held(&mut run);
    holder.open();
    expect_let_go(&ctl, run);
}
