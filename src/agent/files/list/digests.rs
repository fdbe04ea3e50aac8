//! Digests of listed files, computed by several threads.
//!
//! A path is only a way to an inode, and another user may direct it elsewhere at any moment. So each file is
//! pinned in the directory that was listed, without being opened (not even a device or a FIFO notices), and
//! must be the regular file that was listed.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Advice, FileType, OFlags, fadvise, fstat};
use rustix::io::Errno;

use super::super::digest::{BUFFER, Digester};
use super::super::durable::drop_cache;
use super::super::open::{identity, kind, pin_at, reopen};
use super::super::sort::Sorter;
use super::super::walk::Entry;
use super::{ListError, Progress, write_error};
use crate::proto::HostBytes;
use crate::proto::files::{Changes, DigestKind, FileId, Freshness, ListTask};
use crate::proto::job::List;

/// Maximum number of workers.
const MAX_WORKERS: u16 = 64;
/// Maximum number of files in a batch.
const MAX_FILES: usize = 64;
/// Maximum number of directories in a batch: each is an open descriptor.
const MAX_DIRECTORIES: usize = 4;
/// Size in bytes at which a batch is complete, so that no worker waits for another one's large files.
const FULL: u64 = 4 << 20;
/// Minimum size of a file for which the kernel reads ahead further.
const LARGE: u64 = 1 << 20;

/// Files that one worker reads.
#[derive(Default)]
struct Batch {
    directories: Vec<Arc<OwnedFd>>,
    /// Paths, each with a NUL behind it.
    paths: Vec<u8>,
    files: Vec<Listed>,
    bytes: u64,
}

/// File of a batch.
struct Listed {
    /// Position of its directory in the batch.
    directory: usize,
    /// Position of its path, and of the name at its end.
    path: std::ops::Range<usize>,
    name: usize,
    id: FileId,
    size: u64,
}

/// Sender of files to the workers.
pub(super) struct Batches {
    sender: SyncSender<Batch>,
    batch: Batch,
    failed: Arc<AtomicBool>,
}

impl Batches {
    /// Adds a file to a batch, and sends the batch if it is complete.
    pub(super) fn push(&mut self, entry: &Entry<'_>, id: FileId, size: u64) -> Result<(), ListError> {
        let batch = &mut self.batch;
        if !batch.directories.last().is_some_and(|last| Arc::ptr_eq(last, entry.directory)) {
            batch.directories.push(Arc::clone(entry.directory));
        }
        let start = batch.paths.len();
        batch.paths.extend_from_slice(entry.path);
        batch.paths.push(0);
        let path = start..batch.paths.len();
        // A held file has no name in a directory.
        let name = path.end - 1 - entry.name.to_bytes().len();
        batch.files.push(Listed { directory: batch.directories.len() - 1, path, name, id, size });
        batch.bytes = batch.bytes.saturating_add(size);
        if batch.files.len() >= MAX_FILES || batch.directories.len() >= MAX_DIRECTORIES || batch.bytes >= FULL
        {
            return self.send();
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), ListError> {
        // The worker's own error is returned in place of this one.
        let stopped = || ListError::Thread(io::Error::other("a worker has stopped"));
        if self.failed.load(Ordering::Relaxed) {
            return Err(stopped());
        }
        self.sender.send(std::mem::take(&mut self.batch)).map_err(|_| stopped())
    }
}

/// Threads that compute digests.
pub(super) struct Workers<'a> {
    pub(super) kind: DigestKind,
    pub(super) task: &'a ListTask,
    pub(super) progress: &'a Progress<'a>,
    pub(super) sorted: &'a Mutex<Sorter>,
}

