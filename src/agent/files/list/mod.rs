//! Lists of a tree: all entries, and the digests of all files, each sorted, to be compared with those of
//! another host.
//!
//! One walk lists the entries and passes the files on to the workers that read them. The lists are files in
//! the run's directory:
//!
//! - `entries`: `PATH//TYPE//SIZE` of a file, `PATH//TYPE//TARGET` of a symbolic link, `PATH//TYPE//` of
//!   anything else; with the column of owners each is followed by `//MODE UID GID`, and for a file by the
//!   seconds of its modification time (not every file system has finer ones).
//! - `digests`: `PATH//DIGEST` of every file.
//!
//! Records end with NUL. No path contains two slashes in a row, so the order of the records is that of the
//! paths. Sockets are not copied and not listed.

mod digests;
mod entry;
pub(crate) mod progress;
pub(crate) mod render;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufWriter};
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FileType, Mode, OFlags, openat};
use sha2::{Digest as _, Sha256};

use self::digests::{Batches, Workers};
use self::progress::{ListEvent, Progress, Step};
use super::durable::sync_file_system;
use super::open::{Mounts, identity, kind};
use super::pattern::Pattern;
use super::sort::{Sorter, write_record};
use super::walk::{Entry, Root, Visit, Visitor, Walk, WalkError, walk};
use crate::proto::files::{Changes, Freshness, ListTask, OwnerColumn};
use crate::proto::job::{List, Manifest};
use crate::proto::{HostBytes, Text};

/// Size of the buffer with which a list is written.
const BUFFER: usize = 256 << 10;

/// Error of a list that cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListError {
    /// An entry cannot be listed or read.
    #[error("cannot read {path}: {source}")]
    Entry {
        /// Path of the entry.
        path: HostBytes,
        /// Cause.
        source: io::Error,
    },
    /// A directory is another one than was listed.
    #[error("{0} was replaced while it was listed")]
    Moved(HostBytes),
    /// A file is another one than was listed.
    #[error("{0} was replaced while its digest was computed")]
    Replaced(HostBytes),
    /// Files are missing in the list of digests.
    #[error("{digests} of {files} files have a digest")]
    Incomplete {
        /// Number of digests.
        digests: u64,
        /// Number of files.
        files: u64,
    },
    /// Written data cannot be synced.
    #[error("cannot sync the file system: {0}")]
    Sync(#[source] io::Error),
    /// A list cannot be written.
    #[error("cannot write the list {name} in the directory of the run: {source}")]
    Write {
        /// Name of the list.
        name: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// No thread can be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

/// Summaries of the lists of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lists {
    /// List of entries.
    pub(crate) entries: Manifest,
    /// List of digests, if they were computed.
    pub(crate) digests: Option<Manifest>,
}

/// Lists a tree, and computes the digests of its files. `home` is the run's directory, `report` receives
/// progress and complaints.
pub(crate) fn list(
    root: Root<'_>,
    task: &ListTask,
    home: BorrowedFd<'_>,
    report: &(dyn Fn(ListEvent) + Sync),
) -> Result<Lists, ListError> {
    let progress = Progress::new(report, if task.digest.is_some() { Step::Digesting } else { Step::Listing });
    if task.freshness == Freshness::JustWritten {
        progress.step(Step::Syncing);
        let (Root::Entry(fd) | Root::Held(fd)) = root;
        sync_file_system(fd).map_err(ListError::Sync)?;
    }
    progress.work();
    let exclude: Vec<Pattern> =
        task.tree.exclude.iter().map(|pattern| Pattern::new(pattern.as_bytes())).collect();
    let walked = Walk { root, name: task.tree.name.as_os_str(), exclude: &exclude, mounts: Mounts::Cross };
    let sorter = |list: List| Sorter::new(home).map_err(|source| write_error(list, source));
    let mut entries = sorter(List::Entries)?;
    let (totals, digests) = match task.digest {
        None => (walk_entries(&walked, Lister::new(task, &progress, &mut entries, None))?, None),
        Some(kind) => {
            let sorted = Mutex::new(sorter(List::Digests)?);
            let workers = Workers { kind, task, progress: &progress, sorted: &sorted };
            let totals = workers.run(|batches| {
                walk_entries(&walked, Lister::new(task, &progress, &mut entries, Some(batches)))
            })?;
            (totals, Some(sorted.into_inner().unwrap_or_else(PoisonError::into_inner)))
        }
    };
    progress.step(Step::Sorting);
    let Totals { files, bytes } = totals;
    let entries = Manifest { bytes, ..written(home, List::Entries, entries)? };
    let digests = digests.map(|sorter| written(home, List::Digests, sorter)).transpose()?;
    progress.end();
    match &digests {
        Some(digests) if digests.records != files && task.changes == Changes::Strict => {
            Err(ListError::Incomplete { digests: digests.records, files })
        }
        _ => Ok(Lists { entries, digests }),
    }
}

fn write_error(list: List, source: io::Error) -> ListError {
    ListError::Write { name: list.name(), source }
}

/// Writes a sorted list to its file, and returns its summary, without the size of its files.
fn written(home: BorrowedFd<'_>, list: List, sorter: Sorter) -> Result<Manifest, ListError> {
    let write = || -> io::Result<Manifest> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(home, list.name(), flags, Mode::RUSR | Mode::WUSR)?);
        let mut out = BufWriter::with_capacity(BUFFER, Hashed { file, digest: Sha256::new() });
        let mut records = 0;
        sorter.finish(|record| {
            records += 1;
            write_record(&mut out, record)
        })?;
        let Hashed { digest, .. } = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Manifest { records, bytes: 0, digest: super::digest::hex(&digest.finalize()) })
    };
    write().map_err(|source| write_error(list, source))
}

