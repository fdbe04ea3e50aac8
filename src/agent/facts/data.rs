//! Facts about the data directory of a server that need no login.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, fstat, open, openat, statat};

use super::FactsError;
use super::tree::sums;
use crate::agent::accounts::Accounts;
use crate::agent::holders::Servers;
use crate::agent::mounts::is_mounted;
use crate::proto::facts::server::{DataFacts, InstanceFiles, MOST_DATABASES};
use crate::proto::{HostBytes, Text};

/// Files in which servers record the version of their last upgrade.
const UPGRADE_FILES: [&str; 2] = ["mariadb_upgrade_info", "mysql_upgrade_info"];
/// Maximum size of such a file in bytes.
const MOST: u64 = 64 << 10;
/// Directories of a server that are not databases of users.
const SYSTEM: [&str; 4] = ["mysql", "performance_schema", "sys", "lost+found"];

/// Returns the facts about a data directory, which may be missing. With a unit, `served` is whether the server of
/// that unit works there: a server that is logged in to does not decide what is replaced.
pub(crate) fn data(
    datadir: &Path,
    unit: Option<&str>,
    servers: &mut Servers,
) -> Result<DataFacts, FactsError> {
    let real = real(datadir);
    let mounted = is_mounted(&real).map_err(|source| FactsError::Examine { path: real.clone(), source })?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(&real, flags, Mode::empty()).ok();
    let upgraded = directory.as_ref().and_then(|directory| upgraded(directory, servers.accounts()));
    Ok(DataFacts {
        mounted,
        upgraded,
        databases: directory.as_ref().map(databases).unwrap_or_default(),
        served: servers.is_served(&real, unit)?,
        real: HostBytes::from(&real),
    })
}

/// Returns the owner and the size of the files of a running server that a backup contains: neither logs nor
/// temporary files. `binlog` is the path of the binlog files without their endings, or empty.
pub(crate) fn instance_files(
    datadir: &Path,
    binlog: &Path,
    accounts: &Accounts,
) -> Result<InstanceFiles, FactsError> {
    let fail =
        |error: rustix::io::Errno| FactsError::Examine { path: datadir.to_owned(), source: error.into() };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(datadir, flags, Mode::empty()).map_err(fail)?;
    let stat = fstat(&directory).map_err(fail)?;
    let binlog = binlog.strip_prefix(datadir).unwrap_or(Path::new("")).as_os_str().as_bytes();
    let sums = sums(directory, Path::new("."), &|path| {
        path.strip_prefix(b"././").is_some_and(|path| is_log(path, binlog))
    });
    Ok(InstanceFiles {
        user: accounts.user_name(stat.st_uid),
        group: accounts.group_name(stat.st_gid),
        size: sums.size,
    })
}

/// Returns whether a path below a data directory is a log or a temporary file.
fn is_log(path: &[u8], binlog: &[u8]) -> bool {
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
    let is_binlog = || path.strip_prefix(binlog).is_some_and(|rest| rest.starts_with(b"."));
    !binlog.is_empty() && is_binlog()
        || name.starts_with(b"ib_logfile")
        || name.starts_with(b"ibtmp")
        || name.windows(11).any(|part| part == b"-relay-bin.")
}

/// Returns a path with symbolic links resolved. Any number of its last components may be missing.
fn real(path: &Path) -> PathBuf {
    for (missing, above) in path.ancestors().enumerate() {
        if let Ok(mut real) = above.canonicalize() {
            let count = path.components().count();
            real.extend(path.components().skip(count - missing));
            return real;
        }
    }
    path.to_owned()
}

fn upgraded(directory: &OwnedFd, accounts: &Accounts) -> Option<(Text, Text)> {
    UPGRADE_FILES.into_iter().find_map(|name| {
        let content = read_owned(directory, name.as_ref(), MOST, accounts)?;
        let line = content.split(|&byte| byte == b'\n').next().unwrap_or_default();
        Some((Text::new(name), Text::new(&line[..line.len().min(100)])))
    })
}

/// Returns the databases, without those of the server itself. A link to a directory is one, too, and so is what
/// cannot be examined.
fn databases(directory: &OwnedFd) -> Vec<HostBytes> {
    let Ok(entries) = Dir::read_from(directory) else { return Vec::new() };
    let is_database = |name: &std::ffi::CStr| {
        let is_directory =
            |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        !name.to_bytes().starts_with(b".")
            && !name.to_bytes().starts_with(b"#")
            && !SYSTEM.iter().any(|system| system.as_bytes() == name.to_bytes())
            && statat(directory, name, AtFlags::empty()).map_or(true, is_directory)
    };
    let names: BTreeSet<Vec<u8>> = entries
        .map_while(Result::ok)
        .filter(|entry| is_database(entry.file_name()))
        .map(|entry| entry.file_name().to_bytes().to_vec())
        .collect();
    names.into_iter().take(MOST_DATABASES).map(HostBytes::from).collect()
}

