//! Data in use: by the processes of servers and of the owner of the data, and not by those of other accounts.

use crate::support::attackers::impostors::Impostor;
use crate::support::attackers::stand::{Stand, answers, answers_at};
use crate::support::changes::Changed;
use crate::support::scenes::SOON;
use crate::support::servers::SOCKET;

#[test]
fn exclusive_forged_server_blocks_no_copy() {
    let Some(stand) = Stand::without_servers(&["db1", "db2"]) else { return };
    let (tree, target) = (stand.directory("db1", "tree"), stand.directory("db2", "in"));
    stand.host("db1").sh(&format!("echo 1 >{tree}/file"));
    let (of_source, of_target) = (stand.eve("db1"), stand.eve("db2"));
    for name in ["mysqld", "mariadbd"] {
        let ends = [&format!("db1:{tree}"), &format!("db2:{target}")];
        let source = of_source.poses_as(name).in_directory(&tree).start();
        stand.transfer(&[ends[0], ends[1], "--as=source"]).expect_success();
        drop(source);
        let _target = of_target.poses_as(name).in_directory(&target).start();
        stand.transfer(&[ends[0], ends[1], "--as=target"]).expect_success();
        stand.transfer(&[ends[0], ends[1], "--as=target", "--replace"]).expect_success();
        stand.host("db2").sh(&format!("rm -r {target}/source {target}/target"));
    }
}

#[test]
fn exclusive_forged_server_blocks_no_cold_copy() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    let db1 = stand.serve("db1", "");
    let target = stand.directory("db2", "in");
    let _forged = stand.eve("db1").poses_as("mysqld").in_directory("/var/lib/mysql").start();
    let done = stand.transfer(&[
        "db1:/var/lib/mysql",
        &format!("db2:{target}"),
        "--stop-server=source",
        "--chown=mysql:mysql",
    ]);
    assert!(answers(&db1), "{done}");
    let done = done.expect_success();
    assert!(!done.stderr.contains("eve"), "{done}");
}

#[test]
fn exclusive_forged_server_blocks_no_replica() {
    let Some(stand) = Stand::on(&["db1", "db3"]) else { return };
    stand.serve("db1", "");
    let db3 = stand.serve("db3", "");
    let _forged = ["db1", "db3"]
        .map(|name| stand.eve(name).poses_as("mariadbd").in_directory("/var/lib/mysql").start());
    stand.transfer(&["replica", "db1", "db3", "--create-account"]).expect_success();
    let status = db3.sh("mariadb -e 'SHOW ALL SLAVES STATUS\\G' | grep -c '_Running: Yes'");
    assert_eq!(status.trim(), "2");
}

#[test]
fn exclusive_foreign_read_lock_is_no_server() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    stand.host("db1").sh("chmod 644 /var/lib/mysql/ibdata1");
    let target = stand.directory("db2", "in");
    let _reads = stand.eve("db1").poses_as("mariadbd").with("read", "/var/lib/mysql/ibdata1").start();
    let ends = ["db1:/var/lib/mysql", &format!("db2:{target}"), "--chown=mysql:mysql"];
    stand.transfer(&ends).expect_success();
}

#[test]
fn exclusive_foreign_locked_files_below_source_are_a_warning() {
    let Some(stand) = Stand::without_servers(&["db1", "db2"]) else { return };
    let (tree, target) = (stand.directory("db1", "tree"), stand.directory("db2", "in"));
    let eve = stand.eve("db1");
    stand.host("db1").sh(&format!("mkdir {tree}/home; install -d -o eve {tree}/home/eve"));
    let file = format!("{tree}/home/eve/ibdata1");
    eve.sh(&format!("echo 1 >{file}"), &[]);
    let _writes = eve.poses_as("sleep").with("write", &file).start();
    let done = stand.transfer(&[&format!("db1:{tree}"), &format!("db2:{target}")]).expect_success();
    let reported =
        done.stderr.contains("warning: db1: ") && done.stderr.contains(&format!("{tree}/home/eve"));
    assert!(reported, "{done}");
}

