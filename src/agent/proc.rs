//! Processes of the host, as `/proc` shows them. A process is held by the descriptor of its directory, so that its
//! number cannot become another one's between two questions.

use std::ffi::CStr;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, Stat, open, openat, readlinkat, statat};
use rustix::io::Errno;

use crate::proto::files::FileId;

/// Process of the host.
#[derive(Debug)]
pub(crate) struct Process {
    /// Number.
    pub(crate) pid: u32,
    directory: OwnedFd,
}

/// Returns the numbers of all processes that are visible.
pub(crate) fn pids() -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for entry in
        Dir::new(open("/proc", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)?
    {
        pids.extend(entry?.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(pids)
}

/// Returns the identity of a file.
pub(crate) fn id(stat: &Stat) -> FileId {
    FileId { device: stat.st_dev, inode: stat.st_ino }
}

impl Process {
    /// Opens a process; `None` when it has ended.
    pub(crate) fn open(pid: u32) -> Option<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(CWD, format!("/proc/{pid}"), flags, Mode::empty()).ok()?;
        Some(Self { pid, directory })
    }

    /// Returns the content of one of its files, such as `status`; empty where it cannot be read.
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        let read = || -> io::Result<Vec<u8>> {
            let file = openat(&self.directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            let mut content = Vec::new();
            io::Read::read_to_end(&mut std::fs::File::from(file), &mut content)?;
            Ok(content)
        };
        read().unwrap_or_default()
    }

    /// Returns the real user ID: a program that was started with other rights is still its caller's.
    pub(crate) fn uid(&self) -> Option<u32> {
        let status = self.read("status");
        std::str::from_utf8(field(&status, "Uid:")?).ok()?.split_whitespace().next()?.parse().ok()
    }

    /// Returns where one of its links leads, such as `ns/mnt`.
    pub(crate) fn link(&self, name: &str) -> Option<Vec<u8>> {
        Some(readlinkat(&self.directory, name, Vec::new()).ok()?.into_bytes())
    }

    /// Returns the status of one of its descriptors' files.
    pub(crate) fn stat_descriptor(&self, number: &CStr) -> Option<Stat> {
        statat(&self.directory, format!("fd/{}", number.to_str().ok()?), AtFlags::empty()).ok()
    }

    /// Returns the flags and the mount of one of its descriptors.
    pub(crate) fn descriptor(&self, number: &CStr) -> Option<Descriptor> {
        Descriptor::parse(&self.read(&format!("fdinfo/{}", number.to_str().ok()?)))
    }

    /// Passes the number and the link of each descriptor to a function, until it breaks. Processes whose
    /// descriptors cannot be seen have none.
    pub(crate) fn each_descriptor(&self, mut see: impl FnMut(&CStr, &[u8]) -> ControlFlow<()>) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(directory) = openat(&self.directory, "fd", flags, Mode::empty()) else { return };
        let Ok(entries) = Dir::read_from(&directory) else { return };
        let mut link = Vec::new();
        for entry in entries.map_while(Result::ok) {
            match readlinkat(&directory, entry.file_name(), link) {
                Ok(read) => {
                    link = read.into_bytes();
                    if see(entry.file_name(), &link).is_break() {
                        return;
                    }
                }
                Err(_) => link = Vec::new(),
            }
        }
    }
}

/// Open file of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    /// The file is open for writing.
    pub(crate) writes: bool,
    /// Number of the mount through which it was opened.
    pub(crate) mount: u64,
}

impl Descriptor {
    /// Parses a file of `fdinfo`.
    pub(crate) fn parse(info: &[u8]) -> Option<Self> {
        let text = |name| Some(std::str::from_utf8(field(info, name)?).ok()?.trim());
        let flags = u32::from_str_radix(text("flags:")?, 8).ok()?;
        let mount = text("mnt_id:").and_then(|number| number.parse().ok()).unwrap_or_default();
        Some(Self { writes: flags & 3 != 0, mount })
    }
}

/// Returns the value behind a name at the beginning of a line.
fn field<'a>(content: &'a [u8], name: &str) -> Option<&'a [u8]> {
    content.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name.as_bytes()))
}

/// Returns whether an error means that there is no such file.
pub(crate) fn is_missing(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd as _;

    #[test]
    fn own_process_is_visible() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let pid = std::process::id();
        assert!(pids().unwrap().contains(&pid));
        let process = Process::open(pid).unwrap();
        assert_eq!(process.uid(), Some(rustix::process::getuid().as_raw()));
        let number = std::ffi::CString::new(file.as_raw_fd().to_string()).unwrap();
        assert!(process.descriptor(&number).unwrap().writes);
        let wanted = id(&rustix::fs::fstat(&file).unwrap());
        assert_eq!(process.stat_descriptor(&number).map(|stat| id(&stat)), Some(wanted));
        let mut found = false;
        process.each_descriptor(|_, link| {
            found |= link == file.path().as_os_str().as_encoded_bytes();
            ControlFlow::Continue(())
        });
        assert!(found);
    }

    #[test]
    fn ended_process_is_none() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let held = Process::open(pid);
        child.wait().unwrap();
        assert!(held.is_none_or(|held| held.uid().is_none()));
        assert!(Process::open(u32::MAX).is_none());
    }

    #[test]
    fn flags_and_mounts_of_descriptors_are_parsed() {
        let info = b"pos:\t0\nflags:\t0100002\nmnt_id:\t29\nino:\t1\n";
        assert_eq!(Descriptor::parse(info), Some(Descriptor { writes: true, mount: 29 }));
        let info = b"pos:\t0\nflags:\t0100000\nmnt_id:\t29\n";
        assert_eq!(Descriptor::parse(info), Some(Descriptor { writes: false, mount: 29 }));
        assert_eq!(Descriptor::parse(b""), None);
    }
}
