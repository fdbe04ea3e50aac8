//! Files and directories of the controller that decide what a run does, and the accounts that could have changed them.
//!
//! A file decides where it names commands, hosts or an account. It is used only where root and the account of this process
//! are the only ones who can change it: its owner and mode, and those of every directory and symbolic link on the way to
//! it. The way is walked by descriptors, component by component, so that what is read is what was checked.

mod accounts;
#[cfg(test)]
mod tests;
mod walk;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Uid;
use zeroize::Zeroizing;

use crate::printable::printable;
use accounts::Accounts;
use walk::{Demand, Reached};

/// The largest text that decides; all of ours have a few lines.
const LARGEST: usize = 1 << 20;

/// Accounts that may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// All of them.
    Any,
    /// Its owner and root: it holds a password.
    Owner,
}

/// Why a file or directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum Distrust {
    /// It is not there or cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// An account other than root and that of this process can change it, by this component of its path.
    #[error(
        "{} is owned by {owner}, mode {mode:04o}, and only {trusted} may be able to change it",
        shown(component)
    )]
    Changeable {
        /// The file itself, or a directory or symbolic link on the way to it.
        component: PathBuf,
        /// The name of its owner, or the number where it has none.
        owner: String,
        /// Its permissions.
        mode: u32,
        /// The accounts that may own it.
        trusted: String,
        /// A command that mends it.
        fix: String,
    },
    /// It holds a password, and its mode lets others read it.
    #[error("others may read it (mode {mode:04o})")]
    Readable {
        /// The file.
        component: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is a directory, a device, a socket or a named pipe.
    #[error("it is no regular file")]
    NoFile,
    /// It is something else than a directory.
    #[error("it is no directory")]
    NoDirectory,
    /// It is too large to be one of ours.
    #[error("it is larger than {} KiB", LARGEST >> 10)]
    TooLarge,
    /// It is no text.
    #[error("it is not UTF-8")]
    NotText,
}

impl Distrust {
    /// The command that mends it, where there is one.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::Changeable { fix, .. } => Some(fix.clone()),
            Self::Readable { component, .. } => Some(format!("chmod 600 {}", shown(component))),
            _ => None,
        }
    }

    /// The error with its fix, in one line.
    #[must_use]
    pub fn with_fix(&self) -> String {
        match self.fix() {
            Some(fix) => format!("{self}; run: {fix}"),
            None => self.to_string(),
        }
    }
}

impl From<Distrust> for io::Error {
    fn from(distrust: Distrust) -> Self {
        match distrust {
            Distrust::Unreadable(error) => error,
            other => Self::other(other.with_fix()),
        }
    }
}

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}

/// Reads a text that decides. `/dev/null` is an empty one. A descriptor that the caller of the program opened for it
/// (`/dev/stdin`, `<(…)`) may be a pipe.
///
/// # Errors
/// When it cannot be read, or others can change it or read what only `readers` may.
pub fn read(path: &Path, readers: Readers) -> Result<Zeroizing<String>, Distrust> {
    let file = open(path, readers)?;
    // With room for all of it from the beginning: growing would leave a copy of the beginning behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LARGEST + 1));
    file.take(LARGEST as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > LARGEST {
        return Err(Distrust::TooLarge);
    }
    match String::from_utf8(std::mem::take(&mut *bytes)) {
        Ok(text) => Ok(Zeroizing::new(text)),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(Distrust::NotText)
        }
    }
}

/// Checks a file that another program opens by its name and obeys. Only root and this account can change what that name
/// means, so it still means this file then.
///
/// # Errors
/// When it cannot be read or others can change it.
pub fn check(path: &Path) -> Result<(), Distrust> {
    open(path, Readers::Any).map(drop)
}

/// Opens a file that decides.
fn open(path: &Path, readers: Readers) -> Result<File, Distrust> {
    let accounts = Accounts::of_this_process();
    let (file, component) = match walk::walk(path, &accounts, Demand::All)? {
        Reached::Directory(_) => return Err(Distrust::NoFile),
        Reached::Given(file) => {
            // What others do with a pipe between the caller and us is the caller's affair.
            if file.metadata()?.file_type().is_fifo() {
                return blocking(file);
            }
            (file, path.to_owned())
        }
        Reached::Other { directory, name } => {
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
            (File::from(directory.open(&name, flags)?), directory.path.join(name))
        }
    };
    let found = file.metadata()?;
    if is_null(&found) {
        return Ok(file);
    }
    if !found.is_file() {
        return Err(Distrust::NoFile);
    }
    accounts.vouch(&component, &found)?;
    if readers == Readers::Owner && found.mode() & 0o077 != 0 {
        return Err(Distrust::Readable { component, mode: found.mode() & 0o7777 });
    }
    Ok(file)
}

/// Lets reads wait. A file is opened without waiting, since a named pipe without a writer would never open.
fn blocking(file: File) -> Result<File, Distrust> {
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).map_err(io::Error::from)?;
    Ok(file)
}

/// Whether this is `/dev/null`, by its number.
fn is_null(found: &std::fs::Metadata) -> bool {
    found.file_type().is_char_device() && found.rdev() == nix::sys::stat::makedev(1, 3)
}

/// Checks a directory of this account, and the way to it.
///
/// # Errors
/// When it is not there, or an account other than this one and root can change what it holds.
pub fn own_directory(path: &Path) -> Result<(), Distrust> {
    let accounts = Accounts::of_this_process();
    let Reached::Directory(directory) = walk::walk(path, &accounts, Demand::All)? else {
        return Err(Distrust::NoDirectory);
    };
    accounts.is_own(&directory.path, &directory.found()?)
}

/// Opens a file of this account in a directory of its own, which was checked.
///
/// # Errors
/// When it is a link, no regular file, or belongs to another account.
pub fn own_file(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(Distrust::NoFile.into());
    }
    if found.uid() != Uid::effective().as_raw() {
        return Err(io::Error::other(format!("it belongs to {}", accounts::name(found.uid()))));
    }
    Ok(file)
}

/// A place for a file in a directory that may be another account's.
#[derive(Debug)]
pub struct Place {
    directory: OwnedFd,
    name: OsString,
}

impl Place {
    /// Finds the place of a file to be written or replaced. No symbolic link of another account leads to it, and none is
    /// followed at its end.
    ///
    /// # Errors
    /// When there is no such directory, or something else or another account's file has the name.
    pub fn find(path: &Path) -> Result<Self, Distrust> {
        let accounts = Accounts::of_this_process();
        let name = path.file_name().ok_or(Distrust::NoFile)?.to_owned();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let Reached::Directory(directory) = walk::walk(parent, &accounts, Demand::Links)? else {
            return Err(Distrust::NoDirectory);
        };
        let place = Self { directory: directory.descriptor, name };
        match std::fs::symlink_metadata(place.path()) {
            Ok(found) if !found.is_file() => Err(Distrust::NoFile),
            Ok(found) => accounts.owns(&directory.path.join(&place.name), &found).map(|()| place),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(place),
            Err(error) => Err(error.into()),
        }
    }

    /// Its path by way of the directory's descriptor: whatever becomes of the directory's own name.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.directory.as_raw_fd().to_string()).join(&self.name)
    }
}
