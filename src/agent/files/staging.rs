//! The staging directory, in which a copy arrives.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, RenameFlags, fchmod, fremovexattr, fstat, mkdirat, renameat_with, unlinkat};
use rustix::io::Errno;

use super::open::{Mounts, directory_at, each_name};
use super::place::{Place, check_name};
use crate::proto::HostBytes;
use crate::proto::files::{Naming, Replace, StagingTask};
use crate::proto::journal::Undo;

/// Directory of the staging directory in which the copy arrives.
const COPY: &str = "copy";
/// Names with which the file system is tried.
const PROBES: [&str; 2] = [".probe", ".exchange"];

/// Function that writes an undo to the journal, before the change is made.
pub(crate) type Journal<'a> = &'a mut dyn FnMut(Undo) -> io::Result<()>;

/// Error of a staging directory that cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StagingError {
    /// The journal cannot be written.
    #[error("cannot write the journal: {0}")]
    Journal(#[source] io::Error),
    /// The path is not one of a staging directory.
    #[error("{0} is not a path for a staging directory")]
    Path(HostBytes),
    /// The target directory cannot be opened.
    #[error("cannot open {path}: {source}")]
    Target {
        /// Path of the target directory.
        path: HostBytes,
        /// Cause.
        source: io::Error,
    },
    /// The staging directory, or an entry of it, cannot be made.
    #[error("cannot create {path}: {source}")]
    Create {
        /// Path.
        path: HostBytes,
        /// Cause.
        source: io::Error,
    },
    /// The staging directory is not the one that was made.
    #[error("{0} was replaced by another directory")]
    Replaced(HostBytes),
    /// The file system cannot publish a copy.
    #[error("the file system of {path} cannot {ability}: {source}")]
    Unable {
        /// Path of the staging directory.
        path: HostBytes,
        /// Missing ability.
        ability: &'static str,
        /// Cause.
        source: io::Error,
    },
}

/// Staging directory of this run, held open: where others may change the names above it, they exchange nothing.
/// The outer directory protects the inner one, in which programs work that read a stream.
#[derive(Debug)]
pub(crate) struct StagingDirectory {
    target_path: PathBuf,
    name: OsString,
    target: OwnedFd,
    copy: OwnedFd,
}

impl StagingDirectory {
    /// Creates the staging directory, on a file system that can publish as required.
    pub(crate) fn create(task: &StagingTask, journal: Journal<'_>) -> Result<Self, StagingError> {
        let path = &task.path;
        let (Some(target_path), Some(name)) = (path.as_path().parent(), path.as_path().file_name()) else {
            return Err(StagingError::Path(path.clone()));
        };
        if !path.as_path().is_absolute() {
            return Err(StagingError::Path(path.clone()));
        }
        journal(Undo::Staging { path: path.clone(), keep: task.keep }).map_err(StagingError::Journal)?;
        let target = Place::of(path.as_path())
            .and_then(|place| place.ok_or_else(|| Errno::NOENT.into()))
            .map_err(|source| StagingError::Target { path: target_path.into(), source })?
            .directory;
        let failed = |source: io::Error| StagingError::Create { path: path.clone(), source };
        mkdirat(&target, name, Mode::RWXU).map_err(|error| failed(error.into()))?;
        let staging = owned_and_empty(target.as_fd(), name).map_err(failed)?;
        let staging = staging.ok_or_else(|| StagingError::Replaced(path.clone()))?;
        protect(staging.as_fd()).map_err(failed)?;
        probe(staging.as_fd(), path, task.naming)?;
        let copy = make_directory(staging.as_fd(), COPY.as_ref()).map_err(failed)?;
        if !task.inner.is_empty() {
            check_name(task.inner.as_os_str())
                .and_then(|()| make_directory(copy.as_fd(), task.inner.as_os_str()))
                .map_err(failed)?;
        }
        Ok(Self { target_path: target_path.to_owned(), name: name.to_owned(), target, copy })
    }

    /// Returns the directory in which the copy arrives.
    pub(crate) fn copy(&self) -> BorrowedFd<'_> {
        self.copy.as_fd()
    }

    /// Returns the target directory.
    pub(crate) fn target(&self) -> BorrowedFd<'_> {
        self.target.as_fd()
    }

    /// Returns the path of the target directory, for undos.
    pub(crate) fn target_path(&self) -> &Path {
        &self.target_path
    }

    /// Returns the path of the staging directory, for undos.
    pub(crate) fn path(&self) -> HostBytes {
        self.path_of(&self.name)
    }

    /// Returns the path of a name in the target directory, for undos.
    pub(crate) fn path_of(&self, name: &OsStr) -> HostBytes {
        HostBytes::from(&self.target_path.join(name))
    }

    /// Returns the path of a staged name, for undos.
    pub(crate) fn staged_path(&self, name: &OsStr) -> HostBytes {
        HostBytes::from(&self.target_path.join(&self.name).join(COPY).join(name))
    }
}

/// Opens the directory that was just made; `None` if it is not ours, or not empty.
fn owned_and_empty(target: BorrowedFd<'_>, name: &OsStr) -> io::Result<Option<OwnedFd>> {
    let staging = directory_at(target, name, Mounts::Cross)?;
    let mut is_ours = fstat(&staging)?.st_uid == rustix::process::geteuid().as_raw();
    each_name(staging.as_fd(), |_, _| {
        is_ours = false;
        Ok(false)
    })?;
    Ok(is_ours.then_some(staging))
}

