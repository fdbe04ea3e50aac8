//! Conversations with a server: a client that stays open, so that locks, snapshots and variables stay, too.
//!
//! Behind the statements of a request the client gets another one whose answer is a random word. That word is
//! not known to the server before all of the answer was written, so that no data can look like the end of an
//! answer.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::agent::tool;
use crate::proto::server::{ANSWER_LIMIT, SqlAnswer};
use crate::proto::{HostBytes, Text};

use super::client::{Client, SqlError};
use super::sql::Collector;
use super::xml::{Item, Reader};

/// Size in bytes from which on an answer is given, and maximum size of a row.
const PART: usize = ANSWER_LIMIT / 2;
/// Maximum size of what is kept of a client's errors.
const ERRORS: usize = 64 << 10;
/// Time for a client to end.
const GRACE: Duration = Duration::from_secs(2);
/// Time for a client to cancel its statement. It logs in once more for that.
const CANCEL_GRACE: Duration = Duration::from_secs(5);

/// Client that stays open. The first error ends it.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    errors: Vec<u8>,
    reader: Reader,
    collector: Collector,
    /// Statements that the client has not taken yet.
    input: Vec<u8>,
    /// End of the answer that is read.
    end: Option<End>,
    cancelled: Arc<OwnedFd>,
    is_over: bool,
}

/// End of an answer.
#[derive(Debug)]
struct End {
    word: HostBytes,
    is_seen: bool,
}

/// Ends the statement of a session, and the session, from another thread.
#[derive(Clone, Debug)]
pub(crate) struct Canceller(Arc<OwnedFd>);

impl Canceller {
    /// Cancels what the session executes now or next.
    pub(crate) fn cancel(&self) -> io::Result<()> {
        rustix::io::write(&*self.0, &1u64.to_ne_bytes())?;
        Ok(())
    }
}

impl Session {
    /// Opens a session and waits until it is logged in.
    pub(crate) fn open(client: Client, limit: Duration) -> Result<Self, SqlError> {
        let start = || -> io::Result<Self> {
            let cancelled = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
            let mut command = client.tool().arg("--unbuffered").command();
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = tool::spawn(&mut command)?;
            let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
            let missing = || io::Error::from(ErrorKind::BrokenPipe);
            let session = Self {
                client: client.clone(),
                child,
                stdin: Some(stdin.ok_or_else(missing)?),
                stdout: stdout.ok_or_else(missing)?,
                stderr: Some(stderr.ok_or_else(missing)?),
                errors: Vec::new(),
                reader: Reader::default(),
                collector: Collector::default(),
                input: Vec::new(),
                end: None,
                cancelled,
                is_over: false,
            };
            for fd in [session.stdin.as_ref().map(AsFd::as_fd), session.stderr.as_ref().map(AsFd::as_fd)]
                .into_iter()
                .flatten()
                .chain([session.stdout.as_fd()])
            {
                fcntl_setfl(fd, fcntl_getfl(fd)? | OFlags::NONBLOCK)?;
            }
            Ok(session)
        };
        let mut session = start().map_err(|source| client.start_error(source))?;
        session.execute(b"DO 0", limit)?;
        Ok(session)
    }

    /// Returns a handle for other threads.
    pub(crate) fn canceller(&self) -> Canceller {
        Canceller(Arc::clone(&self.cancelled))
    }

