//! Undos of publications, as the journal has them: by paths, since the agent that held the descriptors may be
//! gone. Each may be repeated.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, fstat, openat, readlink, unlinkat};
use rustix::io::Errno;

use super::durable::{Durability, make_durable};
use super::fill::take_back;
use super::kept::close_kept;
use super::modes::restore_mode;
use super::open::{Mounts, directory_at, each_name, kind, stat_at};
use super::place::Place;
use super::remove::{RemoveError, remove_if_same, remove_tree};
use crate::proto::HostBytes;

/// Error of an undo that leaves something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UndoError {
    /// The path does not carry the name of the run: nothing else is ever removed.
    #[error("{0} does not have the name of this run")]
    Foreign(HostBytes),
    /// Another account has moved the staging directory.
    #[error("{path} is not removed: another account has moved it{}", moved_to(.now.as_ref()))]
    Moved {
        /// Path of the staging directory.
        path: HostBytes,
        /// Where it is now, if that is known.
        now: Option<HostBytes>,
    },
    /// A tree cannot be removed.
    #[error(transparent)]
    Remove(#[from] RemoveError),
    /// A call failed.
    #[error("{path}: {source}")]
    Call {
        /// Path.
        path: HostBytes,
        /// Cause.
        source: io::Error,
    },
}

fn moved_to(now: Option<&HostBytes>) -> String {
    now.map_or_else(String::new, |now| format!(" to {now}"))
}

/// Result of an undo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undone {
    /// Nothing is left.
    Gone,
    /// The staging directory is kept, as was requested.
    Kept,
}

/// Run whose journal is replayed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner<'a> {
    /// Name of the agent: that of the run and of its end, as in `RUN-target0`.
    pub(crate) agent: &'a str,
    /// Whether disks are waited for.
    pub(crate) durability: Durability,
}