#[test]
fn exclusive_data_open_for_writing_is_in_use() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    let db1 = stand.host("db1");
    let own = stand.at("mysql");
    db1.sh(&format!("chmod 755 {}; install -d -o mysql -m 755 {own}", stand.scratch.path()));
    let ends = ["db1:/var/lib/mysql", &format!("db2:{}", stand.directory("db2", "in")), "--dry-run"];
    for (how, file) in [("write", "ibdata1"), ("open", "ibdata1"), ("write", "aria_log_control")] {
        let program = Impostor::new(&db1, "mysql", &format!("{own}/record")).with("name", "anything");
        let _program = program.with(how, &format!("/var/lib/mysql/{file}")).start();
        let refused =
            stand.transfer(&[ends[0], ends[1], "--chown=mysql:mysql", ends[2]]).expect_code(4).stderr;
        assert!(refused.contains("/var/lib/mysql"), "{how} {file}: {refused}");
    }
}

#[test]
fn exclusive_server_with_any_program_name_is_detected() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    let db1 = stand.host("db1");
    let target = stand.directory("db2", "in");
    let program = stand.at("foo");
    db1.sh(&format!(
        "chmod 755 {}; cp /usr/sbin/mariadbd {program}; install -d -o mysql /run/mysqld",
        stand.scratch.path()
    ));
    let mut server = db1.spawn(&[&program, "--user=mysql"]);
    assert!(answers(&db1), "{}", server.is_running());
    assert_eq!(db1.sh(&format!("cat /proc/{}/comm", server.pid())), "foo\n");
    let refused = ["/var/lib/mysql", "/var/lib/mysql/mysql", "/var/lib"].map(|path| {
        let ends = [&format!("db1:{path}"), &format!("db2:{target}"), "--chown=mysql:mysql", "--dry-run"];
        stand.transfer(&[ends[0], ends[1], ends[2], ends[3]])
    });
    let as_target = stand.transfer(&["db2:/etc/hostname", "db1:/var/lib/mysql", "--dry-run"]);
    db1.sh("mariadb-admin shutdown");
    server.wait_end(SOON);
    for refused in refused {
        let refused = refused.expect_code(4).stderr;
        assert!(refused.contains("/var/lib/mysql"), "{refused}");
    }
    as_target.expect_code(4);
}

#[test]
fn exclusive_running_server_without_unit_is_copied() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    let db1 = stand.host("db1");
    stand.configure("db1", "");
    db1.sh("install -d -o mysql /run/mysqld");
    for (user, socket) in [("mysql", "/tmp/mysql.sock"), ("root", SOCKET)] {
        let mut server = db1.spawn(&["mariadbd", &format!("--user={user}"), &format!("--socket={socket}")]);
        assert!(answers_at(&db1, socket), "{}", server.is_running());
        let target = stand.directory("db2", &format!("of-{user}"));
        let copied =
            stand.transfer(&["--type=mariabackup", &format!("db1:{socket}"), &format!("db2:{target}")]);
        db1.sh(&format!("mariadb-admin --socket={socket} shutdown"));
        server.wait_end(SOON);
        copied.expect_success();
    }
}

#[test]
fn exclusive_socket_activated_server_is_copied() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    let db1 = stand.host("db1");
    stand.configure("db1", "");
    let target = stand.directory("db2", "in");
    let _units = Changed::new(&db1, ":", "systemctl stop mariadb.socket mariadb.service || :");
    db1.sh("systemctl start mariadb.socket");
    let socket = db1
        .sh("systemctl show -p Listen --value mariadb.socket | grep -om 1 '^/[^ ]*sock'")
        .trim()
        .to_owned();
    db1.sh(&format!("mariadb --socket={socket} -e 'SELECT 1'"));
    stand
        .transfer(&["--type=mariabackup", &format!("db1:{socket}"), &format!("db2:{target}")])
        .expect_success();
    let cold = stand.transfer(&[
        "db1:/var/lib/mysql",
        &format!("db2:{target}"),
        "--as=cold",
        "--stop-server=source",
        "--chown=mysql:mysql",
        "--dry-run",
    ]);
    cold.expect_success();
}
