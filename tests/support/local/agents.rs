//! Agents of a sandbox that are held, or whose system calls fail, by the tracer of [`crate::support::holder`].

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::Pid;
use transfer::proto::journal::Undo;

use crate::support::holder::{Call, Holder, OPEN, Point, Role, Spec};
use crate::support::local::runs::{LONG, wait_until};
use crate::support::local::sandbox::Sandbox;

/// Calls that sync one file.
pub(crate) const SYNC: &[i64] = &[libc::SYS_fdatasync, libc::SYS_fsync];
pub(crate) const RENAME: &[i64] = &[libc::SYS_renameat2];
/// Calls that read a file.
pub(crate) const READ: &[i64] = &[libc::SYS_read, libc::SYS_pread64];
pub(crate) const UNLINK: &[i64] = &[libc::SYS_unlinkat];
/// Interval of the looks for new agents.
const LOOK: Duration = Duration::from_millis(5);

/// The target's agent has locked its port, and no receiver listens yet.
pub(crate) const LOCKED: Spec =
    serve(Point::After(SYNC, |call| matches!(call.lease(0), Some(Undo::Job { .. }))));
/// The copy is about to get its final name.
pub(crate) const PUBLISHING: Spec = serve(Point::Before(RENAME, publishes));
/// The copy has its final name, and the agent does not know yet.
pub(crate) const PUBLISHED: Spec = serve(Point::After(RENAME, publishes));
/// The staging directory is about to be removed.
pub(crate) const REMOVING: Spec = serve(Point::Before(UNLINK, removes_staged));
/// The first answer of the probe is being made.
pub(crate) const PROBING: Spec = serve(Point::Before(OPEN, |call| call.opened() == "/proc/self/mountinfo"));

/// The directory of journals is about to be read.
pub(crate) const LISTING_RUNS: Spec =
    serve(Point::Before(OPEN, |call| Path::new(&call.opened()).ends_with("state/transfer")));

/// Returns a point of the process that converses with the controller.
pub(crate) const fn serve(point: Point) -> Spec {
    Spec { roles: &[Role::Serve], point }
}

/// Returns a point of jobs.
pub(crate) const fn job(point: Point) -> Spec {
    Spec { roles: &[Role::Job], point }
}

/// Returns failures of system calls of agents and jobs.
pub(crate) const fn failing(numbers: &'static [i64], condition: fn(&Call) -> bool, error: Errno) -> Spec {
    Spec {
        roles: &[Role::Serve, Role::Job],
        point: Point::Instead(numbers, condition, -(error as i32 as i64)),
    }
}

/// Whether a call opens a file of this name in the source, or anything else outside of staging directories.
pub(crate) fn opens_in_source(call: &Call, name: &str) -> bool {
    call.opened() == name && !is_staged(&call.descriptor(0))
}

/// Whether a call opens a file of this name in the copy.
pub(crate) fn opens_in_copy(call: &Call, name: &str) -> bool {
    call.opened() == name && is_staged(&call.descriptor(0))
}

/// Returns whether a path is that of a staging directory or below one.
pub(crate) fn is_staged(path: &Path) -> bool {
    path.iter().any(|name| name.to_string_lossy().starts_with(".transfer-"))
}

/// Whether a call gives a copy, or an entry of one, a name outside of the staging directory.
pub(crate) fn publishes(call: &Call) -> bool {
    is_staged(&call.descriptor(0)) && !is_staged(&call.descriptor(2))
}

/// Whether a call removes a staging directory or something in it, except for what tries the file system.
pub(crate) fn removes_staged(call: &Call) -> bool {
    let name = call.text(1);
    let name = name.to_string_lossy();
    if is_staged(&call.descriptor(0)) { !name.starts_with('.') } else { name.starts_with(".transfer-") }
}

/// Agents of a sandbox that are traced from their start on, each held once at the same point.
pub(crate) struct Agents {
    shared: Arc<Shared>,
    shim: PathBuf,
    /// Thread that attaches the tracers.
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    spec: Spec,
    /// Pipes that new agents wait at, each with the process's number as its name.
    waiting: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    traced: Vec<(Holder, bool)>,
    /// Pipes of agents that were let go.
    gates: Vec<(PathBuf, File)>,
    is_open: bool,
    is_over: bool,
}

impl Sandbox {
    /// Traces all agents that start from now on.
    pub(crate) fn trace(&self, spec: Spec) -> Agents {
        let waiting = self.path(format!("waiting-{}", fs::read_dir(self.path("")).unwrap().count()));
        self.dir(&waiting);
        let script = format!(
            "if [[ $3 == bootstrap ]]; then mkfifo '{0}'/$$; read -r _ <'{0}'/$$; fi",
            waiting.display()
        );
        self.shim("sh", &script);
        let shared = Arc::new(Shared { spec, waiting, state: Mutex::default() });
        let thread = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                while shared.look() {
                    std::thread::sleep(LOOK);
                }
            }
        });
        Agents { shared, shim: self.path("bin/sh"), thread: Some(thread) }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Traces new agents, and lets them go. Returns whether there may be others.
    fn look(&self) -> bool {
        let mut state = self.state();
        for entry in fs::read_dir(&self.waiting).into_iter().flatten().flatten() {
            let pipe = entry.path();
            if state.gates.iter().any(|(known, _)| *known == pipe) {
                continue;
            }
            let pid = entry.file_name().to_string_lossy().parse().expect("a pid");
            if !state.is_open {
                match Holder::arm(self.spec, &[Pid::from_raw(pid)]) {
                    Ok(holder) => state.traced.push((holder, false)),
                    Err(error) => println!("{pid} cannot be traced: {error}"),
                }
            }
            // Opened for reading, too: neither opening nor writing then depends on the agent.
            let mut gate = OpenOptions::new().read(true).write(true).open(&pipe).expect("a pipe");
            gate.write_all(b"go\n").expect("the pipe has room");
            state.gates.push((pipe, gate));
        }
        !state.is_over
    }
}

impl Agents {
    /// Waits until so many agents are held.
    #[track_caller]
    pub(crate) fn reached_by(&self, count: usize) {
        wait_until("the agents are held", LONG, || {
            let mut state = self.shared.state();
            for (holder, is_held) in &mut state.traced {
                *is_held = *is_held || holder.await_held(Duration::ZERO, || false).is_some();
            }
            state.traced.iter().filter(|(_, is_held)| *is_held).count() >= count
        });
    }

    /// Waits until an agent is held.
    #[track_caller]
    pub(crate) fn reached(&self) {
        self.reached_by(1);
    }

    /// Lets all agents continue that are held, now or later.
    pub(crate) fn open(&self) {
        let mut state = self.shared.state();
        state.is_open = true;
        state.traced.iter().for_each(|(holder, _)| holder.open());
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.shim);
        self.shared.state().is_over = true;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.open();
    }
}
