//! Account and password by which a server replicates. The server keeps them in a file of its data directory.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use zeroize::Zeroizing;

/// Maximum size in bytes of the file.
const FILE_LIMIT: u64 = 64 << 10;
/// Number of the line with the account. The password is in the next one.
const ACCOUNT_LINE: usize = 4;

/// Account with its password.
pub(crate) struct ReplicationAccount {
    /// Name of the account.
    pub(crate) user: Zeroizing<String>,
    /// Password.
    pub(crate) password: Zeroizing<String>,
}

/// Reads the account by which the server of a data directory replicates from a connection. `None` if there is
/// none.
pub(crate) fn read(datadir: &Path, connection: &str) -> io::Result<Option<ReplicationAccount>> {
    let name = match connection {
        "" => "master.info".to_owned(),
        // In names of files, the server encodes other characters; such a file is not found.
        name => format!("master-{}.info", name.to_ascii_lowercase()),
    };
    if name.contains('/') {
        return Ok(None);
    }
    let Some(text) = read_owned(datadir, &name)? else { return Ok(None) };
    let Ok(text) = std::str::from_utf8(&text) else { return Ok(None) };
    let mut lines = text.lines().skip(ACCOUNT_LINE).map(|line| Zeroizing::new(line.to_owned()));
    let Some(user) = lines.next().filter(|user| !user.is_empty()) else { return Ok(None) };
    Ok(Some(ReplicationAccount { user, password: lines.next().unwrap_or_default() }))
}

/// Reads a small file that belongs to the owner of its directory, who may have put a link to another file
/// there, or a pipe.
fn read_owned(directory: &Path, name: &str) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = openat(CWD, directory, flags | OFlags::DIRECTORY, Mode::empty())?;
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match openat(&directory, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::LOOP | rustix::io::Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let (owner, found) = (fstat(&directory)?, fstat(&file)?);
    let is_file = FileType::from_raw_mode(found.st_mode) == FileType::RegularFile;
    // A hard link to a file of another account would show its contents.
    if !is_file
        || found.st_uid != owner.st_uid
        || u64::try_from(found.st_size).is_ok_and(|size| size > FILE_LIMIT)
    {
        return Ok(None);
    }
    let mut text = Zeroizing::new(Vec::with_capacity(4096));
    File::from(file).take(FILE_LIMIT).read_to_end(&mut text)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    const TEXT: &str = "33\nmaster-bin.000001\n1234\ndb1\nrepl\nsecret'\"\n3306\n60\n";

    fn user(datadir: &Path, connection: &str) -> Option<String> {
        read(datadir, connection).unwrap().map(|account| format!("{}:{}", *account.user, *account.password))
    }

    #[test]
    fn accounts_of_connections_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let datadir = directory.path();
        assert_eq!(user(datadir, ""), None);
        fs::write(datadir.join("master.info"), TEXT).unwrap();
        fs::write(datadir.join("master-one.info"), TEXT.replace("repl", "other")).unwrap();
        assert_eq!(user(datadir, "").unwrap(), "repl:secret'\"");
        assert_eq!(user(datadir, "ONE").unwrap(), "other:secret'\"");
        assert_eq!(user(datadir, "../x"), None);
        fs::write(datadir.join("master.info"), "33\n\n4\n\n\n\n3306\n").unwrap();
        assert_eq!(user(datadir, ""), None);
        assert!(read(&datadir.join("none"), "").is_err());
    }

    #[test]
    fn links_pipes_and_files_of_others_are_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let datadir = directory.path();
        fs::write(datadir.join("target"), TEXT).unwrap();
        symlink("target", datadir.join("master.info")).unwrap();
        assert_eq!(user(datadir, ""), None);
        fs::remove_file(datadir.join("master.info")).unwrap();
        let mode = Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, datadir.join("master.info"), FileType::Fifo, mode, 0).unwrap();
        assert_eq!(user(datadir, ""), None);
        fs::rename(datadir.join("target"), datadir.join("master.info")).unwrap();
        assert!(user(datadir, "").is_some());
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(datadir.join("master.info"), Some(65534), None).unwrap();
            assert_eq!(user(datadir, ""), None);
        }
    }
}
