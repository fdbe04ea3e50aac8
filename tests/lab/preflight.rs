//! Refusals and warnings of the preflight on real hosts.

use crate::support::changes::Changed;
use crate::support::copies::{assert_same, make_random};
use crate::support::hosts::Lab;
use crate::support::trees::names;

#[test]
fn uid_mismatch_is_reported_and_chown_fixes_it() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    let source = scratch.join("source");
    db1.sh(&format!("mkdir '{source}'; echo x >'{source}/table'; chown -R mysql:mysql '{source}'"));
    let args = [format!("db1:{source}"), format!("db2:{}", scratch.path())];
    let transfer =
        |options: &[&str]| lab.transfer(&[&args.each_ref().map(String::as_str)[..], options].concat());
    let owners = || db2.sh(&format!("cd '{source}'; stat -c %u:%g . table | sort -u; rm -r '{source}'"));

    let output = transfer(&[]).expect_success();
    for (kind, there, here) in [("uid", 111, 121), ("gid", 112, 122)] {
        let reported = format!(
            "db2: {kind} mismatch: mysql is {there} on db1 but {here} here; the copy would belong to {kind} {there} "
        );
        assert!(output.stderr.contains(&reported) && output.stderr.contains("--chown"), "{output}");
    }
    assert_eq!(owners(), "111:112\n");

    for (owner, numbers) in
        [("mysql:mysql", "121:122"), ("mysql", "121:112"), (":mysql", "111:122"), ("7:8", "7:8")]
    {
        let output = transfer(&["--chown", owner]).expect_success();
        assert!(!output.stderr.contains("WARN"), "{output}");
        assert_eq!(owners(), format!("{numbers}\n"), "--chown {owner}");
    }

    let output = transfer(&["--chown", "nosuch:nobodys"]).expect_code(4);
    for unknown in ["user nosuch", "group nobodys"] {
        let reported = format!("db2: {unknown} does not exist (--chown); create it, or give its numeric id");
        assert!(output.stderr.contains(&reported), "{output}");
    }
    let output = lab
        .transfer(&[&format!("db1:{source}/table"), &format!("dba@db2:{}", scratch.path()), "--chown=mysql"])
        .expect_code(4);
    let reported = "dba@db2: --chown requires root; log in as root, or use --sudo";
    assert!(output.stderr.contains(reported), "{output}");
    assert!(names(&db2, scratch.path()).is_empty());
}

#[test]
fn read_only_and_small_file_systems_are_refused() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    let source = scratch.join("source");
    make_random(&db1, &source, 2);
    let sealed = scratch.small_disk(&db2, "sealed", 8 << 20);
    let small = scratch.small_disk(&db2, "small", 1 << 20);
    let bound = scratch.join("bound");
    db2.sh(&format!(
        "mount -o remount,ro '{sealed}'; mkdir '{bound}'; mount --bind '{bound}' '{bound}'; mount -o remount,ro,bind '{bound}'"
    ));
    for (directory, reported) in [
        (&sealed, "is on a read-only file system; remount it read-write"),
        (&bound, "is on a read-only file system; remount it read-write"),
        (
            &small,
            "has 1.00 MiB free (1048576 bytes), the source needs 2.00 MiB (2097152 bytes); free some space",
        ),
    ] {
        let output = lab.transfer(&[&format!("db1:{source}"), &format!("db2:{directory}")]).expect_code(4);
        assert!(output.stderr.contains(&format!("db2: {directory} {reported}")), "{output}");
        assert!(names(&db2, directory).is_empty());
    }
}

