use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, mkfifoat};

use super::render::render_line;
use super::*;
use crate::proto::files::{DigestKind, Tree};
use bstr::ByteSlice as _;

struct Listing {
    tree: tempfile::TempDir,
    home: tempfile::TempDir,
    task: ListTask,
}

impl Listing {
    fn new() -> Self {
        let task = ListTask {
            tree: Tree { name: HostBytes::from("d"), exclude: Vec::new() },
            digest: Some(DigestKind::Md5),
            workers: 3,
            owners: OwnerColumn::Absent,
            freshness: Freshness::Old,
            changes: Changes::Strict,
        };
        let listing = Self { tree: tempfile::tempdir().unwrap(), home: tempfile::tempdir().unwrap(), task };
        fs::create_dir(listing.top()).unwrap();
        listing
    }

    fn top(&self) -> std::path::PathBuf {
        self.tree.path().join("d")
    }

    fn home(&self) -> OwnedFd {
        fs::File::open(self.home.path()).unwrap().into()
    }

    fn run(&self) -> Result<Lists, ListError> {
        let directory = fs::File::open(self.tree.path()).unwrap();
        list(Root::Entry(directory.as_fd()), &self.task, self.home().as_fd(), &|_| {})
    }

    fn records(&self, name: &str) -> Vec<String> {
        let list = fs::read(self.home.path().join(name)).unwrap();
        let records = list.strip_suffix(b"\0").unwrap_or_default().split(|&byte| byte == 0);
        records.map(|record| String::from_utf8_lossy(record).into_owned()).collect()
    }

    fn fill(&self) {
        fs::create_dir_all(self.top().join("a/b")).unwrap();
        fs::write(self.top().join("a/b/file"), "abc").unwrap();
        fs::write(self.top().join("a-x"), "").unwrap();
        fs::write(self.top().join("new\nline"), "abc").unwrap();
        symlink("a/b", self.top().join("link")).unwrap();
        mkfifoat(CWD, self.top().join("fifo"), Mode::RWXU).unwrap();
        UnixListener::bind(self.top().join("socket")).unwrap();
    }
}

const ABC: &str = "900150983cd24fb0d6963f7d28e17f72";
const EMPTY: &str = "d41d8cd98f00b204e9800998ecf8427e";

#[test]
fn lists_are_sorted_by_path() {
    let listing = Listing::new();
    listing.fill();
    let lists = listing.run().unwrap();
    let entries = [
        "./d//d//",
        "./d/a-x//f//0",
        "./d/a//d//",
        "./d/a/b//d//",
        "./d/a/b/file//f//3",
        "./d/fifo//p//",
        "./d/link//l//a/b",
        "./d/new\nline//f//3",
    ];
    assert_eq!(listing.records("entries"), entries);
    let digests =
        [format!("./d/a-x//{EMPTY}"), format!("./d/a/b/file//{ABC}"), format!("./d/new\nline//{ABC}")];
    assert_eq!(listing.records("digests"), digests);
    assert_eq!((lists.entries.records, lists.entries.bytes), (8, 6));
    let digests = lists.digests.unwrap();
    assert_eq!((digests.records, digests.bytes), (3, 0));
    let sum = Command::new("sha256sum").arg(listing.home.path().join("entries")).output().unwrap();
    assert!(sum.stdout.starts_with(lists.entries.digest.as_bytes()));
}

#[test]
fn lists_are_those_of_find() {
    let mut listing = Listing::new();
    listing.fill();
    listing.task.owners = OwnerColumn::Present;
    listing.task.digest = None;
    listing.task.tree.exclude = vec![HostBytes::from("./d/a/*")];
    assert_eq!(listing.run().unwrap().digests, None);
    let script = "find ./d -path './d/a/*' -prune -o -type s -o -type f -printf '%p//f//%s//%m %U %G %Ts\\0' -o \
        -type l -printf '%p//l//%l//%m %U %G\\0' -o -printf '%p//%y////%m %U %G\\0' | LC_ALL=C sort -z";
    let found = Command::new("sh").args(["-c", script]).current_dir(listing.tree.path()).output().unwrap();
    assert!(found.status.success());
    let expected = String::from_utf8_lossy(&found.stdout).into_owned();
    let listed = fs::read(listing.home.path().join("entries")).unwrap();
    assert_eq!(String::from_utf8_lossy(&listed), expected);
}

