//! Reading of the held source, a file. Its bytes are copied: pages of a file that is being changed must not change
//! behind the digest.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{Stat, fstat};

use super::pipes::MoveError;
use crate::proto::HostBytes;

/// Size of the buffer.
const BUFFER: usize = 256 << 10;

/// Source that is read.
#[derive(Debug)]
pub(super) struct Source {
    /// File.
    pub(super) file: OwnedFd,
    /// Pipe for the contents.
    pub(super) output: OwnedFd,
    /// Name for messages.
    pub(super) name: HostBytes,
}

impl Source {
    /// Writes the contents. Fails if the file changes.
    pub(super) fn run(self) -> Result<(), MoveError> {
        let (input, mut output) = (File::from(self.file), File::from(self.output));
        let seen = state(&fstat(&input)?);
        let (mut buffer, mut offset) = (vec![0; BUFFER], 0);
        loop {
            // From an offset of its own: an earlier try may have read from the same descriptor.
            match input.read_at(&mut buffer, offset) {
                Ok(0) => break,
                Ok(read) => {
                    output.write_all(&buffer[..read]).map_err(|error| match error.kind() {
                        io::ErrorKind::BrokenPipe => MoveError::Closed,
                        _ => MoveError::Failed(error),
                    })?;
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(format!("cannot read {}: {error}", self.name))),
            }
        }
        if state(&fstat(&input)?) == seen {
            Ok(())
        } else {
            Err(failed(format!("{} changed while it was read", self.name)))
        }
    }
}

fn failed(message: String) -> MoveError {
    MoveError::Failed(io::Error::other(message))
}

/// Returns what changes with the contents: size and time of change.
fn state(stat: &Stat) -> (i64, i64, u64) {
    (stat.st_size, stat.st_ctime, stat.st_ctime_nsec)
}

#[cfg(test)]
mod tests {
    use super::super::pipes::pipe;
    use super::*;
    use std::io::Read as _;

    #[test]
    fn contents_are_read_from_the_beginning_and_changes_are_noticed() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let bytes = vec![7; 3 << 20];
        std::fs::write(path.path(), &bytes).unwrap();
        let mut file = File::open(path.path()).unwrap();
        file.read_exact(&mut [0; 100]).unwrap();
        let source = |file: &File| {
            let (input, output) = pipe().unwrap();
            let source = Source { file: file.try_clone().unwrap().into(), output, name: "data".into() };
            (File::from(input), std::thread::spawn(move || source.run()))
        };
        let (mut output, thread) = source(&file);
        let mut read = Vec::new();
        output.read_to_end(&mut read).unwrap();
        thread.join().unwrap().unwrap();
        assert!(read == bytes);

        let (mut output, thread) = source(&file);
        output.read_exact(&mut [0; 10]).unwrap();
        std::fs::write(path.path(), &bytes[1..]).unwrap();
        output.read_to_end(&mut read).unwrap();
        assert_eq!(thread.join().unwrap().unwrap_err().to_string(), "data changed while it was read");
    }
}
