//! Trusted files and directories of the controller: those that decide what a run does, and who can change
//! them.
//!
//! A file is decisive if it names commands, hosts or an account. It is used only if no account except root
//! and that of this process can change it. This depends on the owner and mode of the file and of every
//! directory and symbolic link on its path. The path is walked component by component with descriptors, so
//! the file that is read is the one that was checked.

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

use crate::base::printable::printable;
use accounts::Accounts;
use walk::{Demand, Reached};

/// Maximum size of a decisive file; real ones have a few lines.
const LARGEST: usize = 1 << 20;

/// Accounts that may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Everyone.
    Any,
    /// Only its owner and root, because it contains a password.
    Owner,
}

/// Reason not to use a file or directory.
#[derive(Debug, thiserror::Error)]
pub enum Distrust {
    /// Missing or unreadable.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
    /// Account other than root and that of this process can change it, through this component of its path.
    #[error(
        "{} is owned by {owner}, mode {mode:04o}; only {trusted} may be able to change it",
        shown(component)
    )]
    Changeable {
        /// The file itself, or a directory or symbolic link on its path.
        component: PathBuf,
        /// Name of the component's owner, or the number if it has none.
        owner: String,
        /// Permissions.
        mode: u32,
        /// Accounts that may own it.
        trusted: String,
        /// Command that fixes it.
        fix: String,
    },
    /// File with a password whose mode lets others read it.
    #[error("others may read it (mode {mode:04o})")]
    Readable {
        /// The file.
        component: PathBuf,
        /// Permissions.
        mode: u32,
    },
    /// Directory, device, socket or named pipe instead of a file.
    #[error("not a regular file")]
    NoFile,
    /// Something other than a directory.
    #[error("not a directory")]
    NoDirectory,
    /// Too large.
    #[error("larger than {} KiB", LARGEST >> 10)]
    TooLarge,
    /// Not UTF-8.
    #[error("not UTF-8")]
    NotText,
}

impl Distrust {
    /// Returns the command that fixes the problem, if there is one.
    #[must_use]
    pub fn fix(&self) -> Option<String> {
        match self {
            Self::Changeable { fix, .. } => Some(fix.clone()),
            Self::Readable { component, .. } => Some(format!("chmod 600 {}", shown(component))),
            _ => None,
        }
    }

    /// Formats the error with its fix in one line.
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

/// Maximum size of a program that is read.
const LARGEST_PROGRAM: u64 = 256 << 20;

/// Reads a program that will run as root on other hosts.
///
/// # Errors
/// When it cannot be read, or others can change it.
pub(crate) fn read_program(path: &Path) -> Result<Vec<u8>, Distrust> {
    let mut bytes = Vec::new();
    open(path, Readers::Any)?.take(LARGEST_PROGRAM).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a decisive file. `/dev/null` is an empty one. A descriptor that the caller opened (`/dev/stdin`,
/// `<(…)`) may be a pipe.
///
/// # Errors
/// When it cannot be read, or others can change it or read more than `readers` allows.
pub(crate) fn read(path: &Path, readers: Readers) -> Result<Zeroizing<String>, Distrust> {
    let file = open(path, readers)?;
    // Allocated in full at once: growing would leave a copy of the password in freed memory.
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

/// Checks a file that another program opens by name and obeys. Only root and this account can change the
/// meaning of the name, so that program opens the same file.
///
/// # Errors
/// When it cannot be read, or others can change it.
pub(crate) fn check(path: &Path) -> Result<(), Distrust> {
    open(path, Readers::Any).map(drop)
}

/// Opens a decisive file.
fn open(path: &Path, readers: Readers) -> Result<File, Distrust> {
    let accounts = Accounts::of_this_process();
    let (file, component) = match walk::walk(path, &accounts, Demand::All)? {
        Reached::Directory(_) => return Err(Distrust::NoFile),
        Reached::Given(file) => {
            // Protecting a pipe is the responsibility of the caller who created it.
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

/// Makes reads block. The file was opened with `O_NONBLOCK`, because opening a named pipe without a writer
/// would hang.
fn blocking(file: File) -> Result<File, Distrust> {
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty())).map_err(io::Error::from)?;
    Ok(file)
}

/// Returns whether this is `/dev/null`, by device number.
fn is_null(found: &std::fs::Metadata) -> bool {
    found.file_type().is_char_device() && found.rdev() == nix::sys::stat::makedev(1, 3)
}

/// Checks that a directory and its path belong to this account.
///
/// # Errors
/// When it is missing, or an account other than this one and root can change its contents.
pub(crate) fn own_directory(path: &Path) -> Result<(), Distrust> {
    let accounts = Accounts::of_this_process();
    let Reached::Directory(directory) = walk::walk(path, &accounts, Demand::All)? else {
        return Err(Distrust::NoDirectory);
    };
    accounts.is_own(&directory.path, &directory.found()?)
}

/// Opens a file of this account in a directory that was checked before.
///
/// # Errors
/// When it is a link, is not a regular file, or belongs to another account.
pub(crate) fn own_file(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits()).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(Distrust::NoFile.into());
    }
    if found.uid() != Uid::effective().as_raw() {
        return Err(io::Error::other(format!("owned by {}", accounts::name(found.uid()))));
    }
    Ok(file)
}

/// Place for a file in a directory that may belong to another account.
#[derive(Debug)]
pub(crate) struct Place {
    directory: OwnedFd,
    name: OsString,
}

impl Place {
    /// Finds the place of a file to be written or replaced. Symbolic links of other accounts are rejected on
    /// the way to it, and no link is followed at its end.
    ///
    /// # Errors
    /// When there is no such directory, or the name is that of something else or of another account's file.
    pub(crate) fn find(path: &Path) -> Result<Self, Distrust> {
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

    /// Returns its path through the directory's descriptor, which stays valid if the directory is renamed.
    #[must_use]
    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.directory.as_raw_fd().to_string()).join(&self.name)
    }
}
