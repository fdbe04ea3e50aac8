//! Places at which processes are held: system calls of the agent, and programs behind a script.

use std::path::Path;

use nix::libc;
use transfer::proto::journal::Undo;

use super::variants::Variant;
use crate::support::holder::{Call, OPEN, Point, Program, Role, Spec};

/// How a run is held at a moment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// By a script in front of a program.
    Script(Script),
    /// At a system call of the agent.
    Agent(Spec),
}

/// Call of a program that a script holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Script {
    pub(super) program: &'static str,
    /// Condition, in bash, for the call that is held.
    pub(super) condition: &'static str,
    pub(super) hold: Hold,
}

/// Point at which a program is held.
#[derive(Clone, Copy, Debug)]
pub(super) enum Hold {
    Before,
    /// After so many bytes of its output.
    Behind(u32),
    /// Before the last bytes of its output.
    BeforeTheLast,
}

/// Calls that sync one file.
const SYNC: &[i64] = &[libc::SYS_fdatasync, libc::SYS_fsync];
const RENAME: &[i64] = &[libc::SYS_renameat2];

/// The agent has synced the record of a lease, and has not made the change yet.
macro_rules! recorded {
    ($undo:pat) => {
        |_| {
            let condition: fn(&Call) -> bool = |call| matches!(call.lease(0), Some($undo));
            Place::Agent(Spec { roles: &[Role::Serve], point: Point::After(SYNC, condition) })
        }
    };
}

pub(super) const TARGET: fn(&Variant) -> Place = recorded!(Undo::Name { .. });
pub(super) const STAGING: fn(&Variant) -> Place = recorded!(Undo::Staging { .. });
pub(super) const PORT: fn(&Variant) -> Place = recorded!(Undo::Port(_));
pub(super) const RULE: fn(&Variant) -> Place = recorded!(Undo::Rules { .. });
pub(super) const JOB: fn(&Variant) -> Place = recorded!(Undo::Job { .. });
pub(super) const QUIESCED: fn(&Variant) -> Place = recorded!(Undo::Server { .. } | Undo::Replication { .. });

/// Before the login to a host.
pub(super) fn connecting(_: &Variant) -> Place {
    Place::Script(Script { program: "setpriv", condition: "true", hold: Hold::Before })
}

/// Before the agent reads the list of file systems, which the probe needs.
pub(super) fn probing(_: &Variant) -> Place {
    serve(Point::Before(OPEN, |call| call.opened() == "/proc/self/mountinfo"))
}

/// Before the first instruction of the sender's netcat.
pub(super) fn listening(_: &Variant) -> Place {
    started(&[Role::Job], |program| program.name == "nc")
}

/// After the first bytes of the data.
pub(super) fn first(variant: &Variant) -> Place {
    producing(variant, Hold::Behind(64 << 10))
}

/// After half of the data.
pub(super) fn middle(variant: &Variant) -> Place {
    producing(variant, Hold::Behind(1800 << 10))
}

/// Before the last bytes of the data.
pub(super) fn last(variant: &Variant) -> Place {
    producing(variant, Hold::BeforeTheLast)
}

fn producing(variant: &Variant, hold: Hold) -> Place {
    Place::Script(if variant.is_hot() {
        Script { program: "mariadb-backup", condition: "[[ $1 != --version ]]", hold }
    } else {
        Script { program: "tar", condition: "[[ $* == *--create* ]]", hold }
    })
}

/// Before a server, or its replication, is started again.
pub(super) fn restarting(variant: &Variant) -> Place {
    if variant.is_hot() {
        // The client reads its statements.
        serve(Point::Before(&[libc::SYS_write], |call| call.bytes(1, 2).starts_with(b"START ")))
    } else {
        started(&[Role::Serve], |program| {
            program.name == "systemctl" && program.args.contains(&"start".into())
        })
    }
}

/// Before a firewall rule is removed.
pub(super) fn closing(_: &Variant) -> Place {
    started(&[Role::Serve], |program| {
        program.name == "iptables-legacy" && program.args.contains(&"-D".into())
    })
}

/// Before the file system of the copy is synced.
pub(super) fn syncing(_: &Variant) -> Place {
    any(Point::Before(&[libc::SYS_syncfs], |_| true))
}

/// Before the sorted list of the copy is opened for writing.
pub(super) fn verifying(_: &Variant) -> Place {
    any(Point::Before(OPEN, |call| call.opened() == "entries"))
}

/// Before the copy, or the first entry of one, gets its name.
pub(super) fn publishing(_: &Variant) -> Place {
    serve(Point::Before(RENAME, publishes))
}

/// After that, or after all entries have their names.
pub(super) fn published(variant: &Variant) -> Place {
    if variant.fills() {
        // The mark that all entries have their names.
        serve(Point::After(SYNC, |call| call.descriptor(0).ends_with("filled")))
    } else {
        serve(Point::After(RENAME, publishes))
    }
}

/// Before the staging directory, or the first entry in it, is removed.
pub(super) fn releasing(_: &Variant) -> Place {
    serve(Point::Before(&[libc::SYS_unlinkat], removes_staged))
}

const fn serve(point: Point) -> Place {
    Place::Agent(Spec { roles: &[Role::Serve], point })
}

/// A call of the agent or of one of its jobs.
const fn any(point: Point) -> Place {
    Place::Agent(Spec { roles: &[Role::Serve, Role::Job], point })
}

const fn started(roles: &'static [Role], condition: fn(&Program) -> bool) -> Place {
    Place::Agent(Spec { roles, point: Point::Started(condition) })
}

/// Whether a path is that of a staging directory or below one.
fn is_staged(path: &Path) -> bool {
    path.iter().any(|name| name.to_string_lossy().starts_with(".transfer-"))
}

/// Whether a call gives a copy, or an entry of one, a name outside of the staging directory.
fn publishes(call: &Call) -> bool {
    is_staged(&call.descriptor(0)) && !is_staged(&call.descriptor(2))
}

/// Whether a call removes a staging directory or something in it, except for what tries the file system.
fn removes_staged(call: &Call) -> bool {
    let name = call.text(1);
    let name = name.to_string_lossy();
    if is_staged(&call.descriptor(0)) { !name.starts_with('.') } else { name.starts_with(".transfer-") }
}
