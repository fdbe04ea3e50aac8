//! Sink: passes a stream on, and duplicates it into a program that feeds one target. A program that ends or takes
//! nothing for a time is dropped, and the stream goes on to the other sinks.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::pipes::{Flow, MOST, MoveError};
use super::program::Running;
use super::report::{Counter, Reports};
use super::thread::{has_space, ready};
use crate::proto::job::{Dropped, JobReport};

/// Sink of a stream.
#[derive(Debug)]
pub(super) struct Sink {
    /// Stream.
    pub(super) flow: Flow,
    /// Counter of the bytes.
    pub(super) counter: Counter,
    /// Program.
    pub(super) program: Running,
    /// Pipe to the program, until it is dropped.
    pub(super) pipe: Option<OwnedFd>,
    /// Time after which a program that takes nothing has stalled.
    pub(super) patience: Duration,
    /// Number of the target.
    pub(super) number: usize,
    /// Reports of the job.
    pub(super) reports: Reports,
}

impl Sink {
    /// Passes the stream on to its end, and waits for the program.
    pub(super) fn run(mut self) -> Result<(), MoveError> {
        let result = self.pass_all();
        self.finish()?;
        result
    }

    fn pass_all(&mut self) -> Result<(), MoveError> {
        loop {
            let moved = match &self.pipe {
                None => self.flow.forward(MOST)?,
                Some(_) => match self.duplicate()? {
                    Some(ready) => {
                        // Duplicated bytes are still in the input and must move exactly once.
                        self.flow.forward_all(ready)?;
                        ready
                    }
                    None => continue,
                },
            };
            if moved == 0 {
                return Ok(());
            }
            self.counter.add(moved);
        }
    }

    /// Duplicates what the input holds into the program, and returns the number of bytes; 0 at the end. `None`: try
    /// again.
    fn duplicate(&mut self) -> io::Result<Option<usize>> {
        let Some(pipe) = &self.pipe else { return Ok(None) };
        if !has_space(pipe, self.patience)? {
            self.end(Dropped::Stalled);
            return Ok(None);
        }
        match self.flow.try_duplicate(pipe, MOST) {
            Ok(Some(bytes)) => Ok(Some(bytes)),
            Ok(None) => {
                // There was space, so the input is empty. A refused netcat must not wait for it.
                if ready(&[self.flow.input(), self.program.pidfd()], None)?[1] {
                    self.program.wait();
                    self.drop_pipe(Dropped::Closed);
                }
                Ok(None)
            }
            Err(_) => {
                self.end(Dropped::Closed);
                Ok(None)
            }
        }
    }

    /// Closes the pipe, and gives the program time to send what the pipe and its socket hold.
    fn finish(&mut self) -> io::Result<()> {
        if self.pipe.take().is_none() {
            return Ok(());
        }
        if ready(&[self.program.pidfd()], Some(self.patience))?[0] {
            self.program.wait();
        } else {
            self.end(Dropped::Stalled);
        }
        Ok(())
    }

    fn end(&mut self, reason: Dropped) {
        self.drop_pipe(reason);
        self.program.kill();
    }

    fn drop_pipe(&mut self, reason: Dropped) {
        self.pipe = None;
        self.reports.send(JobReport::Dropped(self.number, reason));
    }
}
