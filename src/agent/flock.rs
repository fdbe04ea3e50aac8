//! Locks of files (`flock`), which the kernel releases when their last holder ends.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use rustix::fs::{FlockOperation, flock, fstat};
use rustix::io::Errno;

/// Pause between two attempts: the kernel has no wait with a time limit.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a lock is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// One attempt.
    No,
    /// At most this time.
    For(Duration),
    /// Until the lock is free.
    Forever,
}

/// Returns options for a file that is locked: never a link, and never waits for the other end of a pipe.
pub(crate) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(O_NOFOLLOW | O_NONBLOCK);
    options
}

/// Locks a file exclusively; returns whether that succeeded in time.
pub(crate) fn lock(file: impl AsFd, wait: Wait) -> io::Result<bool> {
    let deadline = match wait {
        Wait::No => Some(Instant::now()),
        Wait::For(time) => Some(Instant::now() + time),
        Wait::Forever => None,
    };
    loop {
        let operation = match deadline {
            Some(_) => FlockOperation::NonBlockingLockExclusive,
            None => FlockOperation::LockExclusive,
        };
        match flock(&file, operation) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if deadline.is_some_and(|deadline| Instant::now() >= deadline) => {
                return Ok(false);
            }
            Err(Errno::WOULDBLOCK) => std::thread::sleep(PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns whether a path names this very file. Its last holder may have removed the file before it was locked.
pub(crate) fn is_at(file: impl AsFd, path: &Path) -> bool {
    let (Ok(held), Ok(named)) = (fstat(file), fs::symlink_metadata(path)) else { return false };
    (held.st_dev, held.st_ino) == (named.dev(), named.ino())
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn lock_is_exclusive_and_waited_for() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("lock");
        let (first, second) = (File::create(&path).unwrap(), File::create(&path).unwrap());
        assert!(lock(&first, Wait::No).unwrap());
        assert!(!lock(&second, Wait::No).unwrap());
        assert!(!lock(&second, Wait::For(Duration::from_millis(30))).unwrap());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| lock(&second, Wait::Forever).unwrap());
            drop(first);
            assert!(waiting.join().unwrap());
        });
    }

    #[test]
    fn replaced_file_is_another_one() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("lock");
        let file = File::create(&path).unwrap();
        assert!(is_at(&file, &path));
        fs::rename(&path, scratch.path().join("old")).unwrap();
        assert!(!is_at(&file, &path));
        File::create(&path).unwrap();
        assert!(!is_at(&file, &path));
    }
}
