//! Moments of a run as the agent makes them: system calls at which its processes are held, with the names and the
//! order of [`super::moments::MOMENTS`]. In use with `DAMAGE_AGENT=1`, until the agent has replaced the scripts.

use std::path::Path;

use nix::libc;
use transfer::proto::journal::Undo;

use super::variants::Variant;
use crate::support::holder::{Call, OPEN, Point, Program, Role, Spec};

/// How a run is held at a moment.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// By the script of the moment, in front of a program.
    Script,
    Agent(Spec),
}

/// Calls that sync one file.
const SYNC: &[i64] = &[libc::SYS_fdatasync, libc::SYS_fsync];
const RENAME: &[i64] = &[libc::SYS_renameat2];

/// The agent has synced the record of a lease, and has not made the change yet.
macro_rules! recorded {
    ($undo:pat) => {
        |_| serve(Point::After(SYNC, |call| matches!(call.lease(0), Some($undo))))
    };
}

/// Name of a moment, and its place in a variant.
type AgentMoment = (&'static str, fn(&Variant) -> Place);

pub(crate) const AGENT_MOMENTS: [AgentMoment; 20] = [
    ("connecting", |_| Place::Script),
    ("probing", |_| serve(Point::Before(OPEN, |call| call.opened() == "/proc/self/mountinfo"))),
    ("target", recorded!(Undo::Name { .. })),
    ("staging", recorded!(Undo::Staging { .. })),
    ("port", recorded!(Undo::Port(_))),
    ("rule", recorded!(Undo::Rules { .. })),
    ("receiver", recorded!(Undo::Job { .. })),
    ("sender", recorded!(Undo::Job { .. })),
    ("listening", |_| started(Role::Job, |program| program.name == "nc")),
    ("resting", recorded!(Undo::Server { .. } | Undo::Replication { .. })),
    ("first", |_| Place::Script),
    ("middle", |_| Place::Script),
    ("last", |_| Place::Script),
    ("restarting", restarting),
    ("closing", |_| started(Role::Serve, removes_a_rule)),
    ("syncing", |_| any(Point::Before(&[libc::SYS_syncfs], |_| true))),
    ("verifying", |_| any(Point::Before(OPEN, makes_the_list))),
    ("publishing", |_| serve(Point::Before(RENAME, publishes))),
    ("published", published),
    ("releasing", |_| serve(Point::Before(&[libc::SYS_unlinkat], removes_staged))),
];

const fn serve(point: Point) -> Place {
    Place::Agent(Spec { roles: &[Role::Serve], point })
}

/// A call of the agent or of one of its jobs.
const fn any(point: Point) -> Place {
    Place::Agent(Spec { roles: &[Role::Serve, Role::Job], point })
}

const fn started(role: Role, condition: fn(&Program) -> bool) -> Place {
    let roles: &[Role] = match role {
        Role::Serve => &[Role::Serve],
        Role::Watchdog => &[Role::Watchdog],
        Role::Job => &[Role::Job],
    };
    Place::Agent(Spec { roles, point: Point::Started(condition) })
}

fn restarting(variant: &Variant) -> Place {
    if variant.is_hot() {
        // The client reads its statements.
        serve(Point::Before(&[libc::SYS_write], |call| call.bytes(1, 2).starts_with(b"START ")))
    } else {
        started(Role::Serve, |program| program.name == "systemctl" && program.args.contains(&"start".into()))
    }
}

fn removes_a_rule(program: &Program) -> bool {
    program.name == "iptables-legacy" && program.args.contains(&"-D".into())
}

/// Whether a call opens the sorted list of entries for writing.
fn makes_the_list(call: &Call) -> bool {
    call.opened() == "entries"
}

/// Whether a path is that of a staging directory or below one.
fn is_staged(path: &Path) -> bool {
    path.iter().any(|name| name.to_string_lossy().starts_with(".transfer-"))
}

/// Whether a call gives a copy, or an entry of one, a name outside of the staging directory.
fn publishes(call: &Call) -> bool {
    is_staged(&call.descriptor(0)) && !is_staged(&call.descriptor(2))
}

fn published(variant: &Variant) -> Place {
    if variant.fills() {
        // The mark that all entries have their names.
        serve(Point::After(SYNC, |call| call.descriptor(0).ends_with("filled")))
    } else {
        serve(Point::After(RENAME, publishes))
    }
}

/// Whether a call removes a staging directory or something in it, except for what tries the file system.
fn removes_staged(call: &Call) -> bool {
    let name = call.text(1);
    let name = name.to_string_lossy();
    if is_staged(&call.descriptor(0)) { !name.starts_with('.') } else { name.starts_with(".transfer-") }
}
