//! Pipeline: programs and threads connected by pipes. One thread starts all of them, reads the standard error of
//! the programs, and waits for their ends.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::bucket::Bucket;
use super::channel::{Inbox, Notice};
use super::complaints::Complaints;
use super::log::Log;
use super::pipes::pipe;
use super::place::Directory;
use super::program::{self, Ends};
use super::stages::{State, Workshop};
use super::thread::ready;
use super::{Context, End, GRACE};
use crate::proto::job::{JobReport, Program};
use crate::proto::task::{Control, Pipeline, Stage, Stderr};

/// Maximum time to read messages after all stages have ended. Processes in the background could keep a pipe open.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Name under which a pipeline that could not be started reports its status.
const PREPARATION: &str = "prepare";

/// Runs a pipeline to its end, and reports it.
pub(super) fn run(context: &Context<'_>, pipeline: &Pipeline, inbox: &mut Inbox) -> End {
    let mut complaints = Complaints::new(context.reports.clone(), pipeline.called.as_ref());
    let prepared = Directory::open(context, &pipeline.place)
        .map_err(io::Error::other)
        .and_then(|directory| Ok((connect(pipeline, &directory)?, directory)));
    let (ends, directory) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            complaints.say(error.to_string());
            context.reports.send(JobReport::Stages(vec![(Program::Other(PREPARATION.into()), 1)]));
            return End::Exit(1);
        }
    };
    let bucket = Arc::new(Bucket::new(pipeline.rate));
    let workshop = Workshop { context, directory, bucket, complaints, outputs: Vec::new(), digest: None };
    let log = pipeline.has_log().then(|| Log::new(context.reports.clone()));
    let gate = pipeline.gate.filter(|gate| *gate < pipeline.stages.len());
    let states = ends.into_iter().map(State::Ready).collect();
    let mut work = Work { workshop, stages: &pipeline.stages, states, log, gate };
    for position in 0..pipeline.stages.len() {
        if Some(position) != gate {
            work.start(position);
        }
    }
    match work.watch(inbox) {
        Ok(End::Exit(_)) => work.conclude(),
        Ok(End::Stopped) => work.stop(),
        Err(error) => {
            work.workshop.complaints.say(format!("cannot wait for the stages: {error}"));
            work.stop()
        }
    }
}

/// Connects the stages by pipes.
fn connect(pipeline: &Pipeline, directory: &Directory) -> io::Result<Vec<Ends>> {
    let mut input = program::null()?;
    let mut ends = Vec::new();
    for _ in 1..pipeline.stages.len() {
        let (next, output) = pipe()?;
        ends.push(Ends { input, output });
        input = next;
    }
    let output: OwnedFd = match &pipeline.into {
        Some(name) => directory.create(name).map_err(io::Error::other)?.into(),
        None => program::null()?,
    };
    if !pipeline.stages.is_empty() {
        ends.push(Ends { input, output });
    }
    Ok(ends)
}

/// Pipeline that runs.
struct Work<'a> {
    workshop: Workshop<'a>,
    stages: &'a [Stage],
    states: Vec<State>,
    log: Option<Log>,
    /// Position of the stage that waits for the gate.
    gate: Option<usize>,
}

/// Origin of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Inbox,
    Stage(usize),
    Output(usize),
}

