//! The source, held open for the whole run: whoever may change the names on the way to it exchanges nothing.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, statat};

use super::open::{identity, kind, reopen};
use crate::proto::HostBytes;
use crate::proto::files::FileId;

/// Time limit for a file system that does not answer.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Error of a source that cannot be used, or is not the one that was checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// The source cannot be opened.
    #[error("cannot open {path}: {source}; it may have been replaced since the preflight")]
    Open {
        /// Path.
        path: HostBytes,
        /// Cause.
        source: io::Error,
    },
    /// The source is neither a directory nor a regular file.
    #[error("{0} is neither a directory nor a regular file; it may have been replaced since the preflight")]
    Type(HostBytes),
    /// The file system does not answer.
    #[error("cannot open {0} within {limit} s: its file system does not answer", limit = LIMIT.as_secs())]
    Slow(HostBytes),
    /// The source is another one than the preflight found.
    #[error("{0} was replaced since the preflight")]
    Replaced(HostBytes),
    /// The path leads to something else now.
    #[error("{0} was replaced during the copy")]
    ReplacedMeanwhile(HostBytes),
}

/// Source that is held open.
#[derive(Debug)]
pub(crate) struct Source {
    path: PathBuf,
    file: OwnedFd,
    id: FileId,
}

impl Source {
    /// Opens a directory or regular file, which must have this identity. Links above its name are followed,
    /// and nothing waits for a writer of a FIFO.
    pub(crate) fn hold(path: &HostBytes, id: FileId) -> Result<Self, SourceError> {
        let opened = within(LIMIT, {
            let path = PathBuf::from(path.clone());
            move || open(&path)
        });
        match opened {
            None => Err(SourceError::Slow(path.clone())),
            Some(Err(source)) => Err(SourceError::Open { path: path.clone(), source }),
            Some(Ok(None)) => Err(SourceError::Type(path.clone())),
            Some(Ok(Some((_, found)))) if found != id => Err(SourceError::Replaced(path.clone())),
            Some(Ok(Some((file, id)))) => Ok(Self { path: path.clone().into(), file, id }),
        }
    }

    /// Fails unless the path still leads to what is held.
    pub(crate) fn check(&self) -> Result<(), SourceError> {
        let found = within(LIMIT, {
            let path = self.path.clone();
            move || statat(CWD, &path, AtFlags::SYMLINK_NOFOLLOW).map(|stat| identity(&stat))
        });
        match found {
            Some(Ok(found)) if found == self.id => Ok(()),
            Some(_) => Err(SourceError::ReplacedMeanwhile(HostBytes::from(&self.path))),
            None => Err(SourceError::Slow(HostBytes::from(&self.path))),
        }
    }

    /// Returns the source.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Opens a directory or regular file; `None` if it is anything else.
fn open(path: &Path) -> io::Result<Option<(OwnedFd, FileId)>> {
    let pin = openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&pin)?;
    if !matches!(kind(&stat), FileType::Directory | FileType::RegularFile) {
        return Ok(None);
    }
    Ok(Some((reopen(pin.as_fd(), OFlags::RDONLY)?, identity(&stat))))
}

/// Calls a function in a thread of its own; `None` if it has not returned within the time limit.
fn within<T: Send + 'static>(limit: Duration, call: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = channel();
    let spawned = std::thread::Builder::new().name("slow".into()).spawn(move || {
        let _ = sender.send(call());
    });
    match spawned.ok().map(|_| receiver.recv_timeout(limit)) {
        Some(Ok(result)) => Some(result),
        Some(Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    fn id(path: &Path) -> FileId {
        let found = fs::symlink_metadata(path).unwrap();
        FileId { device: found.dev(), inode: found.ino() }
    }

    #[test]
    fn directories_and_files_are_held() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("d")).unwrap();
        fs::write(tree.path().join("file"), "abc").unwrap();
        for name in ["d", "file"] {
            let path = tree.path().join(name);
            let source = Source::hold(&HostBytes::from(&path), id(&path)).unwrap();
            source.check().unwrap();
            fs::rename(&path, tree.path().join("moved")).unwrap();
            symlink("moved", &path).unwrap();
            assert!(matches!(source.check(), Err(SourceError::ReplacedMeanwhile(_))));
            assert_eq!(identity(&fstat(source.file()).unwrap()), source.id);
            fs::rename(tree.path().join("moved"), tree.path().join(format!("old-{name}"))).unwrap();
        }
    }

    #[test]
    fn replaced_sources_are_refused_without_waiting() {
        let tree = tempfile::tempdir().unwrap();
        let seen = id(tree.path());
        let hold = |name: &str| Source::hold(&HostBytes::from(&tree.path().join(name)), seen).unwrap_err();
        fs::create_dir(tree.path().join("other")).unwrap();
        assert!(matches!(hold("other"), SourceError::Replaced(_)));
        symlink(tree.path(), tree.path().join("link")).unwrap();
        assert!(matches!(hold("link"), SourceError::Type(_)));
        rustix::fs::mkfifoat(CWD, tree.path().join("fifo"), Mode::RWXU).unwrap();
        assert!(matches!(hold("fifo"), SourceError::Type(_)));
        assert!(matches!(hold("missing"), SourceError::Open { .. }));
    }

    #[test]
    fn calls_that_do_not_return_are_given_up() {
        let (sender, receiver) = channel::<()>();
        assert_eq!(within(Duration::from_millis(20), move || receiver.recv().is_ok()), None);
        assert_eq!(within(LIMIT, || 7), Some(7));
        drop(sender);
    }
}
