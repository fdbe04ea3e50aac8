//! Files whose inode changed since a moment.

use std::ffi::OsStr;
use std::io::{self, Write};

use rustix::fs::{FileType, Stat, Timespec};

use super::open::Mounts;
use super::sort::write_record;
use super::walk::{Entry, Root, Visit, Visitor, Walk, WalkError, walk};

/// Writes the paths of all entries of a tree whose inode changed after `since`, each with a NUL behind it and
/// beginning with `./`. Entries that disappear are left out: a path that is not listed explains no difference.
pub(crate) fn write_changed(
    root: Root<'_>,
    name: &OsStr,
    since: Timespec,
    out: &mut impl Write,
) -> io::Result<()> {
    let mut changed = Changed { since, out };
    walk(&Walk { root, name, exclude: &[], mounts: Mounts::Cross }, &mut changed)
}

/// Returns the time at which a file was last written, as a reference for [`write_changed`].
pub(crate) fn modified(stat: &Stat) -> Timespec {
    timespec(stat.st_mtime, stat.st_mtime_nsec)
}

fn timespec(seconds: i64, nanoseconds: u64) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: i64::try_from(nanoseconds).unwrap_or_default() }
}

struct Changed<'a, W> {
    since: Timespec,
    out: &'a mut W,
}

impl<W: Write> Visitor for Changed<'_, W> {
    type Error = io::Error;

    fn enter(&mut self, entry: &Entry<'_>) -> io::Result<Visit> {
        if let Ok(stat) = entry.stat() {
            if timespec(stat.st_ctime, stat.st_ctime_nsec) > self.since {
                write_record(self.out, entry.path)?;
            }
        }
        Ok(if entry.kind == FileType::Directory { Visit::Descend(None) } else { Visit::Skip })
    }

    fn failed(&mut self, _path: &[u8], _error: WalkError) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn changed_paths_are_those_of_find() {
        let tree = tempfile::tempdir().unwrap();
        let path = |name: &str| tree.path().join(name);
        fs::create_dir_all(path("d/sub")).unwrap();
        for name in ["d/old", "d/sub/changed", "d/removed"] {
            fs::write(path(name), "").unwrap();
        }
        // The clock of the file system may stand still for some milliseconds.
        let reference = loop {
            fs::write(path("reference"), "now").unwrap();
            let reference = rustix::fs::stat(path("reference")).unwrap();
            let newest = rustix::fs::stat(path("d/removed")).unwrap();
            if modified(&reference) > modified(&newest) {
                break modified(&reference);
            }
        };
        let directory = File::open(tree.path()).unwrap();
        let changed = || {
            let mut out = Vec::new();
            write_changed(Root::Entry(directory.as_fd()), "d".as_ref(), reference, &mut out).unwrap();
            let mut paths: Vec<Vec<u8>> = out.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
            paths.sort();
            paths
        };
        assert_eq!(changed(), [b""]);
        fs::remove_file(path("d/removed")).unwrap();
        while changed().len() < 3 {
            fs::write(path("d/sub/changed"), "new").unwrap();
            fs::write(path("d/new"), "new").unwrap();
            fs::remove_file(path("d/new")).unwrap();
        }
        assert_eq!(changed(), [b"".to_vec(), b"./d".to_vec(), b"./d/sub/changed".to_vec()]);
        let found = Command::new("find")
            .args(["-H", "./d", "-cnewer", "reference", "-print0"])
            .current_dir(tree.path())
            .output()
            .unwrap();
        let mut found: Vec<Vec<u8>> = found.stdout.split(|&byte| byte == 0).map(<[u8]>::to_vec).collect();
        found.sort();
        assert_eq!(changed(), found);
    }
}
