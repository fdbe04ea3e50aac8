//! Walk through a tree by descriptors, of any depth and with any number of files.
//!
//! A directory is read to its end before the walk descends, so that only the names of its subdirectories are
//! kept. Few directories are open at a time: a closed one is opened again as `..` of the one below it, if that
//! is still the same directory.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, RawDir, SeekFrom, Stat, fstat, seek, statat};
use rustix::io::Errno;

use super::open::{Mounts, directory_at, identity, kind, parent_of, same_directory};
use super::pattern::Pattern;
use crate::proto::files::FileId;

/// Maximum number of directories that a walk keeps open.
const MAX_OPEN: usize = 48;
/// Size of the buffer for entries of a directory.
const BUFFER: usize = 64 << 10;

/// Beginning of a walk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Root<'a> {
    /// Entry of this directory.
    Entry(BorrowedFd<'a>),
    /// A directory or file itself, whatever its name leads to by now.
    Held(BorrowedFd<'a>),
}

/// Tree that is walked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk<'a> {
    /// Beginning.
    pub(crate) root: Root<'a>,
    /// Name with which all paths begin: `./NAME/…`.
    pub(crate) name: &'a OsStr,
    /// Entries that are left out, with everything below them.
    pub(crate) exclude: &'a [Pattern],
    /// Treatment of mount points.
    pub(crate) mounts: Mounts,
}

/// Entry of a tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    /// Path, beginning with `./`.
    pub(crate) path: &'a [u8],
    /// Directory that contains it; or the held file or directory itself.
    pub(crate) directory: &'a Arc<OwnedFd>,
    /// Name in the directory; empty for a held file or directory.
    pub(crate) name: &'a CStr,
    /// Type, as the directory gives it.
    pub(crate) kind: FileType,
}

impl Entry<'_> {
    /// Returns the state of the entry. A link is not followed.
    pub(crate) fn stat(&self) -> io::Result<Stat> {
        state(self.directory, self.name)
    }
}

/// Decision about an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visit {
    /// Go on.
    Skip,
    /// Visit the entries of this directory, too, if it still is the one with this identity.
    Descend(Option<FileId>),
}

/// Decision after the last entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Go on.
    Done,
    /// Read the directory once more.
    Again,
}

/// Error of a directory that cannot be visited.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WalkError {
    /// A call failed.
    #[error(transparent)]
    Call(#[from] io::Error),
    /// The name leads to another directory now.
    #[error("was replaced while it was read")]
    Replaced,
}

impl From<Errno> for WalkError {
    fn from(error: Errno) -> Self {
        Self::Call(error.into())
    }
}

/// Work on the entries of a tree.
pub(crate) trait Visitor {
    /// Error that ends the walk.
    type Error;

    /// Visits an entry, before everything that is below it.
    fn enter(&mut self, entry: &Entry<'_>) -> Result<Visit, Self::Error>;

    /// Visits a directory after everything that is below it.
    fn leave(&mut self, _entry: &Entry<'_>) -> Result<Left, Self::Error> {
        Ok(Left::Done)
    }

    /// Decides whether the walk goes on without a directory that cannot be visited.
    fn failed(&mut self, path: &[u8], error: WalkError) -> Result<(), Self::Error>;
}

/// Walks through a tree, in the order of the directories.
pub(crate) fn walk<V: Visitor>(walk: &Walk<'_>, visitor: &mut V) -> Result<(), V::Error> {
    let path = [b"./", walk.name.as_bytes()].concat();
    if walk.exclude.iter().any(|pattern| pattern.matches(&path)) {
        return Ok(());
    }
    let begin = || -> Result<(Arc<OwnedFd>, CString, FileType), WalkError> {
        let (root, name) = match walk.root {
            Root::Entry(directory) => {
                (directory, CString::new(walk.name.as_bytes()).map_err(io::Error::from)?)
            }
            Root::Held(held) => (held, CString::default()),
        };
        let root = root.try_clone_to_owned()?;
        let kind = kind(&state(&root, &name)?);
        Ok((Arc::new(root), name, kind))
    };
    let (above, name, kind) = match begin() {
        Ok(begin) => begin,
        Err(error) => return visitor.failed(&path, error),
    };
    let entry = Entry { path: &path, directory: &above, name: &name, kind };
    let Visit::Descend(expected) = visitor.enter(&entry)? else { return Ok(()) };
    let mut walker = Walker {
        mounts: walk.mounts,
        exclude: walk.exclude,
        visitor,
        above,
        name,
        path,
        levels: Vec::new(),
        closed: 1..1,
        buffer: Vec::with_capacity(BUFFER),
    };
    match walker.open_root(expected) {
        Ok(()) => walker.run(),
        Err(error) => walker.visitor.failed(&walker.path, error),
    }
}

fn state(directory: &OwnedFd, name: &CStr) -> io::Result<Stat> {
    Ok(if name.is_empty() { fstat(directory)? } else { statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)? })
}

