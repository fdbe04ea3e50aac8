//! Extended attributes of the files of a tree, by kind.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{FileType, listxattr, llistxattr};

use super::open::{Mounts, descriptor_path};
use super::pattern::Pattern;
use super::walk::{Entry, Root, Visit, Visitor, Walk, WalkError, walk};
use crate::proto::HostBytes;
use crate::proto::files::{AttributeKind, AttributeScope, AttributeUse, Tree};

/// Maximum size of the names of a file's attributes in Linux.
const MOST: usize = 64 << 10;

/// Returns which kinds of attributes the files of a tree have. Files that disappear or cannot be read have
/// none.
pub(crate) fn attributes(root: Root<'_>, tree: &Tree, scope: AttributeScope) -> Vec<AttributeUse> {
    let exclude: Vec<Pattern> = tree.exclude.iter().map(|pattern| Pattern::new(pattern.as_bytes())).collect();
    let mut counter = Counter { scope, found: BTreeMap::new(), names: Vec::with_capacity(MOST) };
    let walked = Walk { root, name: tree.name.as_os_str(), exclude: &exclude, mounts: Mounts::Cross };
    let Ok(()) = walk(&walked, &mut counter);
    counter.found.into_iter().map(|(kind, (files, example))| AttributeUse { kind, files, example }).collect()
}

/// Returns the kind of an attribute.
fn kind(name: &[u8]) -> AttributeKind {
    match name {
        b"security.capability" => AttributeKind::Capabilities,
        name if name.starts_with(b"system.posix_acl_") => AttributeKind::Acls,
        _ => AttributeKind::Xattrs,
    }
}

struct Counter {
    scope: AttributeScope,
    found: BTreeMap<AttributeKind, (u64, HostBytes)>,
    names: Vec<u8>,
}

impl Counter {
    fn count(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        self.names.clear();
        let mut path = descriptor_path(entry.directory.as_fd()).into_bytes();
        let into = rustix::buffer::spare_capacity(&mut self.names);
        if entry.name.is_empty() {
            listxattr(OsStr::from_bytes(&path), into)?;
        } else {
            path.push(b'/');
            path.extend_from_slice(entry.name.to_bytes());
            llistxattr(OsStr::from_bytes(&path), into)?;
        }
        let mut kinds = [false; AttributeKind::ALL.len()];
        for name in self.names.split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
            let kind = kind(name);
            let counts = self.scope == AttributeScope::All
                || kind == AttributeKind::Acls
                || name.starts_with(b"user.");
            kinds[kind as usize] |= counts;
        }
        for kind in AttributeKind::ALL.into_iter().filter(|kind| kinds[*kind as usize]) {
            let (files, _) = self.found.entry(kind).or_insert_with(|| {
                let path = entry.path.strip_prefix(b"./").unwrap_or(entry.path);
                (0, HostBytes::from(path.to_vec()))
            });
            *files += 1;
        }
        Ok(())
    }
}

impl Visitor for Counter {
    type Error = std::convert::Infallible;

    fn enter(&mut self, entry: &Entry<'_>) -> Result<Visit, Self::Error> {
        if entry.kind == FileType::Socket {
            return Ok(Visit::Skip);
        }
        // A file without attributes, or one that is gone.
        let _ = self.count(entry);
        Ok(if entry.kind == FileType::Directory { Visit::Descend(None) } else { Visit::Skip })
    }

    fn failed(&mut self, _path: &[u8], _error: WalkError) -> Result<(), Self::Error> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::symlink;

    use rustix::fs::{XattrFlags, setxattr};

    use super::*;

    fn found(root: Root<'_>, scope: AttributeScope) -> Vec<(AttributeKind, u64, HostBytes)> {
        let tree = Tree { name: HostBytes::from("d"), exclude: vec![HostBytes::from("./d/no*")] };
        let found = attributes(root, &tree, scope);
        found.into_iter().map(|used| (used.kind, used.files, used.example)).collect()
    }

    #[test]
    fn attributes_are_counted_by_kind() {
        let tree = tempfile::tempdir().unwrap();
        let path = |name: &str| tree.path().join("d").join(name);
        fs::create_dir(path("")).unwrap();
        for name in ["a", "not", "plain"] {
            fs::write(path(name), "").unwrap();
        }
        symlink("a", path("link")).unwrap();
        let set = |name: &str, attribute: &str, value: &[u8]| {
            setxattr(path(name), attribute, value, XattrFlags::empty()).is_ok()
        };
        let directory = File::open(tree.path()).unwrap();
        let root = Root::Entry(directory.as_fd());
        assert_eq!(found(root, AttributeScope::All), []);
        // Some file systems have no attributes.
        if !set("a", "user.one", b"1") || !set("a", "user.two", b"2") || !set("not", "user.one", b"1") {
            return;
        }
        let xattrs = (AttributeKind::Xattrs, 1, HostBytes::from("d/a"));
        assert_eq!(found(root, AttributeScope::All), [xattrs]);
        assert!(set("", "user.directory", b"1"));
        let held = File::open(path("")).unwrap();
        let both = (AttributeKind::Xattrs, 2, HostBytes::from("d"));
        assert_eq!(
            found(Root::Held(held.as_fd()), AttributeScope::Unprivileged),
            std::slice::from_ref(&both)
        );
        let capability = [0x0200_0000u32, 1 << 13, 0, 0, 0].map(u32::to_le_bytes).concat();
        if set("plain", "security.capability", &capability) {
            let capabilities = (AttributeKind::Capabilities, 1, HostBytes::from("d/plain"));
            assert_eq!(found(root, AttributeScope::All), [both.clone(), capabilities]);
            assert_eq!(found(root, AttributeScope::Unprivileged), [both]);
        }
    }
}
