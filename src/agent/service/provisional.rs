//! Provisional data: new data that a server already runs on but that can still be rolled back.
//!
//! Until the commit, the journal has the inodes of the new and of the old data. Whoever rolls back stops the
//! server and gives the old data its name back, by these inodes.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, fchown, fstat, openat};

use crate::proto::HostBytes;
use crate::proto::journal::{Record, Undo};
use crate::proto::server::{DataDirectory, OldData, Provisional, StartServer, StartState, UpgradeMark};

use super::replication::ReplicationError;
use super::roll_back::inode;
use super::start::StartError;
use super::{Journal, Service};

/// Directories of a server's data directory that hold no databases of users.
const OWN: [&str; 4] = ["mysql", "performance_schema", "sys", "lost+found"];

/// Error of provisional data.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProvisionalError {
    /// The old data holds databases.
    #[error("{datadir} holds a database by now: {database}; move it away, or use --replace")]
    HoldsDatabase {
        /// Data directory.
        datadir: HostBytes,
        /// Name of one of them.
        database: HostBytes,
    },
    /// A file cannot be used.
    #[error("{path}: {source}")]
    File {
        /// Path.
        path: HostBytes,
        /// Cause.
        source: io::Error,
    },
    /// The journal cannot be written.
    #[error("cannot write the journal: {0}")]
    Journal(#[source] io::Error),
    /// The server cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The server works on other data.
    #[error("{unit} has no files open in {datadir}: it works in another directory")]
    Elsewhere {
        /// Unit.
        unit: String,
        /// Data directory.
        datadir: HostBytes,
    },
    /// The server cannot be logged in to, or goes on replicating.
    #[error("{unit}: {source} (its accounts are those of the copied server now)")]
    Replication {
        /// Unit.
        unit: String,
        /// Cause.
        source: ReplicationError,
    },
}

/// Journals that a server gets provisional data, before its publication. `arrived` is the directory in which
/// the copy has arrived. The caller holds the lock of the server if there is old data.
pub(crate) fn publish_provisionally(
    request: &Provisional,
    arrived: BorrowedFd<'_>,
    journal: &mut Journal<'_>,
) -> Result<(), ProvisionalError> {
    let datadir = request.datadir.as_path();
    let mut old = None;
    if datadir.is_dir() {
        // Of a link itself: it is what gets another name.
        old = inode(datadir);
        let database = databases(datadir).next().filter(|_| request.old == OldData::NoDatabases);
        if let Some(database) = database {
            return Err(ProvisionalError::HoldsDatabase { datadir: request.datadir.clone(), database });
        }
    }
    let staged = open_below(arrived, request.staged.as_path())
        .map_err(|source| ProvisionalError::File { path: request.staged.clone(), source })?;
    let new = fstat(&staged).map_err(io::Error::from);
    let new = new.map_err(|source| ProvisionalError::File { path: request.staged.clone(), source })?.st_ino;
    if let Some(mark) = &request.upgraded {
        // A server without it checks its tables once more.
        let _ = add_mark(staged.as_fd(), mark);
    }
    let data = DataDirectory { path: request.datadir.clone(), inode: new };
    let undos = [
        Undo::RolledBack { path: request.aside.clone(), inode: new },
        Undo::Provisional {
            unit: request.unit.clone(),
            data,
            old,
            aside: request.aside.clone(),
            seconds: request.seconds,
        },
    ];
    undos.into_iter().try_for_each(|undo| journal(Record::Lease(undo))).map_err(ProvisionalError::Journal)
}

impl Service<'_> {
    /// Starts a server with its provisional data: nothing replicates, and no client can write.
    pub(crate) fn start_provisionally(&self, request: &StartServer) -> Result<(), ProvisionalError> {
        let (unit, login) = (&request.unit, &request.server.login);
        let datadir = &request.server.datadir;
        self.start(unit, login, StartState::Isolated)?;
        // Before any statement: it may have been configured for another directory.
        match self.surroundings.is_served(datadir.as_path(), Some(unit)) {
            Ok(true) => {}
            Ok(false) => {
                return Err(ProvisionalError::Elsewhere { unit: unit.clone(), datadir: datadir.clone() });
            }
            Err(source) => return Err(ProvisionalError::File { path: datadir.clone(), source }),
        }
        if login.socket.is_empty() {
            return Ok(());
        }
        let client = self.client(login, Some(unit)).map_err(|error| ReplicationError::Unknown(error.into()));
        let stopped = client.and_then(|client| client.stop_replication());
        stopped.map_err(|source| ProvisionalError::Replication { unit: unit.clone(), source })
    }
}

/// Commits provisional data. The point of no return is one record: whoever dies here, all of the old server
/// comes back or all of the new one stays.
pub(crate) fn commit(journal: &mut Journal<'_>) -> Result<(), ProvisionalError> {
    journal(Record::Committed).map_err(ProvisionalError::Journal)
}

/// Returns the databases in a data directory that are not a server's own. A link to a directory is one, too, and so
/// is what cannot be examined.
pub(crate) fn databases(datadir: &Path) -> impl Iterator<Item = HostBytes> {
    let entries = fs::read_dir(datadir).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| fs::metadata(entry.path()).map_or(true, |found| found.is_dir()));
    let names = directories.map(|entry| HostBytes::from(&entry.file_name()));
    names.filter(|name| {
        let name = name.as_bytes();
        !name.starts_with(b".") && !name.starts_with(b"#") && !OWN.iter().any(|own| own.as_bytes() == name)
    })
}

/// Opens a directory below another one, without following links.
fn open_below(directory: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut opened = directory.try_clone_to_owned()?;
    for component in path.components() {
        let Component::Normal(name) = component else { return Err(io::ErrorKind::InvalidInput.into()) };
        opened = openat(&opened, name, flags, Mode::empty())?;
    }
    Ok(opened)
}