#[test]
fn held_roots_are_listed_under_their_name() {
    let mut listing = Listing::new();
    listing.fill();
    let lists = listing.run().unwrap();
    let held = fs::File::open(listing.top()).unwrap();
    fs::rename(listing.top(), listing.tree.path().join("moved")).unwrap();
    symlink("/etc", listing.top()).unwrap();
    let again = list(Root::Held(held.as_fd()), &listing.task, listing.home().as_fd(), &|_| {}).unwrap();
    assert_eq!(again, lists);

    listing.task.tree.name = HostBytes::from("file");
    let held = fs::File::open(listing.tree.path().join("moved/a/b/file")).unwrap();
    for _ in 0..2 {
        list(Root::Held(held.as_fd()), &listing.task, listing.home().as_fd(), &|_| {}).unwrap();
        assert_eq!(listing.records("digests"), [format!("./file//{ABC}")]);
        assert_eq!(listing.records("entries"), ["./file//f//3"]);
    }
}

#[test]
fn links_in_the_place_of_the_tree_are_listed_as_links() {
    let listing = Listing::new();
    fs::remove_dir(listing.top()).unwrap();
    symlink("/etc", listing.top()).unwrap();
    let lists = listing.run().unwrap();
    assert_eq!(listing.records("entries"), ["./d//l///etc"]);
    assert_eq!(lists.digests.unwrap().records, 0);
}

#[test]
fn all_kinds_of_digests_and_many_files_agree_with_the_programs() {
    let mut listing = Listing::new();
    let mut random = fastrand::Rng::with_seed(3);
    for number in 0..300 {
        let directory = listing.top().join(format!("d{}", number % 7));
        fs::create_dir_all(&directory).unwrap();
        let length = if number % 50 == 0 { random.usize(..3_000_000) } else { random.usize(..3000) };
        let mut bytes = vec![0; length];
        random.fill(&mut bytes);
        fs::write(directory.join(format!("f{number}")), bytes).unwrap();
    }
    listing.task.freshness = Freshness::JustWritten;
    for (kind, program) in
        [(DigestKind::Md5, "md5sum"), (DigestKind::Sha256, "sha256sum"), (DigestKind::Blake2b, "b2sum")]
    {
        listing.task.digest = Some(kind);
        let lists = listing.run().unwrap();
        assert_eq!(lists.digests.unwrap().records, 300);
        let mut lines = Vec::new();
        let list = fs::read(listing.home.path().join("digests")).unwrap();
        for record in list.split(|&byte| byte == 0).filter(|record| !record.is_empty()) {
            let (path, digest) = record.split_at(record.rfind("//").unwrap());
            lines.extend(render_line(&digest[2..], &path[2..]));
        }
        let sums = listing.home.path().join("sums");
        fs::File::create(&sums).unwrap().write_all(&lines).unwrap();
        let checked = Command::new(program)
            .args(["--check", "--strict", "--quiet"])
            .arg(&sums)
            .current_dir(listing.tree.path())
            .status();
        assert!(checked.unwrap().success(), "{program}");
    }
}

