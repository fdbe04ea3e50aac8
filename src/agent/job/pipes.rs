//! Moving bytes between descriptors without copying them, where the kernel can.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice, tee};

/// Size of the pipes between stages, and maximum size of a move.
pub(super) const MOST: usize = 1 << 20;

/// Reason why bytes could not be moved.
#[derive(Debug, thiserror::Error)]
pub(super) enum MoveError {
    /// The reader of the output is gone.
    #[error("the output was closed")]
    Closed,
    /// Reading or writing failed.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

impl From<Errno> for MoveError {
    fn from(error: Errno) -> Self {
        if error == Errno::PIPE { Self::Closed } else { Self::Failed(error.into()) }
    }
}

/// Creates a pipe of [`MOST`] bytes, or of fewer where the host limits them. Programs do not inherit it.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (input, output) = pipe_with(PipeFlags::CLOEXEC)?;
    // Accounts other than root have a limit on the sum of their pipes.
    let _ = fcntl_setpipe_size(&input, MOST);
    Ok((input, output))
}

/// Input and output of a stage of the job itself.
#[derive(Debug)]
pub(super) struct Flow {
    input: File,
    output: File,
    copies: bool,
}

impl Flow {
    /// Creates a flow from a pipe to a pipe, a file or `/dev/null`.
    pub(super) fn new(input: OwnedFd, output: OwnedFd) -> Self {
        Self { input: input.into(), output: output.into(), copies: false }
    }

    /// Returns the input.
    pub(super) fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// Duplicates what the input holds, at least a byte and at most `most`, into a pipe. Waits for input and for
    /// space. Returns 0 at the end.
    pub(super) fn duplicate(&self, into: &OwnedFd, most: usize) -> Result<usize, MoveError> {
        loop {
            match tee(&self.input, into, most, SpliceFlags::empty()) {
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Duplicates without waiting, as [`Self::duplicate`]. `None`: there is no input, or no space.
    pub(super) fn try_duplicate(&self, into: &OwnedFd, most: usize) -> Result<Option<usize>, MoveError> {
        match tee(&self.input, into, most, SpliceFlags::NONBLOCK) {
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            result => Ok(Some(result?)),
        }
    }

    /// Moves at least a byte and at most `most`, and returns how many; 0 at the end.
    pub(super) fn forward(&mut self, most: usize) -> Result<usize, MoveError> {
        loop {
            if self.copies {
                return self.copy(most);
            }
            match splice(&self.input, None, &self.output, None, most, SpliceFlags::empty()) {
                Ok(moved) => return Ok(moved),
                Err(Errno::INTR) => {}
                // Some file systems cannot be spliced to.
                Err(Errno::INVAL) => self.copies = true,
                Err(Errno::PIPE) => return self.end_or_closed(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Moves exactly that many bytes, which the input holds.
    pub(super) fn forward_all(&mut self, mut bytes: usize) -> Result<(), MoveError> {
        while bytes > 0 {
            match self.forward(bytes)? {
                0 => return Err(MoveError::Closed),
                moved => bytes -= moved,
            }
        }
        Ok(())
    }

    fn copy(&mut self, most: usize) -> Result<usize, MoveError> {
        let mut buffer = vec![0; most.min(MOST)];
        let read = loop {
            match self.input.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        match self.output.write_all(&buffer[..read]) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(MoveError::Closed),
            result => Ok(result.map(|()| read)?),
        }
    }

    /// Returns 0 if the input has ended. A reader may end with the last byte, and the kernel reports that before
    /// the end of the input.
    fn end_or_closed(&mut self) -> Result<usize, MoveError> {
        match self.input.read(&mut [0]) {
            Ok(0) => Ok(0),
            _ => Err(MoveError::Closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek as _, SeekFrom};
    use std::thread;

    #[test]
    fn bytes_move_once_and_are_duplicated_once() {
        let bytes: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        let ((input, from), (to, output), (side, into)) = (pipe().unwrap(), pipe().unwrap(), pipe().unwrap());
        let written = bytes.clone();
        thread::spawn(move || File::from(from).write_all(&written).unwrap());
        let read_all = |fd: OwnedFd| {
            thread::spawn(move || {
                let mut all = Vec::new();
                File::from(fd).read_to_end(&mut all).unwrap();
                all
            })
        };
        let (main, copy) = (read_all(to), read_all(side));
        let mut flow = Flow::new(input, output);
        loop {
            match flow.duplicate(&into, MOST).unwrap() {
                0 => break,
                ready => flow.forward_all(ready).unwrap(),
            }
        }
        drop((flow, into));
        assert!(main.join().unwrap() == bytes && copy.join().unwrap() == bytes);
    }

    #[test]
    fn descriptors_that_cannot_be_spliced_are_copied() {
        let (input, from) = pipe().unwrap();
        File::from(from).write_all(b"abc").unwrap();
        // The kernel refuses to splice to a file that is opened for appending.
        let path = tempfile::NamedTempFile::new().unwrap();
        let output = File::options().append(true).open(path.path()).unwrap();
        let mut flow = Flow::new(input, output.into());
        assert_eq!(flow.forward(MOST).unwrap(), 3);
        assert_eq!(flow.forward(MOST).unwrap(), 0);
        let mut text = String::new();
        let mut file = path.into_file();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
    }

    #[test]
    fn reader_that_ends_with_the_last_byte_is_no_failure() {
        let ((input, from), (to, output)) = (pipe().unwrap(), pipe().unwrap());
        drop((from, to));
        assert_eq!(Flow::new(input, output).forward(MOST).unwrap(), 0);
        let ((input, from), (to, output)) = (pipe().unwrap(), pipe().unwrap());
        File::from(from).write_all(b"abc").unwrap();
        drop(to);
        assert!(matches!(Flow::new(input, output).forward(MOST), Err(MoveError::Closed)));
    }
}
