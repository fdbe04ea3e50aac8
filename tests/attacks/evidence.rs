//! What a tool says is no evidence: a disk that cannot be read is no file that changed, and attributes that the target cannot
//! hold are no detail.

use crate::fixtures::{Held, MORE_THAN_BUFFERS, Wrapper, being_read};
use crate::harness::{Host, Output};
use crate::scene::{Scene, ended, told};

/// Files without contents, since a disk that holds no attributes says that it has no space either, and what each of them has.
const ATTRIBUTES: &str = r#"
    cd "$1"; touch plain attr-1 attr-2 listed capable
    setfattr -n user.origin -v here attr-1; setfattr -n user.origin -v there attr-2
    setfacl -m u:4242:rw listed; setcap cap_net_raw+ep capable"#;

/// A tree with attributes of all kinds, on a file system of db1 that holds them, and a directory of db2 that holds none.
fn with_attributes() -> Option<(Scene, String, String)> {
    let scene = Scene::new()?;
    let source = scene.scratch.small_disk(&scene.db1, "source", 1 << 20);
    scene.db1.run(&["bash", "-ec", ATTRIBUTES, "make", &source]).expect_success();
    let target = scene.at("bare");
    scene.db2.sh(&format!("mkdir '{target}'; mount -t ramfs lab '{target}'; chmod 0755 '{target}'"));
    Some((scene, source, target))
}

/// The refusal tells the kind, how many, one of them, and the way out.
#[track_caller]
fn is_told(output: &Output, kind: &str, count: usize, example: &str) {
    let line = output.stderr.lines().find(|line| line.contains("--drop-attributes") && line.contains(kind));
    let line = line.unwrap_or_else(|| panic!("no refusal for {kind}: {output}"));
    assert!(line.contains(&count.to_string()) && line.contains(example), "{kind}: {line}");
}

#[test]
fn attributes_that_the_target_cannot_hold_are_refused_by_kind() {
    let Some((scene, source, target)) = with_attributes() else { return };
    let ends = [format!("db1:{source}"), format!("db2:{target}")];
    let ends = ends.each_ref().map(String::as_str);
    let transfer = |options: &[&str]| ended(scene.lab.transfer_spawn(&[&ends[..], options].concat()));
    let output = transfer(&[]).expect_code(4);
    is_told(&output, "xattrs", 2, "attr-");
    is_told(&output, "acls", 1, "listed");
    is_told(&output, "capabilities", 1, "capable");
    let output = transfer(&["--drop-attributes=xattrs,capabilities"]).expect_code(4);
    is_told(&output, "acls", 1, "listed");
    let output = transfer(&["--drop-attributes=xattrs,acls,capabilities"]).expect_success();
    let report = format!("{}{}", output.stdout, output.stderr);
    for counted in ["extended attributes of 2 files", "ACLs of 1 file", "capabilities of 1 file"] {
        assert!(report.contains(counted), "the report does not count {counted}: {output}");
    }
    scene.db2.sh(&format!("test -e '{target}/source/listed'"));
}

#[test]
fn attributes_of_an_account_without_privileges_are_refused_too() {
    let Some((scene, source, target)) = with_attributes() else { return };
    scene.db1.sh(&format!("chown -R dba '{source}'; setcap cap_net_raw+ep '{source}/capable'"));
    scene.db2.sh(&format!("chown dba '{target}'"));
    let ends = [format!("dba@db1:{source}"), format!("dba@db2:{target}")];
    let output = ended(scene.lab.transfer_spawn(&ends.each_ref().map(String::as_str))).expect_code(4);
    is_told(&output, "xattrs", 2, "attr-");
    is_told(&output, "acls", 1, "listed");
}

/// Mounts a disk of 32 MiB at `$1` with a file of 20 MiB, half of which cannot be read.
const HALF: &str = r#"
    [[ -e /dev/loop-control ]] || mknod /dev/loop-control c 10 237
    for n in {0..63}; do [[ -e /dev/loop$n ]] || mknod /dev/loop$n b 7 $n; done
    truncate -s 32M "$1.image"; mkfs.ext4 -q -O ^has_journal "$1.image"; mkdir "$1"
    mount -o loop "$1.image" "$1"; rmdir "$1/lost+found"
    echo kept >"$1/small"; head -c 20M /dev/urandom >"$1/half"; sync -f "$1"
    first=$(filefrag -v "$1/half" | awk '$1 == "0:" { sub(/\.\..*/, "", $4); print $4; exit }')
    umount "$1"; mount -o loop,ro "$1.image" "$1"
    truncate -s $(((first + 2560) * $(stat -f -c %S "$1"))) "$1.image""#;

fn half_a_file(scene: &Scene) -> String {
    let path = scene.at("disk");
    scene.db1.run(&["bash", "-ec", HALF, "half", &path]).expect_success();
    let read = scene.db1.run(&["cat", &format!("{path}/half")]);
    assert!(read.stderr.contains("Input/output error"), "the disk does not fail: {}", read.stderr);
    path
}

/// The run failed for a file that could not be read, and nothing has a name.
#[track_caller]
fn is_failure(scene: &Scene, name: &str, output: Output) {
    let output = output.expect_code(1);
    told(&output, name);
    assert!(scene.arrived().is_empty(), "{output}");
}

