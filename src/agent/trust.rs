//! Accounts that can replace a path.
//!
//! The path is walked by descriptors, component by component, with symbolic links resolved here. A directory that
//! passed stays trustworthy: only trusted accounts can rename an entry of it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat, fstat, fstatfs, getxattr_query, openat,
    readlinkat, statat,
};
use rustix::io::Errno;

use super::accounts::{Accounts, Login};
use super::proc::is_missing;
use super::tool::ToolError;
use crate::proto::HostBytes;
use crate::proto::facts::path::SharedComponent;

/// Maximum number of symbolic links on the way, as for the kernel.
const MOST_LINKS: usize = 40;
/// Files by which the data directory of a server is known.
pub(crate) const DATA_FILES: [&str; 2] = ["ibdata1", "aria_log_control"];

/// Accounts that may replace a path.
#[derive(Clone, Debug)]
pub(crate) struct Trusted<'a> {
    accounts: &'a Accounts,
    always: BTreeSet<u32>,
    servers: BTreeSet<u32>,
    reach: Reach,
}

/// Extent of the trust in accounts of servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Everywhere,
    /// With a data directory: the last component, or a directory with the files of a server.
    Data,
}

/// Error of a check that could not be finished.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TrustError {
    /// A component cannot be examined.
    #[error("cannot examine {}", path.display())]
    Examine {
        /// Path of the component.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The path leads through too many symbolic links.
    #[error("more than {MOST_LINKS} symbolic links lead to {}", .0.display())]
    Links(PathBuf),
    /// The path leads through a link of `/proc`, whose text is not where it leads.
    #[error("{} is a link of /proc", .0.display())]
    Proc(PathBuf),
    /// The path does not begin with `/`.
    #[error("{} is not an absolute path", .0.display())]
    Relative(PathBuf),
    /// The name services failed.
    #[error(transparent)]
    Accounts(#[from] ToolError),
}

impl<'a> Trusted<'a> {
    /// Creates the set of root and the login.
    pub(crate) fn new(login: Login, accounts: &'a Accounts) -> Self {
        let always = [0].into_iter().chain(login.uids()).collect();
        Self { accounts, always, servers: BTreeSet::new(), reach: Reach::Everywhere }
    }

    /// Adds accounts of servers.
    pub(crate) fn with_servers(self, uids: impl IntoIterator<Item = u32>) -> Self {
        Self { servers: uids.into_iter().collect(), reach: Reach::Everywhere, ..self }
    }

    /// Adds accounts of servers, which are trusted only with a data directory.
    pub(crate) fn with_servers_of_data(self, uids: impl IntoIterator<Item = u32>) -> Self {
        Self { servers: uids.into_iter().collect(), reach: Reach::Data, ..self }
    }

    fn has(&self, uid: u32) -> bool {
        self.always.contains(&uid) || self.servers.contains(&uid)
    }

    /// Returns whether accounts that are not trusted may be in a group. It must be the own group of a trusted one
    /// by its name, too: those who have another group as their primary one are not listed in it.
    fn admits_others(&self, gid: u32) -> Result<bool, ToolError> {
        let Some(group) = self.accounts.whole_group(gid)? else { return Ok(true) };
        match self.accounts.user(&group.name)? {
            Some(user) if user.gid == gid && self.has(user.uid) => {}
            _ => return Ok(true),
        }
        for member in &group.members {
            if self.accounts.user(member)?.is_some_and(|user| !self.has(user.uid)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Returns the first component of a path that an account other than the trusted ones can replace. A directory
/// that others can write to is safe when it is sticky and the next component belongs to a trusted account. The
/// last component may be missing.
pub(crate) fn shared_component(
    path: &Path,
    trusted: &Trusted<'_>,
) -> Result<Option<SharedComponent>, TrustError> {
    if !path.is_absolute() {
        return Err(TrustError::Relative(path.to_owned()));
    }
    let mut walk = Walk::start(path, trusted)?;
    loop {
        match walk.step()? {
            Step::On => {}
            Step::End => return Ok(None),
            Step::Shared(shared) => return Ok(Some(shared)),
        }
    }
}

enum Step {
    On,
    End,
    Shared(SharedComponent),
}

/// Walk that has arrived in a directory.
struct Walk<'a> {
    trusted: &'a Trusted<'a>,
    at: PathBuf,
    here: OwnedFd,
    stat: Stat,
    /// Components that are left, the next one last.
    rest: Vec<OsString>,
    links: usize,
}

const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl<'a> Walk<'a> {
    fn start(path: &Path, trusted: &'a Trusted<'a>) -> Result<Self, TrustError> {
        let at = PathBuf::from("/");
        let fail = |error: Errno| TrustError::Examine { path: at.clone(), source: error.into() };
        let here = openat(rustix::fs::CWD, "/", DIRECTORY, Mode::empty()).map_err(fail)?;
        let stat = fstat(&here).map_err(fail)?;
        let mut walk = Self { trusted, at: at.clone(), here, stat, rest: Vec::new(), links: 0 };
        walk.push(path);
        Ok(walk)
    }

    /// Puts the components of a path in front of those that are left.
    fn push(&mut self, path: &Path) {
        let names = path.components().filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        });
        let names: Vec<OsString> = names.collect();
        self.rest.extend(names.into_iter().rev());
    }

    fn fail(&self, name: &OsStr) -> impl FnOnce(Errno) -> TrustError + use<> {
        let path = self.at.join(name);
        |error| TrustError::Examine { path, source: error.into() }
    }

    fn shared(&self, path: &Path, stat: &Stat) -> Step {
        Step::Shared(SharedComponent {
            path: HostBytes::from(path),
            owner: self.trusted.accounts.user_name(stat.st_uid),
            mode: stat.st_mode & 0o7777,
        })
    }

    /// Judges the directory in which the walk is, and takes the next component.
    fn step(&mut self) -> Result<Step, TrustError> {
        if !self.is_trusted(self.stat.st_uid, "".as_ref(), self.rest.is_empty()) {
            return Ok(self.shared(&self.at, &self.stat));
        }
        let is_writable = self.others_write()?;
        if is_writable && self.stat.st_mode & 0o1000 == 0 {
            return Ok(self.shared(&self.at, &self.stat));
        }
        let Some(next) = self.rest.pop() else { return Ok(Step::End) };
        if next == ".." {
            self.at.pop();
            return self.enter(&next);
        }
        let is_last = self.rest.is_empty();
        let stat = match statat(&self.here, &next, AtFlags::SYMLINK_NOFOLLOW) {
            // Anyone can create a missing entry in a directory that everyone can write to.
            Err(error) if is_missing(error) && is_writable && !is_last => {
                return Ok(self.shared(&self.at, &self.stat));
            }
            Err(error) if is_missing(error) => return Ok(Step::End),
            stat => stat.map_err(self.fail(&next))?,
        };
        if is_writable && !self.is_trusted(stat.st_uid, &next, is_last) {
            return Ok(self.shared(&self.at.join(&next), &stat));
        }
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink if !self.is_trusted(stat.st_uid, &next, false) => {
                Ok(self.shared(&self.at.join(&next), &stat))
            }
            FileType::Symlink => self.follow(&next),
            FileType::Directory => {
                self.at.push(&next);
                self.enter(&next)
            }
            _ if !self.is_trusted(stat.st_uid, &next, is_last) => {
                Ok(self.shared(&self.at.join(&next), &stat))
            }
            // Nothing is behind a file.
            _ => Ok(Step::End),
        }
    }

    fn enter(&mut self, name: &OsStr) -> Result<Step, TrustError> {
        self.here = openat(&self.here, name, DIRECTORY, Mode::empty()).map_err(self.fail("".as_ref()))?;
        self.stat = fstat(&self.here).map_err(self.fail("".as_ref()))?;
        Ok(Step::On)
    }

    fn follow(&mut self, name: &OsStr) -> Result<Step, TrustError> {
        let path = self.at.join(name);
        self.links += 1;
        if self.links > MOST_LINKS {
            return Err(TrustError::Links(path));
        }
        if fstatfs(&self.here).map_err(self.fail(name))?.f_type == PROC_SUPER_MAGIC {
            return Err(TrustError::Proc(path));
        }
        let to = readlinkat(&self.here, name, Vec::new()).map_err(self.fail(name))?;
        let to = PathBuf::from(OsString::from_vec(to.into_bytes()));
        self.push(&to);
        if to.is_absolute() {
            self.at = PathBuf::from("/");
            return self.enter("/".as_ref());
        }
        Ok(Step::On)
    }

    /// Returns whether an account is trusted with an entry of this directory, or with the directory itself.
    fn is_trusted(&self, uid: u32, name: &OsStr, is_last: bool) -> bool {
        let has_data = || {
            let path = |file: &str| Path::new(name).join(file);
            DATA_FILES.iter().any(|file| statat(&self.here, path(file), AtFlags::SYMLINK_NOFOLLOW).is_ok())
        };
        self.trusted.always.contains(&uid)
            || self.trusted.servers.contains(&uid)
                && (self.trusted.reach == Reach::Everywhere || is_last || has_data())
    }

    fn others_write(&self) -> Result<bool, TrustError> {
        let mode = self.stat.st_mode;
        Ok(mode & 0o002 != 0
            || mode & 0o020 != 0 && (self.has_acl() || self.trusted.admits_others(self.stat.st_gid)?))
    }

    /// Returns whether the directory has an ACL: the bits of the group are its mask then, and do not say who is
    /// in it.
    fn has_acl(&self) -> bool {
        let path = format!("/proc/self/fd/{}", self.here.as_raw_fd());
        match getxattr_query(path, "system.posix_acl_access") {
            Ok(length) => length > 0,
            Err(error) => !matches!(error, Errno::NODATA | Errno::OPNOTSUPP),
        }
    }
}

#[cfg(test)]
mod tests;
