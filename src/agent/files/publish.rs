//! Publication of a copy: the rename that gives it its final name.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{FileType, RenameFlags, fstat, renameat_with};
use rustix::io::Errno;

use super::durable::{Durability, sync_directory, sync_file_system};
use super::modes::restore_mode;
use super::mounts::is_mounted;
use super::open::{Privileges, chmod_pinned, identity, kind, permissions, pin_at, stat_at};
use super::place::check_name;
use super::staging::{Journal, StagingDirectory};
use crate::proto::HostBytes;
use crate::proto::files::{FileId, PublishTask, Replace};
use crate::proto::journal::Undo;

/// Error of a publication. The copy does not have its name unless the variant says so.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// Other data has the name.
    #[error("{0} exists")]
    Exists(HostBytes),
    /// Something is mounted where data would be replaced.
    #[error("something is mounted at or below {0}; unmount it or choose another name")]
    Mounted(HostBytes),
    /// The journal, or a list that belongs to it, cannot be written.
    #[error("cannot write the journal: {0}")]
    Journal(#[source] io::Error),
    /// A directory cannot be made writable to be moved.
    #[error("cannot make {path} writable to move it: {source}")]
    Loosen {
        /// Path.
        path: HostBytes,
        /// Cause.
        source: io::Error,
    },
    /// The name cannot be given.
    #[error("cannot publish {path}: {source}")]
    Rename {
        /// Final path.
        path: HostBytes,
        /// Cause.
        source: io::Error,
    },
    /// The copy or its name would not survive a power cut.
    #[error("cannot sync {path}: {source}")]
    Sync {
        /// Final path.
        path: HostBytes,
        /// Cause.
        source: io::Error,
        /// Whether the copy has its name nevertheless.
        is_published: bool,
    },
}

/// Event of a publication, to be reported at once: the agent may be killed before the publication ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PublishEvent {
    /// The copy has its name; the old data was given this name, if it is kept.
    Published {
        /// Final path.
        path: HostBytes,
        /// Path of the old data.
        aside: Option<HostBytes>,
    },
    /// The copy was taken back.
    Unpublished,
}

/// Context of a publication.
pub(crate) struct Publisher<'a> {
    /// Staging directory.
    pub(crate) staging: &'a StagingDirectory,
    /// Journal.
    pub(crate) journal: Journal<'a>,
    /// Receiver of events.
    pub(crate) report: &'a mut dyn FnMut(PublishEvent),
}

/// Mode of a directory that was made writable.
struct Loosened {
    inode: u64,
    mode: u32,
}

