//! Digest of an archive, read back from the disk, and the digest file beside it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Advice, Mode, OFlags, fadvise, fsync, openat};

use super::digest::{BUFFER, Digester};
use super::durable::{Durability, drop_cache, sync_directory, sync_file_system};
use super::list::render::render_line;
use super::open::Confined;
use super::place::check_name;
use crate::proto::HostBytes;
use crate::proto::files::DigestKind;

/// Error of an archive that cannot be digested.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// The archive cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// Name of the archive.
        path: HostBytes,
        /// Cause.
        source: io::Error,
    },
    /// The digest file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Name of the digest file.
        path: HostBytes,
        /// Cause.
        source: io::Error,
    },
    /// Written data cannot be synced.
    #[error("cannot sync the file system: {0}")]
    Sync(#[source] io::Error),
}

/// Progress of an archive's digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArchiveProgress {
    /// Written data is synced; no movement is visible.
    Syncing,
    /// Bytes of the archive that were read.
    Read(u64),
}

/// Syncs an archive if required, reads it back from the disk, writes its digest file beside it and returns the
/// digest.
pub(crate) fn digest_archive(
    directory: BorrowedFd<'_>,
    name: &OsStr,
    kind: DigestKind,
    durability: Durability,
    report: &mut dyn FnMut(ArchiveProgress),
) -> Result<String, ArchiveError> {
    let failed = |source: io::Error| ArchiveError::Read { path: name.into(), source };
    check_name(name).map_err(failed)?;
    if durability == Durability::Synced {
        report(ArchiveProgress::Syncing);
        sync_file_system(directory).map_err(ArchiveError::Sync)?;
    }
    let archive = Confined::new(directory).file(Path::new(name)).map_err(failed)?;
    drop_cache(archive.as_fd());
    let _ = fadvise(&archive, 0, None, Advice::Sequential);
    let (mut digester, mut total) = (Digester::new(kind), 0);
    report(ArchiveProgress::Read(0));
    digester
        .read(&archive, u64::MAX, &mut vec![0; BUFFER], |bytes| {
            total += bytes;
            report(ArchiveProgress::Read(total));
        })
        .map_err(failed)?;
    let digest = digester.finish();
    if durability == Durability::Synced {
        report(ArchiveProgress::Syncing);
    }
    let digest_file = digest_name(name, kind);
    write(directory, &digest_file, &render_line(digest.as_bytes(), name.as_bytes()), durability)
        .map_err(|source| ArchiveError::Write { path: HostBytes::from(&digest_file), source })?;
    Ok(digest)
}

/// Returns the name of an archive's digest file.
pub(crate) fn digest_name(archive: &OsStr, kind: DigestKind) -> OsString {
    let extension = match kind {
        DigestKind::Md5 => ".md5",
        DigestKind::Sha256 => ".sha256",
        DigestKind::Blake2b => ".b2",
        DigestKind::Blake3 => ".b3",
    };
    [archive, OsStr::new(extension)].into_iter().collect()
}

fn write(directory: BorrowedFd<'_>, name: &OsStr, line: &[u8], durability: Durability) -> io::Result<()> {
    // Not one that waits, if a stream has made a FIFO of that name.
    let flags = OFlags::WRONLY
        | OFlags::CREATE
        | OFlags::TRUNC
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC;
    let mut file = File::from(openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?);
    file.write_all(line)?;
    if durability == Durability::Synced {
        fsync(&file)?;
        sync_directory(directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn digest_files_are_accepted_by_the_programs() {
        let tree = tempfile::tempdir().unwrap();
        let directory = File::open(tree.path()).unwrap();
        for (kind, program) in
            [(DigestKind::Md5, "md5sum"), (DigestKind::Sha256, "sha256sum"), (DigestKind::Blake2b, "b2sum")]
        {
            for name in ["archive.tar", "new\nline\\.tar"] {
                fs::write(tree.path().join(name), vec![7; 300_000]).unwrap();
                let mut reports = Vec::new();
                let digest = digest_archive(
                    directory.as_fd(),
                    name.as_ref(),
                    kind,
                    Durability::Synced,
                    &mut |report| reports.push(report),
                )
                .unwrap();
                let file = tree.path().join(digest_name(name.as_ref(), kind));
                assert!(fs::read_to_string(&file).unwrap().trim_start_matches('\\').starts_with(&digest));
                let checked = Command::new(program)
                    .args(["--check", "--strict", "--status"])
                    .arg(&file)
                    .current_dir(tree.path())
                    .status();
                assert!(checked.unwrap().success(), "{program} {name}");
                assert_eq!(reports.first(), Some(&ArchiveProgress::Syncing));
                assert!(reports.contains(&ArchiveProgress::Read(300_000)));
            }
        }
    }

    #[test]
    fn missing_archives_and_other_types_are_errors() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("directory")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", tree.path().join("link")).unwrap();
        let directory = File::open(tree.path()).unwrap();
        for name in ["missing", "directory", "link", "../passwd"] {
            let digest = digest_archive(
                directory.as_fd(),
                name.as_ref(),
                DigestKind::Md5,
                Durability::Hasty,
                &mut |_| {},
            );
            assert!(matches!(digest, Err(ArchiveError::Read { .. })), "{name}");
        }
    }
}
