//! Data after a power cut. A crash of a lab host keeps the page cache, so a missing sync would go unnoticed.
//! Here it is noticed in two ways: by the order of system calls on a host, and by the contents of a disk that
//! was cut off.

use std::ffi::OsStr;

use nix::libc;

use crate::support::changes::Changed;
use crate::support::copies::{OLD, assert_same};
use crate::support::firewall::FIREWALL;
use crate::support::holder::{Point, Role};
use crate::support::hosts::Host;
use crate::support::roots;
use crate::support::scenes::Scene;
use crate::support::trees::names;
use crate::syscalls::{Call, Expected, Tracer, violations};

const REPLACE: &[&str] = &["--replace"];
const KEEP: &[&str] = &["--replace", "--keep-old"];

impl Scene {
    /// A scene with a tree `data` on db1, and an empty directory on db2.
    fn durable() -> Option<Self> {
        let mut scene = Self::new()?;
        scene.source = scene.at("data");
        scene.db1.sh(&format!(
            "mkdir -p {0}/dir; echo new >{0}/file; ln -s file {0}/link; head -c 50000 /dev/urandom >{0}/dir/more",
            scene.source
        ));
        scene.db2.sh(&format!("mkdir {0}/in", scene.scratch.path()));
        Some(scene)
    }

    fn make_old(&self) {
        self.db2.sh(&format!("set -- {}; {OLD}; sync -f $1", self.at("in/data")));
    }

    /// Runs the copy, and returns its system calls on db2.
    fn traced(&self, options: &[&str]) -> Vec<Call> {
        let tracer = Tracer::start(&self.db2, &self.at("trace"));
        self.transfer(options).expect_success();
        tracer.stop()
    }

    fn expected(&self, hasty: bool) -> Expected {
        Expected { target: Some((self.at("in"), "data".into())), hasty }
    }

    /// Asserts that a run did everything in the right order, and that the order depends on every single sync.
    #[track_caller]
    fn expect_order(&self, calls: &[Call], hasty: bool, effects: &[&str]) {
        let expected = self.expected(hasty);
        assert_order(calls, &expected, effects);
    }
}

#[track_caller]
fn assert_order(calls: &[Call], expected: &Expected, effects: &[&str]) {
    let (found, seen) = violations(calls, expected);
    assert_eq!(found, Vec::<String>::new());
    for effect in effects {
        assert!(seen.contains(effect), "no {effect} was seen, only {seen:?}");
    }
    // The program is of use to later clean-ups only, and the model does not know that it must be whole.
    let counts = |call: &Call| call.is_sync() && !call.describe().contains("/transfer-agent>");
    for (at, sync) in calls.iter().enumerate().filter(|(_, call)| counts(call)) {
        let without = [&calls[..at], &calls[at + 1..]].concat();
        let (found, _) = violations(&without, expected);
        assert!(!found.is_empty(), "{} is not needed", sync.describe());
    }
}

#[test]
fn exclusive_records_and_copies_are_synced_before_effects() {
    let Some(scene) = Scene::durable() else { return };
    let _firewall = Changed::new(&scene.db2, FIREWALL, "nft delete table inet closed");
    let source = Tracer::start(&scene.db1, &scene.at("trace"));
    let calls = scene.traced(&["--chown", "111:112"]);
    scene.expect_order(&calls, false, &["staging", "rule", "job", "reading", "name", "removal", "end"]);
    assert_order(&source.stop(), &Expected { target: None, hasty: false }, &["job"]);
}

#[test]
fn exclusive_new_data_is_synced_before_old_data_goes() {
    let Some(scene) = Scene::durable() else { return };
    scene.make_old();
    let calls = scene.traced(REPLACE);
    scene.expect_order(&calls, false, &["staging", "job", "name", "removal", "end"]);
    let calls = scene.traced(KEEP);
    scene.expect_order(&calls, false, &["staging", "job", "aside", "name", "removal", "end"]);
}

#[test]
fn exclusive_restored_mode_is_synced_before_success() {
    let Some(scene) = Scene::durable() else { return };
    scene.db1.sh(&format!("chmod 0555 {}", scene.at("data")));
    scene.db2.sh(&format!("chown dba {}", scene.at("in")));
    let tracer = Tracer::start(&scene.db2, &scene.at("trace"));
    let ends = [format!("db1:{}", scene.at("data")), format!("dba@db2:{}", scene.at("in"))];
    scene.lab.transfer(&[&ends[0], &ends[1]]).expect_success();
    scene.expect_order(&tracer.stop(), false, &["staging", "job", "mode", "name", "removal", "end"]);
}