/// Returns the content of a small regular file of a server that the owner of its directory may read. The owner may
/// have put a link, a pipe, or another name of a secret file there; those are none.
pub(crate) fn read_owned(
    directory: impl AsFd,
    name: &OsStr,
    most: u64,
    accounts: &Accounts,
) -> Option<Vec<u8>> {
    let owner = fstat(&directory).ok()?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let before = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    if FileType::from_raw_mode(before.st_mode) != FileType::RegularFile {
        return None;
    }
    let file = openat(&directory, name, flags, Mode::empty()).ok()?;
    let stat = fstat(&file).ok()?;
    let primary = accounts.user_of_id(owner.st_uid).ok()?.map(|user| user.gid);
    let readable = if owner.st_uid == 0 {
        true
    } else if stat.st_uid == owner.st_uid {
        stat.st_mode & 0o400 != 0
    } else if stat.st_gid == owner.st_gid || Some(stat.st_gid) == primary {
        stat.st_mode & 0o040 != 0
    } else {
        stat.st_mode & 0o004 != 0
    };
    let is_small = u64::try_from(stat.st_size).is_ok_and(|size| size <= most);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !readable || !is_small {
        return None;
    }
    let mut content = Vec::new();
    let mut file = std::io::Read::take(std::fs::File::from(file), most);
    std::io::Read::read_to_end(&mut file, &mut content).ok()?;
    Some(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::accounts::Login;
    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};

    fn servers() -> Servers {
        Servers::new(Login::of_agent(None))
    }

    #[test]
    fn databases_and_versions_are_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in ["shop", "mysql", "sys", "#innodb_temp", ".hidden", "lost+found"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::write(path("ibdata1"), "").unwrap();
        fs::write(path("mysql_upgrade_info"), "10.11.6-MariaDB\nrest").unwrap();
        symlink("/nowhere", path("sales")).unwrap();
        symlink("ibdata1", path("ibdata2")).unwrap();
        let facts = data(directory.path(), None, &mut servers()).unwrap();
        assert_eq!(facts.databases, ["sales", "shop"].map(HostBytes::from));
        assert_eq!(facts.upgraded, Some((Text::new("mysql_upgrade_info"), Text::new("10.11.6-MariaDB"))));
        assert!(!facts.mounted && !facts.served);
        let _open = File::options().append(true).open(path("ibdata1")).unwrap();
        assert!(data(directory.path(), None, &mut servers()).unwrap().served);
    }

    #[test]
    fn missing_directory_has_a_real_path() {
        let directory = tempfile::tempdir().unwrap();
        let above = directory.path().canonicalize().unwrap();
        symlink(&above, directory.path().join("link")).unwrap();
        let facts = data(&directory.path().join("link/no/data"), None, &mut servers()).unwrap();
        assert_eq!(facts.real, HostBytes::from(&above.join("no/data")));
        assert!(facts.databases.is_empty() && !facts.served);
    }

    #[test]
    fn logs_are_not_part_of_a_backup() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("shop")).unwrap();
        for name in [
            "ibdata1",
            "ib_logfile0",
            "ibtmp1",
            "log.000001",
            "log.index",
            "h-relay-bin.000001",
            "shop/t.ibd",
        ] {
            fs::write(path(name), "12345").unwrap();
        }
        let accounts = Accounts::parse(b"", b"");
        let files = instance_files(directory.path(), &path("log"), &accounts).unwrap();
        assert_eq!((files.size.entries, files.size.files, files.size.bytes), (4, 2, 10));
        let without = instance_files(directory.path(), Path::new(""), &accounts).unwrap();
        assert_eq!(without.size.files, 4);
    }

    #[test]
    fn files_that_the_owner_may_not_read_are_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let accounts = Accounts::parse(b"mysql:x:4322:4323::/:/\n", b"");
        let opened = || open(directory.path(), OFlags::RDONLY, Mode::empty()).unwrap();
        let read = |name: &str| read_owned(opened(), name.as_ref(), 10, &accounts);
        fs::write(path("info"), "text").unwrap();
        fs::write(path("long"), "more than ten bytes").unwrap();
        symlink("info", path("link")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        assert_eq!(read("info").as_deref(), Some(&b"text"[..]));
        for name in ["long", "link", "pipe", "missing"] {
            assert_eq!(read(name), None, "{name}");
        }
        if !rustix::process::geteuid().is_root() {
            return;
        }
        chown(directory.path(), Some(4322), Some(4322)).unwrap();
        for (uid, gid, mode, may) in [
            (0, 0, 0o640, false),
            (0, 0, 0o644, true),
            (0, 4323, 0o640, true),
            (0, 4322, 0o604, false),
            (4322, 0, 0o400, true),
            (4322, 0, 0o044, false),
        ] {
            chown(path("info"), Some(uid), Some(gid)).unwrap();
            fs::set_permissions(path("info"), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read("info").is_some(), may, "{uid} {gid} {mode:o}");
        }
    }
}