/// File whose bytes are digested while they are written.
struct Hashed {
    file: File,
    digest: Sha256,
}

impl io::Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.write(bytes)?;
        self.digest.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Files of a tree.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    files: u64,
    bytes: u64,
}

/// Lists what it visits.
struct Lister<'a> {
    task: &'a ListTask,
    progress: &'a Progress<'a>,
    entries: &'a mut Sorter,
    batches: Option<&'a mut Batches>,
    record: Vec<u8>,
    totals: Totals,
}

fn walk_entries(walked: &Walk<'_>, mut lister: Lister<'_>) -> Result<Totals, ListError> {
    walk(walked, &mut lister)?;
    Ok(lister.totals)
}

impl<'a> Lister<'a> {
    fn new(
        task: &'a ListTask,
        progress: &'a Progress<'a>,
        entries: &'a mut Sorter,
        batches: Option<&'a mut Batches>,
    ) -> Self {
        Self { task, progress, entries, batches, record: Vec::new(), totals: Totals::default() }
    }

    /// Notes an entry that cannot be listed.
    fn missing(&mut self, path: &[u8], error: WalkError) -> Result<(), ListError> {
        let path = HostBytes::from(path.to_vec());
        let error = match error {
            WalkError::Call(source) => ListError::Entry { path, source },
            WalkError::Replaced => ListError::Moved(path),
        };
        if self.task.changes == Changes::Strict {
            return Err(error);
        }
        // One difference more, if that matters.
        self.progress.complain(Text::from(&error));
        Ok(())
    }
}

impl Visitor for Lister<'_> {
    type Error = ListError;

    fn enter(&mut self, entry: &Entry<'_>) -> Result<Visit, ListError> {
        if entry.kind == FileType::Socket {
            return Ok(Visit::Skip);
        }
        let described = entry.stat().and_then(|stat| {
            let owners = self.task.owners == OwnerColumn::Present;
            entry::describe(&mut self.record, entry, &stat, owners)?;
            Ok(stat)
        });
        let stat = match described {
            Ok(stat) => stat,
            Err(error) => {
                self.missing(entry.path, error.into())?;
                return Ok(Visit::Skip);
            }
        };
        let kind = kind(&stat);
        if kind == FileType::Socket {
            return Ok(Visit::Skip);
        }
        self.entries.push(&self.record).map_err(|source| write_error(List::Entries, source))?;
        self.progress.listed();
        match kind {
            FileType::Directory => return Ok(Visit::Descend(Some(identity(&stat)))),
            FileType::RegularFile => {
                self.totals.files += 1;
                let size = u64::try_from(stat.st_size).unwrap_or_default();
                self.totals.bytes = self.totals.bytes.saturating_add(size);
                if let Some(batches) = &mut self.batches {
                    batches.push(entry, identity(&stat), size)?;
                }
            }
            _ => {}
        }
        Ok(Visit::Skip)
    }

    fn failed(&mut self, path: &[u8], error: WalkError) -> Result<(), ListError> {
        self.missing(path, error)
    }
}
