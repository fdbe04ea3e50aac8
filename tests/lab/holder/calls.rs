//! Calls that are held, before or after their effect.

use nix::libc;
use rustix::fs::RenameFlags;
use transfer::proto::journal::Undo;

use super::scene::Scene;
use crate::support::holder::{Call, OPEN, Point, Role};

/// One action of the agent that is held, and its effect.
struct Case {
    action: &'static str,
    numbers: &'static [i64],
    condition: fn(&Call) -> bool,
    /// File of the effect, and its content, or nothing if it is removed; files `a` and `b` exist before.
    effect: Option<(&'static str, Option<&'static str>)>,
}

const CASES: [Case; 7] = [
    Case {
        action: "rename a new",
        numbers: &[libc::SYS_renameat2],
        condition: |call| {
            call.flags(4) == u64::from(RenameFlags::NOREPLACE.bits())
                && call.path(0, 1).ends_with("a")
                && call.path(2, 3).is_absolute()
                && call.text(3) == "new"
        },
        effect: Some(("new", Some("a"))),
    },
    Case {
        action: "exchange a b",
        numbers: &[libc::SYS_renameat2],
        condition: |call| call.flags(4) == u64::from(RenameFlags::EXCHANGE.bits()),
        effect: Some(("b", Some("a"))),
    },
    Case {
        action: "unlink a",
        numbers: &[libc::SYS_unlinkat],
        condition: |call| call.text(1) == "a",
        effect: Some(("a", None)),
    },
    Case {
        action: "create new",
        numbers: OPEN,
        condition: |call| call.opened() == "new",
        effect: Some(("new", Some(""))),
    },
    Case {
        action: "syncfs a",
        numbers: &[libc::SYS_syncfs],
        condition: |call| call.descriptor(0).ends_with("a"),
        effect: None,
    },
    Case {
        action: "statx a",
        numbers: &[libc::SYS_statx],
        condition: |call| call.text(1) == "a",
        effect: None,
    },
    Case {
        action: "lease port",
        numbers: &[libc::SYS_fdatasync],
        condition: |call| matches!(call.lease(0), Some(Undo::Port(4400))),
        effect: None,
    },
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Before,
    After,
}

fn hold(case: &Case, side: Side) {
    let mut scene = Scene::of(&format!("$agent serve '{}'; echo status $?", case.action));
    scene.write("a", "a");
    scene.write("b", "b");
    let point = match side {
        Side::Before => Point::Before(case.numbers, case.condition),
        Side::After => Point::After(case.numbers, case.condition),
    };
    let Some(holder) = scene.arm(Role::ALL, point) else { return };
    let held = scene.go_until_held(&holder);
    assert_eq!((held.role, held.thread), (Role::Serve, held.process));
    let is_there = |(name, content): (&str, Option<&str>)| {
        std::fs::read_to_string(scene.path(name)).ok() == content.map(ToOwned::to_owned)
    };
    if let Some(effect) = case.effect {
        assert_eq!(is_there(effect), side == Side::After, "{} is held too late or too early", case.action);
    }
    assert_eq!(scene.line_so_far(), None, "{} is not held", case.action);
    holder.open();
    let verb = case.action.split(' ').next().unwrap();
    assert_eq!(scene.line(), format!("{verb} done"));
    assert_eq!(scene.line(), "status 0");
    assert!(case.effect.is_none_or(is_there));
}

pub(super) fn calls_are_held_before_their_effect() {
    for case in &CASES {
        hold(case, Side::Before);
    }
}

pub(super) fn calls_are_held_after_their_effect() {
    for case in &CASES {
        hold(case, Side::After);
    }
}

/// Condition for all calls.
const ANY: fn(&Call) -> bool = |_| true;

pub(super) fn calls_that_fail_are_not_held_afterwards() {
    let mut scene = Scene::of("$agent serve 'unlink none' 'unlink a' 'create new'");
    scene.write("a", "");
    let Some(holder) = scene.arm(Role::ALL, Point::After(&[libc::SYS_unlinkat], ANY)) else { return };
    scene.go_until_held(&holder);
    assert_eq!(scene.line(), "unlink failed");
    assert!(!scene.has("a") && !scene.has("new"));
}

pub(super) fn records_of_other_kinds_are_not_held() {
    let mut scene = Scene::of("$agent serve 'lease port' 'close job' 'lease port' 'lease job' 'create new'");
    let condition: fn(&Call) -> bool = |call| matches!(call.lease(0), Some(Undo::Job { .. }));
    let point = Point::After(&[libc::SYS_fdatasync], condition);
    let Some(holder) = scene.arm(Role::ALL, point) else { return };
    scene.go_until_held(&holder);
    for line in ["lease done", "close done", "lease done"] {
        assert_eq!(scene.line(), line);
    }
    assert_eq!(scene.line_so_far(), None);
    holder.open();
    assert_eq!((scene.line(), scene.line()), ("lease done".into(), "create done".into()));
}

pub(super) fn written_bytes_are_seen() {
    let mut scene = Scene::of("$agent serve 'write a STOP;' 'write b START;'");
    let starts: fn(&Call) -> bool = |call| call.bytes(1, 2).starts_with(b"START");
    let Some(holder) = scene.arm(Role::ALL, Point::Before(&[libc::SYS_write], starts)) else { return };
    scene.go_until_held(&holder);
    assert_eq!(scene.line(), "write done");
    let content = |name: &str| std::fs::read_to_string(scene.path(name)).unwrap();
    assert_eq!((content("a"), content("b")), ("STOP;".into(), String::new()));
}

pub(super) fn calls_have_other_results() {
    let mut scene = Scene::of("$agent serve 'unlink a' 'unlink b'");
    scene.write("a", "");
    scene.write("b", "");
    let is_a: fn(&Call) -> bool = |call| call.text(1) == "a";
    let point = Point::Instead(&[libc::SYS_unlinkat], is_a, -i64::from(libc::EIO));
    let Some(holder) = scene.arm(Role::ALL, point) else { return };
    scene.go();
    assert_eq!([scene.line(), scene.line()], ["unlink failed", "unlink done"]);
    assert!(scene.has("a") && !scene.has("b"));
    assert!(holder.has_come());
}

pub(super) fn results_are_altered() {
    let mut scene = Scene::of("$agent serve 'size a'");
    scene.write("a", "12345");
    // Field `st_size` is at byte 40 of `struct statx`.
    let alter: fn(&Call) -> Option<i64> = |call| {
        call.put(4, 40, &7u64.to_ne_bytes());
        None
    };
    let Some(holder) = scene.arm(Role::ALL, Point::Altered(&[libc::SYS_statx], alter)) else { return };
    scene.go();
    assert_eq!([scene.line(), scene.line()], ["7", "size done"]);
    assert!(holder.has_come());
}

pub(super) fn programs_are_held_at_their_start() {
    let mut scene = Scene::of("$agent serve 'start touch a' 'start ./script b'");
    scene.write("script", "#!/bin/bash\ntouch \"$1\"\n");
    let script = scene.path("script");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let point = Point::Started(|program| program.name == "script" && program.args.last().unwrap() == "b");
    let Some(holder) = scene.arm(Role::ALL, point) else { return };
    let held = scene.go_until_held(&holder);
    assert_eq!((scene.line(), held.role), ("start done".into(), Role::Serve));
    assert!(scene.has("a") && !scene.has("b"));
    holder.open();
    assert_eq!(scene.line(), "start done");
    assert!(scene.has("b"));
}
