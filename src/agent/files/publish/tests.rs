use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use super::*;
use crate::proto::files::{FillTask, Naming, StagingTask};

struct Copy {
    target: tempfile::TempDir,
    home: tempfile::TempDir,
    staging: StagingDirectory,
    undos: Vec<Undo>,
    events: Vec<PublishEvent>,
}

impl Copy {
    fn new(naming: Naming) -> Self {
        let target = tempfile::tempdir().unwrap();
        let path = HostBytes::from(&target.path().join(".transfer-RUN-target"));
        let task = StagingTask { path, keep: false, naming, inner: HostBytes::from("d") };
        let staging = StagingDirectory::create(&task, &mut |_| Ok(())).unwrap();
        let home = tempfile::tempdir().unwrap();
        let copy = Self { target, home, staging, undos: Vec::new(), events: Vec::new() };
        fs::write(copy.path(".transfer-RUN-target/copy/d/new"), "").unwrap();
        copy
    }

    fn path(&self, name: &str) -> PathBuf {
        self.target.path().join(name)
    }

    fn id(&self, name: &str) -> FileId {
        let found = fs::metadata(self.path(name)).unwrap();
        FileId { device: found.dev(), inode: found.ino() }
    }

    fn bytes(&self, name: &str) -> HostBytes {
        HostBytes::from(&self.path(name))
    }

    /// Publishes `d`, with data of that name as the preflight saw it.
    fn publish(&mut self, replace: Replace, seen: Option<FileId>) -> Result<Durability, PublishError> {
        let task = PublishTask {
            staged: HostBytes::from("d"),
            name: HostBytes::from("d"),
            replace,
            aside: HostBytes::from("d.old-RUN"),
            durable: true,
            seen,
        };
        self.with(|publisher| publisher.publish(&task))
    }

    fn fill(&mut self, beside: bool) -> Result<Durability, PublishError> {
        let task = FillTask { staged: HostBytes::from("d"), durable: true, beside };
        let home = File::open(self.home.path()).unwrap();
        self.with(|publisher| publisher.fill(&task, home.as_fd()))
    }

