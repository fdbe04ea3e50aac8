//! Facts about the directory of a target.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    Access, AtFlags, CWD, Dir, Mode, OFlags, Stat, StatVfsMountFlags, fstat, fstatvfs, ioctl_getflags, open,
    openat, statat,
};

use super::owners::{all_owners, unknown};
use super::source::{may, path_type};
use super::{FactsError, explain};
use crate::agent::holders::{Near, Servers};
use crate::agent::mounts::{Place, is_mounted};
use crate::agent::proc::id;
use crate::agent::trust::{Trusted, shared_component};
use crate::proto::facts::Transfer;
use crate::proto::facts::path::{DirectoryFacts, Existing, PathTrust, PathType, TargetFacts, TargetQuery};
use crate::proto::facts::server::Relation;
use crate::proto::files::AttributeKinds;
use crate::proto::{HostBytes, Text};

/// Types of file systems that are case-insensitive.
const FOLDING: [&str; 11] =
    ["msdos", "vfat", "exfat", "ntfs", "ntfs3", "cifs", "smb2", "smb3", "hfs", "hfsplus", "umsdos"];
/// Flag of a directory in which names are case-insensitive.
const CASEFOLD: u32 = 0x4000_0000;
/// Endings of the digest files of an archive.
const DIGEST_FILES: [&str; 2] = [".sha256", ".md5"];

/// Returns the facts about a target. The attributes that its file system lacks and the lock of the final name are
/// for the caller to look up.
pub(crate) fn target(query: &TargetQuery, servers: &mut Servers) -> Result<TargetFacts, FactsError> {
    let path = query.directory.as_path();
    let stat = statat(CWD, path, AtFlags::empty()).ok();
    let mut facts =
        TargetFacts { path_type: stat.as_ref().map_or(PathType::Missing, path_type), directory: None };
    if facts.path_type == PathType::Directory {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(path, flags, Mode::empty()).map_err(fail(path))?;
        facts.directory = Some(of_directory(query, &directory, servers)?);
    }
    Ok(facts)
}

fn of_directory(
    query: &TargetQuery,
    directory: &OwnedFd,
    servers: &mut Servers,
) -> Result<DirectoryFacts, FactsError> {
    let path = query.directory.as_path();
    let stat = fstat(directory).map_err(fail(path))?;
    let place =
        Place::of(directory).map_err(|source| FactsError::Examine { path: path.to_owned(), source })?;
    let system = fstatvfs(directory).map_err(fail(path))?;
    let file_system = place.mount.as_ref().map_or("", |mount| mount.file_system.as_str());
    let trust = trust(path, servers);
    let (name, final_path) = (query.name.as_os_str(), path.join(query.name.as_path()));
    let fills = query.name.is_empty();
    let existing = if fills { Existing::Nothing } else { existing(directory.as_fd(), query) };
    let exists = existing != Existing::Nothing;
    let near = near(&final_path, path, fills || exists, servers)?;
    let mounted = if !exists || name.is_empty() { Ok(false) } else { is_mounted(&final_path) };
    let accounts = servers.accounts();
    Ok(DirectoryFacts {
        id: id(&stat),
        real: HostBytes::from(&place.real),
        place: place.in_file_system().as_ref().map(HostBytes::from),
        trust,
        owner: accounts.user_name(stat.st_uid),
        writable: may(path, Access::WRITE_OK | Access::EXEC_OK),
        read_only: system.f_flag.contains(StatVfsMountFlags::RDONLY),
        folds_case: FOLDING.contains(&file_system) || folds_case(path),
        file_system: Text::new(file_system),
        lacks: AttributeKinds::new(),
        free_bytes: system.f_bavail.saturating_mul(system.f_frsize),
        free_inodes: (system.f_files > 0).then_some(system.f_ffree),
        holds: if fills { holds(path)? } else { None },
        existing,
        mounted: mounted.map_err(|source| FactsError::Examine { path: final_path, source })?,
        busy: None,
        owners: all_owners(accounts),
        unknown_owners: unknown(accounts, &query.user, &query.group)?,
        servers: near.servers,
        other_servers: near.others,
    })
}

fn fail(path: &Path) -> impl Fn(rustix::io::Errno) -> FactsError + use<> {
    let path = path.to_owned();
    move |error| FactsError::Examine { path: path.clone(), source: error.into() }
}

/// Returns whether other accounts can redirect the copy. The accounts of servers are looked up only where they
/// matter.
fn trust(path: &Path, servers: &Servers) -> PathTrust {
    let trusted = Trusted::new(servers.login(), servers.accounts());
    let shared = match shared_component(path, &trusted) {
        Ok(Some(_)) => match servers.server_uids("") {
            Ok(uids) => shared_component(path, &trusted.with_servers_of_data(uids)),
            Err(error) => Err(error.into()),
        },
        shared => shared,
    };
    match shared {
        Ok(None) => PathTrust::Trusted,
        Ok(Some(shared)) => PathTrust::Shared(shared),
        Err(error) => PathTrust::Unknown(explain(&error)),
    }
}

/// Returns what exists where the copy is to be published: an archive has a digest file beside it.
fn existing(directory: BorrowedFd<'_>, query: &TargetQuery) -> Existing {
    let stat = |name: &Path| -> Option<Stat> { statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok() };
    if let Some(stat) = stat(query.name.as_path()) {
        return Existing::Entry(id(&stat));
    }
    let has_digest = || {
        DIGEST_FILES.iter().any(|ending| {
            let mut name = query.name.as_os_str().to_owned();
            name.push(ending);
            stat(Path::new(&name)).is_some()
        })
    };
    if query.transfer == Transfer::Compress && has_digest() {
        Existing::DigestFile
    } else {
        Existing::Nothing
    }
}

/// Returns the servers whose data the final name concerns. Where there is nothing yet, the directory may be in the
/// data of one.
fn near(
    final_path: &Path,
    directory: &Path,
    exists: bool,
    servers: &mut Servers,
) -> Result<Near, FactsError> {
    Ok(if exists {
        servers.near(final_path, &[Relation::Within, Relation::Around])?
    } else {
        servers.near(directory, &[Relation::Within])?
    })
}

/// Returns the name of something that is in a directory already: not what every file system has, and not what runs
/// stage.
fn holds(path: &Path) -> Result<Option<HostBytes>, FactsError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(directory) = open(path, flags, Mode::empty()) else { return Ok(None) };
    for entry in Dir::new(directory).map_err(fail(path))? {
        let entry = entry.map_err(fail(path))?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b".." | b"lost+found") && !name.starts_with(b".transfer-") {
            return Ok(Some(HostBytes::from(name.to_vec())));
        }
    }
    Ok(None)
}

fn folds_case(path: &Path) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, path, flags, Mode::empty());
    directory
        .is_ok_and(|directory| ioctl_getflags(&directory).is_ok_and(|flags| flags.bits() & CASEFOLD != 0))
}

#[cfg(test)]
mod tests;
