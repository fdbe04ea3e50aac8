//! Digests of files and streams.

use std::fmt::Write as _;
use std::io;
use std::os::fd::AsFd;

use blake2::Blake2b512;
use md5::Md5;
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use crate::proto::files::DigestKind;

/// Size of the buffer with which files are read.
pub(crate) const BUFFER: usize = 256 << 10;

/// Digest in work.
#[derive(Clone, Debug)]
pub(crate) enum Digester {
    /// MD5.
    Md5(Md5),
    /// SHA-256.
    Sha256(Sha256),
    /// The 512 bits of `BLAKE2b`.
    Blake2b(Box<Blake2b512>),
    /// BLAKE3.
    Blake3(Box<blake3::Hasher>),
}

impl Digester {
    /// Starts a digest.
    pub(crate) fn new(kind: DigestKind) -> Self {
        match kind {
            DigestKind::Md5 => Self::Md5(Md5::new()),
            DigestKind::Sha256 => Self::Sha256(Sha256::new()),
            DigestKind::Blake2b => Self::Blake2b(Box::default()),
            DigestKind::Blake3 => Self::Blake3(Box::default()),
        }
    }

    /// Adds bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(digest) => digest.update(bytes),
            Self::Sha256(digest) => digest.update(bytes),
            Self::Blake2b(digest) => digest.update(bytes),
            Self::Blake3(digest) => {
                digest.update(bytes);
            }
        }
    }

    /// Returns the digest of all bytes, in lower-case hexadecimal digits.
    pub(crate) fn finish(self) -> String {
        match self {
            Self::Md5(digest) => hex(&digest.finalize()),
            Self::Sha256(digest) => hex(&digest.finalize()),
            Self::Blake2b(digest) => hex(&digest.finalize()),
            Self::Blake3(digest) => hex(digest.finalize().as_bytes()),
        }
    }

    /// Reads a file to its end, or at most that many bytes, adds them, and calls `read` with the number of bytes
    /// after each read.
    pub(crate) fn read(
        &mut self,
        file: impl AsFd,
        most: u64,
        buffer: &mut [u8],
        mut read: impl FnMut(u64),
    ) -> io::Result<()> {
        let mut left = most;
        while left > 0 {
            let part = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match rustix::io::read(&file, &mut buffer[..part]) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    self.update(&buffer[..length]);
                    left -= length as u64;
                    read(length as u64);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Returns bytes as lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_programs() {
        for (kind, expected) in [
            (DigestKind::Md5, "900150983cd24fb0d6963f7d28e17f72"),
            (DigestKind::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                DigestKind::Blake2b,
                "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1\
                 7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923",
            ),
            (DigestKind::Blake3, "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85"),
        ] {
            let mut digester = Digester::new(kind);
            digester.update(b"a");
            digester.update(b"bc");
            assert_eq!(digester.finish(), expected);
        }
    }

    #[test]
    fn files_are_read_to_their_end_or_to_a_limit() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("file"), b"abc").unwrap();
        let file = std::fs::File::open(directory.path().join("file")).unwrap();
        let (mut digester, mut total) = (Digester::new(DigestKind::Md5), 0);
        digester.read(&file, u64::MAX, &mut [0; 2], |bytes| total += bytes).unwrap();
        assert_eq!((digester.finish().as_str(), total), ("900150983cd24fb0d6963f7d28e17f72", 3));
        let endless = std::fs::File::open("/dev/zero").unwrap();
        let mut total = 0;
        Digester::new(DigestKind::Md5).read(&endless, 7, &mut [0; 4], |bytes| total += bytes).unwrap();
        assert_eq!(total, 7);
    }
}