    fn with<T>(&mut self, call: impl FnOnce(&mut Publisher<'_>) -> T) -> T {
        let Self { staging, undos, events, .. } = self;
        call(&mut Publisher {
            staging,
            journal: &mut |undo| {
                undos.push(undo);
                Ok(())
            },
            report: &mut |event| events.push(event),
        })
    }

    /// Creates older data in the place of the copy.
    fn old(&self) -> FileId {
        fs::create_dir(self.path("d")).unwrap();
        fs::write(self.path("d/old"), "").unwrap();
        self.id("d")
    }
}

#[test]
fn new_names_are_given_and_existing_ones_are_never_replaced() {
    let mut copy = Copy::new(Naming::Rename(Replace::No));
    fs::write(copy.path("d"), "").unwrap();
    assert!(matches!(copy.publish(Replace::No, None), Err(PublishError::Exists(_))));
    fs::remove_file(copy.path("d")).unwrap();
    assert_eq!(copy.publish(Replace::No, None).unwrap(), Durability::Synced);
    assert!(copy.path("d/new").exists() && copy.undos.is_empty());
    assert_eq!(copy.events, [PublishEvent::Published { path: copy.bytes("d"), aside: None }]);
}

#[test]
fn replaced_data_goes_to_the_staging_directory() {
    let mut copy = Copy::new(Naming::Rename(Replace::Remove));
    let old = copy.old();
    copy.publish(Replace::Remove, Some(old)).unwrap();
    assert!(copy.path("d/new").exists());
    assert!(copy.path(".transfer-RUN-target/copy/d/old").exists());
    assert_eq!(copy.events, [PublishEvent::Published { path: copy.bytes("d"), aside: None }]);
}

#[test]
fn kept_data_gets_its_name_and_the_undo_names_the_copy() {
    let mut copy = Copy::new(Naming::Rename(Replace::Keep));
    let old = copy.old();
    let inode = copy.id(".transfer-RUN-target/copy/d").inode;
    copy.publish(Replace::Keep, Some(old)).unwrap();
    assert!(copy.path("d/new").exists() && copy.path("d.old-RUN/old").exists());
    let aside = copy.bytes("d.old-RUN");
    assert_eq!(copy.undos, [Undo::Unpublished { path: aside.clone(), inode }]);
    assert_eq!(copy.events, [PublishEvent::Published { path: copy.bytes("d"), aside: Some(aside) }]);
}

#[test]
fn data_that_the_preflight_did_not_see_stays() {
    for replace in [Replace::Remove, Replace::Keep] {
        let mut copy = Copy::new(Naming::Rename(replace));
        let old = copy.old();
        let other = FileId { inode: old.inode + 1, ..old };
        for seen in [None, Some(other)] {
            assert!(matches!(copy.publish(replace, seen), Err(PublishError::Exists(_))));
        }
        assert!(copy.path("d/old").exists() && copy.undos.is_empty() && copy.events.is_empty());
    }
}

#[test]
fn data_that_is_gone_needs_no_exchange() {
    let mut copy = Copy::new(Naming::Rename(Replace::Keep));
    let old = copy.old();
    fs::remove_dir_all(copy.path("d")).unwrap();
    copy.publish(Replace::Keep, Some(old)).unwrap();
    assert!(copy.path("d/new").exists() && !copy.path("d.old-RUN").exists());
    assert_eq!(copy.events, [PublishEvent::Published { path: copy.bytes("d"), aside: None }]);
}

#[test]
fn name_for_old_data_that_is_taken_changes_nothing() {
    let mut copy = Copy::new(Naming::Rename(Replace::Keep));
    let old = copy.old();
    fs::create_dir(copy.path("d.old-RUN")).unwrap();
    assert!(matches!(copy.publish(Replace::Keep, Some(old)), Err(PublishError::Rename { .. })));
    assert!(copy.path("d/old").exists() && copy.path(".transfer-RUN-target/copy/d/new").exists());
}

#[test]
fn journal_that_fails_stops_the_publication() {
    let mut copy = Copy::new(Naming::Rename(Replace::Keep));
    let old = copy.old();
    let task = PublishTask {
        staged: HostBytes::from("d"),
        name: HostBytes::from("d"),
        replace: Replace::Keep,
        aside: HostBytes::from("d.old-RUN"),
        durable: true,
        seen: Some(old),
    };
    let mut publisher = Publisher {
        staging: &copy.staging,
        journal: &mut |_| Err(io::Error::other("full")),
        report: &mut |event| copy.events.push(event),
    };
    assert!(matches!(publisher.publish(&task), Err(PublishError::Journal(_))));
    assert!(copy.path("d/old").exists() && copy.path(".transfer-RUN-target/copy/d/new").exists());
}

#[test]
fn paths_are_no_names() {
    let mut copy = Copy::new(Naming::Rename(Replace::No));
    for name in ["../d", "", ".", "a/b"] {
        let task = PublishTask {
            staged: HostBytes::from("d"),
            name: HostBytes::from(name),
            replace: Replace::No,
            aside: HostBytes::default(),
            durable: false,
            seen: None,
        };
        copy.with(|publisher| publisher.publish(&task)).expect_err(name);
    }
}

#[test]
fn moved_target_directories_are_still_the_same() {
    let mut copy = Copy::new(Naming::Rename(Replace::No));
    let moved = copy.target.path().with_extension("moved");
    fs::rename(copy.target.path(), &moved).unwrap();
    fs::create_dir(copy.target.path()).unwrap();
    copy.publish(Replace::No, None).unwrap();
    assert!(moved.join("d/new").exists() && !copy.path("d").exists());
    fs::remove_dir_all(&moved).unwrap();
}

#[test]
fn directories_without_write_permission_are_moved_without_root() {
    let mut copy = Copy::new(Naming::Rename(Replace::No));
    let staged = copy.path(".transfer-RUN-target/copy/d");
    fs::set_permissions(&staged, fs::Permissions::from_mode(0o555)).unwrap();
    let inode = fs::metadata(&staged).unwrap().ino();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().mode() & 0o7777;
    let directory = copy.staging.copy().try_clone_to_owned().unwrap();
    let loosened = copy.with(|publisher| {
        publisher.loosen_as(directory.as_fd(), "d".as_ref(), "final".as_ref(), Privileges::Ordinary)
    });
    let Loosened { inode: found, mode: old } = loosened.unwrap().unwrap();
    assert_eq!((found, old, mode(&staged)), (inode, 0o555, 0o755));
    assert_eq!(copy.undos, [Undo::Mode { path: copy.bytes("final"), inode, mode: 0o555 }]);
    // The whole way, if this is no test of root.
    fs::set_permissions(&staged, fs::Permissions::from_mode(0o555)).unwrap();
    copy.publish(Replace::No, None).unwrap();
    assert_eq!(mode(&copy.path("d")), 0o555);
    fs::set_permissions(copy.path("d"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn directories_are_filled_entry_by_entry() {
    let mut copy = Copy::new(Naming::Fill);
    fs::create_dir(copy.path(".transfer-RUN-target/copy/d/sub")).unwrap();
    fs::create_dir(copy.path("lost+found")).unwrap();
    copy.fill(false).unwrap();
    assert!(copy.path("new").exists() && copy.path("sub").exists());
    assert!(!copy.path(".transfer-RUN-target/copy/d").exists());
    assert!(copy.home.path().join("filled").exists());
    let staged = copy.bytes(".transfer-RUN-target/copy/d");
    let directory = HostBytes::from(copy.target.path());
    assert_eq!(copy.undos, [Undo::Filled { directory: directory.clone(), staged }]);
    assert_eq!(copy.events, [PublishEvent::Published { path: directory, aside: None }]);
}

#[test]
fn directories_with_other_entries_are_filled_only_beside_them() {
    let mut copy = Copy::new(Naming::Fill);
    fs::write(copy.path("other"), "").unwrap();
    let error = copy.fill(false).unwrap_err();
    assert!(matches!(&error, PublishError::Exists(path) if *path == copy.bytes("other")), "{error}");
    copy.fill(true).unwrap();
    assert!(copy.path("new").exists() && copy.path("other").exists());
}

#[test]
fn failed_fill_takes_everything_back() {
    let mut copy = Copy::new(Naming::Fill);
    for number in 0..10 {
        fs::write(copy.path(".transfer-RUN-target/copy/d").join(number.to_string()), "").unwrap();
    }
    fs::write(copy.path("7"), "of another process").unwrap();
    assert!(matches!(copy.fill(true), Err(PublishError::Rename { .. })));
    assert_eq!(fs::read_dir(copy.path(".transfer-RUN-target/copy/d")).unwrap().count(), 11);
    assert_eq!(fs::read_dir(copy.target.path()).unwrap().count(), 2);
    assert_eq!(fs::read_to_string(copy.path("7")).unwrap(), "of another process");
    assert!(copy.events.is_empty() && !copy.home.path().join("filled").exists());
}
