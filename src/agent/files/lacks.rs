//! Kinds of extended attributes that a file system cannot hold.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{Mode, OFlags, XattrFlags, fsetxattr, openat};
use rustix::io::Errno;

use crate::proto::files::{AttributeKind, AttributeKinds};

/// Returns the kinds of attributes that the file system of a directory cannot hold, tried on a file that never
/// gets a name; `None` if there is no such file.
pub(crate) fn lacks(directory: BorrowedFd<'_>) -> Option<AttributeKinds> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = openat(directory, c".", flags, Mode::RUSR | Mode::WUSR).ok()?;
    let user = rustix::process::geteuid();
    let mut kinds = vec![AttributeKind::Xattrs, AttributeKind::Acls];
    // Only root can set capabilities.
    if user.is_root() {
        kinds.push(AttributeKind::Capabilities);
    }
    let is_lacking = |kind: &AttributeKind| {
        let (name, value) = sample(*kind, user.as_raw());
        let set = fsetxattr(file.as_fd(), name, &value, XattrFlags::empty());
        matches!(set, Err(Errno::PERM | Errno::OPNOTSUPP))
    };
    Some(kinds.into_iter().filter(is_lacking).collect())
}

/// Returns an attribute as the kernel stores it: an ACL for one more user, or a permitted capability.
fn sample(kind: AttributeKind, user: u32) -> (&'static str, Vec<u8>) {
    match kind {
        AttributeKind::Xattrs => ("user.transfer", b"1".to_vec()),
        AttributeKind::Acls => {
            const NOBODY: u32 = u32::MAX;
            let entries = [(1, 6, NOBODY), (2, 4, user), (4, 4, NOBODY), (16, 4, NOBODY), (32, 0, NOBODY)];
            let mut acl = 2u32.to_le_bytes().to_vec();
            for (tag, rights, id) in entries {
                acl.extend_from_slice(&u16::to_le_bytes(tag));
                acl.extend_from_slice(&u16::to_le_bytes(rights));
                acl.extend_from_slice(&id.to_le_bytes());
            }
            ("system.posix_acl_access", acl)
        }
        AttributeKind::Capabilities => {
            let words = [0x0200_0000u32, 1 << 13, 0, 0, 0];
            ("security.capability", words.map(u32::to_le_bytes).concat())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    #[test]
    fn file_systems_are_tried_without_a_trace() {
        let tree = tempfile::tempdir().unwrap();
        let directory = File::open(tree.path()).unwrap();
        let lacking = lacks(directory.as_fd());
        assert_eq!(fs::read_dir(tree.path()).unwrap().count(), 0);
        // Where attributes can be set by hand, they are not reported.
        let file = tree.path().join("file");
        fs::write(&file, "").unwrap();
        let user = rustix::process::geteuid();
        for kind in AttributeKind::ALL {
            let (name, value) = sample(kind, user.as_raw());
            if rustix::fs::setxattr(&file, name, &value, XattrFlags::empty()).is_ok() {
                assert!(lacking.as_ref().is_none_or(|kinds| !kinds.contains(&kind)), "{kind:?}");
            }
        }
    }

    #[test]
    fn file_systems_without_attributes_lack_them() {
        let directory = File::open("/proc/self").unwrap();
        assert_eq!(lacks(directory.as_fd()), None);
    }
}
