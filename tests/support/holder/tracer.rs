//! The thread that traces. Only the thread that has attached a process can do anything with it.

use std::collections::HashMap;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::Sender;

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustix::process::{WaitOptions, WaitStatus};

use super::call::{Call, Stop};
use super::process::{Program, Role, Status};
use super::{Held, Point, Spec};

/// Signal of a stop at a system call.
const AT_CALL: i32 = libc::SIGTRAP | 0x80;
/// Signals that stop a whole process.
const STOPS: [i32; 4] = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];

/// Part of a process in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Neither an agent nor a program of one.
    Outside,
    Agent(Role),
    /// Child of an agent, which has not become a program yet.
    Child(Role),
}

/// Traced thread.
struct Thread {
    process: Pid,
    /// Call that it has begun, if it may be held after that, or gets another result.
    call: Option<Call>,
}

pub(super) struct Tracer {
    spec: Spec,
    report: Sender<Held>,
    bell: Pid,
    processes: HashMap<Pid, Part>,
    threads: HashMap<Pid, Thread>,
    /// Whether a process has been held.
    has_held: bool,
    held: Option<Pid>,
}

impl Tracer {
    /// Attaches the roots. Must run in the thread that will trace.
    pub(super) fn start(spec: Spec, roots: &[Pid], report: Sender<Held>) -> nix::Result<(Self, ChildStdin)> {
        // A child of this thread, whose end it notices while it waits for processes.
        let bell = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn();
        let mut bell = bell.map_err(|_| Errno::ENOENT)?;
        let input = bell.stdin.take().expect("piped");
        let mut tracer = Self {
            spec,
            report,
            bell: Pid::from_raw(i32::try_from(bell.id()).expect("a pid")),
            processes: HashMap::new(),
            threads: HashMap::new(),
            has_held: false,
            held: None,
        };
        // Without PTRACE_O_EXITKILL: they continue when the tracer ends.
        let options = Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACESYSGOOD;
        for &root in roots {
            ptrace::seize(root, options)?;
            tracer.processes.insert(root, Part::Outside);
            tracer.threads.insert(root, Thread { process: root, call: None });
        }
        Ok((tracer, input))
    }

