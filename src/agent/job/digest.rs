//! Digest of a stream, computed by a thread beside it. The thread reads a duplicate of the stream, whose pages the
//! kernel shares between both pipes.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::thread::{self, JoinHandle};

use blake2::Blake2b512;
use md5::Md5;
use sha2::{Digest as _, Sha256};

use super::pipes::pipe;
use crate::proto::files::DigestKind;

/// Size of the buffer between the pipe and the digest. It stays in the processor's cache.
const BUFFER: usize = 64 << 10;

/// Digest that is being computed.
pub(super) struct StreamDigest {
    thread: JoinHandle<io::Result<String>>,
}

impl StreamDigest {
    /// Starts a thread, and returns it with the pipe for the duplicate of the stream.
    pub(super) fn start(kind: DigestKind) -> io::Result<(Self, OwnedFd)> {
        let (input, output) = pipe()?;
        let thread = thread::Builder::new().name("digest".into()).spawn(move || digest(kind, input))?;
        Ok((Self { thread }, output))
    }

    /// Returns the digest in hexadecimal, after the pipe was closed.
    pub(super) fn finish(self) -> io::Result<String> {
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread of the digest has failed")))
    }
}

fn digest(kind: DigestKind, input: OwnedFd) -> io::Result<String> {
    let mut hasher = Hasher::new(kind);
    let (mut file, mut buffer) = (File::from(input), vec![0; BUFFER]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.hex()),
            Ok(read) => hasher.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Digest of any kind.
enum Hasher {
    Md5(Md5),
    Sha256(Sha256),
    Blake2b(Box<Blake2b512>),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    fn new(kind: DigestKind) -> Self {
        match kind {
            DigestKind::Md5 => Self::Md5(Md5::new()),
            DigestKind::Sha256 => Self::Sha256(Sha256::new()),
            DigestKind::Blake2b => Self::Blake2b(Box::default()),
            DigestKind::Blake3 => Self::Blake3(Box::default()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Blake2b(hasher) => hasher.update(bytes),
            Self::Blake3(hasher) => {
                hasher.update(bytes);
            }
        }
    }

    fn hex(self) -> String {
        let bytes = match self {
            Self::Md5(hasher) => hasher.finalize().to_vec(),
            Self::Sha256(hasher) => hasher.finalize().to_vec(),
            Self::Blake2b(hasher) => hasher.finalize().to_vec(),
            Self::Blake3(hasher) => hasher.finalize().as_bytes().to_vec(),
        };
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn digest_of(kind: DigestKind, bytes: &[u8]) -> String {
        let (digest, output) = StreamDigest::start(kind).unwrap();
        File::from(output).write_all(bytes).unwrap();
        digest.finish().unwrap()
    }

    #[test]
    fn digests_are_those_of_the_programs() {
        let bytes = vec![0; 3_000_000];
        assert_eq!(digest_of(DigestKind::Md5, &bytes), "c9fc2d3dd83ab67a129ac10b09c9ebbb");
        assert_eq!(digest_of(DigestKind::Md5, b""), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(
            digest_of(DigestKind::Sha256, b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            digest_of(DigestKind::Blake3, b""),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        assert!(digest_of(DigestKind::Blake2b, b"abc").starts_with("ba80a53f981c4d0d"));
    }
}
