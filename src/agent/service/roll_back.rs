//! Rollback of provisional data: the old data gets its name back, by the inodes in the journal.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags, openat, renameat_with, statat};

use crate::proto::HostBytes;
use crate::proto::server::DataDirectory;

use super::Service;
use super::units::UnitError;

/// Error of the rollback of provisional data.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RollBackError {
    /// The server does not stop.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// A server still works on the data.
    #[error("a server still works in {0}; stop it")]
    Served(HostBytes),
    /// The data, or the processes that work on it, are unknown.
    #[error("cannot determine what is in {path}, and whether a server works there: {source}")]
    Unknown {
        /// Data directory.
        path: HostBytes,
        /// Cause.
        source: io::Error,
    },
    /// The old data is elsewhere.
    #[error("the old data is not in {0} any more; find it, and exchange the two directories")]
    OldDataMissing(HostBytes),
    /// The names cannot be changed.
    #[error("cannot give {from} the name {to}: {source}")]
    Rename {
        /// Path.
        from: HostBytes,
        /// New path.
        to: HostBytes,
        /// Cause.
        source: io::Error,
    },
}

/// Directory that the agent holds open: whoever may change the names above it exchanges nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held<'a> {
    /// Path.
    pub(crate) path: &'a Path,
    /// Directory.
    pub(crate) directory: BorrowedFd<'a>,
}

/// Undo of a publication of provisional data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RollBack<'a> {
    /// Unit of systemd.
    pub(crate) unit: &'a str,
    /// Data directory and the inode of the new data.
    pub(crate) data: &'a DataDirectory,
    /// Inode of the old data, if there was any.
    pub(crate) old: Option<u64>,
    /// Path for the old data, or for the new data if there was no old data.
    pub(crate) aside: &'a HostBytes,
    /// Maximum time for the server to stop, in seconds.
    pub(crate) seconds: u64,
    /// Target directory, while the agent of the run holds it.
    pub(crate) held: Option<Held<'a>>,
}

impl Service<'_> {
    /// Rolls provisional data back: the server stops, and the old data gets its name back. Nothing happens if
    /// that was done already. The server does not run afterwards.
    pub(crate) fn roll_back(&self, undo: RollBack<'_>) -> Result<(), RollBackError> {
        let RollBack { unit, data, old, aside, seconds, held } = undo;
        if !is_provisional(data)? {
            return Ok(());
        }
        self.stop_unit(unit, seconds)?;
        // An agent that was killed while the server started has left it. The server starts with it or
        // without.
        let _ = self.remove_drop_in(unit);
        match self.surroundings.is_served(data.path.as_path(), None) {
            Ok(false) => {}
            Ok(true) => return Err(RollBackError::Served(data.path.clone())),
            Err(source) => return Err(RollBackError::Unknown { path: data.path.clone(), source }),
        }
        restore_name(data, old, aside, held)
    }
}

/// Gives the old data its name back, or takes it from the new data if there was no old data.
fn restore_name(
    data: &DataDirectory,
    old: Option<u64>,
    aside: &HostBytes,
    held: Option<Held<'_>>,
) -> Result<(), RollBackError> {
    let (from, to) = if old.is_some() { (aside, &data.path) } else { (&data.path, aside) };
    let failed = |source: io::Error| RollBackError::Rename { from: from.clone(), to: to.clone(), source };
    let of = |path| Place::of(path, held).map_err(failed);
    let (named, other) = (of(data.path.as_path())?, of(aside.as_path())?);
    if named.inode() != Some(data.inode) {
        return Err(failed(io::ErrorKind::NotFound.into()));
    }
    let flags = match old {
        None => RenameFlags::NOREPLACE,
        Some(old) if other.inode() == Some(old) => RenameFlags::EXCHANGE,
        Some(_) => return Err(RollBackError::OldDataMissing(aside.clone())),
    };
    renameat_with(&named.directory, named.name, &other.directory, other.name, flags)
        .map_err(|error| failed(error.into()))?;
    // A disk that refuses is no reason to take the data away again.
    for place in [named, other] {
        let _ = File::from(place.directory).sync_all();
    }
    Ok(())
}

/// Returns whether a data directory is provisional data. An error is not taken for a rollback that was done.
pub(crate) fn is_provisional(data: &DataDirectory) -> Result<bool, RollBackError> {
    match statat(CWD, data.path.as_path(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => Ok(found.st_ino == data.inode),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Ok(false),
        Err(error) => Err(RollBackError::Unknown { path: data.path.clone(), source: error.into() }),
    }
}

/// Name in a directory that stays open, so that the directory cannot be exchanged between two steps.
struct Place<'a> {
    directory: OwnedFd,
    name: &'a OsStr,
}