/// Removes what a directory has inherited from the one above it: the setgid bit and a default ACL.
fn protect(directory: BorrowedFd<'_>) -> io::Result<()> {
    fchmod(directory, Mode::RWXU)?;
    match fremovexattr(directory, c"system.posix_acl_default") {
        Ok(()) | Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn make_directory(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    mkdirat(parent, name, Mode::RWXU)?;
    directory_at(parent, name, Mounts::Cross)
}

/// Tries the renames with which the copy will be published: some file systems refuse or ignore their flags.
fn probe(staging: BorrowedFd<'_>, path: &HostBytes, naming: Naming) -> Result<(), StagingError> {
    let [one, other] = PROBES;
    let make = |name: &str| {
        mkdirat(staging, name, Mode::RWXU)
            .map_err(|error| StagingError::Create { path: path.clone(), source: error.into() })
    };
    let unable = |ability: &'static str| {
        move |source: io::Error| StagingError::Unable { path: path.clone(), ability, source }
    };
    let exists = |name: &str| -> io::Result<u64> {
        Ok(rustix::fs::statat(staging, name, AtFlags::SYMLINK_NOFOLLOW)?.st_ino)
    };
    make(one)?;
    renameat_with(staging, one, staging, other, RenameFlags::NOREPLACE)
        .map_err(|error| unable("rename without replacing")(error.into()))?;
    make(one)?;
    match renameat_with(staging, one, staging, other, RenameFlags::NOREPLACE) {
        Err(Errno::EXIST) => {}
        // The flag was ignored.
        Ok(()) => return Err(unable("rename without replacing")(ignored())),
        Err(error) => return Err(unable("rename without replacing")(error.into())),
    }
    if matches!(naming, Naming::Rename(Replace::Remove | Replace::Keep)) {
        let exchange = || -> io::Result<()> {
            let before = (exists(one)?, exists(other)?);
            renameat_with(staging, one, staging, other, RenameFlags::EXCHANGE)?;
            if (exists(other)?, exists(one)?) == before { Ok(()) } else { Err(ignored()) }
        };
        exchange().map_err(unable("exchange two names"))?;
    }
    for name in PROBES {
        let _ = unlinkat(staging, name, AtFlags::REMOVEDIR);
    }
    Ok(())
}

fn ignored() -> io::Error {
    io::Error::other("the request was ignored")
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    /// Returns a task for a staging directory of the agent `RUN-target`.
    fn task(target: &Path, naming: Naming, inner: &str) -> StagingTask {
        let path = HostBytes::from(&target.join(".transfer-RUN-target"));
        StagingTask { path, keep: false, naming, inner: HostBytes::from(inner) }
    }

    #[test]
    fn directories_are_private_and_journaled_first() {
        let target = tempfile::tempdir().unwrap();
        let has_acls = Command::new("setfacl")
            .args(["-d", "-m", "u:65534:rwx"])
            .arg(target.path())
            .status()
            .is_ok_and(|status| status.success());
        fs::set_permissions(target.path(), fs::Permissions::from_mode(0o2755)).unwrap();
        let task = task(target.path(), Naming::Rename(Replace::Keep), "inner");
        let mut undos = Vec::new();
        let staging = StagingDirectory::create(&task, &mut |undo| {
            assert!(!task.path.as_path().exists());
            undos.push(undo);
            Ok(())
        })
        .unwrap();
        assert_eq!(undos, [Undo::Staging { path: task.path.clone(), keep: false }]);
        let mode =
            |path: &str| fs::metadata(task.path.as_path().join(path)).unwrap().permissions().mode() & 0o7777;
        for path in ["", "copy", "copy/inner"] {
            assert_eq!(mode(path), 0o700, "{path}");
        }
        if has_acls {
            let acl = Command::new("getfacl").arg("-d").arg(task.path.as_path()).output().unwrap();
            assert!(!String::from_utf8_lossy(&acl.stdout).contains("65534"));
        }
        let names: Vec<_> = fs::read_dir(task.path.as_path()).unwrap().collect();
        assert_eq!(names.len(), 1);
        assert_eq!(staging.staged_path("x".as_ref()), HostBytes::from(&task.path.as_path().join("copy/x")));
        // Whatever the names lead to by now.
        fs::rename(task.path.as_path(), target.path().join("moved")).unwrap();
        mkdirat(staging.copy(), "new", Mode::RWXU).unwrap();
        assert!(target.path().join("moved/copy/new").exists());
    }

    #[test]
    fn existing_names_and_journals_that_fail_create_nothing() {
        let target = tempfile::tempdir().unwrap();
        let task = task(target.path(), Naming::Fill, "");
        let error = StagingDirectory::create(&task, &mut |_| Err(io::Error::other("full"))).unwrap_err();
        assert_eq!(error.to_string(), "cannot write the journal: full");
        assert!(!task.path.as_path().exists());
        File::create(task.path.as_path()).unwrap();
        let error = StagingDirectory::create(&task, &mut |_| Ok(())).unwrap_err();
        assert!(error.to_string().ends_with("File exists (os error 17)"), "{error}");
    }

    #[test]
    fn missing_targets_are_named() {
        let target = tempfile::tempdir().unwrap();
        let task = task(&target.path().join("missing"), Naming::Fill, "");
        let error = StagingDirectory::create(&task, &mut |_| Ok(())).unwrap_err().to_string();
        assert!(error.starts_with("cannot open ") && error.contains("/missing: No such file"), "{error}");
    }
}