#[test]
fn exclusive_disk_that_fails_in_the_middle_of_a_file_is_no_change() {
    let Some(scene) = Scene::with_source(1) else { return };
    let ends = [format!("db1:{}", half_a_file(&scene)), format!("db2:{}", scene.at("in"))];
    for options in [
        &["--ignore-changed", "--parallel-checksum"][..],
        &["--ignore-changed"],
        &["--ignore-changed", "--parallel-checksum", "--no-encrypt"],
    ] {
        let args = [&ends.each_ref().map(String::as_str)[..], options].concat();
        is_failure(&scene, "half", ended(scene.lab.transfer_spawn(&args)));
    }
}

#[test]
fn exclusive_disk_that_fails_leaves_no_archive() {
    let Some(scene) = Scene::with_source(1) else { return };
    let ends = [format!("db1:{}", half_a_file(&scene)), format!("db2:{}", scene.at("in"))];
    let args = [&ends[0], &ends[1], "--type=compress", "--no-compress"];
    is_failure(&scene, "half", ended(scene.lab.transfer_spawn(&args)));
}

/// A tool whose system calls of one kind fail on paths below a directory.
fn failing(host: &Host, program: &str, condition: &str, call: &str, path: &str) -> Wrapper {
    let script = format!(
        "[[ {condition} ]] && exec strace -qqq -o /dev/null -P {path} -e trace={call} -e inject={call}:error=EIO $real \"$@\""
    );
    Wrapper::new(host, program, &script)
}

#[test]
fn exclusive_directory_that_cannot_be_listed_is_no_change() {
    let Some(scene) = Scene::with_source(1) else { return };
    scene.db1.sh(&format!("mkdir '{0}/sub'; echo x >'{0}/sub/file'", scene.at("source")));
    let (source, copy) = (scene.at("source/sub"), scene.at("in"));
    let of_tar = failing(&scene.db1, "tar", "$* == *--create*", "getdents64", &source);
    is_failure(&scene, "sub", scene.transfer(&["--ignore-changed", "--parallel-checksum"]));
    drop(of_tar);
    let hook = format!("before-source=touch {}", scene.at("armed"));
    let condition = format!("-e {} && $* == *-type*", scene.at("armed"));
    let _find = failing(&scene.db1, "find", &condition, "getdents64", &source);
    let output = scene.transfer(&["--ignore-changed", "--hook", &hook]);
    assert!(matches!(output.status.code(), Some(1 | 3)), "a list that cannot be read was believed: {output}");
    assert_eq!(crate::fixtures::names(&scene.db2, &copy), Vec::<String>::new(), "{output}");
}

#[test]
fn exclusive_copy_that_cannot_be_read_back_is_no_change() {
    let Some(scene) = Scene::with_source(1) else { return };
    let script = "paths=(); for file; do [[ -f $file ]] && paths+=(-P \"$(realpath -- \"$file\")\"); done
        exec strace -f -qqq -o /dev/null \"${paths[@]}\" -e trace=read -e inject=read:error=EIO $real \"$@\"";
    let _md5sum = Wrapper::new(&scene.db2, "md5sum", &format!("if [[ $* == *-z* ]]; then {script}; fi"));
    let output = scene.transfer(&["--ignore-changed"]);
    assert!(matches!(output.status.code(), Some(1 | 3)), "a copy that cannot be read has its name: {output}");
    assert!(scene.arrived().is_empty(), "{output}");
}

#[test]
fn exclusive_file_that_shrinks_while_it_is_read_is_a_change_and_is_named() {
    let Some(scene) = Scene::with_source(MORE_THAN_BUFFERS) else { return };
    let ends = [format!("db1:{}", scene.at("source")), format!("db2:{}", scene.at("in"))];
    let options = ["--ignore-changed", "--parallel-checksum"];
    let args = [&ends.each_ref().map(String::as_str)[..], &options].concat();
    let held = Held::start(&scene.lab, &args, &scene.db2, &scene.at("in"));
    let path = being_read(&scene.db1, scene.scratch.path());
    scene.db1.run(&["truncate", "-s", "1M", &path]).expect_success();
    let output = held.go().expect_success();
    assert!(output.stdout.contains("source/file"), "{output}");
    scene.db2.run(&["test", "-e", &scene.at("in/source/file")]).expect_success();
}

#[test]
fn exclusive_attributes_of_an_archive_are_not_lost_silently() {
    let Some((scene, source, target)) = with_attributes() else { return };
    let archive = scene.at("packed.tar.gz");
    scene.db1.sh(&format!(
        "tar -C '{}' --xattrs '--xattrs-include=*' --format=posix -czf '{archive}' ./source; umount '{source}'",
        scene.scratch.path()
    ));
    // The disk does not tell that it has space.
    let space = "[[ $* == *target_free* ]] && { $real \"$@\" | sed 's/^target_free\\t0\\t/target_free\\t100000\\t/'; exit; }";
    let _stat = Wrapper::new(&scene.db2, "stat", space);
    let ends = [format!("db1:{archive}"), format!("db2:{target}")];
    let transfer = |options: &[&str]| {
        let args = [ends[0].as_str(), ends[1].as_str(), "--type=decompress", "--as=unpacked"];
        ended(scene.lab.transfer_spawn(&[&args[..], options].concat()))
    };
    let output = transfer(&[]);
    assert!(matches!(output.status.code(), Some(1 | 4)), "{output}");
    let cause = ["user.origin", "security.capability", "system.posix_acl_access", "--drop-attributes"];
    assert!(cause.iter().any(|word| output.stderr.contains(word)), "no cause: {output}");
    scene.db2.run(&["test", "!", "-e", &format!("{target}/unpacked")]).expect_success();
    transfer(&["--drop-attributes=xattrs,acls,capabilities"]).expect_success();
    scene.db2.run(&["test", "-e", &format!("{target}/unpacked/capable")]).expect_success();
}