impl Owner<'_> {
    /// Undoes a staging directory: removes it, or closes it if it is kept and not empty. Where others may change
    /// names, they may have moved it; whoever holds a descriptor of it notices that.
    pub(crate) fn staging(
        &self,
        path: &HostBytes,
        keep: bool,
        held: Option<BorrowedFd<'_>>,
    ) -> Result<Undone, UndoError> {
        let is_ours = |name: &OsStr| name.as_bytes() == format!(".transfer-{}", self.agent).as_bytes();
        let Some(place) = place(path, is_ours)? else { return Ok(Undone::Gone) };
        let call = |source: io::Error| UndoError::Call { path: path.clone(), source };
        let found = stat_at(place.directory.as_fd(), place.name).map_err(call)?;
        if found.is_some_and(|found| kind(&found) != FileType::Directory) {
            return Err(UndoError::Moved { path: path.clone(), now: None });
        }
        if keep {
            if let Ok(directory) = directory_at(place.directory.as_fd(), place.name, Mounts::Cross) {
                remove_empty(directory.as_fd(), 1).map_err(call)?;
            }
            match unlinkat(&place.directory, place.name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(_) => {
                    close_kept(place.directory.as_fd(), place.name).map_err(call)?;
                    return Ok(Undone::Kept);
                }
            }
        } else {
            remove_tree(place.directory.as_fd(), place.name)?;
        }
        make_durable(place.directory.as_fd(), self.durability);
        match held.map(still_at).transpose().map_err(call)?.flatten() {
            Some(now) => Err(UndoError::Moved { path: path.clone(), now: Some(now) }),
            None => Ok(Undone::Gone),
        }
    }

    /// Undoes a copy that has the name for the old data, or provisional data that was rolled back: removes what
    /// has this path if it has this inode. Anything else there is the old data, and stays.
    pub(crate) fn copy_aside(&self, path: &HostBytes, inode: u64) -> Result<Undone, UndoError> {
        let Some(place) = place(path, |name| self.is_aside(name))? else { return Ok(Undone::Gone) };
        if remove_if_same(place.directory.as_fd(), place.name, inode)? {
            make_durable(place.directory.as_fd(), self.durability);
        }
        Ok(Undone::Gone)
    }

    /// Removes replaced data.
    pub(crate) fn replaced(&self, path: &HostBytes) -> Result<Undone, UndoError> {
        let Some(place) = place(path, |name| self.is_aside(name))? else { return Ok(Undone::Gone) };
        remove_tree(place.directory.as_fd(), place.name)?;
        make_durable(place.directory.as_fd(), self.durability);
        Ok(Undone::Gone)
    }

    /// Takes back the entries of a copy, unless all of them have their names. `home` is the run's directory.
    pub(crate) fn filled(
        &self,
        home: BorrowedFd<'_>,
        directory: &HostBytes,
        staged: &HostBytes,
    ) -> Result<Undone, UndoError> {
        let call = |path: &HostBytes| {
            let path = path.clone();
            move |source: io::Error| UndoError::Call { path, source }
        };
        let open = |path: &HostBytes| -> io::Result<_> {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            Ok(openat(CWD, path.as_path(), flags, Mode::empty())?)
        };
        let into = match open(directory) {
            Ok(into) => into,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Undone::Gone),
            Err(error) => return Err(call(directory)(error)),
        };
        let from = match open(staged) {
            // Without the staged directory an entry that has to be taken back is an error.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                into.try_clone().map_err(call(staged))?
            }
            result => result.map_err(call(staged))?,
        };
        take_back(home, into.as_fd(), from.as_fd(), self.durability).map_err(call(directory))?;
        Ok(Undone::Gone)
    }

    /// Restores the mode of a directory that was made writable, if it has this path and inode.
    pub(crate) fn mode(&self, path: &HostBytes, inode: u64, mode: u32) -> Result<Undone, UndoError> {
        let call = |source: io::Error| UndoError::Call { path: path.clone(), source };
        let Some(place) = Place::of(path.as_path()).map_err(call)? else { return Ok(Undone::Gone) };
        let restored = restore_mode(place.directory.as_fd(), place.name, inode, mode).map_err(call)?;
        if restored && self.durability == Durability::Synced {
            if let Ok(directory) = directory_at(place.directory.as_fd(), place.name, Mounts::Cross) {
                make_durable(directory.as_fd(), self.durability);
            }
        }
        Ok(Undone::Gone)
    }

    fn is_aside(&self, name: &OsStr) -> bool {
        let run = self.agent.rsplit_once('-').map_or(self.agent, |(run, _)| run);
        name.as_bytes().ends_with(format!(".old-{run}").as_bytes())
    }
}

/// Opens the directory that contains a path of this run; `None` if there is no such directory.
fn place(path: &HostBytes, is_ours: impl Fn(&OsStr) -> bool) -> Result<Option<Place<'_>>, UndoError> {
    let path_of = path.as_path();
    // As the agent writes them: `..` and `/` at the end would be another place.
    let is_plain = path_of.components().collect::<PathBuf>().as_os_str() == path_of.as_os_str()
        && path_of.components().all(|part| part != Component::ParentDir);
    if !path_of.is_absolute() || !is_plain || !path_of.file_name().is_some_and(is_ours) {
        return Err(UndoError::Foreign(path.clone()));
    }
    Place::of(path_of).map_err(|source| UndoError::Call { path: path.clone(), source })
}

/// Returns the path of a directory that is held open, unless it was removed.
fn still_at(directory: BorrowedFd<'_>) -> io::Result<Option<HostBytes>> {
    if fstat(directory)?.st_nlink == 0 {
        return Ok(None);
    }
    let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
    Ok(Some(readlink(link, Vec::new())?.into_bytes().into()))
}

/// Removes empty directories, down to a number of levels below this one.
fn remove_empty(directory: BorrowedFd<'_>, levels: u32) -> io::Result<()> {
    let mut names = Vec::new();
    each_name(directory, |name, _| {
        names.push(name.to_owned());
        // Whatever else there is, it stays.
        Ok(names.len() < 1000)
    })?;
    for name in names {
        if levels > 0 {
            if let Ok(below) = directory_at(directory, name.as_c_str(), Mounts::Refuse) {
                remove_empty(below.as_fd(), levels - 1)?;
            }
        }
        let _ = unlinkat(directory, name.as_c_str(), AtFlags::REMOVEDIR);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