impl Workers<'_> {
    /// Computes the digests of all files that `produce` sends. After the first error no other file is begun.
    pub(super) fn run<T>(
        &self,
        produce: impl FnOnce(&mut Batches) -> Result<T, ListError>,
    ) -> Result<T, ListError> {
        let workers = self.task.workers.clamp(1, MAX_WORKERS);
        let (sender, receiver) = sync_channel(usize::from(workers) + 1);
        let (receiver, failed) = (Mutex::new(receiver), Arc::new(AtomicBool::new(false)));
        std::thread::scope(|scope| {
            let mut running = Vec::new();
            let mut started = Ok(());
            for _ in 0..workers {
                let work = || self.work(&receiver, &failed);
                match std::thread::Builder::new().name("digest".into()).spawn_scoped(scope, work) {
                    Ok(worker) => running.push(worker),
                    // Fewer workers are slower, and no more.
                    Err(error) => {
                        if running.is_empty() {
                            started = Err(ListError::Thread(error));
                        }
                        break;
                    }
                }
            }
            let produced = started.and_then(|()| {
                let mut batches = Batches { sender, batch: Batch::default(), failed: Arc::clone(&failed) };
                let produced = produce(&mut batches)?;
                batches.send()?;
                Ok(produced)
            });
            let mut ended = running.into_iter().map(|worker| match worker.join() {
                Ok(result) => result,
                Err(_) => Err(ListError::Thread(io::Error::other("a worker has crashed"))),
            });
            ended.find_map(Result::err).map_or(produced, Err)
        })
    }

    fn work(&self, receiver: &Mutex<Receiver<Batch>>, failed: &AtomicBool) -> Result<(), ListError> {
        let mut buffer = vec![0; BUFFER];
        let mut records = Vec::new();
        let mut result = Ok(());
        loop {
            let batch = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(batch) = batch else { return result };
            // The sender must never wait for a worker that is gone.
            if failed.load(Ordering::Relaxed) {
                continue;
            }
            if let Err(error) = self.digest(&batch, &mut buffer, &mut records) {
                failed.store(true, Ordering::Relaxed);
                result = Err(error);
            }
        }
    }

    /// Computes the digests of a batch.
    fn digest(&self, batch: &Batch, buffer: &mut [u8], records: &mut Vec<u8>) -> Result<(), ListError> {
        let mut ends = Vec::with_capacity(batch.files.len());
        records.clear();
        for file in &batch.files {
            let path = &batch.paths[file.path.start..file.path.end - 1];
            if let Some(digest) = self.digest_file(batch, file, path, buffer)? {
                records.extend_from_slice(path);
                records.extend_from_slice(b"//");
                records.extend_from_slice(digest.as_bytes());
                ends.push(records.len());
            }
        }
        let mut sorted = self.sorted.lock().unwrap_or_else(PoisonError::into_inner);
        let mut start = 0;
        for &end in &ends {
            sorted.push(&records[start..end]).map_err(|source| write_error(List::Digests, source))?;
            start = end;
        }
        drop(sorted);
        self.progress.digested(ends.len() as u64);
        Ok(())
    }

    /// Computes the digest of a file; `None` if it is not the listed one any more and that is allowed.
    fn digest_file(
        &self,
        batch: &Batch,
        listed: &Listed,
        path: &[u8],
        buffer: &mut [u8],
    ) -> Result<Option<String>, ListError> {
        let failed = |source: io::Error| ListError::Entry { path: HostBytes::from(path.to_vec()), source };
        let is_lenient = self.task.changes == Changes::Lenient;
        let pin = match pin(batch, listed) {
            Ok(Some(pin)) => pin,
            Ok(None) if is_lenient => return Ok(None),
            Ok(None) => return Err(ListError::Replaced(HostBytes::from(path.to_vec()))),
            Err(error) if is_lenient && is_gone(&error) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let file = reopen(pin.as_fd(), OFlags::RDONLY).map_err(failed)?;
        drop(pin);
        if self.task.freshness == Freshness::JustWritten {
            drop_cache(file.as_fd());
        }
        if listed.size >= LARGE {
            let _ = fadvise(&file, 0, None, Advice::Sequential);
        }
        let mut digester = Digester::new(self.kind);
        // One byte more shows that it has grown; a file that grows for ever must not be read for ever.
        let most = listed.size.saturating_add(1);
        digester.read(&file, most, buffer, |bytes| self.progress.read(bytes)).map_err(failed)?;
        Ok(Some(digester.finish()))
    }
}

/// Pins the listed file; `None` if the name leads to anything else.
fn pin(batch: &Batch, listed: &Listed) -> io::Result<Option<OwnedFd>> {
    let directory = &batch.directories[listed.directory];
    let name =
        CStr::from_bytes_with_nul(&batch.paths[listed.name..listed.path.end]).map_err(io::Error::other)?;
    let pin = if name.is_empty() { directory.try_clone()? } else { pin_at(directory.as_fd(), name)? };
    let stat = fstat(&pin)?;
    let is_same = kind(&stat) == FileType::RegularFile && identity(&stat) == listed.id;
    Ok(is_same.then_some(pin))
}

/// Returns whether there is nothing of that name any more.
fn is_gone(error: &io::Error) -> bool {
    let gone = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::STALE];
    Errno::from_io_error(error).is_some_and(|errno| gone.contains(&errno))
}
