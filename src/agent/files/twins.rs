//! Names that differ only in the case of ASCII letters, which some file systems and servers take for equal.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::FileType;

use super::open::Mounts;
use super::pattern::Pattern;
use super::sort::Sorter;
use super::walk::{Entry, Root, Visit, Visitor, Walk, WalkError, walk};
use crate::proto::HostBytes;
use crate::proto::files::Tree;

/// Returns the first path, in lower case, that two entries of a tree share. Longer lists are sorted in unnamed
/// files of the directory `scratch`.
pub(crate) fn twin(root: Root<'_>, tree: &Tree, scratch: BorrowedFd<'_>) -> io::Result<Option<HostBytes>> {
    let exclude: Vec<Pattern> = tree.exclude.iter().map(|pattern| Pattern::new(pattern.as_bytes())).collect();
    let mut names = Names { sorter: Sorter::new(scratch)?, path: Vec::new() };
    let walked = Walk { root, name: tree.name.as_os_str(), exclude: &exclude, mounts: Mounts::Cross };
    walk(&walked, &mut names)?;
    let (mut last, mut twin): (Vec<u8>, Option<HostBytes>) = (Vec::new(), None);
    names.sorter.finish(|path| {
        if twin.is_none() && path == last {
            twin = Some(HostBytes::from(path.strip_prefix(b"./").unwrap_or(path).to_vec()));
        }
        last.clear();
        last.extend_from_slice(path);
        Ok(())
    })?;
    Ok(twin)
}

struct Names {
    sorter: Sorter,
    path: Vec<u8>,
}

impl Visitor for Names {
    type Error = io::Error;

    fn enter(&mut self, entry: &Entry<'_>) -> io::Result<Visit> {
        self.path.clear();
        self.path.extend(entry.path.iter().map(u8::to_ascii_lowercase));
        self.sorter.push(&self.path)?;
        Ok(if entry.kind == FileType::Directory { Visit::Descend(None) } else { Visit::Skip })
    }

    fn failed(&mut self, _path: &[u8], _error: WalkError) -> io::Result<()> {
        // A directory that cannot be read is a finding of its own.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn names_that_differ_in_case_are_found() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir_all(tree.path().join("D/sub")).unwrap();
        for name in ["a", "b", "Ü", "ü"] {
            fs::write(tree.path().join("D/sub").join(name), "").unwrap();
        }
        let directory = File::open(tree.path()).unwrap();
        let twins = |exclude: &str| {
            let tree = Tree { name: HostBytes::from("D"), exclude: vec![HostBytes::from(exclude)] };
            twin(Root::Entry(directory.as_fd()), &tree, directory.as_fd()).unwrap()
        };
        assert_eq!(twins("none"), None);
        fs::write(tree.path().join("D/sub/B"), "").unwrap();
        fs::create_dir(tree.path().join("D/Sub")).unwrap();
        assert_eq!(twins("none"), Some(HostBytes::from("d/sub")));
        assert_eq!(twins("./D/Sub"), Some(HostBytes::from("d/sub/b")));
        assert_eq!(twins("./D/*"), None);
    }
}
