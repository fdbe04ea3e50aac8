//! Threads of a job, whose ends can be waited for together with other events.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use std::time::Duration;

use super::End;
use super::channel::{Inbox, Notice};

/// Thread with a result.
#[derive(Debug)]
pub(crate) struct Thread<T> {
    handle: JoinHandle<T>,
    done: OwnedFd,
}

impl<T: Send + 'static> Thread<T> {
    /// Starts a thread.
    pub(crate) fn start(name: &str, work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let (done, alive) = pipe_with(PipeFlags::CLOEXEC)?;
        let handle = thread::Builder::new().name(name.into()).spawn(move || {
            let result = work();
            drop(alive);
            result
        })?;
        Ok(Self { handle, done })
    }

    /// Returns the descriptor that is readable when the thread has ended.
    pub(super) fn done(&self) -> BorrowedFd<'_> {
        self.done.as_fd()
    }

    /// Waits for the end, and returns the result; `None` if the thread has panicked.
    pub(super) fn wait(self) -> Option<T> {
        self.handle.join().ok()
    }
}

/// Does work in a thread of its own until it ends, the agent is gone, or a signal comes. The work is not waited for
/// in the last two cases: the process must end then.
pub(super) fn attended(inbox: &mut Inbox, work: impl FnOnce() -> i32 + Send + 'static) -> io::Result<End> {
    let thread = Thread::start("task", work)?;
    loop {
        let mut all: Vec<BorrowedFd<'_>> = vec![thread.done()];
        all.extend(inbox.descriptors());
        if ready(&all, None)?[0] {
            return Ok(End::Exit(thread.wait().unwrap_or(1)));
        }
        if inbox.notices().contains(&Notice::Stop) {
            return Ok(End::Stopped);
        }
    }
}

/// Waits until one of the descriptors can be read or has ended, and returns which can or have.
pub(super) fn ready(descriptors: &[BorrowedFd<'_>], limit: Option<Duration>) -> io::Result<Vec<bool>> {
    let mut fds: Vec<PollFd<'_>> = descriptors.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
    wait(&mut fds, limit)?;
    Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect())
}

/// Waits until a pipe has space or its reader is gone. False: neither happened within the limit.
pub(super) fn has_space(pipe: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let mut fds = [PollFd::new(pipe, PollFlags::OUT)];
    wait(&mut fds, Some(limit))?;
    Ok(!fds[0].revents().is_empty())
}

fn wait(fds: &mut [PollFd<'_>], limit: Option<Duration>) -> io::Result<()> {
    let deadline = limit.map(|limit| std::time::Instant::now() + limit);
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(std::time::Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(fds, left.as_ref()) {
            Err(Errno::INTR) => {}
            result => return Ok(result.map(drop)?),
        }
    }
}
