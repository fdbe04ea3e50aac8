//! Facts about the path of a source.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, Stat, accessat, open, openat, statat};

use super::FactsError;
use super::archive::archive;
use super::owners::owners_of;
use super::tree::{Sums, sums};
use crate::agent::holders::Servers;
use crate::agent::mounts::Place;
use crate::agent::proc::id;
use crate::proto::HostBytes;
use crate::proto::facts::path::{Owners, PathType, SourceFacts, SourceQuery};
use crate::proto::facts::server::Relation;
use crate::proto::facts::{Transfer, TreeSize};

/// Returns the facts about a source. `is_excluded` decides about paths that begin with `./NAME`. The lock of a
/// quiesced server is for the caller to look up.
pub(crate) fn source(
    query: &SourceQuery,
    servers: &mut Servers,
    is_excluded: &dyn Fn(&[u8]) -> bool,
) -> Result<SourceFacts, FactsError> {
    let path = query.path.as_path();
    let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).ok();
    let path_type = stat.as_ref().map_or(PathType::Missing, path_type);
    let place = place(path);
    let mut facts = SourceFacts {
        path_type,
        readable: may(path, Access::READ_OK),
        real: HostBytes::from(&real(path)),
        place: place.and_then(|place| place.in_file_system()).as_ref().map(HostBytes::from),
        id: None,
        quiesced: None,
        archive: None,
        size: TreeSize::default(),
        owners: Owners::default(),
        servers: Vec::new(),
        other_servers: Vec::new(),
    };
    let is_closed = path_type == PathType::Directory && !may(path, Access::EXEC_OK);
    if is_closed || path == Path::new("/") || !matches!(path_type, PathType::Directory | PathType::File) {
        return Ok(facts);
    }
    facts.id = stat.as_ref().map(id);
    let sums = tree(path, is_excluded)?;
    facts.size = sums.size;
    facts.owners = owners_of(servers.accounts(), &sums.users, &sums.groups);
    let near = servers.near(path, &[Relation::Within, Relation::Around])?;
    (facts.servers, facts.other_servers) = (near.servers, near.others);
    if query.transfer == Transfer::Decompress && path_type == PathType::File {
        facts.archive = archive(path);
    }
    Ok(facts)
}

fn tree(path: &Path, is_excluded: &dyn Fn(&[u8]) -> bool) -> Result<Sums, FactsError> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(Sums::default()) };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fail =
        |error: rustix::io::Errno| FactsError::Examine { path: parent.to_owned(), source: error.into() };
    let directory = openat(CWD, parent, flags, Mode::empty()).map_err(fail)?;
    Ok(sums(directory, Path::new(name), is_excluded))
}

/// Returns the type of a file.
pub(super) fn path_type(stat: &Stat) -> PathType {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => PathType::Directory,
        FileType::RegularFile => PathType::File,
        FileType::Symlink => PathType::Symlink,
        FileType::Socket => PathType::Socket,
        FileType::Fifo => PathType::Fifo,
        _ => PathType::Device,
    }
}

/// Returns whether the agent may use a path so.
pub(super) fn may(path: &Path, access: Access) -> bool {
    accessat(CWD, path, access, AtFlags::EACCESS).is_ok()
}

/// Returns a path with symbolic links resolved; its last component may be missing. Empty where that fails.
pub(super) fn real(path: &Path) -> PathBuf {
    let below_parent = || Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    path.canonicalize().ok().or_else(below_parent).unwrap_or_default()
}

/// Returns the place of a directory or regular file in its file system. Nothing is waited for.
pub(super) fn place(path: &Path) -> Option<Place> {
    let file = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(file.as_fd()).ok()?;
    matches!(path_type(&stat), PathType::Directory | PathType::File).then(|| Place::of(&file).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::accounts::Login;
    use std::fs;

    fn facts(path: &Path, transfer: Transfer) -> SourceFacts {
        let query = SourceQuery { transfer, path: HostBytes::from(path), exclude: Vec::new() };
        source(&query, &mut Servers::new(Login::of_agent(None)), &|path| path == b"./data/skip").unwrap()
    }

    #[test]
    fn directory_has_size_owners_and_identity() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        fs::create_dir_all(data.join("skip/more")).unwrap();
        fs::write(data.join("ibdata1"), "12345").unwrap();
        let facts = facts(&data, Transfer::Files);
        assert_eq!((facts.path_type, facts.readable), (PathType::Directory, true));
        assert_eq!((facts.size.entries, facts.size.files, facts.size.bytes), (2, 1, 5));
        assert_eq!(facts.real, HostBytes::from(&data.canonicalize().unwrap()));
        assert_eq!(facts.id, Some(id(&rustix::fs::stat(&data).unwrap())));
        assert!(facts.place.is_some() && facts.archive.is_none() && facts.servers.is_empty());
        assert!(!facts.owners.users.is_empty());
    }

    #[test]
    fn server_on_the_path_is_reported() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        fs::create_dir(&data).unwrap();
        let _open = fs::File::create(data.join("ibdata1")).unwrap();
        let servers = |path: &Path| facts(path, Transfer::Files).servers;
        assert_eq!(servers(&data)[0].relation, Relation::Within);
        assert_eq!(servers(directory.path())[0].relation, Relation::Around);
        assert_eq!(servers(&data)[0].datadir, HostBytes::from(&data.canonicalize().unwrap()));
    }

    #[test]
    fn other_types_are_named_and_not_opened() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::os::unix::fs::symlink("missing", path("link")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        fs::write(path("file"), "text").unwrap();
        for (name, path_type) in [
            ("link", PathType::Symlink),
            ("socket", PathType::Socket),
            ("pipe", PathType::Fifo),
            ("missing", PathType::Missing),
            ("file/below", PathType::Missing),
        ] {
            let facts = facts(&path(name), Transfer::Decompress);
            assert_eq!((facts.path_type, facts.id, facts.size.entries), (path_type, None, 0), "{name}");
        }
        assert!(facts(&path("file"), Transfer::Decompress).archive.is_some());
        assert!(facts(&path("file"), Transfer::Files).archive.is_none());
    }
}
