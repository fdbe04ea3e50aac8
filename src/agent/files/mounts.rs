//! Mount points of this process.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::FileType;

use super::open::{descriptor_path, kind, stat_at};

/// Returns whether something is mounted at an entry of a directory or below it. A link is not followed.
pub(crate) fn is_mounted(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<bool> {
    match stat_at(directory, name)? {
        None => return Ok(false),
        Some(stat) if kind(&stat) == FileType::Symlink => return Ok(false),
        Some(_) => {}
    }
    // The kernel's own path of the directory: links and renames do not matter.
    let path = rustix::fs::readlink(descriptor_path(directory), Vec::new())?;
    let mut path = path.into_bytes();
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
    path.extend_from_slice(name.as_bytes());
    has_mount(BufReader::new(File::open("/proc/self/mountinfo")?), &path)
}

/// Returns whether a list of mounts has one at a path or below it.
fn has_mount(mounts: impl io::BufRead, path: &[u8]) -> io::Result<bool> {
    for line in mounts.split(b'\n') {
        let line = line?;
        let Some(point) = line.split(|&byte| byte == b' ').nth(4) else { continue };
        let point = unescaped(point);
        if point.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Replaces `\040` and other octal escapes of the kernel.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let (mut plain, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((&byte, after)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            digits.iter().try_fold(0u32, |value, digit| Some(value * 8 + char::from(*digit).to_digit(8)?))
        };
        let escaped = (byte == b'\\').then(|| after.get(..3)).flatten().and_then(octal);
        if let Some(value) = escaped.and_then(|value| u8::try_from(value).ok()) {
            plain.push(value);
            rest = &after[3..];
        } else {
            plain.push(byte);
            rest = after;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    const MOUNTS: &str = "25 30 0:23 / /sys rw - sysfs sysfs rw\n\
        99 1 8:1 /x /srv/a\\040b/c\\134d rw shared:1 - ext4 /dev/sda1 rw\n";

    #[test]
    fn mounts_at_and_below_a_path_are_found() {
        let found = |path: &str| has_mount(MOUNTS.as_bytes(), path.as_bytes()).unwrap();
        assert!(found("/sys") && found("/srv") && found("/srv/a b") && found("/srv/a b/c\\d"));
        assert!(!found("/sy") && !found("/sys/x") && !found("/srv/a b/c"));
    }

    #[test]
    fn real_mounts_are_found_and_links_are_not_followed() {
        let root = File::open("/").unwrap();
        assert!(is_mounted(root.as_fd(), "proc".as_ref()).unwrap());
        let tree = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/proc", tree.path().join("link")).unwrap();
        std::fs::create_dir(tree.path().join("d")).unwrap();
        let directory = File::open(tree.path()).unwrap();
        for name in ["link", "d", "missing"] {
            assert!(!is_mounted(directory.as_fd(), name.as_ref()).unwrap(), "{name}");
        }
    }
}