#[test]
fn exclusive_no_fsync_syncs_only_journal_and_replacements() {
    let Some(scene) = Scene::durable() else { return };
    for options in [&["--no-fsync"][..], &["--no-fsync", "--replace", "--keep-old"]] {
        let calls = scene.traced(options);
        scene.expect_order(&calls, true, &["staging", "job", "name", "removal", "end"]);
        let waits = calls.iter().find(|call| call.is_sync() && call.touches(&scene.at("in")));
        assert!(waits.is_none(), "{waits:?}");
    }
    let calls = scene.traced(&["--no-fsync", "--replace"]);
    scene.expect_order(&calls, false, &["staging", "job", "name", "removal", "end"]);
}

#[test]
fn exclusive_ineffective_syncs_are_detected() {
    let Some(scene) = Scene::durable() else { return };
    scene.make_old();
    let mut calls = scene.traced(REPLACE);
    calls.retain(|call| !call.is_sync());
    let (found, _) = violations(&calls, &scene.expected(false));
    for what in [
        "the journal is not on the disk",
        "the copy is not on the disk",
        "the name is not on the disk",
        "what was undone is not on the disk",
    ] {
        assert!(found.iter().any(|violation| violation.starts_with(what)), "not '{what}' in {found:#?}");
    }
}

/// A disk of db2: a file with a file system, which writes nothing back by itself for minutes. The state of
/// the file at any moment is the state after a power cut.
struct Disk {
    host: Host,
    image: String,
    at: String,
}

/// Hosts in nspawn have no loop devices of their own, and can use the machine's.
const LOOP_DEVICES: &str = "[[ -e /dev/loop-control ]] || mknod /dev/loop-control c 10 237
    for n in {0..63}; do [[ -e /dev/loop$n ]] || mknod /dev/loop$n b 7 $n; done";

impl Disk {
    fn new(scene: &Scene, image: &str, at: &str) -> Self {
        let disk = Self { host: scene.db2.clone(), image: scene.at(image), at: at.to_owned() };
        disk.host.sh(&format!(
            "{LOOP_DEVICES}; truncate -s 64M {0}; mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 {0}; mkdir -p {at}",
            disk.image
        ));
        disk.mount(&disk.image);
        disk.host.sh(&format!("rmdir {at}/lost+found; sync -f {at}"));
        disk
    }

    fn mount(&self, image: &str) {
        self.host.sh(&format!("mount -o loop,commit=300,noauto_da_alloc {image} {}", self.at));
    }

    /// Copies the state after a power cut at this moment.
    fn cut(&self, name: &str) -> String {
        let snapshot = format!("{}.{name}", self.image);
        self.host.sh(&format!("cp --sparse=always {} {snapshot}", self.image));
        snapshot
    }

    /// Replaces the disk by such a copy.
    fn restart_with(&self, snapshot: &str) {
        self.host.sh(&format!("umount {}", self.at));
        self.mount(snapshot);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let at = &self.at;
        self.host.run(&["sh", "-c", &format!("umount {at}; rmdir {at}")]);
    }
}

/// System calls that sync.
const SYNCS: &[i64] = &[libc::SYS_fsync, libc::SYS_fdatasync, libc::SYS_syncfs];

/// A scene on two disks, one for the copies and one for the journals.
struct Cut {
    copies: Disk,
    journals: Disk,
    scene: Scene,
}

/// Moments at which the agent is held.
const STAGING_IS_MADE: Point = Point::After(&[libc::SYS_mkdirat], |call| is_staging(&call.text(1)));
const BEFORE_THE_NAME: Point = Point::Before(&[libc::SYS_renameat2], |call| call.text(3) == "data");
/// Nothing was rolled back yet.
const SUCCESS_IS_TOLD: Point = Point::Before(&[libc::SYS_unlinkat], |call| {
    let is_tried = [".probe", ".exchange"].iter().any(|name| call.text(1) == *name);
    call.path(0, 1).iter().any(is_staging) && !is_tried
});

fn is_staging(name: &OsStr) -> bool {
    name.to_string_lossy().starts_with(".transfer-")
}

impl Cut {
    fn set() -> Option<Self> {
        let scene = Scene::durable()?;
        let copies = Disk::new(&scene, "copies", &scene.at("in"));
        let journals = Disk::new(&scene, "journals", "/var/lib/transfer");
        Some(Self { copies, journals, scene })
    }

    /// Takes the state of both disks after a power cut at a moment of a run, and at its end. The run itself
    /// continues, and has to succeed.
    #[track_caller]
    fn run(&self, options: &[&str], moment: Point, during: &str) -> [[String; 2]; 2] {
        let holder = roots::hold(&self.scene.db2, &[Role::Serve], moment);
        let mut run = self.scene.spawn(options);
        holder.expect_held(&mut run);
        self.scene.db2.sh(during);
        let then = self.both("then");
        holder.open();
        run.wait().expect_success();
        [then, self.at_end()]
    }

