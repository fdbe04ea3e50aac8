//! Number, size and owners of the entries of a tree.
//!
//! One directory is open at a time, so that no depth exhausts the descriptors: the way back is `..`, whose identity
//! is compared. What cannot be read is left out: the numbers are an estimate before the copy.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat, fstat, openat, statat};

use crate::agent::proc::id;
use crate::proto::facts::TreeSize;
use crate::proto::facts::path::MOST_OWNERS;
use crate::proto::files::FileId;

/// Size of a block of `st_blocks` in bytes.
const BLOCK: u64 = 512;

/// Sums over the entries of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Number and size.
    pub(super) size: TreeSize,
    /// User IDs of the owners.
    pub(super) users: BTreeSet<u32>,
    /// Group IDs.
    pub(super) groups: BTreeSet<u32>,
    /// Files with several names.
    linked: HashSet<FileId>,
}

impl Sums {
    fn add(&mut self, stat: &Stat) {
        let (size, is_directory) = (&mut self.size, is_directory(stat));
        size.entries += 1;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            size.files += 1;
            size.bytes = size.bytes.saturating_add(u64::try_from(stat.st_size).unwrap_or_default());
        }
        // Blocks of a file with several names count once.
        if stat.st_nlink < 2 || is_directory || self.linked.insert(id(stat)) {
            let blocks = u64::try_from(stat.st_blocks).unwrap_or_default();
            size.disk_bytes = size.disk_bytes.saturating_add(blocks.saturating_mul(BLOCK));
        }
        for (numbers, number) in [(&mut self.users, stat.st_uid), (&mut self.groups, stat.st_gid)] {
            if numbers.len() < MOST_OWNERS {
                numbers.insert(number);
            }
        }
    }
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

/// Returns the sums over an entry of a directory and all that is below it, without sockets. Excluded paths, which
/// begin with `./NAME`, are left out with all that is below them. A name with `/` at its end is followed.
pub(super) fn sums(directory: OwnedFd, name: &Path, is_excluded: &dyn Fn(&[u8]) -> bool) -> Sums {
    let mut walk =
        Walk { here: directory, path: b".".to_vec(), levels: Vec::new(), sums: Sums::default(), is_excluded };
    if let Ok(name) = CString::new(name.as_os_str().as_bytes()) {
        walk.entry(&name);
        while walk.next() {}
    }
    walk.sums
}

struct Walk<'a> {
    /// Directory in which the walk is.
    here: OwnedFd,
    /// Path of that directory.
    path: Vec<u8>,
    levels: Vec<Level>,
    sums: Sums,
    is_excluded: &'a dyn Fn(&[u8]) -> bool,
}

/// Directory in which the walk is, or one above it.
struct Level {
    /// Identity of the directory above.
    above: FileId,
    /// Length of the path of the directory above.
    length: usize,
    /// Directories that are still to be entered.
    left: Vec<CString>,
}

impl Walk<'_> {
    /// Adds an entry of the current directory, and enters it if it is a directory.
    fn entry(&mut self, name: &CStr) {
        if let Some(true) = self.add(name) {
            self.enter(name);
        }
    }

    /// Adds an entry, and returns whether it is a directory; `None` if it is left out.
    fn add(&mut self, name: &CStr) -> Option<bool> {
        let length = self.path.len();
        self.path.push(b'/');
        self.path.extend_from_slice(name.to_bytes());
        let is_excluded = (self.is_excluded)(&self.path);
        self.path.truncate(length);
        let stat = statat(&self.here, name, AtFlags::SYMLINK_NOFOLLOW).ok().filter(|_| !is_excluded)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Socket {
            return None;
        }
        self.sums.add(&stat);
        Some(is_directory(&stat))
    }

    fn enter(&mut self, name: &CStr) -> Option<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let above = id(&fstat(&self.here).ok()?);
        let below = openat(&self.here, name, flags, Mode::empty()).ok()?;
        let length = self.path.len();
        self.here = below;
        self.path.push(b'/');
        self.path.extend_from_slice(name.to_bytes());
        let left = self.list();
        self.levels.push(Level { above, length, left });
        Some(())
    }

    /// Adds all entries of the current directory, and returns those that are directories.
    fn list(&mut self) -> Vec<CString> {
        let mut directories = Vec::new();
        let Ok(here) = rustix::io::dup(&self.here) else { return directories };
        let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
        let mut entries = RawDir::new(here, &mut buffer);
        while let Some(Ok(entry)) = entries.next() {
            let name = entry.file_name();
            if name != c"." && name != c".." && self.add(name) == Some(true) {
                directories.push(name.to_owned());
            }
        }
        directories
    }

    /// Enters the next directory, or goes back; `false` at the end.
    fn next(&mut self) -> bool {
        let Some(level) = self.levels.last_mut() else { return false };
        if let Some(name) = level.left.pop() {
            self.enter(&name);
            return true;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let (above, length) = (level.above, level.length);
        self.levels.pop();
        self.path.truncate(length);
        let Ok(back) = openat(&self.here, c"..", flags, Mode::empty()) else { return false };
        self.here = back;
        // A directory that was moved leads elsewhere.
        self.levels.is_empty() || fstat(&self.here).is_ok_and(|stat| id(&stat) == above)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::os::unix::net::UnixListener;

    fn open(path: &Path) -> OwnedFd {
        File::open(path).unwrap().into()
    }

    #[test]
    fn entries_sizes_and_owners_are_summed() {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("top");
        fs::create_dir_all(top.join("a/b")).unwrap();
        fs::write(top.join("a/file"), vec![7; 10_000]).unwrap();
        fs::hard_link(top.join("a/file"), top.join("a/b/again")).unwrap();
        std::os::unix::fs::symlink("nowhere", top.join("link")).unwrap();
        let _socket = UnixListener::bind(top.join("socket")).unwrap();
        let found = sums(open(directory.path()), Path::new("top"), &|_| false);
        assert_eq!((found.size.entries, found.size.files, found.size.bytes), (6, 2, 20_000));
        assert!(found.size.disk_bytes < 50_000, "{}", found.size.disk_bytes);
        assert_eq!(found.users, BTreeSet::from([rustix::process::geteuid().as_raw()]));
        let of_file = sums(open(&top.join("a")), Path::new("file"), &|_| false);
        assert_eq!((of_file.size.entries, of_file.size.files), (1, 1));
        assert_eq!(sums(open(&top), Path::new("missing"), &|_| false), Sums::default());
    }

    #[test]
    fn excluded_paths_are_left_out_with_all_below_them() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("top/skip/deep")).unwrap();
        fs::create_dir_all(directory.path().join("top/keep")).unwrap();
        let found = sums(open(directory.path()), Path::new("top"), &|path| path == b"./top/skip");
        assert_eq!(found.size.entries, 2);
        assert_eq!(sums(open(directory.path()), Path::new("top"), &|path| path == b"./top").size.entries, 0);
    }

    #[test]
    fn deep_trees_exhaust_no_descriptors() {
        let directory = tempfile::tempdir().unwrap();
        let mut here = open(directory.path());
        for _ in 0..3000 {
            rustix::fs::mkdirat(&here, "deep", Mode::RWXU).unwrap();
            here = openat(&here, "deep", OFlags::RDONLY, Mode::empty()).unwrap();
        }
        rustix::fs::mkdirat(open(&directory.path().join("deep")), "second", Mode::RWXU).unwrap();
        let found = sums(open(directory.path()), Path::new("deep"), &|_| false);
        assert_eq!(found.size.entries, 3001);
        assert!(std::process::Command::new("rm").arg("-r").arg(directory.keep()).status().unwrap().success());
    }
}
