//! Extended attributes that a file system cannot hold.

use crate::fixtures::{Wrapper, names};
use crate::harness::Lab;

#[test]
fn exclusive_attributes_are_lost_only_where_that_is_allowed_and_then_counted() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    let (source, target) = (scratch.join("data"), scratch.join("in"));
    db1.sh(&format!(
        "mkdir -p '{source}/d'; cd '{source}'; touch a b d/c; setfacl -m u:7:r a b; setfacl -d -m u:7:r d
        setcap cap_net_raw+ep d/c; setfattr -n user.x -v 1 a; setfattr -n user.y -v 1 a"
    ));
    // It has no attributes, and tells of no free space.
    db2.sh(&format!("mkdir '{target}'; mount -t ramfs lab '{target}'"));
    let free = r"[[ $1 == -f && $2 == -c ]] && { printf 'target_free\t1000000\t4096\t0\t0\tramfs\n'; exit; }";
    let _stat = Wrapper::new(&db2, "stat", free);
    let args = [format!("db1:{source}"), format!("db2:{target}")];
    let transfer =
        |options: &[&str]| lab.transfer(&[&args.each_ref().map(String::as_str)[..], options].concat());

    let refused = transfer(&[]).expect_code(4);
    for told in [
        "cannot hold extended attributes, which 1 file of the source has, such as data/a",
        "cannot hold ACLs, which 3 files of the source have, such as data/",
        "cannot hold capabilities, which 1 file of the source has, such as data/d/c",
    ] {
        assert!(refused.stderr.contains(told), "{told}: {refused}");
    }
    let refused = transfer(&["--drop-attributes=acls,xattrs"]).expect_code(4);
    assert!(refused.stderr.contains("--drop-attributes=capabilities"), "{refused}");
    assert_eq!(names(&db2, &target), Vec::<String>::new());

    let copied = transfer(&["--drop-attributes=acls,xattrs,capabilities"]).expect_success();
    let told = "dropped: extended attributes of 1 file, ACLs of 3 files, capabilities of 1 file";
    assert!(copied.stdout.contains(told), "{copied}");
    assert!(!copied.stdout.contains("Cannot set"), "{copied}");
    db2.sh(&format!("rm -r '{target}/data'"));

    // Where they cannot be tried beforehand, it is tar that fails.
    let blind = r"[[ $* == *O_DIRECTORY* ]] && exit";
    let perl = Wrapper::new(&db2, "perl", blind);
    let failed = transfer(&["--drop-attributes=acls,xattrs"]).expect_code(1);
    assert!(
        failed.stderr.contains("tar cannot set capabilities of 1 file (./data/d/c: Operation not"),
        "{failed}"
    );
    assert_eq!(names(&db2, &target), Vec::<String>::new());
    let copied = transfer(&["--drop-attributes=acls,xattrs,capabilities"]).expect_success();
    assert!(copied.stdout.contains(told), "{copied}");
    drop(perl);

    // What the target can hold is kept all the same.
    db2.sh(&format!("umount '{target}'"));
    let copied = transfer(&["--drop-attributes=acls,xattrs,capabilities"]).expect_success();
    assert!(!copied.stdout.contains("dropped"), "{copied}");
    let kept = db2.sh(&format!("cd '{target}/data'; getfattr -d -m - -R . 2>/dev/null | grep -c ="));
    assert_eq!(kept, "6\n");
}