/// Directory on the way to where the walk is.
struct Level {
    /// Descriptor, unless it was closed for lack of descriptors.
    directory: Option<Arc<OwnedFd>>,
    id: FileId,
    /// Length of its path.
    path: usize,
    is_read: bool,
    pending: Pending,
}

struct Walker<'a, V> {
    mounts: Mounts,
    exclude: &'a [Pattern],
    visitor: &'a mut V,
    /// Directory that contains the root, and the root's name in it.
    above: Arc<OwnedFd>,
    name: CString,
    path: Vec<u8>,
    levels: Vec<Level>,
    /// Levels without a descriptor. The first one always keeps its own.
    closed: std::ops::Range<usize>,
    buffer: Vec<u8>,
}

impl<V: Visitor> Walker<'_, V> {
    fn open_root(&mut self, expected: Option<FileId>) -> Result<(), WalkError> {
        let directory = if self.name.is_empty() {
            same_directory(self.above.as_fd())?
        } else {
            directory_at(self.above.as_fd(), self.name.as_c_str(), self.mounts)?
        };
        self.push(directory, expected)
    }

    fn run(&mut self) -> Result<(), V::Error> {
        while let Some(level) = self.levels.last_mut() {
            if !level.is_read {
                level.is_read = true;
                self.read()?;
                continue;
            }
            self.path.truncate(level.path);
            match level.pending.pop() {
                Some((name, expected)) => self.descend(&name, expected)?,
                None => self.ascend()?,
            }
        }
        Ok(())
    }

    /// Visits all entries of the last level.
    fn read(&mut self) -> Result<(), V::Error> {
        let Some(level) = self.levels.last_mut() else { return Ok(()) };
        let Some(directory) = level.directory.clone() else { return Ok(()) };
        let mut entries = RawDir::new(&directory, self.buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::INTR) => continue,
                Err(error) => {
                    self.path.truncate(level.path);
                    return self.visitor.failed(&self.path, error.into());
                }
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            self.path.truncate(level.path);
            self.path.push(b'/');
            self.path.extend_from_slice(name.to_bytes());
            if self.exclude.iter().any(|pattern| pattern.matches(&self.path)) {
                continue;
            }
            let kind = match entry.file_type() {
                // Some file systems do not keep the types in their directories.
                FileType::Unknown => match state(&directory, name) {
                    Ok(stat) => kind(&stat),
                    Err(error) => {
                        self.visitor.failed(&self.path, error.into())?;
                        continue;
                    }
                },
                kind => kind,
            };
            let entry = Entry { path: &self.path, directory: &directory, name, kind };
            if let Visit::Descend(expected) = self.visitor.enter(&entry)? {
                level.pending.push(name, expected);
            }
        }
        Ok(())
    }

    /// Opens a subdirectory of the last level.
    fn descend(&mut self, name: &CStr, expected: Option<FileId>) -> Result<(), V::Error> {
        let Some(directory) = self.levels.last().and_then(|level| level.directory.clone()) else {
            return Ok(());
        };
        self.path.push(b'/');
        self.path.extend_from_slice(name.to_bytes());
        let opened = directory_at(directory.as_fd(), name, self.mounts).map_err(WalkError::from);
        match opened.and_then(|opened| self.push(opened, expected)) {
            Ok(()) => Ok(()),
            Err(error) => self.visitor.failed(&self.path, error),
        }
    }

    fn push(&mut self, directory: OwnedFd, expected: Option<FileId>) -> Result<(), WalkError> {
        let id = identity(&fstat(&directory)?);
        if expected.is_some_and(|expected| expected != id) {
            return Err(WalkError::Replaced);
        }
        if self.levels.len() - self.closed.len() >= MAX_OPEN {
            if let Some(level) = self.levels.get_mut(self.closed.end) {
                level.directory = None;
                self.closed.end += 1;
            }
        }
        self.levels.push(Level {
            directory: Some(Arc::new(directory)),
            id,
            path: self.path.len(),
            is_read: false,
            pending: Pending::default(),
        });
        Ok(())
    }

    /// Leaves the last level.
    fn ascend(&mut self) -> Result<(), V::Error> {
        let Some(mut level) = self.levels.pop() else { return Ok(()) };
        let Some(directory) = level.directory.clone() else { return Ok(()) };
        let parent = match self.parent(&directory) {
            Ok(parent) => parent,
            Err(error) => {
                // Between the first level and this one there is no way up any more.
                self.levels.truncate(self.closed.start);
                self.closed.end = self.closed.start;
                return self.visitor.failed(&self.path, error);
            }
        };
        let name = if self.levels.is_empty() { self.name.clone() } else { last_name(&self.path) };
        let entry = Entry { path: &self.path, directory: &parent, name: &name, kind: FileType::Directory };
        if self.visitor.leave(&entry)? == Left::Again {
            match seek(&directory, SeekFrom::Start(0)) {
                Ok(_) => {
                    level.is_read = false;
                    self.levels.push(level);
                }
                Err(error) => return self.visitor.failed(&self.path, error.into()),
            }
        }
        Ok(())
    }

    /// Returns the directory above the one that was just taken from the levels.
    fn parent(&mut self, below: &OwnedFd) -> Result<Arc<OwnedFd>, WalkError> {
        let Some(parent) = self.levels.last_mut() else { return Ok(Arc::clone(&self.above)) };
        if let Some(directory) = &parent.directory {
            return Ok(Arc::clone(directory));
        }
        let directory = parent_of(below.as_fd())?;
        if identity(&fstat(&directory)?) != parent.id {
            return Err(WalkError::Replaced);
        }
        let directory = Arc::new(directory);
        parent.directory = Some(Arc::clone(&directory));
        self.closed.end -= 1;
        Ok(directory)
    }
}