impl<'a> Place<'a> {
    fn of(path: &'a Path, held: Option<Held<'_>>) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match held.filter(|held| held.path == parent) {
            Some(held) => openat(held.directory, ".", flags, Mode::empty())?,
            None => openat(CWD, parent, flags, Mode::empty())?,
        };
        Ok(Self { directory, name })
    }

    fn inode(&self) -> Option<u64> {
        statat(&self.directory, self.name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|found| found.st_ino)
    }
}

/// Returns the inode of what has a name.
pub(super) fn inode(path: &Path) -> Option<u64> {
    statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).ok().map(|found| found.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::service::tests::{Fake, UNIT};
    use std::fs;
    use std::os::fd::AsFd as _;

    /// Scene: old data in `data`, and new data in `new`.
    struct Scene {
        fake: Fake,
        data: DataDirectory,
        old: u64,
        aside: HostBytes,
    }

    fn scene() -> Scene {
        let fake = Fake::new();
        for directory in ["data", "new"] {
            fs::create_dir(fake.path(directory)).unwrap();
        }
        let data = DataDirectory { path: HostBytes::from(&fake.path("data")), inode: ino(&fake, "new") };
        Scene { old: ino(&fake, "data"), aside: HostBytes::from(&fake.path("data.old-1")), data, fake }
    }

    impl Scene {
        fn roll_back(&self, old: Option<u64>) -> Result<(), RollBackError> {
            let directory = File::open(self.fake.path("")).unwrap();
            let path = self.fake.path("x");
            let held = Some(Held { path: path.parent().unwrap(), directory: directory.as_fd() });
            let undo = RollBack { unit: UNIT, data: &self.data, old, aside: &self.aside, seconds: 5, held };
            self.fake.service().roll_back(undo)
        }

        fn rename(&self, from: &str, to: &str) {
            fs::rename(self.fake.path(from), self.fake.path(to)).unwrap();
        }
    }

    fn ino(fake: &Fake, name: &str) -> u64 {
        inode(&fake.path(name)).unwrap()
    }

    #[test]
    fn old_data_gets_its_name_back() {
        let scene = scene();
        let (fake, old, new) = (&scene.fake, scene.old, scene.data.inode);
        // Not published yet: the old data is not touched.
        scene.roll_back(Some(old)).unwrap();
        assert_eq!(ino(fake, "data"), old);
        scene.rename("data", "data.old-1");
        scene.rename("new", "data");
        fs::write(fake.path("active"), "").unwrap();
        scene.roll_back(Some(old)).unwrap();
        assert_eq!((ino(fake, "data"), ino(fake, "data.old-1")), (old, new));
        assert!(!fake.path("active").exists());
        scene.roll_back(Some(old)).unwrap();
        assert_eq!(ino(fake, "data"), old);
    }

    #[test]
    fn new_data_without_old_data_loses_its_name() {
        let scene = scene();
        scene.rename("data", "elsewhere");
        scene.rename("new", "data");
        scene.roll_back(None).unwrap();
        assert!(!scene.fake.path("data").exists());
        assert_eq!(ino(&scene.fake, "data.old-1"), scene.data.inode);
    }

    #[test]
    fn data_is_not_exchanged_under_a_server_or_for_something_else() {
        let scene = scene();
        let old = Some(scene.old);
        scene.rename("data", "elsewhere");
        scene.rename("new", "data");
        let error = scene.roll_back(old).unwrap_err();
        assert!(matches!(error, RollBackError::OldDataMissing(_)), "{error}");
        fs::create_dir(scene.fake.path("data.old-1")).unwrap();
        let error = scene.roll_back(old).unwrap_err();
        assert!(matches!(error, RollBackError::OldDataMissing(_)), "{error}");
        let error = scene.roll_back(None).unwrap_err();
        assert!(matches!(error, RollBackError::Rename { .. }), "{error}");
        scene.fake.serve(&scene.fake.path("data"));
        let error = scene.roll_back(old).unwrap_err();
        assert!(matches!(error, RollBackError::Served(_)), "{error}");
        fs::write(scene.fake.path("fails"), "").unwrap();
        let error = scene.roll_back(old).unwrap_err();
        assert!(matches!(error, RollBackError::Unit(_)), "{error}");
        assert_eq!(ino(&scene.fake, "data"), scene.data.inode);
    }
}
