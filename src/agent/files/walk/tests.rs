use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{Mode, mkdirat};

use super::*;

/// Collects paths, entered and left.
#[derive(Default)]
struct Paths {
    entered: Vec<String>,
    left: Vec<String>,
    failed: Vec<String>,
}

impl Visitor for Paths {
    type Error = std::convert::Infallible;

    fn enter(&mut self, entry: &Entry<'_>) -> Result<Visit, Self::Error> {
        self.entered.push(String::from_utf8_lossy(entry.path).into_owned());
        let id = identity(&entry.stat().unwrap());
        Ok(if entry.kind == FileType::Directory { Visit::Descend(Some(id)) } else { Visit::Skip })
    }

    fn leave(&mut self, entry: &Entry<'_>) -> Result<Left, Self::Error> {
        assert_eq!(kind(&entry.stat().unwrap()), FileType::Directory);
        self.left.push(String::from_utf8_lossy(entry.path).into_owned());
        Ok(Left::Done)
    }

    fn failed(&mut self, path: &[u8], error: WalkError) -> Result<(), Self::Error> {
        self.failed.push(format!("{}: {error}", String::from_utf8_lossy(path)));
        Ok(())
    }
}

fn walked(root: Root<'_>, name: &str, exclude: &[&str]) -> Paths {
    let exclude: Vec<Pattern> = exclude.iter().map(|pattern| Pattern::new(*pattern)).collect();
    let mut paths = Paths::default();
    let Ok(()) =
        walk(&Walk { root, name: name.as_ref(), exclude: &exclude, mounts: Mounts::Cross }, &mut paths);
    paths.entered.sort();
    paths
}

fn tree() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir_all(tree.path().join("d/a/b")).unwrap();
    fs::create_dir(tree.path().join("d/c")).unwrap();
    fs::write(tree.path().join("d/a/b/file"), "").unwrap();
    symlink("a", tree.path().join("d/link")).unwrap();
    tree
}

/// Creates directories inside each other, with names of which no path is short enough for one call.
fn deep(top: &Path, levels: usize) -> String {
    let mut directory = OwnedFd::from(File::open(top).unwrap());
    for level in 0..levels {
        mkdirat(&directory, c"level", Mode::RWXU).unwrap();
        directory = directory_at(directory.as_fd(), c"level", Mounts::Cross).unwrap();
        if level + 1 == levels {
            let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
            rustix::fs::openat(&directory, c"last", flags, Mode::RUSR).unwrap();
        }
    }
    format!("./d{}/last", "/level".repeat(levels))
}

#[test]
fn entries_are_visited_once_and_links_are_not_followed() {
    let tree = tree();
    let directory = File::open(tree.path()).unwrap();
    let paths = walked(Root::Entry(directory.as_fd()), "d", &[]);
    assert_eq!(paths.entered, ["./d", "./d/a", "./d/a/b", "./d/a/b/file", "./d/c", "./d/link"]);
    assert_eq!(paths.left.last().unwrap(), "./d");
    let position = |path: &str| paths.left.iter().position(|left| left == path).unwrap();
    assert!(position("./d/a/b") < position("./d/a") && paths.left.len() == 4 && paths.failed.is_empty());
    let paths = walked(Root::Entry(directory.as_fd()), "missing", &[]);
    assert_eq!(paths.failed, ["./missing: No such file or directory (os error 2)"]);
}

#[test]
fn held_roots_keep_their_name_when_they_are_moved() {
    let tree = tree();
    let held = File::open(tree.path().join("d")).unwrap();
    fs::rename(tree.path().join("d"), tree.path().join("moved")).unwrap();
    assert_eq!(walked(Root::Held(held.as_fd()), "d", &[]).entered.len(), 6);
    assert_eq!(walked(Root::Held(held.as_fd()), "d", &[]).entered.len(), 6);
    let held = File::open(tree.path().join("moved/a/b/file")).unwrap();
    assert_eq!(walked(Root::Held(held.as_fd()), "file", &[]).entered, ["./file"]);
}