#[test]
fn bind_mounts_do_not_hide_nesting() {
    let Some(lab) = Lab::get() else { return };
    let db1 = lab.host("db1");
    let scratch = lab.scratch(&["db1"]);
    let source = scratch.join("source");
    let [whole, below, above, beside] = ["whole", "below", "above", "beside"].map(|name| scratch.join(name));
    db1.sh(&format!(
        "cd '{}'; mkdir -p source/sub/deep whole below above beside other; echo x >source/file
        mount --bind source whole; mount --bind source/sub below; mount --bind . above; mount --bind other beside",
        scratch.path()
    ));
    let from = format!("db1:{source}");
    for directory in [&whole, &below, &format!("{below}/deep"), &format!("{above}/source/sub")] {
        let output = lab.transfer(&[&from, &format!("db1:{directory}")]).expect_code(4);
        assert!(output.stderr.contains(&format!("db1: {directory} is inside the source")), "{output}");
        // In the other direction.
        let output =
            lab.transfer(&[&format!("db1:{above}/source"), &format!("db1:{directory}")]).expect_code(4);
        assert!(output.stderr.contains(&format!("db1: {directory} is inside the source")), "{output}");
    }
    let output = lab.transfer(&[&from, &format!("db1:{above}")]).expect_code(4);
    assert!(output.stderr.contains(&format!("db1: {above}/source already exists")), "{output}");
    for inner in [&source, &format!("{source}/sub"), &format!("{source}/file"), &below] {
        let output = lab
            .transfer(&[&format!("db1:{inner}"), &format!("db1:{above}"), "--replace", "--as=source"])
            .expect_code(4);
        assert!(
            output.stderr.contains(&format!("db1: {above}/source is or contains the source")),
            "{output}"
        );
    }
    let output = lab
        .transfer(&[&from, &format!("db1:{beside}"), &format!("db1:{}", scratch.join("other"))])
        .expect_code(4);
    assert!(output.stderr.contains(&format!("{beside} is given twice as a target")), "{output}");

    // A link to another place is a directory like any other.
    lab.transfer(&[&from, &format!("db1:{beside}")]).expect_success();
    assert_same((&db1, &source), (&db1, &format!("{beside}/source")));
}

#[test]
fn exclusive_one_refusal_lists_all_findings_with_fixes() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2, db3) = (lab.host("db1"), lab.host("db2"), lab.host("db3"));
    let scratch = lab.scratch(&["db1", "db2", "db3"]);
    let (source, link) = (scratch.join("source"), scratch.join("link"));
    make_random(&db1, &source, 2);
    db1.run(&["ln", "-s", &source, &link]).expect_success();
    db2.put("mine", &link, 0o600);
    let small = scratch.small_disk(&db3, "small", 64 << 10);
    db3.sh(&format!("mount -o remount,ro '{small}'"));
    let _missing = [Changed::without(&db1, &["openssl"]), Changed::without(&db2, &["zstd", "openssl"])];
    let output = lab
        .transfer(&[
            &format!("db1:{link}"),
            &format!("db2:{}", scratch.path()),
            &format!("db3:{small}"),
            &format!("db3:{}", scratch.join("nowhere")),
            "nosuchhost:/srv",
            "--compress=zstd",
            "--chown=nosuch",
        ])
        .expect_code(4);
    let reported = [
        "db1: not installed: openssl; apt install openssl".to_owned(),
        format!("db1: {link} is a symbolic link; give the path that it points to: {source}"),
        "db2: not installed: openssl, zstd; apt install openssl zstd".to_owned(),
        format!("db2: {link} already exists; move it away"),
        "db2: user nosuch does not exist (--chown)".to_owned(),
        format!("db3: {small} is on a read-only file system"),
        "db3: user nosuch does not exist (--chown)".to_owned(),
        format!("db3: {0} does not exist; mkdir {0}", scratch.join("nowhere")),
        "nosuchhost: cannot connect with ssh".to_owned(),
    ];
    for text in &reported {
        assert!(output.stderr.contains(text), "no '{text}': {output}");
    }
    assert_eq!(output.stderr.matches("refused, nothing was changed").count(), 1, "{output}");
    assert_eq!(
        output.stderr.lines().filter(|line| line.starts_with("  ")).count(),
        reported.len(),
        "{output}"
    );
    assert_eq!(names(&db2, scratch.path()), ["link"]);
    assert!(names(&db3, &small).is_empty());
    for host in [&db1, &db2, &db3] {
        assert!(!host.run(&["test", "-e", "/var/lib/transfer"]).status.success());
    }
}
