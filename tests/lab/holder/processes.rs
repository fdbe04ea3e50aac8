//! Processes around a held one, and what happens to it while it is held.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::scene::{SOON, Scene};
use crate::support::holder::{OPEN, Point, Role, tracer_of};
use crate::support::waiting::eventually;

/// Before the removal of `a`.
const UNLINK: Point = Point::Before(&[libc::SYS_unlinkat], |call| call.text(1) == "a");
/// Script whose agent is held there.
const SCRIPT: &str = "$agent serve 'unlink a' 'create new'; echo status $?";

/// Returns the state of a process, `T` for a stopped one.
fn state(pid: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

pub(super) fn only_one_call_is_held() {
    let mut scene = Scene::of(
        "$agent serve 'create new' 'create newer' & one=$!
         $agent serve 'create new' 'create newer' & wait $one; wait; echo end",
    );
    let point = Point::Before(OPEN, |call| call.opened() == "new");
    let Some(holder) = scene.arm(Role::ALL, point) else { return };
    scene.go_until_held(&holder);
    // The other agent does all of its work.
    assert_eq!((scene.line(), scene.line()), ("create done".into(), "create done".into()));
    assert_eq!(scene.line_so_far(), None);
    assert_eq!(holder.await_held(Duration::ZERO, || true), None);
    holder.open();
    holder.open();
    assert_eq!([scene.line(), scene.line(), scene.line()], ["create done", "create done", "end"]);
}

pub(super) fn only_agents_of_the_role_are_held() {
    let mut scene =
        Scene::of("rm a; $agent serve 'create a' 'unlink a'; $agent watchdog 'create a' 'unlink a'");
    scene.write("a", "");
    let Some(holder) = scene.arm(&[Role::Watchdog], UNLINK) else { return };
    let held = scene.go_until_held(&holder);
    assert_eq!(held.role, Role::Watchdog);
    assert_eq!([scene.line(), scene.line(), scene.line()], ["create done", "unlink done", "create done"]);
}

pub(super) fn jobs_are_followed() {
    let mut scene = Scene::of("$agent serve 'create b' job 'unlink a'");
    scene.write("a", "");
    let Some(holder) = scene.arm(&[Role::Job], UNLINK) else { return };
    let held = scene.go_until_held(&holder);
    assert_eq!((held.role, scene.line().as_str()), (Role::Job, "create done"));
    holder.open();
    assert_eq!(scene.line(), "unlink done");
}

pub(super) fn other_threads_continue() {
    let mut scene = Scene::of("$agent serve 'tick clock' 'unlink a'");
    scene.write("a", "");
    let Some(holder) = scene.arm(Role::ALL, UNLINK) else { return };
    scene.go_until_held(&holder);
    let ticks = || fs::metadata(scene.path("clock")).unwrap().len();
    let before = ticks();
    assert!(eventually(SOON, || ticks() > before + 5));
    assert!(scene.has("a"));
}

pub(super) fn killed_process_ends() {
    for threads in ["", "'tick clock'"] {
        let mut scene = Scene::of(&format!("$agent serve {threads} 'unlink a'; echo status $?"));
        scene.write("a", "");
        let Some(holder) = scene.arm(Role::ALL, UNLINK) else { return };
        let held = scene.go_until_held(&holder);
        kill(held.process, Signal::SIGKILL).unwrap();
        assert!(threads.is_empty() || scene.line() == "tick done");
        // While the tracer is still there, and the call is not made any more.
        assert_eq!(scene.line(), "status 137");
        assert!(scene.has("a"));
        holder.open();
    }
}

pub(super) fn signals_arrive_afterwards() {
    let mut scene = Scene::of(SCRIPT);
    scene.write("a", "");
    let Some(holder) = scene.arm(Role::ALL, UNLINK) else { return };
    let held = scene.go_until_held(&holder);
    kill(held.process, Signal::SIGTERM).unwrap();
    assert_eq!((state(held.process), scene.line_so_far()), (Some('t'), None));
    holder.open();
    assert_eq!(scene.line(), "status 143");
    // Real-time signals, which the tracer can only send again.
    let mut scene = Scene::of("trap 'echo caught' RTMIN+3; kill -s RTMIN+3 $$; echo end");
    let Some(_holder) = scene.arm(Role::ALL, UNLINK) else { return };
    scene.go();
    let mut lines = [scene.line(), scene.line()];
    lines.sort();
    assert_eq!(lines, ["caught", "end"]);
}

pub(super) fn stopped_process_stays_stopped() {
    let mut scene = Scene::of("$agent serve 'tick clock' 'unlink a'; echo status $?");
    scene.write("a", "");
    let Some(holder) = scene.arm(Role::ALL, UNLINK) else { return };
    let held = scene.go_until_held(&holder);
    assert_eq!(scene.line(), "tick done");
    kill(held.process, Signal::SIGSTOP).unwrap();
    let ticks = || fs::metadata(scene.path("clock")).unwrap().len();
    let mut last = None;
    assert!(eventually(SOON, || last.replace(ticks()) == Some(ticks())), "its threads are not stopped");
    holder.open();
    // The call is made: a stop waits for the end of a call.
    assert!(eventually(SOON, || state(held.process) == Some('T')));
    assert_eq!(scene.line_so_far(), None);
    kill(held.process, Signal::SIGCONT).unwrap();
    assert_eq!((scene.line(), scene.line()), ("unlink done".into(), "status 0".into()));
    // Processes that are not held are stopped and continued, too.
    let mut scene = Scene::of("kill -STOP $$; echo continued");
    let Some(_holder) = scene.arm(Role::ALL, UNLINK) else { return };
    scene.go();
    assert!(eventually(SOON, || state(scene.shell) == Some('T')));
    kill(scene.shell, Signal::SIGCONT).unwrap();
    assert_eq!(scene.line(), "continued");
}

/// Control group of a test.
struct Group(PathBuf);

impl Group {
    /// Creates a group, where this machine lets us.
    fn create() -> Option<Self> {
        let tops = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let top = tops.into_iter().find(|top| top.join("cgroup.procs").exists())?;
        let path = top.join(format!("holder-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    fn set(&self, name: &str, value: impl ToString) {
        fs::write(self.0.join(name), value.to_string()).unwrap();
    }

    fn is_frozen(&self) -> bool {
        fs::read_to_string(self.0.join("cgroup.events")).unwrap().contains("frozen 1")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.freeze"), "0");
        eventually(SOON, || fs::remove_dir(&self.0).is_ok());
    }
}

pub(super) fn frozen_process_can_be_killed_and_let_go() {
    let Some(group) = Group::create() else { return };
    for is_killed in [true, false] {
        let mut scene = Scene::of(SCRIPT);
        scene.write("a", "");
        let Some(holder) = scene.arm(Role::ALL, UNLINK) else { return };
        let held = scene.go_until_held(&holder);
        group.set("cgroup.procs", held.process);
        group.set("cgroup.freeze", 1);
        if is_killed {
            kill(held.process, Signal::SIGKILL).unwrap();
            assert_eq!(scene.line(), "status 137");
        } else {
            holder.open();
            // The call is made: like a stop, this waits for its end.
            assert!(eventually(SOON, || group.is_frozen()));
            assert!(!scene.has("new"));
            group.set("cgroup.freeze", 0);
            assert_eq!((scene.line(), scene.line()), ("unlink done".into(), "create done".into()));
            assert_eq!(scene.line(), "status 0");
        }
        group.set("cgroup.freeze", 0);
    }
}

pub(super) fn dropped_holder_traces_nothing() {
    let mut scene = Scene::of(SCRIPT);
    scene.write("a", "");
    let Some(holder) = scene.arm(Role::ALL, UNLINK) else { return };
    assert!(tracer_of(scene.shell).is_some());
    let held = scene.go_until_held(&holder);
    assert!(tracer_of(held.process).is_some());
    drop(holder);
    assert_eq!((tracer_of(scene.shell), tracer_of(held.process)), (None, None));
    assert_eq!([scene.line(), scene.line(), scene.line()], ["unlink done", "create done", "status 0"]);
}

pub(super) fn panic_traces_nothing() {
    let mut scene = Scene::of(SCRIPT);
    scene.write("a", "");
    let Some(holder) = scene.arm(Role::ALL, UNLINK) else { return };
    let shell = scene.shell;
    let test = AssertUnwindSafe(|| {
        scene.go_until_held(&holder);
        let _holder = holder;
        std::panic::resume_unwind(Box::new("failed"));
    });
    assert!(catch_unwind(test).is_err());
    assert_eq!(tracer_of(shell), None);
    assert_eq!([scene.line(), scene.line(), scene.line()], ["unlink done", "create done", "status 0"]);
}

/// Limit for what the tracer adds to each process that is no agent.
const COST: Duration = Duration::from_millis(2);

pub(super) fn forks_of_others_cost_little() {
    let count = std::env::var("HOLDER_FORKS").map_or(1000, |count| count.parse().unwrap());
    let time = |is_traced: bool| -> Option<Duration> {
        let mut scene = Scene::of(&format!("for ((i = 0; i < {count}; i++)); do /bin/true; done; echo end"));
        let holder = if is_traced { Some(scene.arm(Role::ALL, UNLINK)?) } else { None };
        let start = Instant::now();
        scene.go();
        let end = scene.line_within(Duration::from_secs(300));
        assert_eq!(end, "end");
        drop(holder);
        Some(start.elapsed())
    };
    let free = time(false).expect("not traced");
    let Some(traced) = time(true) else { return };
    println!("{count} processes: {free:?}, traced {traced:?}");
    assert!(traced < free + COST * count);
}
