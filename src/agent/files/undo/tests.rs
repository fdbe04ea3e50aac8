use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use super::*;

const OWNER: Owner<'static> = Owner { agent: "20261130-ab-target0", durability: Durability::Synced };

fn bytes(path: &Path) -> HostBytes {
    HostBytes::from(path)
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[test]
fn staging_directories_are_removed_and_may_be_gone() {
    let tree = tempfile::tempdir().unwrap();
    let path = tree.path().join(".transfer-20261130-ab-target0");
    fs::create_dir_all(path.join("copy/d")).unwrap();
    for _ in 0..2 {
        assert_eq!(OWNER.staging(&bytes(&path), false, None).unwrap(), Undone::Gone);
        assert!(!exists(&path));
    }
    let gone = tree.path().join("missing/.transfer-20261130-ab-target0");
    assert_eq!(OWNER.staging(&bytes(&gone), false, None).unwrap(), Undone::Gone);
}

#[test]
fn moved_staging_directories_are_reported() {
    let tree = tempfile::tempdir().unwrap();
    let (path, moved) = (tree.path().join(".transfer-20261130-ab-target0"), tree.path().join("moved"));
    fs::create_dir_all(path.join("copy")).unwrap();
    let held = File::open(path.join("copy")).unwrap();
    fs::rename(&path, &moved).unwrap();
    let error = OWNER.staging(&bytes(&path), false, Some(held.as_fd())).unwrap_err().to_string();
    let place = moved.join("copy");
    assert!(error.ends_with(&format!("another account has moved it to {}", place.display())), "{error}");
    symlink(&moved, &path).unwrap();
    for keep in [true, false] {
        let error = OWNER.staging(&bytes(&path), keep, None).unwrap_err().to_string();
        assert!(error.ends_with(": another account has moved it"), "{error}");
    }
    assert!(place.exists());
    fs::remove_file(&path).unwrap();
    fs::rename(&moved, &path).unwrap();
    assert_eq!(OWNER.staging(&bytes(&path), false, Some(held.as_fd())).unwrap(), Undone::Gone);
}

#[test]
fn kept_staging_directories_stay_unless_they_are_empty() {
    let tree = tempfile::tempdir().unwrap();
    let path = tree.path().join(".transfer-20261130-ab-target0");
    fs::create_dir_all(path.join("copy/inner")).unwrap();
    assert_eq!(OWNER.staging(&bytes(&path), true, None).unwrap(), Undone::Gone);
    fs::create_dir_all(path.join("copy/d")).unwrap();
    fs::write(path.join("copy/d/file"), "").unwrap();
    fs::set_permissions(path.join("copy"), fs::Permissions::from_mode(0o777)).unwrap();
    for _ in 0..2 {
        assert_eq!(OWNER.staging(&bytes(&path), true, None).unwrap(), Undone::Kept);
        assert!(path.join("copy/d/file").exists());
        assert_eq!(fs::metadata(path.join("copy")).unwrap().mode() & 0o7777, 0o700);
    }
}

#[test]
fn only_names_of_the_run_are_removed() {
    let tree = tempfile::tempdir().unwrap();
    for name in [".transfer-20261130-ab-target1", "data", "data.old-20261130-ac", ".transfer-"] {
        let path = tree.path().join(name);
        fs::create_dir(&path).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        for result in [
            OWNER.staging(&bytes(&path), false, None),
            OWNER.staging(&bytes(&path), true, None),
            OWNER.copy_aside(&bytes(&path), inode),
            OWNER.replaced(&bytes(&path)),
        ] {
            assert!(matches!(result, Err(UndoError::Foreign(_))), "{name}");
        }
        assert!(exists(&path));
    }
}

#[test]
fn copies_aside_are_removed_by_inode_and_old_data_stays() {
    let tree = tempfile::tempdir().unwrap();
    let path = tree.path().join("data.old-20261130-ab");
    fs::create_dir(&path).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    assert_eq!(OWNER.copy_aside(&bytes(&path), inode + 1).unwrap(), Undone::Gone);
    assert!(exists(&path));
    for _ in 0..2 {
        assert_eq!(OWNER.copy_aside(&bytes(&path), inode).unwrap(), Undone::Gone);
        assert!(!exists(&path));
    }
    fs::create_dir(&path).unwrap();
    OWNER.replaced(&bytes(&path)).unwrap();
    assert!(!exists(&path));
}

#[test]
fn modes_are_restored_by_inode_and_links_are_not_followed() {
    let tree = tempfile::tempdir().unwrap();
    let path = tree.path().join("d");
    fs::create_dir(&path).unwrap();
    let found = || fs::metadata(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    OWNER.mode(&bytes(&path), found().ino() + 1, 0o555).unwrap();
    assert_eq!(found().mode() & 0o7777, 0o755);
    OWNER.mode(&bytes(&path), found().ino(), 0o555).unwrap();
    assert_eq!(found().mode() & 0o7777, 0o555);
    let link = tree.path().join("link");
    symlink("d", &link).unwrap();
    OWNER.mode(&bytes(&link), fs::symlink_metadata(&link).unwrap().ino(), 0o777).unwrap();
    OWNER.mode(&bytes(&link), found().ino(), 0o777).unwrap();
    assert_eq!(found().mode() & 0o7777, 0o555);
    OWNER.mode(&bytes(&tree.path().join("missing")), 1, 0o777).unwrap();
}

#[test]
fn filled_directories_are_emptied_by_inode_unless_all_is_there() {
    let tree = tempfile::tempdir().unwrap();
    let path = |name: &str| tree.path().join(name);
    for name in ["home", "into", "staged"] {
        fs::create_dir(path(name)).unwrap();
    }
    let mut names = String::new();
    for name in ["one", "two", "three"] {
        fs::write(path("staged").join(name), "").unwrap();
        names += &format!("{}\0{name}\0", fs::metadata(path("staged").join(name)).unwrap().ino());
    }
    fs::write(path("home/names"), names).unwrap();
    fs::rename(path("staged/one"), path("into/one")).unwrap();
    fs::write(path("into/two"), "of another process").unwrap();
    let home = File::open(path("home")).unwrap();
    let undo = || OWNER.filled(home.as_fd(), &bytes(&path("into")), &bytes(&path("staged")));
    for _ in 0..2 {
        undo().unwrap();
        assert!(exists(&path("staged/one")) && !exists(&path("into/one")) && exists(&path("into/two")));
    }
    fs::rename(path("staged/one"), path("into/one")).unwrap();
    fs::write(path("home/filled"), "").unwrap();
    undo().unwrap();
    assert!(exists(&path("into/one")));
    // Nothing can be taken back without the staged directory.
    fs::remove_file(path("home/filled")).unwrap();
    fs::remove_dir_all(path("staged")).unwrap();
    undo().unwrap_err();
    fs::remove_file(path("into/one")).unwrap();
    undo().unwrap();
}
