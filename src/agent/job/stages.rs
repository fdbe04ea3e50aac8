//! Stages of a pipeline: how each kind starts, and how it ends.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Signal, pidfd_send_signal};

use super::Context;
use super::bucket::Bucket;
use super::complaints::Complaints;
use super::digest::StreamDigest;
use super::lines::Lines;
use super::meter::Meter;
use super::pipes::{Flow, MoveError, pipe};
use super::place::Directory;
use super::program::{self, Ends, Running, StartError};
use super::read::Source;
use super::sink::Sink;
use super::thread::Thread;
use crate::proto::job::{self, JobReport, Program};
use crate::proto::task::{Invocation, Run, Stage, Stderr};

/// Exit status of a stage whose output was closed, as of a process that SIGPIPE ended.
const BROKEN_PIPE: i32 = 141;

/// State of a stage.
#[derive(Debug)]
pub(super) enum State {
    /// The pipes exist, and the gate is closed.
    Ready(Ends),
    /// A program runs.
    Program(Running),
    /// A thread runs; of a sink also a program.
    Thread(Thread<Result<(), MoveError>>, Option<std::os::fd::OwnedFd>),
    /// The stage has ended with this status.
    Ended(i32),
}

/// Everything that stages need to start, and what they leave to the pipeline.
pub(super) struct Workshop<'a> {
    /// Context of the task.
    pub(super) context: &'a Context<'a>,
    /// Working directory.
    pub(super) directory: Directory,
    /// Limit of the rate.
    pub(super) bucket: Arc<Bucket>,
    /// Messages of the programs and of the job itself.
    pub(super) complaints: Complaints,
    /// Pipes of standard error.
    pub(super) outputs: Vec<(Stderr, Lines)>,
    /// Digest of the stream.
    pub(super) digest: Option<StreamDigest>,
}

impl Workshop<'_> {
    /// Starts a stage. One that cannot be started has ended.
    pub(super) fn start(&mut self, stage: &Stage, ends: Ends) -> State {
        let started = match &stage.run {
            Run::Program(invocation) => self.program(&stage.name, invocation, ends).map(State::Program),
            run => self.thread(&stage.name, run, ends),
        };
        started.unwrap_or_else(|error| {
            self.complaints.say(error.to_string());
            State::Ended(error.status())
        })
    }

    /// Returns the status of a stage that has ended.
    pub(super) fn status(&mut self, name: &Program, state: State) -> i32 {
        match state {
            State::Ready(_) => 1,
            State::Ended(status) => status,
            State::Program(mut running) => running.wait(),
            State::Thread(thread, _) => match thread.wait() {
                Some(Ok(())) => 0,
                Some(Err(MoveError::Closed)) => BROKEN_PIPE,
                Some(Err(MoveError::Failed(error))) => {
                    self.complaints.say(format!("{name}: {error}"));
                    1
                }
                None => {
                    self.complaints.say(format!("{name}: a thread has failed"));
                    1
                }
            },
        }
    }

    fn program(
        &mut self,
        name: &Program,
        invocation: &Invocation,
        ends: Ends,
    ) -> Result<Running, StartError> {
        let started = program::start(self.context, &self.directory, invocation, ends)?;
        if started.is_unconfined {
            self.context.reports.send(JobReport::Unconfined(name.clone()));
        }
        match Lines::new(started.stderr) {
            Ok(lines) => self.outputs.push((invocation.stderr, lines)),
            Err(error) => self.complaints.say(format!("cannot read the messages of {name}: {error}")),
        }
        Ok(started.running)
    }

    fn thread(&mut self, name: &Program, run: &Run, ends: Ends) -> Result<State, StartError> {
        let failed = |source: io::Error| StartError::Stage { stage: name.clone(), source };
        let reports = &self.context.reports;
        let thread = match run {
            Run::Meter { meter, digest, limited } => {
                let side = match digest {
                    Some(kind) => {
                        let (digest, side) = StreamDigest::start(*kind).map_err(failed)?;
                        self.digest = Some(digest);
                        Some(side)
                    }
                    None => None,
                };
                let flow = Flow::new(ends.input, ends.output);
                let bucket = limited.then(|| Arc::clone(&self.bucket));
                let meter = Meter { flow, counter: reports.counter(*meter), side, bucket };
                Thread::start("meter", move || meter.run())
            }
            Run::Sink { number, program, patience } => {
                return self.sink(name, (*number, *patience), program, ends);
            }
            Run::Read { name } => {
                let file = self.context.source()?.try_clone_to_owned().map_err(failed)?;
                let source = Source { file, output: ends.output, name: name.clone() };
                Thread::start("read", move || source.run())
            }
            Run::Program(_) => return Err(failed(io::Error::other("it is a program"))),
        };
        Ok(State::Thread(thread.map_err(failed)?, None))
    }

    fn sink(
        &mut self,
        name: &Program,
        (number, patience): (usize, u32),
        invocation: &Invocation,
        ends: Ends,
    ) -> Result<State, StartError> {
        let failed = |source: io::Error| StartError::Stage { stage: name.clone(), source };
        let (input, output) = pipe().map_err(failed)?;
        let program =
            self.program(name, invocation, Ends { input, output: program::null().map_err(failed)? })?;
        let pidfd = program.pidfd().try_clone_to_owned().map_err(failed)?;
        let reports = self.context.reports.clone();
        let sink = Sink {
            flow: Flow::new(ends.input, ends.output),
            counter: reports.counter(job::Meter::Sink(number)),
            program,
            pipe: Some(output),
            patience: Duration::from_secs(patience.into()),
            number,
            reports,
        };
        let thread = Thread::start("sink", move || sink.run()).map_err(failed)?;
        Ok(State::Thread(thread, Some(pidfd)))
    }
}

impl State {
    /// Returns the descriptor that is readable when the stage has ended.
    pub(super) fn end(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Program(running) => Some(running.pidfd()),
            Self::Thread(thread, _) => Some(thread.done()),
            Self::Ready(_) | Self::Ended(_) => None,
        }
    }

    /// Returns the descriptor of the stage's program, if one runs.
    pub(super) fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Program(running) => Some(running.pidfd()),
            Self::Thread(_, pidfd) => pidfd.as_ref().map(|pidfd| pidfd.as_fd()),
            Self::Ready(_) | Self::Ended(_) => None,
        }
    }

    /// Sends a signal to the stage's program, if one runs.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(pidfd) = self.pidfd() {
            // One that has ended needs none.
            let _ = pidfd_send_signal(pidfd, signal);
        }
    }
}
