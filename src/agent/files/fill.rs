//! Publication of the entries of a copy, one by one, in an existing directory.
//!
//! Filling is not one step: if the agent is killed in between, every entry that has its name already is taken
//! back, unless all have theirs. The list `names` in the run's directory is complete and synced before the
//! first rename; the mark `filled` is written after the last.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, BufWriter, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, fsync, openat, renameat_with, unlinkat};
use rustix::io::Errno;

use super::durable::{Durability, make_durable, sync_directory};
use super::open::{Mounts, Privileges, chmod_pinned, directory_at, each_name, permissions, pin_at, stat_at};
use super::publish::{PublishError, PublishEvent, Publisher};
use crate::proto::HostBytes;
use crate::proto::files::FillTask;
use crate::proto::journal::Undo;

/// List of the entries in the run's directory: inode and name, each with a NUL behind it.
const NAMES: &str = "names";
/// File in the run's directory that exists when all entries have their names.
const FILLED: &str = "filled";

impl Publisher<'_> {
    /// Gives all entries of a staged directory their names in the target directory, and never replaces
    /// anything. `home` is the run's directory. The caller has checked that no server works in the target
    /// directory. Returns whether a later rollback of this run must wait for disks.
    pub(crate) fn fill(&mut self, task: &FillTask, home: BorrowedFd<'_>) -> Result<Durability, PublishError> {
        let staging = self.staging;
        let directory = HostBytes::from(staging.target_path());
        let failed = |source: io::Error| PublishError::Rename { path: directory.clone(), source };
        if !task.beside {
            if let Some(name) = foreign_entry(staging.target()).map_err(failed)? {
                return Err(PublishError::Exists(staging.path_of(&name)));
            }
        }
        let staged = task.staged.as_os_str();
        let from = directory_at(staging.copy(), staged, Mounts::Cross).map_err(failed)?;
        write_names(from.as_fd(), home).map_err(PublishError::Journal)?;
        let undo = Undo::Filled { directory: directory.clone(), staged: staging.staged_path(staged) };
        (self.journal)(undo).map_err(PublishError::Journal)?;
        if let Err(error) = self.rename_all(&from, home, task.durable) {
            let _ = unlinkat(home, FILLED, AtFlags::empty());
            // If that fails, too, the rollback does it.
            let _ = take_back(home, staging.target(), from.as_fd(), Durability::Synced);
            return Err(error);
        }
        let _ = unlinkat(staging.copy(), staged, AtFlags::REMOVEDIR);
        (self.report)(PublishEvent::Published { path: directory, aside: None });
        Ok(if task.durable { Durability::Synced } else { Durability::Hasty })
    }

    fn rename_all(
        &mut self,
        from: &OwnedFd,
        home: BorrowedFd<'_>,
        durable: bool,
    ) -> Result<(), PublishError> {
        let target = self.staging.target();
        let directory = HostBytes::from(self.staging.target_path());
        let mut result = Ok(());
        let read = each_of_names(home, |_, name| {
            result = self.loosen_entry(from.as_fd(), name).and_then(|()| {
                renameat_with(from, name, target, name, RenameFlags::NOREPLACE).map_err(|error| {
                    PublishError::Rename { path: self.staging.path_of(name), source: error.into() }
                })
            });
            Ok(result.is_ok())
        });
        result?;
        read.map_err(PublishError::Journal)?;
        if durable {
            sync_directory(target).map_err(|source| PublishError::Sync {
                path: directory,
                source,
                is_published: false,
            })?;
        }
        write_mark(home).map_err(PublishError::Journal)
    }
}

/// Returns an entry of a directory that neither every file system has nor runs stage.
pub(crate) fn foreign_entry(directory: BorrowedFd<'_>) -> io::Result<Option<std::ffi::OsString>> {
    let mut found = None;
    each_name(directory, |name, _| {
        let name = name.to_bytes();
        if name != b"lost+found" && !name.starts_with(b".transfer-") {
            found = Some(OsStr::from_bytes(name).to_owned());
        }
        Ok(found.is_none())
    })?;
    Ok(found)
}

fn write_names(from: BorrowedFd<'_>, home: BorrowedFd<'_>) -> io::Result<()> {
    let mut out = BufWriter::new(create(home, NAMES)?);
    each_name(from, |name, _| {
        // Not the inode that the directory gives, which some file systems make up.
        let Some(stat) = stat_at(from, name)? else { return Ok(true) };
        write!(out, "{}\0", stat.st_ino)?;
        out.write_all(name.to_bytes_with_nul())?;
        Ok(true)
    })?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    fsync(&file)?;
    sync_directory(home)
}

fn write_mark(home: BorrowedFd<'_>) -> io::Result<()> {
    fsync(create(home, FILLED)?)?;
    sync_directory(home)
}

fn create(home: BorrowedFd<'_>, name: &str) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(openat(home, name, flags, Mode::RUSR | Mode::WUSR)?))
}

/// Calls a function with inode and name of each entry of the list, until it returns `false`.
fn each_of_names(
    home: BorrowedFd<'_>,
    mut each: impl FnMut(u64, &OsStr) -> io::Result<bool>,
) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut list = BufReader::new(File::from(openat(home, NAMES, flags, Mode::empty())?));
    let (mut inode, mut name) = (Vec::new(), Vec::new());
    loop {
        inode.clear();
        name.clear();
        if list.read_until(0, &mut inode)? == 0 {
            return Ok(());
        }
        list.read_until(0, &mut name)?;
        let number = CStr::from_bytes_with_nul(&inode).ok().and_then(|text| text.to_str().ok()?.parse().ok());
        let (Some(number), Some((0, name))) = (number, name.split_last()) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        if !each(number, OsStr::from_bytes(name))? {
            return Ok(());
        }
    }
}

/// Takes back the names that entries of a copy have in their directory, unless all entries have theirs.
pub(super) fn take_back(
    home: BorrowedFd<'_>,
    directory: BorrowedFd<'_>,
    staged: BorrowedFd<'_>,
    durability: Durability,
) -> io::Result<()> {
    if stat_at(home, FILLED)?.is_some() {
        return Ok(());
    }
    let privileges = Privileges::current();
    each_of_names(home, |inode, name| {
        // By the inodes: other entries are not ours.
        if stat_at(directory, name)?.is_some_and(|stat| stat.st_ino == inode) {
            rename_back(directory, name, staged, privileges)?;
        }
        Ok(true)
    })?;
    make_durable(directory, durability);
    Ok(())
}

fn rename_back(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    staged: BorrowedFd<'_>,
    privileges: Privileges,
) -> io::Result<()> {
    match renameat_with(directory, name, staged, name, RenameFlags::NOREPLACE) {
        // A directory that had its own mode back already.
        Err(Errno::ACCESS) if privileges == Privileges::Ordinary => {
            let pin = pin_at(directory, name)?;
            let mode = permissions(&rustix::fs::fstat(&pin)?);
            chmod_pinned(pin.as_fd(), mode | 0o200)?;
            Ok(renameat_with(directory, name, staged, name, RenameFlags::NOREPLACE)?)
        }
        result => Ok(result?),
    }
}