    fn at_end(&self) -> [String; 2] {
        // The journal may be removed before the objects that it lists.
        self.scene.db2.sh("sync -f /var/lib/transfer");
        self.both("end")
    }

    fn both(&self, name: &str) -> [String; 2] {
        [self.copies.cut(name), self.journals.cut(name)]
    }

    fn restart_with(&self, [copies, journals]: &[String; 2]) {
        self.copies.restart_with(copies);
        self.journals.restart_with(journals);
    }

    /// Asserts that `transfer clean` finds something, or nothing, and that nothing is left afterwards.
    #[track_caller]
    fn clean(&self, is_known: bool) {
        let reported = self.scene.lab.transfer(&["clean", "db2"]).expect_success().stdout;
        assert_eq!(reported != "db2: nothing to roll back\n", is_known, "{reported}");
        let left = [self.names(), names(&self.scene.db2, "/var/lib/transfer")].concat();
        assert!(left.iter().all(|name| name.starts_with("data")), "{left:?}");
    }

    fn names(&self) -> Vec<String> {
        names(&self.scene.db2, &self.scene.at("in"))
    }

    #[track_caller]
    fn expect_copied(&self) {
        let scene = &self.scene;
        assert_same((&scene.db1, &scene.at("data")), (&scene.db2, &scene.at("in/data")));
    }

    #[track_caller]
    fn expect_old(&self, options: &[&str]) {
        let names = self.names();
        let kept: Vec<_> = names.iter().filter(|name| name.starts_with("data.old-")).collect();
        assert_eq!(kept.len(), usize::from(options == KEEP), "{names:?}");
        assert!(kept.iter().all(|name| self.scene.is_old(&format!("in/{name}"))), "the old one is not whole");
    }

    /// Restores the state before any run.
    fn reset(&self) {
        self.copies.restart_with(&self.copies.image);
        self.journals.restart_with(&self.journals.image);
        self.scene.db2.sh(&format!("rm -rf {0}/*; sync -f {0}", self.scene.at("in")));
    }
}

#[test]
fn exclusive_reported_success_survives_power_cut() {
    let Some(cut) = Cut::set() else { return };
    for options in [&[][..], REPLACE, KEEP] {
        println!("{options:?}");
        if !options.is_empty() {
            cut.scene.make_old();
        }
        let [then, end] = cut.run(options, SUCCESS_IS_TOLD, ":");
        cut.restart_with(&end);
        cut.expect_copied();
        cut.expect_old(options);
        cut.clean(false);
        cut.restart_with(&then);
        cut.expect_copied();
        cut.clean(true);
        cut.expect_copied();
        cut.expect_old(options);
        cut.reset();
    }
}

#[test]
fn exclusive_power_cut_before_publication_keeps_old_data() {
    let Some(cut) = Cut::set() else { return };
    for options in [&[][..], REPLACE, KEEP] {
        println!("{options:?}");
        if !options.is_empty() {
            cut.scene.make_old();
        }
        let [then, _] = cut.run(options, BEFORE_THE_NAME, ":");
        cut.restart_with(&then);
        let is_whole = || {
            if options.is_empty() {
                !cut.names().contains(&"data".into())
            } else {
                cut.scene.is_old("in/data")
            }
        };
        assert!(is_whole(), "{:?}", cut.names());
        cut.clean(true);
        assert!(is_whole(), "{:?}", cut.names());
        assert_eq!(cut.names().len(), usize::from(!options.is_empty()));
        cut.reset();
    }
}

#[test]
fn exclusive_journal_survives_power_cut() {
    let Some(cut) = Cut::set() else { return };
    // In case that the disk of the copies is faster.
    let write_back = format!("sync -f {}", cut.scene.at("in"));
    let [then, _] = cut.run(&[], STAGING_IS_MADE, &write_back);
    cut.restart_with(&then);
    let names = cut.names();
    assert!(names.len() == 1 && names[0].starts_with(".transfer-"), "{names:?}");
    cut.clean(true);
    assert_eq!(cut.names(), Vec::<String>::new());
}

#[test]
fn exclusive_power_cut_exposes_ineffective_syncs() {
    // Another process of the machine may sync all disks at this time.
    for attempt in 1.. {
        let Some(cut) = Cut::set() else { return };
        let ineffective = Point::Instead(SYNCS, |_| true, 0);
        let ineffective = roots::hold(&cut.scene.db2, Role::ALL, ineffective);
        cut.scene.transfer(&[]).expect_success();
        drop(ineffective);
        cut.restart_with(&cut.at_end());
        let left = [cut.names(), names(&cut.scene.db2, "/var/lib/transfer")].concat();
        if left.is_empty() {
            break;
        }
        assert!(attempt < 3, "it was all on the disk without a sync: {left:?}");
    }
}