#[test]
fn excluded_entries_are_left_out_with_everything_below() {
    let tree = tree();
    let directory = File::open(tree.path()).unwrap();
    let paths = walked(Root::Entry(directory.as_fd()), "d", &["./d/a", "./d/*k"]);
    assert_eq!(paths.entered, ["./d", "./d/c"]);
    assert!(walked(Root::Entry(directory.as_fd()), "d", &["./d"]).entered.is_empty());
}

#[test]
fn deep_trees_need_few_descriptors() {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir(tree.path().join("d")).unwrap();
    let last = deep(&tree.path().join("d"), 10_000);
    let directory = File::open(tree.path()).unwrap();
    // A thread's small stack, and far fewer descriptors than levels.
    let deepest = std::thread::scope(|scope| {
        let walked = || {
            let mut deepest = Deepest::default();
            let root = Root::Entry(directory.as_fd());
            let tree = Walk { root, name: "d".as_ref(), exclude: &[], mounts: Mounts::Refuse };
            let Ok(()) = walk(&tree, &mut deepest);
            deepest
        };
        std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, walked).unwrap().join().unwrap()
    });
    assert_eq!(
        deepest,
        Deepest { path: last.into_bytes(), entered: 10_002, left: 10_001, open: deepest.open }
    );
    assert!(deepest.open < 2 * MAX_OPEN, "{}", deepest.open);
    super::super::remove::remove_tree(directory.as_fd(), "d".as_ref()).unwrap();
}

/// Counts entries, and keeps the path of the last one that was entered.
#[derive(Debug, Default, PartialEq)]
struct Deepest {
    path: Vec<u8>,
    entered: usize,
    left: usize,
    open: usize,
}

impl Visitor for Deepest {
    type Error = std::convert::Infallible;

    fn enter(&mut self, entry: &Entry<'_>) -> Result<Visit, Self::Error> {
        self.entered += 1;
        self.path = entry.path.to_vec();
        if entry.name == c"last" {
            self.open = fs::read_dir("/proc/self/fd").unwrap().count();
        }
        Ok(if entry.kind == FileType::Directory { Visit::Descend(None) } else { Visit::Skip })
    }

    fn leave(&mut self, _: &Entry<'_>) -> Result<Left, Self::Error> {
        self.left += 1;
        Ok(Left::Done)
    }

    fn failed(&mut self, path: &[u8], error: WalkError) -> Result<(), Self::Error> {
        panic!("{}: {error}", String::from_utf8_lossy(path));
    }
}

/// Moves a directory out of the tree when the walk is far below it.
struct Mover<'a> {
    paths: Paths,
    top: &'a Path,
}

impl Visitor for Mover<'_> {
    type Error = std::convert::Infallible;

    fn enter(&mut self, entry: &Entry<'_>) -> Result<Visit, Self::Error> {
        if entry.name == c"last" {
            let middle = self.top.join("d/level/level/level");
            fs::rename(middle, self.top.join("moved")).unwrap();
        }
        self.paths.enter(entry)
    }

    fn failed(&mut self, path: &[u8], error: WalkError) -> Result<(), Self::Error> {
        self.paths.failed(path, error)
    }
}

#[test]
fn directories_that_are_moved_lead_nowhere_else() {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir_all(tree.path().join("d/z")).unwrap();
    deep(&tree.path().join("d"), 100);
    let directory = File::open(tree.path()).unwrap();
    let mut mover = Mover { paths: Paths::default(), top: tree.path() };
    let root = Root::Entry(directory.as_fd());
    let Ok(()) = walk(&Walk { root, name: "d".as_ref(), exclude: &[], mounts: Mounts::Cross }, &mut mover);
    assert!(
        mover.paths.failed.len() == 1 && mover.paths.failed[0].ends_with("was replaced while it was read")
    );
    assert!(mover.paths.entered.iter().any(|path| path == "./d/z"), "{:?}", mover.paths.entered);
}

#[test]
fn pending_names_come_back_in_reverse() {
    let mut pending = Pending::default();
    let id = FileId { device: 1, inode: 2 };
    pending.push(c"one", Some(id));
    pending.push(c"", None);
    assert_eq!(pending.pop(), Some((CString::default(), None)));
    assert_eq!(pending.pop(), Some((c"one".into(), Some(id))));
    assert_eq!(pending.pop(), None);
}
