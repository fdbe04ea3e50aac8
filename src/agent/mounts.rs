//! Mount points of this and of other processes.
//!
//! The kernel's table is parsed as bytes: other users choose names in it, which are not always UTF-8.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use super::proc::{Descriptor, Process};

/// Mount point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Number of the mount.
    pub(crate) id: u64,
    /// Device of the file system, as `MAJOR:MINOR`.
    pub(crate) device: String,
    /// Directory of the file system that is mounted.
    pub(crate) root: PathBuf,
    /// Path at which it is mounted.
    pub(crate) point: PathBuf,
    /// Type of the file system.
    pub(crate) file_system: String,
}

/// Returns the mounts that this process sees.
pub(crate) fn own() -> io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// Returns the mounts that another process sees; none where they cannot be read.
pub(crate) fn of(process: &Process) -> Vec<Mount> {
    parse(&process.read("mountinfo"))
}

/// Returns whether something is mounted at a path or below it. A symbolic link is not followed.
pub(crate) fn is_mounted(path: &Path) -> io::Result<bool> {
    if path.is_symlink() {
        return Ok(false);
    }
    let real = match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        real => real?,
    };
    Ok(own()?.iter().any(|mount| mount.point.starts_with(&real)))
}

/// Place of an open file in its file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Path with symbolic links resolved.
    pub(crate) real: PathBuf,
    /// Mount through which the file was opened, where it is known.
    pub(crate) mount: Option<Mount>,
}

impl Place {
    /// Returns the place of an open file or directory.
    pub(crate) fn of(fd: impl AsFd) -> io::Result<Self> {
        let number = fd.as_fd().as_raw_fd();
        let real = std::fs::read_link(format!("/proc/self/fd/{number}"))?;
        let info = std::fs::read(format!("/proc/self/fdinfo/{number}"))?;
        let id = Descriptor::parse(&info).map(|descriptor| descriptor.mount);
        let mount = own()?.into_iter().find(|mount| Some(mount.id) == id);
        Ok(Self { real, mount })
    }

    /// Returns `/DEVICE/PATH`: the path from the root of the file system, which is the same through every bind
    /// mount.
    pub(crate) fn in_file_system(&self) -> Option<PathBuf> {
        let mount = self.mount.as_ref()?;
        let below = self.real.strip_prefix(&mount.point).ok()?;
        let root = mount.root.strip_prefix("/").unwrap_or(&mount.root);
        Some(Path::new("/").join(&mount.device).join(root).join(below).components().collect())
    }
}

fn parse(table: &[u8]) -> Vec<Mount> {
    table.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// Parses `ID PARENT DEVICE ROOT POINT OPTIONS [FIELD…] - TYPE SOURCE OPTIONS`.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut words = line.split(|&byte| byte == b' ');
    let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    let id = text(words.next()?).parse().ok()?;
    let device = text(words.nth(1)?);
    let (root, point) = (path(words.next()?), path(words.next()?));
    let file_system = text(words.skip_while(|word| *word != b"-").nth(1)?);
    Some(Mount { id, device, root, point, file_system })
}

/// Decodes a path, in which the kernel writes blanks and backslashes as `\` and three octal digits.
fn path(word: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let [first, tail @ ..] = rest {
        if let ([b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..], 4..) = (rest, rest.len()) {
            bytes.push(((a - b'0') << 6) | ((b - b'0') << 3) | (c - b'0'));
            rest = &rest[4..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt as _;
    use std::process::Command;

    #[test]
    fn lines_of_any_bytes_are_parsed() {
        let table = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
            37 35 0:4 / /a\\040b\\134\xff\\012 rw - tmpfs - rw\n\
            broken line\n38 1 0:5 / /x rw shared:1 master:2 - proc proc rw";
        let mounts = parse(table);
        assert_eq!(mounts.len(), 3);
        assert_eq!((mounts[0].id, mounts[0].device.as_str()), (36, "98:0"));
        assert_eq!((mounts[0].root.as_path(), mounts[0].file_system.as_str()), (Path::new("/mnt1"), "ext3"));
        assert_eq!(mounts[1].point.as_os_str().as_bytes(), b"/a b\\\xff\n");
        assert_eq!(mounts[2].file_system, "proc");
    }

    #[test]
    fn mount_points_and_directories_above_them_are_mounted() {
        assert!(is_mounted(Path::new("/proc")).unwrap());
        assert!(is_mounted(Path::new("/")).unwrap());
        let directory = tempfile::tempdir().unwrap();
        assert!(!is_mounted(directory.path()).unwrap());
        assert!(!is_mounted(&directory.path().join("missing")).unwrap());
        std::os::unix::fs::symlink("/proc", directory.path().join("link")).unwrap();
        assert!(!is_mounted(&directory.path().join("link")).unwrap());
    }

    #[test]
    fn place_is_the_same_through_a_bind_mount() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (directory.path().join("one"), directory.path().join("other"));
        std::fs::create_dir_all(one.join("deep")).unwrap();
        std::fs::create_dir(&other).unwrap();
        let place = |path: PathBuf| Place::of(std::fs::File::open(path).unwrap()).unwrap();
        let bound = Command::new("mount").arg("--bind").args([&one, &other]).status().unwrap();
        if !bound.success() {
            return;
        }
        let (here, there) = (place(one.join("deep")), place(other.join("deep")));
        let is_mounted = is_mounted(&other).unwrap();
        assert!(Command::new("umount").arg(&other).status().unwrap().success());
        assert_ne!(here.real, there.real);
        assert_eq!(here.in_file_system().unwrap(), there.in_file_system().unwrap());
        assert!(here.in_file_system().unwrap().starts_with(place(one).in_file_system().unwrap()));
        assert!(is_mounted);
    }
}
