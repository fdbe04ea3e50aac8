//! Walk along a path, component by component.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, open, openat, readlinkat};
use nix::sys::stat::Mode;

use super::Distrust;
use super::accounts::Accounts;

/// Maximum number of symbolic links, as in the kernel.
const MOST_LINKS: usize = 40;

/// Condition for each component of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Demand {
    /// No other account can change it.
    All,
    /// Symbolic links belong to the accounts; directories may belong to others.
    Links,
}

/// End of a walk.
pub(super) enum Reached {
    /// Directory.
    Directory(Directory),
    /// Other file, by its name in its directory.
    Other { directory: Directory, name: OsString },
    /// File that the caller of the program had open, opened again.
    Given(File),
}

/// Directory on the path, held by a descriptor.
pub(super) struct Directory {
    pub(super) descriptor: OwnedFd,
    /// Path without links.
    pub(super) path: PathBuf,
}

impl Directory {
    fn root() -> io::Result<Self> {
        let descriptor = open("/", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(Self { descriptor, path: "/".into() })
    }

    pub(super) fn open(&self, name: &OsStr, flags: OFlag) -> io::Result<OwnedFd> {
        Ok(openat(&self.descriptor, name, flags | OFlag::O_CLOEXEC, Mode::empty())?)
    }

    pub(super) fn found(&self) -> io::Result<Metadata> {
        metadata(&self.descriptor)
    }

    /// Returns whether this is the directory of this process's descriptors.
    fn is_ours_of_descriptors(&self) -> bool {
        self.path == Path::new("/proc").join(std::process::id().to_string()).join("fd")
    }
}

fn metadata(descriptor: &OwnedFd) -> io::Result<Metadata> {
    File::from(descriptor.try_clone()?).metadata()
}

/// Follows a path from the root and checks each directory and symbolic link before going through it. At each
/// step only trusted accounts can exchange the next component.
pub(super) fn walk(path: &Path, accounts: &Accounts, demand: Demand) -> Result<Reached, Distrust> {
    // Includes the path of the current directory.
    let path = if path.is_absolute() { path.to_owned() } else { std::env::current_dir()?.join(path) };
    let mut here = Directory::root()?;
    let mut links = 0;
    let mut rest = Vec::new();
    push(&mut rest, &path);
    vouch(accounts, demand, &here)?;
    while let Some(name) = rest.pop() {
        let next = here.open(&name, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
        let found = metadata(&next)?;
        if found.is_symlink() {
            links += 1;
            if links > MOST_LINKS {
                return Err(io::Error::from(nix::errno::Errno::ELOOP).into());
            }
            accounts.owns(&here.path.join(&name), &found)?;
            if here.is_ours_of_descriptors() && rest.is_empty() {
                let file = here.open(&name, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
                return Ok(Reached::Given(File::from(file)));
            }
            let target = PathBuf::from(readlinkat(&next, "").map_err(io::Error::from)?);
            if target.is_absolute() {
                here = Directory::root()?;
            }
            push(&mut rest, &target);
        } else if found.is_dir() {
            let mut path = here.path;
            if name == ".." {
                path.pop();
            } else {
                path.push(&name);
            }
            here = Directory { descriptor: next, path };
            vouch(accounts, demand, &here)?;
        } else if rest.is_empty() {
            return Ok(Reached::Other { directory: here, name });
        } else {
            return Err(io::Error::from(io::ErrorKind::NotADirectory).into());
        }
    }
    Ok(Reached::Directory(here))
}

fn vouch(accounts: &Accounts, demand: Demand, directory: &Directory) -> Result<(), Distrust> {
    match demand {
        Demand::All => accounts.vouch(&directory.path, &directory.found()?),
        Demand::Links => Ok(()),
    }
}

/// Puts the components of a path in front of the remaining ones; the next one is at the end.
fn push(rest: &mut Vec<OsString>, path: &Path) {
    let named = path.components().rev().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    rest.extend(named);
}
