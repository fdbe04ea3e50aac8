use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};
use tempfile::TempDir;

use super::*;

/// UID without an account.
const OTHER: u32 = 61_234;

struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn file(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, "text").unwrap();
        set_mode(&path, mode);
        path
    }

    fn directory(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        set_mode(&path, mode);
        path
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn refused(path: &Path) -> String {
    read(path, Readers::Any).unwrap_err().with_fix()
}

#[test]
fn reads_own_files_on_any_path() {
    let place = Place::new();
    for mode in [0o644, 0o600, 0o400, 0o755] {
        assert_eq!(*read(&place.file("own", mode), Readers::Any).unwrap(), "text", "{mode:o}");
        fs::remove_file(place.path("own")).unwrap();
    }
    place.directory("a", 0o1777);
    place.file("a/file", 0o644);
    symlink("../a/./file", place.path("a/link")).unwrap();
    symlink(place.path("a"), place.path("b")).unwrap();
    for way in ["a/file", "a/link", "b/link", "b/../a/file"] {
        assert_eq!(*read(&place.path(way), Readers::Any).unwrap(), "text", "{way}");
    }
}

#[test]
fn rejects_files_writable_by_others() {
    let place = Place::new();
    for mode in [0o666, 0o646, 0o602] {
        let path = place.file("shared", mode);
        let error = refused(&path);
        let start = format!("{} is owned by ", path.display());
        assert!(error.starts_with(&start) && error.contains(&format!("mode {mode:04o}")), "{error}");
        assert!(error.ends_with(&format!("; run: chmod go-w {}", path.display())), "{error}");
    }
}

#[test]
fn rejects_directories_writable_by_others() {
    let place = Place::new();
    let shared = place.directory("shared", 0o777);
    place.directory("shared/below", 0o755);
    let file = place.file("shared/below/file", 0o644);
    assert!(refused(&file).starts_with(&format!("{} is owned by ", shared.display())));
    symlink(&file, place.path("link")).unwrap();
    assert!(refused(&place.path("link")).starts_with(&shared.display().to_string()));
    assert!(refused(&place.path("shared/../shared/below/file")).contains("shared"));
    set_mode(&shared, 0o1777);
    assert_eq!(*read(&file, Readers::Any).unwrap(), "text");
}

#[test]
fn rejects_other_owners_anywhere_on_the_path() {
    if !geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let directory = place.directory("d", 0o755);
    let file = place.file("d/file", 0o644);
    let link = place.path("link");
    symlink(&file, &link).unwrap();
    for (component, fix) in [(&file, "chown root "), (&directory, "chown root ")] {
        chown(component, Some(OTHER), None).unwrap();
        let error = refused(&link);
        assert!(error.starts_with(&format!("{} is owned by {OTHER}", component.display())), "{error}");
        assert!(error.ends_with(&format!("; run: {fix}{}", component.display())), "{error}");
        chown(component, Some(0), None).unwrap();
    }
    std::os::unix::fs::lchown(&link, Some(OTHER), None).unwrap();
    assert!(refused(&link).ends_with(&format!("; run: chown -h root {}", link.display())));
    assert!(check(&file).is_ok());
    set_mode(&file, 0o664);
    assert!(check(&file).is_err(), "root trusts no group");
}

#[test]
fn acl_counts_as_write_permission() {
    let place = Place::new();
    let file = place.file("file", 0o644);
    // user::rw- user:OTHER:rw- group::r-- mask::rw- other::r--, as in linux/posix_acl_xattr.h
    let mut list = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in
        [(1_u16, 6_u16, u32::MAX), (2, 6, OTHER), (4, 4, u32::MAX), (0x10, 6, u32::MAX), (0x20, 4, u32::MAX)]
    {
        list.extend(tag.to_le_bytes().into_iter().chain(rights.to_le_bytes()).chain(id.to_le_bytes()));
    }
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(&file, "system.posix_acl_access", &list, flags).is_err() {
        return;
    }
    assert!(refused(&file).contains("mode 0664"));
}

#[test]
fn rejects_other_than_text_without_blocking() {
    let place = Place::new();
    mkfifo(&place.path("pipe"), Mode::from_bits_truncate(0o600)).unwrap();
    assert_eq!(refused(&place.path("pipe")), "not a regular file");
    assert_eq!(refused(place.directory.path()), "not a regular file");
    assert_eq!(refused(Path::new("/dev/zero")), "not a regular file");
    fs::write(place.path("raw"), b"\xff").unwrap();
    assert_eq!(refused(&place.path("raw")), "not UTF-8");
    fs::write(place.path("large"), vec![b'x'; LARGEST + 1]).unwrap();
    assert_eq!(refused(&place.path("large")), "larger than 1024 KiB");
    fs::write(place.path("large"), vec![b'x'; LARGEST]).unwrap();
    assert_eq!(read(&place.path("large"), Readers::Any).unwrap().len(), LARGEST);
    symlink("loop", place.path("loop")).unwrap();
    assert!(matches!(read(&place.path("loop"), Readers::Any), Err(Distrust::Unreadable(_))));
    assert_eq!(*read(Path::new("/dev/null"), Readers::Owner).unwrap(), "");
}

#[test]
fn reads_descriptors_of_the_caller() {
    use std::io::Write as _;
    let (reader, writer) = nix::unistd::pipe().unwrap();
    let late = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(50));
        File::from(writer).write_all(b"late").unwrap();
    });
    let path = format!("/dev/fd/{}", reader.as_raw_fd());
    assert_eq!(*read(Path::new(&path), Readers::Owner).unwrap(), "late");
    late.join().unwrap();
    let place = Place::new();
    let shared = File::open(place.file("shared", 0o666)).unwrap();
    let path = format!("/proc/self/fd/{}", shared.as_raw_fd());
    assert!(matches!(read(Path::new(&path), Readers::Any), Err(Distrust::Changeable { .. })));
}

#[test]
fn rejects_secrets_readable_by_others() {
    let place = Place::new();
    let file = place.file("secret", 0o640);
    let error = read(&file, Readers::Owner).unwrap_err();
    assert_eq!(error.fix().unwrap(), format!("chmod 600 {}", file.display()));
    set_mode(&file, 0o600);
    assert_eq!(*read(&file, Readers::Owner).unwrap(), "text");
}

#[test]
fn place_follows_a_renamed_directory() {
    let place = Place::new();
    let directory = place.directory("d", 0o777);
    let found = super::Place::find(&directory.join("file")).unwrap();
    fs::rename(&directory, place.path("elsewhere")).unwrap();
    fs::write(found.path(), "text").unwrap();
    assert!(place.path("elsewhere/file").exists());
    symlink("/etc/hostname", place.path("elsewhere/link")).unwrap();
    assert!(matches!(super::Place::find(&place.path("elsewhere/link")), Err(Distrust::NoFile)));
    if geteuid().is_root() {
        for foreign in ["elsewhere/file", "to"] {
            let _ = symlink("elsewhere", place.path("to"));
            std::os::unix::fs::lchown(place.path(foreign), Some(OTHER), None).unwrap();
            let name = place.path(foreign);
            let name = if foreign == "to" { name.join("new") } else { name };
            assert!(matches!(super::Place::find(&name), Err(Distrust::Changeable { .. })), "{name:?}");
        }
    }
}
