//! Archives: `--type decompress` and `--type compress`.

use crate::databases::{Servers, checksums};
use crate::support::copies::assert_same;
use crate::support::every_kind::make_every_kind;
use crate::support::hosts::Lab;
use crate::support::servers::{SOCKET, sql};
use crate::support::trees::names;

#[test]
fn exclusive_every_archive_format_is_unpacked() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    make_every_kind(&db1, &scratch.join("tree"));
    // Archives have no sockets.
    db1.sh(&format!(
        "cd {}; rm tree/socket; tar --xattrs --xattrs-include='*' --numeric-owner --sparse -cf plain tree
         for tool in gzip zstd lz4 xz; do $tool -q -c plain >as-$tool; done; zstd -q <plain >no-size",
        scratch.path()
    ));
    for name in ["plain", "as-gzip", "as-zstd", "as-lz4", "as-xz", "no-size"] {
        db2.sh(&format!("mkdir -p {0}/in-{name} {0}/out", scratch.path()));
        let source = format!("db1:{}", scratch.join(name));
        let filled = format!("db2:{}", scratch.join(&format!("in-{name}")));
        let done = lab.transfer(&["--type=decompress", &source, &filled]).expect_success();
        let warned = done.stderr.contains("the unpacked size of");
        // gzip reports the length modulo 2^32.
        assert_eq!(warned, ["no-size", "as-lz4", "as-gzip"].contains(&name), "{name}: {done}");
        let tree = names(&db1, &scratch.join("tree"));
        assert_eq!(names(&db2, &scratch.join(&format!("in-{name}"))), tree, "{name}");
        // With a name of its own, the copy is one tree, including its top directory.
        let named = format!("db2:{}", scratch.join("out"));
        db2.sh(&format!("rm -rf {}/tree", scratch.join("out")));
        lab.transfer(&["--type=decompress", &source, &named, "--as", "tree"]).expect_success();
        assert_same((&db1, &scratch.join("tree")), (&db2, &scratch.join("out/tree")));
    }
    let full = format!("db2:{}", scratch.join("in-plain"));
    let refused = lab.transfer(&["--type=decompress", &format!("db1:{}", scratch.join("plain")), &full]);
    assert!(refused.expect_code(4).stderr.contains("is not empty"));
}

#[test]
fn exclusive_invalid_or_oversized_archives_are_rejected() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    let small = scratch.small_disk(&db2, "small", 1 << 20);
    db1.sh(&format!(
        "cd {0}; mkdir top; head -c 3000000 /dev/zero >top/zeros; tar -czf large top; head -c 2000 /dev/urandom >noise
         head -c 100000 /dev/urandom >top/zeros; tar -czf good top; head -c 50000 good >short",
        scratch.path()
    ));
    db2.sh(&format!("mkdir {}", scratch.join("in")));
    let send = |name: &str, to: &str| {
        lab.transfer(&["--type=decompress", &format!("db1:{}", scratch.join(name)), &format!("db2:{to}")])
    };
    let reported = send("large", &small).expect_code(4).stderr;
    assert!(reported.contains("the source needs 2.8"), "{reported}");
    let reported = send("noise", &scratch.join("in")).expect_code(4).stderr;
    assert!(reported.contains("is not an archive") && reported.contains("--type file"), "{reported}");
    let reported = send("short", &scratch.join("in")).expect_code(1).stderr;
    assert!(
        reported.contains("short of db1 is damaged or not in the expected format: decompress ended"),
        "{reported}"
    );
    assert_eq!(names(&db2, &scratch.join("in")), Vec::<String>::new());
}

#[test]
fn exclusive_tree_becomes_archive_with_digest_file() {
    let Some(lab) = Lab::get() else { return };
    let (db1, db2) = (lab.host("db1"), lab.host("db2"));
    let scratch = lab.scratch(&["db1", "db2"]);
    make_every_kind(&db1, &scratch.join("tree"));
    db1.sh(&format!("rm {}", scratch.join("tree/socket")));
    db2.sh(&format!("mkdir {0}/in {0}/out; touch {0}/in/other", scratch.path()));
    let (source, target) = (format!("db1:{}", scratch.join("tree")), format!("db2:{}", scratch.join("in")));
    lab.transfer(&["--type=compress", &source, &target]).expect_success();
    lab.transfer(&["--type=compress", &source, &target, "--compress=gzip", "--no-encrypt"]).expect_success();
    lab.transfer(&["--type=compress", &source, &target, "--no-compress"]).expect_success();
    let archives = ["tree.tar", "tree.tar.gz", "tree.tar.zst"];
    let all = [
        "other",
        "tree.tar",
        "tree.tar.gz",
        "tree.tar.gz.sha256",
        "tree.tar.sha256",
        "tree.tar.zst",
        "tree.tar.zst.sha256",
    ];
    assert_eq!(names(&db2, &scratch.join("in")), all);
    db2.sh(&format!("cd {}; sha256sum -c *.sha256; tar -tf tree.tar >/dev/null; gzip -t tree.tar.gz; zstd -qt tree.tar.zst", scratch.join("in")));
    let refused = lab.transfer(&["--type=compress", &source, &target]).expect_code(4).stderr;
    assert!(refused.contains("tree.tar.zst or its digest file already exists"), "{refused}");
    // The other direction.
    for name in archives {
        let from = format!("db2:{}", scratch.join(&format!("in/{name}")));
        let to = format!("db2:{}", scratch.join("out"));
        lab.transfer(&["--type=decompress", &from, &to, "--as=tree", "--replace"]).expect_success();
        assert_same((&db1, &scratch.join("tree")), (&db2, &scratch.join("out/tree")));
    }
}

#[test]
fn exclusive_archived_backup_becomes_a_server_again() {
    let Some(servers) = Servers::set() else { return };
    servers.db2.sh(&format!("mkdir {0}/in {0}/back", servers.scratch.path()));
    let target = format!("db2:{}", servers.at("in"));
    let writer = servers.write_rows();
    servers
        .transfer(&["--type=compress", &format!("db1:{SOCKET}"), &target, "--as", "shop.xb.zst"])
        .expect_success();
    writer.stop();
    let from = format!("db2:{}", servers.at("in/shop.xb.zst"));
    let to = format!("db2:{}", servers.at("back"));
    servers.transfer(&["--type=decompress", &from, &to, "--prepare"]).expect_success();
    servers.start_with(&servers.at("back"));
    assert!(
        sql(&servers.db2, "CHECK TABLE shop.plain, shop.parts, shop.myisam, shop.aria")
            .matches("\tOK")
            .count()
            == 4
    );
    assert!(checksums(&servers.db2).contains("shop.plain"));
    servers.expect_nothing_left();
}