impl Work<'_> {
    fn start(&mut self, position: usize) {
        let state = std::mem::replace(&mut self.states[position], State::Ended(1));
        self.states[position] = match state {
            State::Ready(ends) => self.workshop.start(&self.stages[position], ends),
            other => other,
        };
        self.close_gate_behind(position);
    }

    /// Waits until all stages have ended, or until the job is stopped.
    fn watch(&mut self, inbox: &mut Inbox) -> io::Result<End> {
        while !self.states.iter().all(|state| matches!(state, State::Ended(_))) {
            let patience = self.log.as_ref().and_then(Log::patience);
            let origins = self.wait(Some(inbox), patience)?;
            // Controls first: a gate that was opened before a stage ended stays open.
            if origins.contains(&Origin::Inbox) {
                for notice in inbox.notices() {
                    match notice {
                        Notice::Stop => return Ok(End::Stopped),
                        Notice::Control(Control::Rate(rate)) => self.workshop.bucket.set_rate(rate),
                        Notice::Control(Control::OpenGate) => {
                            if let Some(position) = self.gate.take() {
                                self.start(position);
                            }
                        }
                    }
                }
            }
            self.take(&origins);
            if let Some(log) = &mut self.log {
                log.silence();
            }
        }
        Ok(End::Exit(0))
    }

    /// Waits for events, and returns their origins.
    fn wait(&self, inbox: Option<&Inbox>, limit: Option<Duration>) -> io::Result<Vec<Origin>> {
        let inbox = inbox.into_iter().flat_map(Inbox::descriptors).map(|fd| (Origin::Inbox, fd));
        let stages = self.states.iter().enumerate();
        let stages = stages.filter_map(|(position, state)| Some((Origin::Stage(position), state.end()?)));
        let outputs = self.workshop.outputs.iter().enumerate();
        let outputs =
            outputs.filter_map(|(number, (_, lines))| Some((Origin::Output(number), lines.open()?)));
        let all: Vec<(Origin, BorrowedFd<'_>)> = inbox.chain(stages).chain(outputs).collect();
        let descriptors: Vec<BorrowedFd<'_>> = all.iter().map(|(_, fd)| *fd).collect();
        let ready = ready(&descriptors, limit)?;
        Ok(all.iter().zip(ready).filter(|(_, ready)| *ready).map(|((origin, _), _)| *origin).collect())
    }

    fn take(&mut self, origins: &[Origin]) {
        for origin in origins {
            match origin {
                Origin::Output(number) => self.read(*number),
                Origin::Stage(position) => self.end(*position),
                Origin::Inbox => {}
            }
        }
    }

    /// Takes the end of a stage.
    fn end(&mut self, position: usize) {
        let state = std::mem::replace(&mut self.states[position], State::Ended(1));
        let status = self.workshop.status(&self.stages[position].name, state);
        self.states[position] = State::Ended(status);
        self.close_gate_behind(position);
    }

    /// Ends the stage at the gate if the one before it has ended.
    fn close_gate_behind(&mut self, position: usize) {
        if self.gate == Some(position + 1) && matches!(self.states[position], State::Ended(_)) {
            self.gate = None;
            self.states[position + 1] = State::Ended(1);
        }
    }

    /// Reads what a program has written on standard error.
    fn read(&mut self, number: usize) {
        let (kind, lines) = &mut self.workshop.outputs[number];
        if let (Stderr::Log, Some(log)) = (kind, &mut self.log) {
            if lines.read(|line| log.line(line)) > 0 {
                log.heard();
            }
        } else {
            let complaints = &mut self.workshop.complaints;
            lines.read(|line| complaints.line(line));
        }
    }

    /// Reads the messages of programs that have ended, and reports the counts.
    fn finish_messages(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        while self.workshop.outputs.iter().any(|(_, lines)| lines.open().is_some()) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.wait(None, Some(left)) {
                Ok(origins) if !origins.is_empty() => {
                    for origin in origins {
                        if let Origin::Output(number) = origin {
                            self.read(number);
                        }
                    }
                }
                _ => break,
            }
            if left.is_zero() {
                break;
            }
        }
        self.workshop.complaints.finish();
        if let Some(log) = &mut self.log {
            log.finish();
        }
    }

    /// Reports the end of all stages.
    fn conclude(mut self) -> End {
        self.finish_messages(LAST_WORDS);
        let digest = self.workshop.digest.take().map(super::digest::StreamDigest::finish);
        let reports = &self.workshop.context.reports;
        let status = |state: &State| if let State::Ended(status) = state { *status } else { 1 };
        let stages: Vec<(Program, i32)> = self
            .stages
            .iter()
            .zip(&self.states)
            .map(|(stage, state)| (stage.name.clone(), status(state)))
            .collect();
        let has_failed = stages.iter().any(|(_, status)| *status != 0);
        reports.send_counters();
        reports.send(JobReport::Stages(stages));
        match digest {
            Some(Ok(digest)) => reports.send(JobReport::Digest(digest)),
            Some(Err(error)) => {
                self.workshop.complaints.say(format!("cannot compute the digest of the stream: {error}"));
            }
            None => {}
        }
        End::Exit(i32::from(has_failed))
    }

    /// Ends all programs. Their messages so far are reported, and no statuses: those would be taken for the cause.
    fn stop(mut self) -> End {
        self.finish_messages(Duration::ZERO);
        self.workshop.context.reports.send_counters();
        for signal in [Signal::TERM, Signal::CONT] {
            self.states.iter().for_each(|state| state.signal(signal));
        }
        let deadline = Instant::now() + GRACE;
        let pidfds = || self.states.iter().filter_map(State::pidfd);
        let mut running: Vec<BorrowedFd<'_>> = pidfds().collect();
        while !running.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(ended) = ready(&running, Some(left)) else { break };
            let mut ended = ended.into_iter();
            running.retain(|_| !ended.next().unwrap_or_default());
            if left.is_zero() {
                break;
            }
        }
        for state in &self.states {
            state.signal(Signal::KILL);
        }
        End::Stopped
    }
}
