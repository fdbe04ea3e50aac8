//! Trees with every kind of entry, and their comparison.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::local::sandbox::Sandbox;

/// Names that a shell, a terminal, a list or a program's options could misread.
pub(crate) const ODD_NAMES: [&[u8]; 24] = [
    b"new\nline",
    b"ends with newline\n",
    b"'single' and \"double\"",
    b"$(touch PWNED)",
    b"`touch PWNED`",
    b"; touch PWNED;",
    b"-rf",
    b"--checkpoint-action=exec=touch PWNED",
    b"not utf-8 \xff\xfe\x80",
    b"  two  blanks  ",
    b"tab\there",
    b"back\\slash \\n \\\\",
    b"*?[a-z]{b,c}",
    b"~",
    b"%s%n",
    b"#hash",
    b"!history",
    b"a=b",
    b"...",
    b"\x1b[2Jescape",
    b"\x01\x7f",
    "ünïcode ✓".as_bytes(),
    b".transfer-mine",
    b"@file:colon",
];

/// Returns incompressible bytes, the same in every run.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Creates a tree with every kind of entry. With root's rights, owners differ, too.
pub(crate) fn odd_tree(sandbox: &Sandbox, name: &OsStr) -> PathBuf {
    let root = sandbox.dir(name);
    let names = root.join("names");
    fs::create_dir(&names).unwrap();
    for (number, name) in ODD_NAMES.iter().enumerate() {
        fs::write(names.join(OsStr::from_bytes(name)), format!("contents of {number}")).unwrap();
    }
    fs::create_dir(root.join("empty directory")).unwrap();
    fs::write(root.join("empty file"), "").unwrap();
    fs::write(root.join("large"), noise(3 << 20)).unwrap();
    fs::hard_link(root.join("large"), root.join("empty directory/../names/the same as large")).unwrap();
    symlink("large", root.join("link")).unwrap();
    symlink("/nowhere/\n/$(touch PWNED)", root.join("dangling link")).unwrap();
    symlink("names", root.join("link to a directory")).unwrap();
    sandbox.fifo(&root.join("fifo"));
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(&noise(8192), 32 << 20).unwrap();
    let mut deep = root.join("deep");
    for level in 0..20 {
        deep.push(format!("{level:0120}"));
    }
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("file"), "at the bottom").unwrap();

    let paths = walk(&root);
    for (number, relative) in (0_u32..).zip(&paths) {
        let path = root.join(relative);
        sandbox.own_it_itself(&path);
        if sandbox.is_root() && number % 3 == 0 {
            std::os::unix::fs::lchown(&path, Some(40_000 + number), Some(41_000 + number)).unwrap();
        }
    }
    // After the owners: chown clears setuid and setgid bits.
    for (name, mode) in [
        ("large", 0o4755),
        ("empty file", 0o2640),
        ("sparse", 0o400),
        ("empty directory", 0o1777),
        ("names", 0o2750),
        ("fifo", 0o622),
        ("deep", 0o500),
    ] {
        fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
    }
    set_attribute(&root.join("large"), "user.note", "a value\nof two lines");
    set_attribute(&root.join("names"), "user.of-a-directory", "yes");
    // Last, and each directory after its entries.
    for (number, relative) in paths.iter().enumerate().rev() {
        let time = format!("2001-02-03 04:05:06.{:09}", 123_456_789 + number);
        let touch = Command::new("touch").args(["-h", "-d", &time, "--"]).arg(root.join(relative)).status();
        assert!(touch.unwrap().success());
    }
    root
}

impl Sandbox {
    /// As `own_it`, without following a symbolic link.
    fn own_it_itself(&self, path: &Path) {
        if fs::symlink_metadata(path).unwrap().is_symlink() {
            let owner = fs::metadata(self.path("")).unwrap();
            std::os::unix::fs::lchown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
        } else {
            self.own_it(path);
        }
    }
}

fn set_attribute(path: &Path, name: &str, value: &str) {
    let call = if cfg!(target_arch = "aarch64") { "5" } else { "188" };
    let script = "syscall($ARGV[0] + 0, $ARGV[1], $ARGV[2], $ARGV[3], length $ARGV[3], 0) == 0 or exit 1";
    let set = Command::new("perl").args(["-e", script, call]).arg(path).args([name, value]).status().unwrap();
    if !set.success() {
        println!("{}: no extended attributes on this file system", path.display());
    }
}

