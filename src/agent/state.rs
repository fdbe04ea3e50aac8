//! Directories of runs on a host: journals, which outlive a reboot, and lock files, which do not.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::geteuid;

use crate::proto::name::AgentName;

/// Name of the agent's program in the directory of its run.
pub(crate) const PROGRAM: &str = "transfer-agent";
/// Variable in which the bootstrap script passes on above which directory it has created others.
const ABOVE: &str = "TRANSFER_ABOVE";
/// Name of the journal in the directory of a run. Not that of the shell version's, which would take this journal
/// for an empty one and remove it.
pub(crate) const JOURNAL: &str = "journal.bin";
/// Name of the journal of the shell version.
pub(crate) const SHELL_JOURNAL: &str = "journal";
/// Prefix of the directory of an agent that is not ready yet, and has nothing to roll back.
pub(crate) const NEW: &str = ".new-";
/// Prefix of the directory of an agent that has rolled back everything.
pub(crate) const OLD: &str = ".old-";
/// Prefix of the directory with the program of an agent that has no journal.
pub(crate) const AGENT: &str = ".agent-";

/// Error of a directory that cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    /// The login has no home directory.
    #[error("cannot keep a journal: HOME is not set; set it or XDG_STATE_HOME")]
    NoHome,
    /// The directory cannot be created or opened.
    #[error("cannot use {}: {source}", path.display())]
    Open {
        /// Path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The directory belongs to another user.
    #[error("cannot use {}: it belongs to uid {uid}; remove it or change its owner", path.display())]
    Owner {
        /// Path.
        path: PathBuf,
        /// Owner.
        uid: u32,
    },
    /// Other users may write to the directory.
    #[error("cannot use {}: other users may write to it; change its mode to 0700", path.display())]
    Writable {
        /// Path.
        path: PathBuf,
    },
}

/// Directories of the runs of one user.
#[derive(Clone, Debug)]
pub(crate) struct Directories {
    state: PathBuf,
    runtime: PathBuf,
    /// Directory above those that were created for the program of this agent.
    above: Option<PathBuf>,
}

impl Directories {
    /// Returns the directories of the effective user.
    pub(crate) fn of_user() -> Result<Self, StateError> {
        let euid = geteuid();
        let variable =
            |name| std::env::var_os(name).map(PathBuf::from).filter(|path: &PathBuf| path.is_absolute());
        let above = variable(ABOVE);
        if euid.is_root() {
            return Ok(Self { above, ..Self::at("/var/lib/transfer", "/run/transfer") });
        }
        let state = variable("XDG_STATE_HOME")
            .or_else(|| variable("HOME").map(|home| home.join(".local/state")))
            .ok_or(StateError::NoHome)?
            .join("transfer");
        // Not in /tmp, where others could make it first.
        let runtime = variable("XDG_RUNTIME_DIR")
            .map_or_else(|| state.join(".locks"), |path| path.join(format!("transfer-{}", euid.as_raw())));
        Ok(Self { state, runtime, above })
    }

    /// Returns directories at other paths.
    pub(crate) fn at(state: impl Into<PathBuf>, runtime: impl Into<PathBuf>) -> Self {
        Self { state: state.into(), runtime: runtime.into(), above: None }
    }

    /// Returns the directory of journals.
    pub(crate) fn state(&self) -> &Path {
        &self.state
    }

    /// Returns the nearest directory at or above that of journals that existed before this agent came.
    pub(crate) fn above(&self) -> &Path {
        let above = self.above.as_deref().filter(|above| self.state.starts_with(above));
        let nearest = || self.state.ancestors().find(|path| path.exists());
        above.or_else(nearest).unwrap_or(Path::new("/"))
    }

    /// Returns the directory of lock files.
    pub(crate) fn runtime(&self) -> &Path {
        &self.runtime
    }

    /// Returns the directory of a run.
    pub(crate) fn run(&self, agent: &AgentName) -> PathBuf {
        self.state.join(agent.as_str())
    }

    /// Returns the directory of an agent that is not ready yet.
    pub(crate) fn new_run(&self, agent: &AgentName) -> PathBuf {
        self.state.join(format!("{NEW}{agent}"))
    }

    /// Returns the directory of an agent that has rolled back everything.
    pub(crate) fn old_run(&self, agent: &AgentName) -> PathBuf {
        self.state.join(format!("{OLD}{agent}"))
    }

    /// Removes remains of an agent that died before its first change or after its last undo, then the parents
    /// if they are empty.
    pub(crate) fn forget(&self, agent: &AgentName) -> io::Result<()> {
        remove(&self.new_run(agent))?;
        remove(&self.old_run(agent))?;
        self.prune();
        Ok(())
    }

    /// Removes the directories if they are empty.
    pub(crate) fn prune(&self) {
        // Usually other runs or the lock files' directory keep them.
        let _ = fs::remove_dir(&self.runtime);
        let _ = fs::remove_dir(&self.state);
    }
}

/// Creates a directory and its parents, for this user alone.
pub(crate) fn create(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a directory that must be this user's own.
pub(crate) fn open_owned(path: &Path) -> Result<OwnedFd, StateError> {
    let failed =
        |source: rustix::io::Errno| StateError::Open { path: path.to_owned(), source: source.into() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(failed)?;
    let found = rustix::fs::fstat(&directory).map_err(failed)?;
    if found.st_uid != geteuid().as_raw() {
        Err(StateError::Owner { path: path.to_owned(), uid: found.st_uid })
    } else if found.st_mode & 0o022 != 0 {
        Err(StateError::Writable { path: path.to_owned() })
    } else {
        Ok(directory)
    }
}

/// Removes a directory that others may be removing, too.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    for _ in 0..5 {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if fs::symlink_metadata(path).is_err() {
                    return Ok(());
                }
            }
            done => return done,
        }
    }
    fs::remove_dir_all(path)
}

/// Syncs the names in a directory.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Returns the boot ID, which changes when the host is rebooted.
pub(crate) fn boot_id() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn directory_of_others_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let (own, link) = (scratch.path().join("a/b"), scratch.path().join("link"));
        create(&own).unwrap();
        assert_eq!(fs::metadata(&own).unwrap().permissions().mode() & 0o777, 0o700);
        open_owned(&own).unwrap();
        symlink(&own, &link).unwrap();
        assert!(matches!(open_owned(&link), Err(StateError::Open { .. })));
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(open_owned(&own), Err(StateError::Writable { .. })));
        if geteuid().is_root() {
            std::os::unix::fs::chown(&own, Some(65534), None).unwrap();
            assert!(matches!(open_owned(&own), Err(StateError::Owner { uid: 65534, .. })));
        }
    }

    #[test]
    fn removal_accepts_a_missing_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("a");
        create(&path.join("b/c")).unwrap();
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn boot_has_an_identity() {
        assert_eq!(boot_id().unwrap().len(), 36);
    }
}
