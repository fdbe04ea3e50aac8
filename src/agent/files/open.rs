//! Opening files below a directory that is held as a descriptor: no path leads out of it, no link is
//! followed, and nothing but regular files and directories is opened.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags, fstat, open, openat, openat2, statx,
};
use rustix::io::Errno;

use crate::proto::files::FileId;

/// Flags of a pin: the file itself, without opening it. Neither a device nor a FIFO notices it.
const PIN: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// Flags of a directory that is read.
const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NONBLOCK)
    .union(OFlags::CLOEXEC);

/// Treatment of mount points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mounts {
    /// Enter other file systems.
    Cross,
    /// Fail with `EXDEV` at a mount point, also at one of the same file system.
    Refuse,
}

/// Rights of the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privileges {
    /// No mode keeps the agent from anything.
    Root,
    /// Modes count.
    Ordinary,
}

impl Privileges {
    /// Returns the rights of this process.
    pub(crate) fn current() -> Self {
        if rustix::process::geteuid().is_root() { Self::Root } else { Self::Ordinary }
    }
}

/// How a path is resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// By one `openat2`, or component by component where the kernel refuses that call.
    Kernel,
    /// Component by component.
    #[cfg_attr(not(test), expect(dead_code, reason = "the tests choose what a kernel may enforce"))]
    Components,
}

/// Directory below which paths are opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Confined<'a> {
    directory: BorrowedFd<'a>,
    method: Method,
}

impl<'a> Confined<'a> {
    /// Opens paths below this directory, also on other file systems.
    pub(crate) fn new(directory: BorrowedFd<'a>) -> Self {
        Self { directory, method: Method::Kernel }
    }

    /// Does not use `openat2`.
    #[cfg(test)]
    fn by_components(self) -> Self {
        Self { method: Method::Components, ..self }
    }

    /// Pins whatever has this path, which may be a link or a FIFO itself, without opening it.
    pub(crate) fn pin(self, path: &Path) -> io::Result<OwnedFd> {
        check(path)?;
        if self.method == Method::Kernel {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            match openat2(self.directory, path, PIN, Mode::empty(), resolve) {
                // An old kernel, a filter of system calls, or a path that is longer than one call accepts.
                Err(Errno::NOSYS | Errno::PERM | Errno::NAMETOOLONG) => {}
                result => return Ok(result?),
            }
        }
        self.pin_by_components(path)
    }

    /// Opens a regular file for reading.
    pub(crate) fn file(self, path: &Path) -> io::Result<File> {
        let pin = self.pin(path)?;
        match kind(&fstat(&pin)?) {
            FileType::RegularFile => Ok(File::from(reopen(pin.as_fd(), OFlags::RDONLY)?)),
            FileType::Directory => Err(Errno::ISDIR.into()),
            FileType::Symlink => Err(Errno::LOOP.into()),
            _ => Err(not_a_file()),
        }
    }

    fn pin_by_components(self, path: &Path) -> io::Result<OwnedFd> {
        let mut names = path.components().filter(|part| *part != Component::CurDir).peekable();
        if names.peek().is_none() {
            return Ok(openat(self.directory, c".", PIN | OFlags::DIRECTORY, Mode::empty())?);
        }
        let mut above: Option<OwnedFd> = None;
        while let Some(name) = names.next() {
            let directory = above.as_ref().map_or(self.directory, AsFd::as_fd);
            let is_last = names.peek().is_none();
            let flags = if is_last { PIN } else { PIN | OFlags::DIRECTORY };
            above = Some(openat(directory, name.as_os_str(), flags, Mode::empty())?);
        }
        above.ok_or_else(|| Errno::NOENT.into())
    }
}

/// Fails unless the path is relative and has no `..`.
fn check(path: &Path) -> io::Result<()> {
    if path.as_os_str().is_empty() {
        return Err(Errno::NOENT.into());
    }
    let is_below = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if is_below { Ok(()) } else { Err(Errno::XDEV.into()) }
}

fn not_a_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "neither a regular file nor a directory")
}

/// Returns the type of a file.
pub(crate) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// Returns device and inode.
pub(crate) fn identity(stat: &Stat) -> FileId {
    FileId { device: stat.st_dev, inode: stat.st_ino }
}

