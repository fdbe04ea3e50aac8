//! Lines of a program's output, read without waiting.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Maximum length of a line; a longer one is several. Names of files have at most 4096 bytes, which programs may
/// write as four times as many.
const LONGEST: usize = 64 << 10;

/// Reader of lines.
#[derive(Debug)]
pub(super) struct Lines {
    input: File,
    rest: Vec<u8>,
    has_ended: bool,
}

impl Lines {
    /// Creates a reader of a pipe.
    pub(super) fn new(input: OwnedFd) -> io::Result<Self> {
        fcntl_setfl(&input, fcntl_getfl(&input)? | OFlags::NONBLOCK)?;
        Ok(Self { input: input.into(), rest: Vec::new(), has_ended: false })
    }

    /// Returns the pipe, until it has ended.
    pub(super) fn open(&self) -> Option<BorrowedFd<'_>> {
        (!self.has_ended).then(|| self.input.as_fd())
    }

    /// Reads what is there, at most about [`LONGEST`] bytes, and passes the complete lines on. Returns the number
    /// of bytes.
    pub(super) fn read(&mut self, mut each: impl FnMut(&[u8])) -> usize {
        let mut buffer = [0; 16 << 10];
        let mut total = 0;
        while !self.has_ended && total < LONGEST {
            match self.input.read(&mut buffer) {
                Ok(0) => self.has_ended = true,
                Ok(read) => {
                    total += read;
                    self.rest.extend_from_slice(&buffer[..read]);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.has_ended = true,
            }
        }
        let mut start = 0;
        while let Some(length) = self.rest[start..].iter().position(|&byte| byte == b'\n') {
            each(&self.rest[start..start + length]);
            start += length + 1;
        }
        self.rest.drain(..start);
        if !self.rest.is_empty() && (self.has_ended || self.rest.len() > LONGEST) {
            each(&std::mem::take(&mut self.rest));
        }
        total
    }
}

/// Returns a line as text, with its invalid UTF-8 escaped.
pub(super) fn text(line: &[u8]) -> String {
    let mut text = String::with_capacity(line.len());
    for chunk in line.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::pipes::pipe;
    use super::*;
    use std::io::Write as _;

    #[test]
    fn lines_are_whole_and_bounded() {
        let (input, output) = pipe().unwrap();
        let (mut lines, mut output) = (Lines::new(input).unwrap(), File::from(output));
        let mut seen: Vec<Vec<u8>> = Vec::new();
        let mut read = |lines: &mut Lines| lines.read(|line| seen.push(line.to_vec()));
        assert_eq!(read(&mut lines), 0);
        output.write_all(b"one\n\ntw").unwrap();
        assert_eq!(read(&mut lines), 7);
        output.write_all(b"o\nlast").unwrap();
        read(&mut lines);
        drop(output);
        read(&mut lines);
        assert!(lines.open().is_none());
        assert_eq!(seen, [&b"one"[..], b"", b"two", b"last"]);

        let (input, output) = pipe().unwrap();
        let (mut lines, mut output) = (Lines::new(input).unwrap(), File::from(output));
        output.write_all(&vec![b'x'; 300_000]).unwrap();
        drop(output);
        let mut longest = 0;
        while lines.open().is_some() {
            lines.read(|line| longest = longest.max(line.len()));
        }
        assert!(longest <= 2 * LONGEST, "{longest}");
        assert_eq!(text(b"a\xff\xc3\xa4"), "a\\xffä");
    }
}
