//! Holds one process of the agent at a system call, until the test lets it continue, or gives its system calls
//! other results.
//!
//! A thread of the test traces processes with ptrace, from some roots on (sshd of a host, say) to all of their
//! descendants. They run freely. Only processes of the agent stop at their system calls, only those that
//! [`Spec::roles`] names, and only until one of them is held; programs that an agent starts are let go at their
//! first instruction. The agent is the shipped one: nothing in it knows of the tests.
//!
//! The tracer never keeps a process from dying and ends none: when it is opened or dropped, or when the test
//! panics or is killed, the kernel detaches all processes, which continue.

#![allow(dead_code, reason = "each test binary uses a part of it")]

mod call;
mod process;
mod tracer;

use std::cell::Cell;
use std::fmt;
use std::process::ChildStdin;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

pub(crate) use call::{Call, OPEN};
pub(crate) use process::{Program, Role, Status, tracer_of};

use super::waiting::eventually;
use tracer::Tracer;

/// Interval of the looks at the run that a test waits for.
const LOOK: Duration = Duration::from_millis(20);
/// Limit for the kernel to detach what was traced.
const DETACHED: Duration = Duration::from_secs(5);

/// Place at which a process is held.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    /// Kinds of agents that are held; the others run freely.
    pub(crate) roles: &'static [Role],
    pub(crate) point: Point,
}

/// Point of a process: a system call with one of these numbers whose arguments meet a condition, or a program.
#[derive(Clone, Copy)]
pub(crate) enum Point {
    /// Before the call has had any effect.
    Before(&'static [i64], fn(&Call) -> bool),
    /// After the call has succeeded, before the process knows.
    After(&'static [i64], fn(&Call) -> bool),
    /// Before the first instruction of a program that an agent has started.
    Started(fn(&Program) -> bool),
    /// Nowhere: each such call has no effect and this result, a negative one being an error. The first argument
    /// must be a descriptor.
    Instead(&'static [i64], fn(&Call) -> bool, i64),
    /// Nowhere: a function may change what each such call has written, and returns another result if it has one.
    Altered(&'static [i64], fn(&Call) -> Option<i64>),
    /// Nowhere: each of these calls begins this much later.
    Slow(&'static [i64], fn(&Call) -> bool, Duration),
}

impl fmt::Debug for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Before(numbers, _) => write!(f, "before system call {numbers:?}"),
            Self::After(numbers, _) => write!(f, "after system call {numbers:?}"),
            Self::Started(_) => f.write_str("at the start of a program"),
            Self::Instead(numbers, _, result) => write!(f, "{result} instead of system call {numbers:?}"),
            Self::Altered(numbers, _) => write!(f, "another result of system call {numbers:?}"),
            Self::Slow(numbers, _, delay) => write!(f, "{delay:?} before system call {numbers:?}"),
        }
    }
}

/// Process that is held, or the first one whose call had another result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Held thread, by its number on this machine.
    pub(crate) thread: Pid,
    /// Process of that thread.
    pub(crate) process: Pid,
    /// Kind of agent that it is, or that has started it.
    pub(crate) role: Role,
}

/// Hold of one process, once. Dropping it lets the process continue.
pub(crate) struct Holder {
    tracer: Cell<Option<Running>>,
    held: Receiver<Held>,
}

/// Thread that traces.
struct Running {
    /// Input of a child of that thread, which ends with it: the thread waits for nothing but processes.
    bell: ChildStdin,
    thread: JoinHandle<Vec<Pid>>,
    number: Pid,
}

impl Holder {
    /// Begins to trace the roots, which have one thread each and are no children of this process: the tracer would
    /// take their status. Fails when one of them has ended.
    pub(crate) fn arm(spec: Spec, roots: &[Pid]) -> nix::Result<Self> {
        let (report, held) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let roots = roots.to_vec();
        let thread = std::thread::Builder::new()
            .name("tracer".into())
            .spawn(move || match Tracer::start(spec, &roots, report) {
                Ok((tracer, bell)) => {
                    ready.send(Ok((bell, nix::unistd::gettid()))).expect("the test waits for it");
                    tracer.run()
                }
                Err(error) => {
                    ready.send(Err(error)).expect("the test waits for it");
                    Vec::new()
                }
            })
            .expect("no thread can be started");
        let (bell, number) = is_ready.recv().expect("the tracer reports")?;
        Ok(Self { tracer: Cell::new(Some(Running { bell, thread, number })), held })
    }

    /// Waits until a process is held. `None` when `goes_on` is false or `within` passes before that.
    pub(crate) fn await_held(&self, within: Duration, mut goes_on: impl FnMut() -> bool) -> Option<Held> {
        let end = Instant::now() + within;
        loop {
            match self.held.recv_timeout(LOOK) {
                Ok(held) => return Some(held),
                Err(RecvTimeoutError::Disconnected) => panic!("the tracer has ended"),
                Err(RecvTimeoutError::Timeout) if !goes_on() || Instant::now() >= end => {
                    return self.held.try_recv().ok();
                }
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Whether a process was held, or a call had another result.
    pub(crate) fn has_come(&self) -> bool {
        self.held.try_recv().is_ok()
    }

    /// Lets the held process continue, and traces nothing any more.
    pub(crate) fn open(&self) {
        let Some(Running { bell, thread, number }) = self.tracer.take() else { return };
        drop(bell);
        let Ok(traced) = thread.join() else { return };
        // The kernel detaches the rest a moment after the end of the thread was seen.
        let is_traced = |pid: &Pid| tracer_of(*pid) == Some(number);
        let detached = eventually(DETACHED, || !traced.iter().any(is_traced));
        assert!(detached || std::thread::panicking(), "some of {traced:?} are still traced");
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.open();
    }
}