/// Adds the mark of an upgrade to a data directory, as a file of the directory's owner, if there is none.
fn add_mark(datadir: BorrowedFd<'_>, mark: &UpgradeMark) -> io::Result<()> {
    let name = &mark.file;
    if !name.starts_with('m') || !name.ends_with("_upgrade_info") || name.contains('/') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let owner = fstat(datadir)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(datadir, name.as_str(), flags, Mode::from_raw_mode(0o660))?);
    file.write_all(mark.version.as_bytes())?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(owner.st_uid), rustix::fs::Gid::from_raw(owner.st_gid));
    fchown(&file, Some(uid), Some(gid))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::service::tests::{Fake, UNIT};
    use crate::proto::server::Server;

    /// Scene: old data, and new data in a directory `arrived`.
    fn scene() -> (Fake, Provisional) {
        let fake = Fake::new();
        for directory in ["data", "data/mysql", "arrived", "arrived/new"] {
            fs::create_dir(fake.path(directory)).unwrap();
        }
        let request = Provisional {
            unit: UNIT.into(),
            datadir: HostBytes::from(&fake.path("data")),
            staged: HostBytes::from("new"),
            aside: HostBytes::from(&fake.path("data.old-1")),
            seconds: 5,
            old: OldData::NoDatabases,
            upgraded: Some(UpgradeMark {
                file: "mariadb_upgrade_info".into(),
                version: "10.11.6-MariaDB".into(),
            }),
        };
        (fake, request)
    }

    fn publish(fake: &Fake, request: &Provisional) -> Result<Vec<Undo>, ProvisionalError> {
        let arrived = File::open(fake.path("arrived")).unwrap();
        let mut undos = Vec::new();
        publish_provisionally(request, arrived.as_fd(), &mut |record| {
            let Record::Lease(undo) = record else { panic!("{record:?}") };
            undos.push(undo);
            Ok(())
        })?;
        Ok(undos)
    }

    #[test]
    fn both_inodes_are_journaled() {
        let (fake, request) = scene();
        let (old, new) = (inode(&fake.path("data")), inode(&fake.path("arrived/new")).unwrap());
        let [removed, provisional] = publish(&fake, &request).unwrap().try_into().unwrap();
        assert_eq!(removed, Undo::RolledBack { path: request.aside.clone(), inode: new });
        let Undo::Provisional { unit, data, old: journaled, aside, seconds } = provisional else { panic!() };
        assert_eq!((unit, data.path, data.inode), (request.unit.clone(), request.datadir.clone(), new));
        assert_eq!((journaled, aside, seconds), (old, request.aside.clone(), 5));
        let mark = fs::read_to_string(fake.path("arrived/new/mariadb_upgrade_info")).unwrap();
        assert_eq!(mark, "10.11.6-MariaDB");
        fs::remove_dir_all(fake.path("data")).unwrap();
        let undos = publish(&fake, &request).unwrap();
        assert!(matches!(undos[1], Undo::Provisional { old: None, .. }));
    }

    #[test]
    fn databases_are_kept_unless_replaced() {
        let (fake, mut request) = scene();
        // On another disk.
        std::os::unix::fs::symlink("/", fake.path("data/shop")).unwrap();
        fs::create_dir(fake.path("data/#innodb_redo")).unwrap();
        let error = publish(&fake, &request).unwrap_err().to_string();
        assert!(error.contains("holds a database by now: shop"), "{error}");
        request.old = OldData::Any;
        assert_eq!(publish(&fake, &request).unwrap().len(), 2);
    }

    #[test]
    fn mark_is_never_written_through_a_link() {
        let (fake, mut request) = scene();
        fs::write(fake.path("victim"), "kept").unwrap();
        std::os::unix::fs::symlink("../../victim", fake.path("arrived/new/mariadb_upgrade_info")).unwrap();
        publish(&fake, &request).unwrap();
        request.upgraded = Some(UpgradeMark { file: "m/../x_upgrade_info".into(), version: "1".into() });
        publish(&fake, &request).unwrap();
        assert_eq!(fs::read_to_string(fake.path("victim")).unwrap(), "kept");
        request.staged = HostBytes::from("../data");
        assert!(matches!(publish(&fake, &request), Err(ProvisionalError::File { .. })));
        std::os::unix::fs::symlink("../data", fake.path("arrived/link")).unwrap();
        request.staged = HostBytes::from("link");
        assert!(matches!(publish(&fake, &request), Err(ProvisionalError::File { .. })));
    }

    #[test]
    fn provisional_server_must_work_on_its_data() {
        let (fake, request) = scene();
        fake.login();
        fake.replicating(&[("", crate::proto::server::Threads { io: true, sql: true })]);
        let server = Server { login: fake.login(), datadir: request.datadir };
        let start = StartServer { unit: UNIT.into(), server };
        let error = fake.service().start_provisionally(&start).unwrap_err().to_string();
        assert!(error.contains("it works in another directory"), "{error}");
        assert!(fake.statements().is_empty());
        fake.serve(&fake.path("data"));
        fake.service().start_provisionally(&start).unwrap();
        assert_eq!(fake.statements(), ["STOP SLAVE ''"]);
        let options = fs::read_to_string(fake.path("started-with")).unwrap();
        assert!(options.contains("--read-only"), "{options}");
    }

    #[test]
    fn commit_is_one_record() {
        let mut records = Vec::new();
        commit(&mut |record| {
            records.push(record);
            Ok(())
        })
        .unwrap();
        assert_eq!(records, [Record::Committed]);
    }
}