    /// Traces until the bell ends; returns the threads that the kernel detaches when this one ends.
    pub(super) fn run(mut self) -> Vec<Pid> {
        while let Some((pid, status)) = wait() {
            if !status.stopped() {
                if pid == self.bell {
                    break;
                }
                self.forget(pid);
                continue;
            }
            // Whoever is killed meanwhile is waited for in the next round.
            match self.stopped(pid, status.as_raw()) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => panic!("{pid} cannot be traced: {error}"),
            }
        }
        if let Some(held) = self.held {
            // It may have been killed.
            let _ = ptrace::detach(held, None);
        }
        self.threads.into_keys().collect()
    }

    fn forget(&mut self, thread: Pid) {
        self.threads.remove(&thread);
        self.processes.remove(&thread);
        self.held = self.held.filter(|held| *held != thread);
    }

    /// Handles the stop of a thread, which is held or continues.
    fn stopped(&mut self, thread: Pid, status: i32) -> nix::Result<()> {
        self.classify(thread);
        let (event, signal) = (status >> 16, status >> 8 & 0xff);
        match event {
            0 if signal == AT_CALL => self.called(thread),
            0 => self.resume_with(thread, signal),
            libc::PTRACE_EVENT_EXEC => self.executed(thread),
            // A process that is not traced stays stopped, and continues by SIGCONT.
            libc::PTRACE_EVENT_STOP if STOPS.contains(&signal) => self.detach(thread),
            // The first stop of a new thread, or a stop of its parent.
            _ => self.resume(thread),
        }
    }

    /// Notes a thread that was not seen before. Its first stop may come before that of its parent.
    fn classify(&mut self, thread: Pid) {
        if self.threads.contains_key(&thread) {
            return;
        }
        let (process, part) = match Status::of(thread) {
            // It has just been killed.
            None => (thread, Part::Outside),
            Some(status) if status.process != thread => (status.process, Part::Outside),
            Some(status) => match self.processes.get(&status.parent) {
                Some(Part::Agent(role) | Part::Child(role)) => (thread, Part::Child(*role)),
                Some(Part::Outside) | None => (thread, Part::Outside),
            },
        };
        self.processes.entry(process).or_insert(part);
        self.threads.insert(thread, Thread { process, call: None });
    }

    fn part(&self, thread: Pid) -> Part {
        let process = self.threads.get(&thread).and_then(|thread| self.processes.get(&thread.process));
        process.copied().unwrap_or(Part::Outside)
    }

    /// Returns the role of an agent that stops at its system calls.
    fn watched(&self, thread: Pid) -> Option<Role> {
        match self.part(thread) {
            Part::Agent(role) if !self.has_held && self.spec.roles.contains(&role) => Some(role),
            _ => None,
        }
    }

    fn called(&mut self, thread: Pid) -> nix::Result<()> {
        let Some(role) = self.watched(thread) else { return self.resume(thread) };
        let stop = Stop::of(thread)?;
        let begun = self.threads.get_mut(&thread).and_then(|thread| thread.call.take());
        if matches!(self.spec.point, Point::Instead(..) | Point::Altered(..)) {
            return self.falsify(thread, role, stop, begun);
        }
        let is_there = match (self.spec.point, stop, begun) {
            (Point::Slow(numbers, condition, delay), Some(Stop::Entry(call)), _) => {
                if numbers.contains(&call.number) && condition(&call) {
                    std::thread::sleep(delay);
                }
                false
            }
            (Point::Before(numbers, condition), Some(Stop::Entry(call)), _) => {
                numbers.contains(&call.number) && condition(&call)
            }
            (Point::After(numbers, _), Some(Stop::Entry(call)), _) => {
                if let Some(thread) = self.threads.get_mut(&thread) {
                    thread.call = Some(call).filter(|call| numbers.contains(&call.number));
                }
                false
            }
            (Point::After(_, condition), Some(Stop::Exit(true)), Some(call)) => condition(&call),
            _ => false,
        };
        if is_there {
            self.hold(thread, role);
            return Ok(());
        }
        self.resume(thread)
    }

    /// Gives a call another result.
    fn falsify(
        &mut self,
        thread: Pid,
        role: Role,
        stop: Option<Stop>,
        begun: Option<Call>,
    ) -> nix::Result<()> {
        match (self.spec.point, stop, begun) {
            (Point::Instead(numbers, condition, _), Some(Stop::Entry(call)), _)
                if numbers.contains(&call.number) && condition(&call) =>
            {
                call.make_void()?;
                self.begin(thread, call);
            }
            (Point::Altered(numbers, _), Some(Stop::Entry(call)), _) if numbers.contains(&call.number) => {
                self.begin(thread, call);
            }
            (Point::Instead(_, _, result), Some(Stop::Exit(_)), Some(call)) => {
                call.set_result(result)?;
                self.tell(thread, role);
            }
            (Point::Altered(_, alter), Some(Stop::Exit(_)), Some(call)) => {
                if let Some(result) = alter(&call) {
                    call.set_result(result)?;
                }
                self.tell(thread, role);
            }
            _ => {}
        }
        self.resume(thread)
    }

    fn begin(&mut self, thread: Pid, call: Call) {
        if let Some(thread) = self.threads.get_mut(&thread) {
            thread.call = Some(call);
        }
    }

    fn executed(&mut self, thread: Pid) -> nix::Result<()> {
        // Only this thread is left, under the number of the process.
        self.threads.retain(|other, known| known.process != thread || *other == thread);
        self.threads.insert(thread, Thread { process: thread, call: None });
        let Some(program) = Program::of(thread) else { return self.resume(thread) };
        let starter = match (program.role(), self.processes.get(&thread)) {
            (Some(role), _) => {
                self.processes.insert(thread, Part::Agent(role));
                return self.resume(thread);
            }
            (None, Some(Part::Agent(role) | Part::Child(role))) => *role,
            (None, Some(Part::Outside) | None) => return self.resume(thread),
        };
        let is_there = match self.spec.point {
            Point::Started(condition) => {
                !self.has_held && self.spec.roles.contains(&starter) && condition(&program)
            }
            _ => false,
        };
        if is_there {
            self.hold(thread, starter);
            return Ok(());
        }
        self.detach(thread)
    }

    /// Leaves a thread stopped.
    fn hold(&mut self, thread: Pid, role: Role) {
        self.has_held = true;
        self.held = Some(thread);
        self.tell(thread, role);
    }

    fn tell(&self, thread: Pid, role: Role) {
        let process = self.threads.get(&thread).map_or(thread, |thread| thread.process);
        // The test may have given up.
        let _ = self.report.send(Held { thread, process, role });
    }

    fn resume(&self, thread: Pid) -> nix::Result<()> {
        self.resume_by(thread, None)
    }

    /// Continues a thread with the signal that it was about to receive.
    fn resume_with(&mut self, thread: Pid, signal: i32) -> nix::Result<()> {
        if let Ok(signal) = Signal::try_from(signal) {
            return self.resume_by(thread, Some(signal));
        }
        // A real-time signal, which can only be sent again: before the thread continues, which then finds it.
        Command::new("kill")
            .args([format!("-{signal}"), thread.to_string()])
            .status()
            .map_err(|_| Errno::ENOENT)?;
        self.detach(thread)
    }

    fn resume_by(&self, thread: Pid, signal: Option<Signal>) -> nix::Result<()> {
        let stops_at_calls = !matches!(self.spec.point, Point::Started(_)) && self.watched(thread).is_some();
        if stops_at_calls { ptrace::syscall(thread, signal) } else { ptrace::cont(thread, signal) }
    }

    fn detach(&mut self, thread: Pid) -> nix::Result<()> {
        self.forget(thread);
        ptrace::detach(thread, None)
    }
}

/// Waits for a child or traced thread of this thread, and not for those of other threads of the test.
fn wait() -> Option<(Pid, WaitStatus)> {
    let flags = u32::from_ne_bytes((libc::__WALL | libc::__WNOTHREAD).to_ne_bytes());
    loop {
        match rustix::process::wait(WaitOptions::from_bits_retain(flags)) {
            Ok(Some((pid, status))) => return Some((Pid::from_raw(pid.as_raw_nonzero().get()), status)),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
}