/// Lists a tree, and changes it before its only batch of files is sent.
fn changed_meanwhile(changes: Changes, change: impl Fn(&Path) + Sync) -> (Listing, Result<Lists, ListError>) {
    let mut listing = Listing::new();
    fs::write(listing.top().join("file"), "abc").unwrap();
    listing.task.changes = changes;
    let directory = fs::File::open(listing.tree.path()).unwrap();
    let file = listing.top().join("file");
    let sorter = Mutex::new(Sorter::new(listing.home().as_fd()).unwrap());
    let progress_report = |_: ListEvent| {};
    let progress = Progress::new(&progress_report, Step::Digesting);
    let workers =
        Workers { kind: DigestKind::Md5, task: &listing.task, progress: &progress, sorted: &sorter };
    let mut entries = Sorter::new(listing.home().as_fd()).unwrap();
    let walked = Walk {
        root: Root::Entry(directory.as_fd()),
        name: "d".as_ref(),
        exclude: &[],
        mounts: Mounts::Cross,
    };
    let result = workers.run(|batches| {
        let lister = Lister::new(&listing.task, &progress, &mut entries, Some(batches));
        walk_entries(&walked, lister)?;
        change(&file);
        Ok(())
    });
    let digests = written(listing.home().as_fd(), List::Digests, sorter.into_inner().unwrap());
    let digests = Some(digests.unwrap());
    (listing, result.map(|()| Lists { entries: Manifest::default(), digests }))
}

#[test]
fn replaced_files_are_never_read() {
    let replacements: BTreeMap<&str, fn(&Path)> = BTreeMap::from([
        ("file", (|path| fs::write(path, "other").unwrap()) as fn(&Path)),
        ("fifo", |path| mkfifoat(CWD, path, Mode::RWXU).unwrap()),
        ("link", |path| symlink("/etc/passwd", path).unwrap()),
        ("directory", |path| fs::create_dir(path).unwrap()),
        ("nothing", |_| {}),
    ]);
    for (what, replace) in replacements {
        let change = |file: &Path| {
            // The inode is kept in use, so that no other file gets it.
            fs::rename(file, file.with_file_name("kept")).unwrap();
            replace(file);
        };
        let (_, strict) = changed_meanwhile(Changes::Strict, change);
        let error = strict.expect_err(what).to_string();
        let expected =
            if what == "nothing" { "cannot read ./d/file: No such" } else { "./d/file was replaced" };
        assert!(error.starts_with(expected), "{error}");
        let (_, lenient) = changed_meanwhile(Changes::Lenient, change);
        assert_eq!(lenient.unwrap().digests.unwrap().records, 0, "{what}");
    }
    let (listing, result) = changed_meanwhile(Changes::Strict, |_| {});
    assert_eq!(result.unwrap().digests.unwrap().records, 1);
    assert_eq!(listing.records("digests"), [format!("./d/file//{ABC}")]);
}

#[test]
fn unreadable_files_are_errors_also_when_changes_are_allowed() {
    // No mode keeps root from a file; a file of the kernel that cannot be read does.
    let mut listing = Listing::new();
    listing.task.changes = Changes::Lenient;
    listing.task.tree.name = HostBytes::from("mem");
    let process = fs::File::open("/proc/self").unwrap();
    let result = list(Root::Entry(process.as_fd()), &listing.task, listing.home().as_fd(), &|_| {});
    let error = result.unwrap_err().to_string();
    assert!(error.starts_with("cannot read ./mem: "), "{error}");
}

#[test]
fn missing_trees_are_errors_unless_changes_are_allowed() {
    let mut listing = Listing::new();
    fs::remove_dir(listing.top()).unwrap();
    assert!(matches!(listing.run(), Err(ListError::Entry { .. })));
    listing.task.changes = Changes::Lenient;
    assert_eq!(listing.run().unwrap().entries.records, 0);
}

#[test]
fn steps_are_reported_in_order() {
    let mut listing = Listing::new();
    listing.fill();
    listing.task.freshness = Freshness::JustWritten;
    let steps = Mutex::new(Vec::new());
    let directory = fs::File::open(listing.tree.path()).unwrap();
    list(Root::Entry(directory.as_fd()), &listing.task, listing.home().as_fd(), &|event| {
        if let ListEvent::Progress(progress) = event {
            steps.lock().unwrap().push((progress.step, progress.movement()));
        }
    })
    .unwrap();
    // 8 entries, 3 digests and 6 bytes.
    assert_eq!(
        *steps.lock().unwrap(),
        [(Step::Syncing, 0), (Step::Digesting, 0), (Step::Sorting, 17), (Step::Digesting, 17)]
    );
}