/// Returns the permission bits, including setuid, setgid and sticky.
pub(crate) fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// Returns the state of an entry of a directory, or `None` if there is none of that name. A link is not
/// followed.
pub(crate) fn stat_at(directory: BorrowedFd<'_>, name: impl rustix::path::Arg) -> io::Result<Option<Stat>> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Pins an entry of a directory without opening it.
pub(crate) fn pin_at(directory: BorrowedFd<'_>, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    Ok(openat(directory, name, PIN, Mode::empty())?)
}

/// Opens a pinned file or directory. A regular file may keep this waiting for the lease of another process,
/// for `fs.lease-break-time` at most; so only those and directories may be passed.
pub(crate) fn reopen(pin: BorrowedFd<'_>, flags: OFlags) -> io::Result<OwnedFd> {
    Ok(open(descriptor_path(pin), flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::empty())?)
}

/// Returns the path that leads to an open file of this process, whatever its name is.
pub(crate) fn descriptor_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Changes the mode of a pinned file, which must not be a link.
pub(crate) fn chmod_pinned(pin: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    Ok(rustix::fs::chmod(descriptor_path(pin), Mode::from_raw_mode(mode))?)
}

/// Opens a directory in a directory.
pub(crate) fn directory_at(
    parent: BorrowedFd<'_>,
    name: impl rustix::path::Arg + Copy,
    mounts: Mounts,
) -> io::Result<OwnedFd> {
    if mounts == Mounts::Refuse {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        match openat2(parent, name, DIRECTORY, Mode::empty(), resolve) {
            Err(Errno::NOSYS | Errno::PERM) => {}
            result => return Ok(result?),
        }
    }
    let directory = openat(parent, name, DIRECTORY, Mode::empty())?;
    if mounts == Mounts::Refuse && !is_same_mount(parent, directory.as_fd())? {
        return Err(Errno::XDEV.into());
    }
    Ok(directory)
}

/// Opens a directory once more, with a position of its own for reading.
pub(crate) fn same_directory(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(openat(directory, c".", DIRECTORY, Mode::empty())?)
}

/// Opens the directory above another one.
pub(super) fn parent_of(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(openat(directory, c"..", DIRECTORY, Mode::empty())?)
}

/// Returns whether both are on the same mount.
fn is_same_mount(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> io::Result<bool> {
    let mount = |fd: BorrowedFd<'_>| -> io::Result<_> {
        let found = statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID)?;
        // Kernels before 5.8 do not know the mount.
        let mount = (found.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(found.stx_mnt_id);
        Ok((found.stx_dev_major, found.stx_dev_minor, mount))
    };
    Ok(mount(one)? == mount(other)?)
}

/// Calls a function with the name of each entry of a directory but `.` and `..`, until it returns `false`.
pub(crate) fn each_name(
    directory: BorrowedFd<'_>,
    mut each: impl FnMut(&CStr, u64) -> io::Result<bool>,
) -> io::Result<()> {
    let directory = same_directory(directory)?;
    let mut buffer = Vec::with_capacity(32 << 10);
    let mut entries = rustix::fs::RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        match entry {
            Ok(entry) if [c".", c".."].contains(&entry.file_name()) => {}
            Ok(entry) => {
                if !each(entry.file_name(), entry.ino())? {
                    break;
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::CWD;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("in/a/b")).unwrap();
        fs::write(tree.path().join("in/a/b/file"), "inside").unwrap();
        fs::write(tree.path().join("secret"), "outside").unwrap();
        symlink("../secret", tree.path().join("in/out")).unwrap();
        symlink("a", tree.path().join("in/link")).unwrap();
        symlink("/proc/self/fd", tree.path().join("in/magic")).unwrap();
        rustix::fs::mkfifoat(CWD, tree.path().join("in/fifo"), Mode::RWXU).unwrap();
        tree
    }

    fn both(tree: &tempfile::TempDir, test: impl Fn(Confined<'_>)) {
        let directory = File::open(tree.path().join("in")).unwrap();
        let confined = Confined::new(directory.as_fd());
        test(confined);
        test(confined.by_components());
    }

    #[test]
    fn files_below_are_opened() {
        both(&tree(), |confined| {
            let text = io::read_to_string(confined.file(Path::new("a/./b/file")).unwrap()).unwrap();
            assert_eq!(text, "inside");
        });
    }

    #[test]
    fn nothing_outside_is_opened() {
        both(&tree(), |confined| {
            for path in
                ["out", "link", "link/b/file", "magic/0", "../secret", "a/../a/b/file", "/etc/passwd", ""]
            {
                confined.file(Path::new(path)).expect_err(path);
            }
        });
    }

    #[test]
    fn other_types_are_refused_without_waiting() {
        both(&tree(), |confined| {
            confined.file(Path::new("fifo")).unwrap_err();
            confined.file(Path::new("a")).unwrap_err();
            let pinned = confined.pin(Path::new("link")).unwrap();
            assert_eq!(kind(&fstat(pinned).unwrap()), FileType::Symlink);
        });
    }

    #[test]
    fn mount_points_are_refused_on_one_file_system() {
        let root = File::open("/").unwrap();
        directory_at(root.as_fd(), c"proc", Mounts::Cross).unwrap();
        directory_at(root.as_fd(), c"proc", Mounts::Refuse).unwrap_err();
    }

    #[test]
    fn paths_longer_than_one_call_accepts_are_opened() {
        let tree = tempfile::tempdir().unwrap();
        let top = File::open(tree.path()).unwrap();
        let (mut directory, mut path) = (OwnedFd::from(top.try_clone().unwrap()), String::new());
        for _ in 0..50 {
            let name = "d".repeat(200);
            rustix::fs::mkdirat(&directory, &name, Mode::RWXU).unwrap();
            directory = directory_at(directory.as_fd(), name.as_str(), Mounts::Cross).unwrap();
            path = format!("{path}{name}/");
        }
        Confined::new(top.as_fd()).pin(Path::new(&path)).unwrap();
    }
}
