//! Extended attributes, ACLs and capabilities that a file system of the target cannot hold.

use nix::libc;

use crate::support::holder::{Call, Point, Role};
use crate::support::hosts::Lab;
use crate::support::output::Output;
use crate::support::roots;
use crate::support::scenes::{SOON, Scene};
use crate::support::trees::names;

/// Creates files with attributes of all kinds. They are empty: a file system without attributes reports no
/// free space.
const ATTRIBUTES: &str = r#"
    cd "$1"; touch plain attr-1 attr-2 listed capable
    setfattr -n user.origin -v here attr-1; setfattr -n user.origin -v there attr-2
    setfacl -m u:4242:rw listed; setcap cap_net_raw+ep capable"#;

/// A scene with a tree with attributes on db1, and a directory on db2 whose file system cannot hold any.
fn with_attributes() -> Option<(Scene, String, String)> {
    let scene = Scene::new()?;
    let source = scene.scratch.small_disk(&scene.db1, "source", 1 << 20);
    scene.db1.run(&["bash", "-ec", ATTRIBUTES, "make", &source]).expect_success();
    let target = scene.at("bare");
    scene.db2.sh(&format!("mkdir '{target}'; mount -t ramfs lab '{target}'; chmod 0755 '{target}'"));
    Some((scene, source, target))
}

/// Gives a file system free space: 4 GB.
fn with_space(call: &Call) -> Option<i64> {
    if !call.descriptor(0).starts_with("/proc") {
        // Fields `f_bsize` to `f_bavail` of `struct statfs`.
        let fields = [4096u64, 1_000_000, 1_000_000, 1_000_000];
        call.put(1, 8, &fields.map(u64::to_ne_bytes).concat());
    }
    None
}

/// Asserts a refusal with the kind, the number of files, an example and the option that allows the loss.
#[track_caller]
fn is_refused(output: &Output, kind: &str, count: usize, example: &str) {
    let line = output.stderr.lines().find(|line| line.contains("--drop-attributes") && line.contains(kind));
    let line = line.unwrap_or_else(|| panic!("no refusal for {kind}: {output}"));
    assert!(line.contains(&count.to_string()) && line.contains(example), "{kind}: {line}");
}

#[test]
fn exclusive_attributes_are_dropped_only_when_allowed() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    let (source, target) = (scratch.join("data"), scratch.join("in"));
    db1.sh(&format!(
        "mkdir -p '{source}/d'; cd '{source}'; touch a b d/c; setfacl -m u:7:r a b; setfacl -d -m u:7:r d
        setcap cap_net_raw+ep d/c; setfattr -n user.x -v 1 a; setfattr -n user.y -v 1 a"
    ));
    // A ramfs has no attributes, and reports no free space.
    db2.sh(&format!("mkdir '{target}'; mount -t ramfs lab '{target}'"));
    let space = roots::hold(&db2, &[Role::Serve], Point::Altered(&[libc::SYS_fstatfs], with_space));
    let args = [format!("db1:{source}"), format!("db2:{target}")];
    let transfer =
        |options: &[&str]| lab.transfer(&[&args.each_ref().map(String::as_str)[..], options].concat());

    let refused = transfer(&[]).expect_code(4);
    for reported in [
        "does not support extended attributes, which are set on 1 file of the source, such as data/a",
        "does not support ACLs, which are set on 3 files of the source, such as data/",
        "does not support capabilities, which are set on 1 file of the source, such as data/d/c",
    ] {
        assert!(refused.stderr.contains(reported), "{reported}: {refused}");
    }
    let refused = transfer(&["--drop-attributes=acls,xattrs"]).expect_code(4);
    assert!(refused.stderr.contains("--drop-attributes=capabilities"), "{refused}");
    assert_eq!(names(&db2, &target), Vec::<String>::new());

    let copied = transfer(&["--drop-attributes=acls,xattrs,capabilities"]).expect_success();
    let reported = "dropped: extended attributes of 1 file, ACLs of 3 files, capabilities of 1 file";
    assert!(copied.stdout.contains(reported), "{copied}");
    assert!(!copied.stdout.contains("Cannot set"), "{copied}");
    db2.sh(&format!("rm -r '{target}/data'"));

    // Without the preflight check, tar fails.
    drop(space);
    let blind: fn(&Call) -> Option<i64> =
        |call| if call.number == libc::SYS_fsetxattr { Some(0) } else { with_space(call) };
    let blind = Point::Altered(&[libc::SYS_fstatfs, libc::SYS_fsetxattr], blind);
    let blind = roots::hold(&db2, &[Role::Serve], blind);
    let failed = transfer(&["--drop-attributes=acls,xattrs"]).expect_code(1);
    assert!(
        failed.stderr.contains("tar cannot set capabilities of 1 file (./data/d/c: Operation not"),
        "{failed}"
    );
    assert_eq!(names(&db2, &target), Vec::<String>::new());
    let copied = transfer(&["--drop-attributes=acls,xattrs,capabilities"]).expect_success();
    assert!(copied.stdout.contains(reported), "{copied}");
    drop(blind);

    // Attributes that the target can hold are kept, despite the option.
    db2.sh(&format!("umount '{target}'"));
    let copied = transfer(&["--drop-attributes=acls,xattrs,capabilities"]).expect_success();
    assert!(!copied.stdout.contains("dropped: "), "{copied}");
    let kept = db2.sh(&format!("cd '{target}/data'; getfattr -d -m - -R . 2>/dev/null | grep -c ="));
    assert_eq!(kept, "6\n");
}

#[test]
fn unprivileged_account_attributes_are_refused() {
    let Some((scene, source, target)) = with_attributes() else { return };
    scene.db1.sh(&format!("chown -R dba '{source}'; setcap cap_net_raw+ep '{source}/capable'"));
    scene.db2.sh(&format!("chown dba '{target}'"));
    let ends = [format!("dba@db1:{source}"), format!("dba@db2:{target}")];
    let output =
        scene.lab.transfer_spawn(&ends.each_ref().map(String::as_str)).end_within(SOON).expect_code(4);
    is_refused(&output, "xattrs", 2, "attr-");
    is_refused(&output, "acls", 1, "listed");
}

#[test]
fn exclusive_archive_attributes_are_not_lost_silently() {
    let Some((scene, source, target)) = with_attributes() else { return };
    let archive = scene.at("packed.tar.gz");
    scene.db1.sh(&format!(
        "tar -C '{}' --xattrs '--xattrs-include=*' --format=posix -czf '{archive}' ./source; umount '{source}'",
        scene.scratch.path()
    ));
    // The file system reports no free space.
    let _space = roots::hold(&scene.db2, &[Role::Serve], Point::Altered(&[libc::SYS_fstatfs], with_space));
    let ends = [format!("db1:{archive}"), format!("db2:{target}")];
    let transfer = |options: &[&str]| {
        let args = [ends[0].as_str(), ends[1].as_str(), "--type=decompress", "--as=unpacked"];
        scene.lab.transfer_spawn(&[&args[..], options].concat()).end_within(SOON)
    };
    let output = transfer(&[]);
    assert!(matches!(output.status.code(), Some(1 | 4)), "{output}");
    let cause = ["user.origin", "security.capability", "system.posix_acl_access", "--drop-attributes"];
    assert!(cause.iter().any(|word| output.stderr.contains(word)), "no cause: {output}");
    scene.db2.run(&["test", "!", "-e", &format!("{target}/unpacked")]).expect_success();
    transfer(&["--drop-attributes=xattrs,acls,capabilities"]).expect_success();
    scene.db2.run(&["test", "-e", &format!("{target}/unpacked/capable")]).expect_success();
}