    /// Executes statements and returns their answer, or its first part.
    pub(crate) fn execute(&mut self, statements: &[u8], limit: Duration) -> Result<SqlAnswer, SqlError> {
        match (self.is_over, &self.end) {
            (true, _) => return Err(SqlError::Ended),
            (_, Some(_)) => return Err(SqlError::Unread),
            _ => {}
        }
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| self.client.start_error(io::Error::other(error)))?;
        let word: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        // On lines of its own: the statements may end with a comment.
        self.input = [statements, format!("\n;\nSELECT '{word}';\n").as_bytes()].concat();
        self.end = Some(End { word: HostBytes::from(&word), is_seen: false });
        self.converse(limit)
    }

    /// Returns the next part of an answer.
    pub(crate) fn more(&mut self, limit: Duration) -> Result<SqlAnswer, SqlError> {
        match (self.is_over, &self.end) {
            (true, _) => Err(SqlError::Ended),
            (_, None) => Ok(SqlAnswer::default()),
            _ => self.converse(limit),
        }
    }

    /// Ends the session; the server rolls back its transaction and releases its locks.
    pub(crate) fn close(mut self) {
        self.stdin = None;
        if !self.is_over && self.has_ended_within(GRACE).unwrap_or(false) {
            let _ = self.child.wait();
            self.is_over = true;
        }
        self.stop();
    }

    fn converse(&mut self, limit: Duration) -> Result<SqlAnswer, SqlError> {
        let result = self.read_answer(limit);
        if let Err(error) = result {
            let is_running = matches!(error, SqlError::Slow(_) | SqlError::Cancelled | SqlError::TooLong);
            if is_running && !self.is_over {
                // The client kills its statement on the server when it is interrupted.
                let _ = kill_process_group(Pid::from_child(&self.child), Signal::INT);
                let _ = self.has_ended_within(CANCEL_GRACE);
            }
            self.stop();
            return Err(error);
        }
        result
    }

    fn read_answer(&mut self, limit: Duration) -> Result<SqlAnswer, SqlError> {
        let deadline = Instant::now() + limit;
        loop {
            while let Some(item) = self.reader.next()? {
                if let Some(answer) = self.take_item(item)? {
                    return Ok(answer);
                }
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                return Err(SqlError::Slow(limit));
            };
            let is_at_end = self
                .wait(left)
                .and_then(|()| self.pass())
                .map_err(|source| self.client.start_error(source))?;
            if rustix::io::read(&*self.cancelled, &mut [0; 8]).is_ok() {
                return Err(SqlError::Cancelled);
            }
            if is_at_end {
                return Err(self.ended());
            }
        }
    }

    /// Adds a part of a result set. Returns the answer if it is whole or long enough.
    fn take_item(&mut self, item: Item) -> Result<Option<SqlAnswer>, SqlError> {
        let Some(end) = &mut self.end else { return Err(SqlError::Ended) };
        if end.is_seen && item == Item::End {
            self.end = None;
            return Ok(Some(SqlAnswer { sets: self.collector.take(), more: false }));
        }
        if matches!(&item, Item::Row(fields) if fields.len() == 1 && fields[0].1.as_ref() == Some(&end.word))
        {
            end.is_seen = true;
            self.collector.forget_last();
            return Ok(None);
        }
        if self.collector.add(item) > PART {
            return Err(SqlError::TooLong);
        }
        let is_long = self.collector.size() >= PART;
        Ok(is_long.then(|| SqlAnswer { sets: self.collector.take(), more: true }))
    }

    /// Waits until something can be passed or the session was cancelled.
    fn wait(&self, left: Duration) -> io::Result<()> {
        let mut fds =
            vec![PollFd::new(&self.stdout, PollFlags::IN), PollFd::new(&self.cancelled, PollFlags::IN)];
        fds.extend(self.stderr.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        fds.extend(
            self.stdin.as_ref().filter(|_| !self.input.is_empty()).map(|fd| PollFd::new(fd, PollFlags::OUT)),
        );
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 3600, tv_nsec: 0 });
        match poll(&mut fds, Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Passes input and output as far as possible. Returns whether the output has ended.
    fn pass(&mut self) -> io::Result<bool> {
        if let Some(pipe) = self.stdin.as_mut().filter(|_| !self.input.is_empty()) {
            match pipe.write(&self.input) {
                Ok(written) => drop(self.input.drain(..written)),
                Err(error) if is_temporary(&error) => {}
                // A client that reads no more says why, and ends.
                Err(_) => self.input.clear(),
            }
        }
        let mut buffer = [0; 16 << 10];
        if let Some(pipe) = &mut self.stderr {
            match pipe.read(&mut buffer) {
                Ok(0) => self.stderr = None,
                Ok(read) => {
                    self.errors.extend_from_slice(&buffer[..read]);
                    self.errors.drain(..self.errors.len().saturating_sub(ERRORS));
                }
                Err(error) if is_temporary(&error) => {}
                Err(error) => return Err(error),
            }
        }
        match self.stdout.read(&mut buffer) {
            Ok(read) => {
                self.reader.feed(&buffer[..read]);
                Ok(read == 0)
            }
            Err(error) if is_temporary(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns the error for which the client has ended.
    fn ended(&mut self) -> SqlError {
        let has_ended = self.has_ended_within(GRACE).unwrap_or(false);
        while let Some(pipe) = &mut self.stderr {
            let mut buffer = [0; 4096];
            match pipe.read(&mut buffer) {
                Ok(read) if read > 0 => self.errors.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => self.stderr = None,
            }
        }
        let status = if has_ended { self.child.try_wait().ok().flatten() } else { None };
        self.is_over = status.is_some();
        let otherwise =
            status.map_or_else(|| Text::new("the client has ended"), |status| Text::from(&status));
        self.client.error(&self.errors, otherwise)
    }

    fn has_ended_within(&self, limit: Duration) -> io::Result<bool> {
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?;
        let limit = Timespec::try_from(limit).map_err(|_| ErrorKind::InvalidInput)?;
        Ok(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit))? > 0)
    }

    /// Ends the client, if it runs.
    fn stop(&mut self) {
        self.stdin = None;
        if !self.is_over {
            tool::end(&mut self.child);
            self.is_over = true;
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if !self.is_over {
            let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
            let _ = self.child.try_wait();
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::service::tests::{Fake, SESSION};

    const LIMIT: Duration = Duration::from_secs(20);

    fn session(fake: &Fake) -> Session {
        fake.program("mariadb", SESSION);
        Session::open(fake.client(), LIMIT).unwrap()
    }

    fn values(answer: &SqlAnswer) -> Vec<String> {
        let rows = answer.sets.iter().flat_map(|set| &set.rows);
        rows.map(|row| row[0].as_ref().map_or_else(|| "NULL".into(), ToString::to_string)).collect()
    }

    #[test]
    fn statements_and_answers_alternate() {
        let fake = Fake::new();
        let mut session = session(&fake);
        let answer = session.execute(b"one 1 -- comment", LIMIT).unwrap();
        assert_eq!(values(&answer), ["1"]);
        assert_eq!((answer.more, answer.sets.len(), answer.sets[0].continues), (false, 1, false));
        assert_eq!(session.execute(b"none", LIMIT).unwrap(), SqlAnswer::default());
        assert_eq!(session.more(LIMIT).unwrap(), SqlAnswer::default());
        assert_eq!(values(&session.execute(b"one a\none b", LIMIT).unwrap()), ["a", "b"]);
        session.close();
    }

    #[test]
    fn long_answer_comes_in_bounded_parts() {
        let fake = Fake::new();
        let mut session = session(&fake);
        let mut answer = session.execute(b"many 20000", LIMIT).unwrap();
        let (mut all, mut parts) = (values(&answer), 1);
        assert!(matches!(session.execute(b"one 1", LIMIT), Err(SqlError::Unread)));
        while answer.more {
            assert!(answer.sets.last().unwrap().continues);
            assert!(postcard::to_stdvec(&answer).unwrap().len() < ANSWER_LIMIT);
            answer = session.more(LIMIT).unwrap();
            all.extend(values(&answer));
            parts += 1;
        }
        assert!(!answer.sets[0].continues);
        assert!(all.len() == 20_000 && all[19_999].ends_with("x20000") && parts > 2, "{parts}");
        assert_eq!(values(&session.execute(b"one 1", LIMIT).unwrap()), ["1"]);
    }

    #[test]
    fn long_statements_are_passed_while_their_answer_is_read() {
        let fake = Fake::new();
        let mut session = session(&fake);
        let statements = ["many 10000", &"one 1\n".repeat(15_000)].join("\n");
        let mut answer = session.execute(statements.as_bytes(), LIMIT).unwrap();
        let mut count = values(&answer).len();
        while answer.more {
            answer = session.more(LIMIT).unwrap();
            count += values(&answer).len();
        }
        assert_eq!(count, 25_000);
    }

    #[test]
    fn error_ends_the_session() {
        let fake = Fake::new();
        let mut session = session(&fake);
        let error = session.execute(b"fail", LIMIT).unwrap_err();
        assert_eq!(error.to_string(), "ERROR 1146 (42S02): no such table");
        assert!(error.is_of_server());
        assert!(matches!(session.execute(b"one 1", LIMIT), Err(SqlError::Ended)));
    }

    #[test]
    fn refused_login_is_reported_at_once() {
        let fake = Fake::new();
        fake.program("mariadb", "#!/bin/sh\necho 'ERROR 1698 (28000): Access denied' >&2\nexit 1");
        let error = Session::open(fake.client(), LIMIT).unwrap_err();
        assert_eq!(error.failure().number, Some(1698));
    }

    #[test]
    fn long_statements_are_limited_and_cancelled() {
        let fake = Fake::new();
        let mut first = session(&fake);
        let start = Instant::now();
        let error = first.execute(b"sleep", Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, SqlError::Slow(_)));
        let mut other = session(&fake);
        other.canceller().cancel().unwrap();
        assert!(matches!(other.execute(b"sleep", LIMIT), Err(SqlError::Cancelled)));
        assert!(start.elapsed() < LIMIT);
        // Interrupted, as a client is that shall kill its statement on the server.
        assert_eq!(std::fs::read_to_string(fake.path("log")).unwrap(), "INT\nINT\n");
    }

    #[test]
    fn row_above_the_limit_is_an_error() {
        let fake = Fake::new();
        let error = session(&fake).execute(b"wide", LIMIT).unwrap_err();
        assert!(error.to_string().contains("exceeds the limit of 524288 bytes"), "{error}");
    }
}