impl Publisher<'_> {
    /// Gives the verified copy its final name. The caller has checked that no server works on the old data.
    /// Returns whether a later rollback of this run must wait for disks.
    pub(crate) fn publish(&mut self, task: &PublishTask) -> Result<Durability, PublishError> {
        let name = task.name.as_os_str();
        let path = self.staging.path_of(name);
        let rename = |source: io::Error| PublishError::Rename { path: path.clone(), source };
        let names = [task.staged.as_os_str(), name];
        let aside = (task.replace == Replace::Keep).then_some(task.aside.as_os_str());
        names.into_iter().chain(aside).try_for_each(check_name).map_err(rename)?;

        let target = self.staging.target();
        let old = stat_at(target, name).map_err(rename)?.map(|stat| identity(&stat));
        if task.replace != Replace::No && old.is_some() && old != task.seen {
            return Err(PublishError::Exists(path));
        }
        let removes = task.replace == Replace::Remove && old.is_some();
        if removes && !task.durable {
            // The old data is not removed before the copy is on the disk, whatever was asked for.
            sync_file_system(self.staging.copy()).map_err(rename)?;
        }
        let mut modes = Vec::new();
        let placed = self.loosen_and_place(task, &mut modes);
        let result = match placed {
            Ok(aside) => {
                let aside = aside.map(|name| self.staging.path_of(name));
                // Reported at once: whatever happens now, it has its name.
                (self.report)(PublishEvent::Published { path: path.clone(), aside });
                if removes || task.durable {
                    self.sync(task, old, &path).map(|()| Durability::Synced)
                } else {
                    // All that a power cut can bring back is an empty staging directory.
                    Ok(Durability::Hasty)
                }
            }
            Err(error) => Err(error),
        };
        for Loosened { inode, mode } in modes {
            // If that fails, the journal has it.
            let _ = restore_mode(target, name, inode, mode);
        }
        result
    }

    /// Gives the copy its name, and returns the name of the old data if that is kept.
    fn loosen_and_place<'t>(
        &mut self,
        task: &'t PublishTask,
        modes: &mut Vec<Loosened>,
    ) -> Result<Option<&'t OsStr>, PublishError> {
        let staging = self.staging;
        let name = task.name.as_os_str();
        modes.extend(self.loosen(staging.copy(), task.staged.as_os_str(), name)?);
        if task.replace == Replace::Remove {
            modes.extend(self.loosen(staging.target(), name, name)?);
        }
        self.place(task)
    }

    fn place<'t>(&mut self, task: &'t PublishTask) -> Result<Option<&'t OsStr>, PublishError> {
        let (copy, target) = (self.staging.copy(), self.staging.target());
        let (staged, name, aside) = (task.staged.as_os_str(), task.name.as_os_str(), task.aside.as_os_str());
        let path = self.staging.path_of(name);
        let failed = |source: io::Error| PublishError::Rename { path: path.clone(), source };
        let is_there = stat_at(target, name).map_err(failed)?.is_some();
        if task.replace == Replace::No || !is_there {
            return match renameat_with(copy, staged, target, name, RenameFlags::NOREPLACE) {
                Ok(()) => Ok(None),
                Err(Errno::EXIST) => Err(PublishError::Exists(path)),
                Err(error) => Err(failed(error.into())),
            };
        }
        if is_mounted(target, name).map_err(failed)? {
            return Err(PublishError::Mounted(path));
        }
        if task.replace == Replace::Remove {
            renameat_with(copy, staged, target, name, RenameFlags::EXCHANGE)
                .map_err(|error| failed(error.into()))?;
            return Ok(None);
        }
        // By the inode alone: a device may have another number after a reboot, and names change places on one
        // file system only.
        let inode = stat_at(copy, staged)
            .and_then(|stat| stat.ok_or_else(|| Errno::NOENT.into()))
            .map_err(failed)?
            .st_ino;
        let undo = Undo::Unpublished { path: self.staging.path_of(aside), inode };
        (self.journal)(undo).map_err(PublishError::Journal)?;
        renameat_with(copy, staged, target, aside, RenameFlags::NOREPLACE)
            .map_err(|error| failed(error.into()))?;
        if let Err(error) = renameat_with(target, aside, target, name, RenameFlags::EXCHANGE) {
            // Back to where what has arrived is removed, or kept.
            let _ = renameat_with(target, aside, copy, staged, RenameFlags::NOREPLACE);
            return Err(failed(error.into()));
        }
        Ok(Some(aside))
    }

    /// Makes the new name durable. A name that may not last is none, and the old data must not be removed for it.
    fn sync(
        &mut self,
        task: &PublishTask,
        old: Option<FileId>,
        path: &HostBytes,
    ) -> Result<(), PublishError> {
        let Err(source) = sync_directory(self.staging.target()) else { return Ok(()) };
        let is_published = self.place_back(task, old).is_err();
        if !is_published {
            (self.report)(PublishEvent::Unpublished);
        }
        Err(PublishError::Sync { path: path.clone(), source, is_published })
    }

    fn place_back(&self, task: &PublishTask, old: Option<FileId>) -> io::Result<()> {
        let (copy, target) = (self.staging.copy(), self.staging.target());
        let (staged, name, aside) = (task.staged.as_os_str(), task.name.as_os_str(), task.aside.as_os_str());
        match (old, task.replace) {
            (None, _) | (_, Replace::No) => {
                renameat_with(target, name, copy, staged, RenameFlags::NOREPLACE)?;
            }
            (_, Replace::Keep) => {
                renameat_with(target, aside, target, name, RenameFlags::EXCHANGE)?;
                renameat_with(target, aside, copy, staged, RenameFlags::NOREPLACE)?;
            }
            (_, Replace::Remove) => {
                renameat_with(copy, staged, target, name, RenameFlags::EXCHANGE)?;
            }
        }
        Ok(())
    }

    fn loosen(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        new_name: &OsStr,
    ) -> Result<Option<Loosened>, PublishError> {
        self.loosen_as(directory, name, new_name, Privileges::current())
    }

    /// Makes a directory writable: without root no other can get another parent. It gets its mode back under
    /// its new name in the target directory.
    pub(super) fn loosen_entry(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
    ) -> Result<(), PublishError> {
        self.loosen(directory, name, name).map(|_| ())
    }

    fn loosen_as(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &OsStr,
        new_name: &OsStr,
        privileges: Privileges,
    ) -> Result<Option<Loosened>, PublishError> {
        let path = self.staging.path_of(new_name);
        let failed = |source: io::Error| PublishError::Loosen { path: path.clone(), source };
        if privileges == Privileges::Root {
            return Ok(None);
        }
        let pin = match pin_at(directory, name) {
            Ok(pin) => pin,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let stat = fstat(&pin).map_err(|error| failed(error.into()))?;
        let mode = permissions(&stat);
        if kind(&stat) != FileType::Directory || mode & 0o200 != 0 {
            return Ok(None);
        }
        let inode = stat.st_ino;
        (self.journal)(Undo::Mode { path: path.clone(), inode, mode }).map_err(PublishError::Journal)?;
        chmod_pinned(pin.as_fd(), mode | 0o200).map_err(failed)?;
        Ok(Some(Loosened { inode, mode }))
    }
}

#[cfg(test)]
mod tests;
