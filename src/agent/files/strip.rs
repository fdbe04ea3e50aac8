//! Removal of the top directory of an unpacked archive.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, FileType, RenameFlags, fstat, renameat_with, unlinkat};

use super::open::{Mounts, chmod_pinned, directory_at, each_name, kind, permissions, pin_at};
use crate::proto::files::Naming;

/// Name that the directory has in between.
const TOP: &str = ".top";

/// Puts the only entry of a directory in its place, if that is a directory; nothing otherwise. Returns whether
/// it was done. With [`Naming::Fill`] the directory stays writable, since its entries are moved next.
pub(crate) fn strip(copy: BorrowedFd<'_>, name: &OsStr, naming: Naming) -> io::Result<bool> {
    let directory = directory_at(copy, name, Mounts::Cross)?;
    let Some(only) = only_entry(directory.as_fd())? else { return Ok(false) };
    let pin = pin_at(directory.as_fd(), only.as_c_str())?;
    let stat = fstat(&pin)?;
    if kind(&stat) != FileType::Directory {
        return Ok(false);
    }
    // Without root it must be writable to be moved, also out of it.
    let mode = permissions(&stat);
    chmod_pinned(pin.as_fd(), mode | 0o200)?;
    renameat_with(&directory, only.as_c_str(), copy, TOP, RenameFlags::NOREPLACE)?;
    unlinkat(copy, name, AtFlags::REMOVEDIR)?;
    renameat_with(copy, TOP, copy, name, RenameFlags::NOREPLACE)?;
    if naming != Naming::Fill {
        chmod_pinned(pin.as_fd(), mode)?;
    }
    Ok(true)
}

/// Returns the name of the only entry of a directory; `None` if there is none or more than one.
fn only_entry(directory: BorrowedFd<'_>) -> io::Result<Option<CString>> {
    let mut names = Vec::new();
    each_name(directory, |name, _| {
        names.push(name.to_owned());
        Ok(names.len() < 2)
    })?;
    Ok(if names.len() == 1 { names.pop() } else { None })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::proto::files::Replace;

    fn stripped(tree: &tempfile::TempDir, naming: Naming) -> bool {
        strip(File::open(tree.path()).unwrap().as_fd(), "copy".as_ref(), naming).unwrap()
    }

    #[test]
    fn single_directories_take_the_place() {
        for (naming, mode) in [(Naming::Rename(Replace::No), 0o555), (Naming::Fill, 0o755)] {
            let tree = tempfile::tempdir().unwrap();
            let top = tree.path().join("copy/copy");
            fs::create_dir_all(&top).unwrap();
            fs::write(top.join("file"), "").unwrap();
            fs::set_permissions(&top, fs::Permissions::from_mode(0o555)).unwrap();
            assert!(stripped(&tree, naming));
            assert!(tree.path().join("copy/file").exists());
            assert_eq!(fs::read_dir(tree.path()).unwrap().count(), 1);
            let found = fs::metadata(tree.path().join("copy")).unwrap().permissions().mode() & 0o7777;
            assert_eq!(found, mode);
        }
    }

    #[test]
    fn anything_else_is_left_as_it_is() {
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("copy")).unwrap();
        let naming = Naming::Rename(Replace::No);
        assert!(!stripped(&tree, naming));
        symlink("/etc", tree.path().join("copy/link")).unwrap();
        assert!(!stripped(&tree, naming));
        fs::create_dir(tree.path().join("copy/.hidden")).unwrap();
        assert!(!stripped(&tree, naming));
        assert_eq!(fs::read_dir(tree.path().join("copy")).unwrap().count(), 2);
    }
}