/// Returns the `user.` attributes of a tree's entries as text.
fn attributes(root: &Path, entries: &[PathBuf]) -> String {
    let (list, get) = if cfg!(target_arch = "aarch64") { ("12", "9") } else { ("195", "192") };
    let script = r#"
        my ($list, $get) = map { $_ + 0 } @ARGV;
        $/ = "\0";
        while (my $path = <STDIN>) {
            chomp $path;
            my $names = "\0" x 65536;
            my $size = syscall($list, $path, $names, length $names);
            for my $name (grep { /^user\./ } sort split /\0/, substr($names, 0, $size > 0 ? $size : 0)) {
                my $value = "\0" x 65536;
                $size = syscall($get, $path, $name, $value, length $value);
                print "$path $name ", unpack("H*", substr($value, 0, $size)), "\n";
            }
        }"#;
    let mut perl = Command::new("perl");
    // A file has no other entries.
    let directory = if root.is_dir() { root } else { Path::new("/") };
    perl.args(["-e", script, list, get]).current_dir(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut perl = perl.spawn().unwrap();
    let mut input = Vec::new();
    for entry in entries.iter().filter(|_| root.is_dir()) {
        input.extend([b"./", entry.as_os_str().as_bytes(), b"\0"].concat());
    }
    let mut stdin = perl.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = perl.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Returns the path of an entry; the empty path is the tree itself, which may be a file.
fn at(root: &Path, relative: &Path) -> PathBuf {
    if relative.as_os_str().is_empty() { root.to_owned() } else { root.join(relative) }
}

/// Returns all entries of a tree as relative paths, the top (an empty path) first, and each directory before
/// its entries.
pub(crate) fn walk(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    let mut next = 0;
    while let Some(relative) = found.get(next).cloned() {
        let path = at(root, &relative);
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            let mut entries: Vec<_> =
                fs::read_dir(path).unwrap().map(|e| relative.join(e.unwrap().file_name())).collect();
            entries.sort();
            found.extend(entries);
        }
        next += 1;
    }
    found
}

/// Returns a printable form of a path, which is unique.
fn shown(path: &Path) -> String {
    path.as_os_str().as_bytes().escape_ascii().to_string()
}

/// Returns the properties of an entry that a copy has to keep, without contents. Sizes of directories depend
/// on the file system.
fn facts(path: &Path, relative: &Path, first_names: &mut BTreeMap<(u64, u64), PathBuf>) -> String {
    let metadata = fs::symlink_metadata(path).unwrap();
    let mut facts = format!(
        "mode {:o}, owner {}:{}, modified {}.{:09}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec()
    );
    if metadata.is_file() {
        let first =
            first_names.entry((metadata.dev(), metadata.ino())).or_insert_with(|| relative.to_owned());
        facts += &format!(", the same as {} by {} names", shown(first), metadata.nlink());
        // A fragmented file may have another block or two.
        facts += &format!(", {} bytes in some {} * 64 KiB", metadata.len(), metadata.blocks() / 128);
    }
    if metadata.is_symlink() {
        facts += &format!(", to {}", shown(&fs::read_link(path).unwrap()));
    }
    facts
}

/// Asserts that a copy is identical to its source in every visible respect.
#[track_caller]
pub(crate) fn assert_same(source: &Path, copy: &Path) {
    let (there, here) = (walk(source), walk(copy));
    assert_eq!(there, here, "names");
    let mut first_names = (BTreeMap::new(), BTreeMap::new());
    for entry in &there {
        let (left, right) = (at(source, entry), at(copy, entry));
        let left_facts = facts(&left, entry, &mut first_names.0);
        assert_eq!(left_facts, facts(&right, entry, &mut first_names.1), "{}", shown(entry));
        if fs::symlink_metadata(&left).unwrap().is_file() {
            assert!(fs::read(&left).unwrap() == fs::read(&right).unwrap(), "other bytes: {}", shown(entry));
        }
    }
    assert_eq!(attributes(source, &there), attributes(copy, &there), "attributes");
}