/// Returns the last component of a path.
fn last_name(path: &[u8]) -> CString {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    CString::new(name).unwrap_or_default()
}

/// Names of subdirectories that are still to be visited, in one block of memory.
#[derive(Default)]
struct Pending {
    /// Name, device, inode (both 0 if unknown), length of the name; one after the other.
    records: Vec<u8>,
}

impl Pending {
    fn push(&mut self, name: &CStr, expected: Option<FileId>) {
        let FileId { device, inode } = expected.unwrap_or(FileId { device: 0, inode: 0 });
        let name = name.to_bytes();
        self.records.extend_from_slice(name);
        self.records.extend_from_slice(&device.to_ne_bytes());
        self.records.extend_from_slice(&inode.to_ne_bytes());
        self.records.extend_from_slice(&name.len().to_ne_bytes());
    }

    fn pop(&mut self) -> Option<(CString, Option<FileId>)> {
        let length = usize::from_ne_bytes(self.take()?);
        let inode = u64::from_ne_bytes(self.take()?);
        let device = u64::from_ne_bytes(self.take()?);
        let name = self.records.split_off(self.records.len().checked_sub(length)?);
        let id = FileId { device, inode };
        Some((CString::new(name).ok()?, (id != FileId { device: 0, inode: 0 }).then_some(id)))
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (rest, last) = self.records.split_last_chunk::<N>()?;
        let (length, last) = (rest.len(), *last);
        self.records.truncate(length);
        Some(last)
    }
}

#[cfg(test)]
mod tests;
