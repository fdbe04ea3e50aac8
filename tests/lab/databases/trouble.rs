//! Faults of servers, tools and disks during a hot copy.

use crate::databases::{Servers, checksums, replication, report};
use crate::support::changes::{Changed, Wrapper};
use crate::support::holder::{Point, Role};
use crate::support::hosts::Host;
use crate::support::roots;
use crate::support::servers::{SERVED, SOCKET, sql};
use crate::support::trees::names;
use crate::support::waiting::eventually;

#[test]
fn exclusive_backup_waiting_for_lock_is_not_idle() {
    let Some(servers) = Servers::set() else { return };
    servers.db2.sh(&format!("mkdir {}", servers.at("in")));
    let locks = "LOCK TABLES shop.myisam WRITE; SELECT 'locked'; DO SLEEP(12)";
    let locked = servers.db1.spawn(&["mariadb", "-e", locks]);
    let waits = "SELECT COUNT(*) FROM information_schema.metadata_lock_info WHERE table_name = 'myisam'";
    servers.db1.sh("mariadb -e \"INSTALL SONAME 'metadata_lock_info'\"");
    assert!(eventually(SERVED, || sql(&servers.db1, waits).trim() != "0"));
    let ends = [format!("db1:{SOCKET}"), format!("db2:{}", servers.at("in"))];
    let arguments = ["--type=mariabackup", "--json", "--idle-timeout=3", &ends[0], &ends[1]];
    let done = servers.transfer(&arguments).expect_success();
    locked.wait().expect_success();
    assert!(done.stdout.contains(r#""waits":"Acquiring BACKUP LOCKS..."}"#), "{done}");
    report(&done);
}

#[test]
fn exclusive_redo_log_overrun_is_reported_with_remedy() {
    let Some(servers) = Servers::set() else { return };
    servers.db2.sh(&format!("mkdir {}", servers.at("in")));
    let unpacking = Point::Started(|program| program.name == "mbstream");
    let holder = roots::hold(&servers.db2, &[Role::Job], unpacking);
    let ends = [format!("db1:{SOCKET}"), format!("db2:{}", servers.at("in"))];
    // More than the pipes and sockets in between hold; the redo log has 16 MiB.
    sql(&servers.db1, "CREATE TABLE shop.much (text TEXT)");
    let more = "INSERT INTO shop.much SELECT REPEAT(MD5(RAND() * seq), 20) FROM shop.seq_1_to_20000;";
    sql(&servers.db1, &more.repeat(2));
    let mut run = servers.lab.transfer_spawn(&["--type=mariabackup", "--no-compress", &ends[0], &ends[1]]);
    holder.expect_held(&mut run);
    sql(&servers.db1, &more.repeat(4));
    holder.open();
    let failed = run.wait().expect_code(1);
    assert!(failed.stderr.contains("db1: backup ended with status 1"), "{failed}");
    assert!(failed.stderr.contains("raise innodb_log_file_size"), "{failed}");
    assert_eq!(names(&servers.db2, &servers.at("in")), Vec::<String>::new());
    servers.expect_nothing_left();
}

#[test]
fn exclusive_server_with_ten_thousand_files_is_copied() {
    let Some(servers) = Servers::set() else { return };
    for table in ["many", "more"] {
        sql(
            &servers.db1,
            &format!(
                "CREATE TABLE shop.{table} (id INT PRIMARY KEY, text TEXT) PARTITION BY HASH (id) PARTITIONS 5000;
                 INSERT INTO shop.{table} SELECT seq, MD5(seq) FROM shop.seq_1_to_10000"
            ),
        );
    }
    servers.hot("db1", &["--prepare"]);
    servers.start_with(&servers.at("hot"));
    assert_eq!(checksums(&servers.db1), checksums(&servers.db2));
}

#[test]
fn exclusive_full_disk_during_prepare_leaves_nothing() {
    let Some(servers) = Servers::set() else { return };
    servers.db2.sh(&format!("mkdir {}", servers.at("in")));
    // As the real one does with a page-compressed table on a full disk: it repeats this for ever, and ignores
    // SIGTERM.
    let fails = "if [[ $* == *--prepare* ]]; then trap '' TERM; while :; do
        echo '2026-11-21 23:04:36 0 [Note] InnoDB: IO Error: 28 during write of 4096 bytes, for file shop/compressed.ibd(9), returned 0' >&2
        done; fi";
    let _full = Wrapper::new(&servers.db2, "mariadb-backup", fails);
    let ends = [format!("db1:{SOCKET}"), format!("db2:{}", servers.at("in"))];
    let failed = servers.transfer(&["--type=mariabackup", "--prepare", &ends[0], &ends[1]]).expect_code(1);
    assert!(failed.stderr.contains("db2: cannot prepare the backup"), "{failed}");
    assert!(failed.stderr.contains("the disk is full"), "{failed}");
    assert_eq!(names(&servers.db2, &servers.at("in")), Vec::<String>::new());
    servers.expect_nothing_left();
}

/// MySQL and Percona's tools are in no release of Debian. These are MariaDB's programs by those names, with
/// MySQL's answers where they differ.
fn as_mysql(host: &Host) -> Vec<Changed> {
    let client = r#"#!/bin/bash
        statements=$(cat)
        [[ $statements == *'ALL SLAVES'* ]] && { echo 'ERROR 1064 (42000) at line 1: You have an error in your SQL syntax' >&2; exit 1; }
        # An option of MySQL's only.
        words=(); for word; do [[ $word == --loose-skip-enable-cleartext-plugin ]] || words+=("$word"); done
        /usr/bin/hidden.mariadb "${words[@]}" <<<"$statements" | sed 's/10\.11\.[0-9]*-MariaDB[^[:space:]<]*/8.0.36/'
        exit "${PIPESTATUS[0]}""#;
    let backup = r#"#!/bin/bash
        [[ $1 == --version ]] && { echo 'xtrabackup version 8.0.35-31 based on MySQL server 8.0.35 Linux (x86_64)' >&2; exit; }
        exec /usr/bin/hidden.mariadb-backup "$@""#;
    let stream = "#!/bin/bash\nexec /usr/bin/hidden.mbstream \"$@\"";
    for (name, script) in [("mysql", client), ("xtrabackup", backup), ("xbstream", stream)] {
        host.put(script, &format!("/usr/local/bin/{name}"), 0o755);
    }
    let remove = "rm -f /usr/local/bin/mysql /usr/local/bin/xtrabackup /usr/local/bin/xbstream";
    vec![
        Changed::new(host, ":", remove),
        Changed::without(host, &["mariadb", "mariadb-backup", "mariabackup", "mbstream"]),
    ]
}

#[test]
fn exclusive_mysql_server_is_copied_with_xtrabackup() {
    let Some(servers) = Servers::set() else { return };
    servers.replicate("");
    servers.db2.sh(&format!("mkdir {}", servers.at("in")));
    let ends = [format!("db3:{SOCKET}"), format!("db2:{}", servers.at("in"))];
    let arguments = ["--type=xtrabackup", "--stop-replication", "--prepare", &ends[0], &ends[1]];
    {
        let _mysql = [as_mysql(&servers.db3), as_mysql(&servers.db2)];
        let refused = servers.transfer(&arguments).expect_code(4).stderr;
        let older = "db3: xtrabackup 8.0.35 does not support MySQL 8.0.36; install percona-xtrabackup-80";
        assert!(refused.contains(older), "{refused}");
        for host in [&servers.db3, &servers.db2] {
            host.sh("sed -i 's/8.0.35/8.0.36/g' /usr/local/bin/xtrabackup");
        }
        // Its only connection has no name.
        servers.db3.sh("/usr/bin/hidden.mariadb -e \"STOP ALL SLAVES; RESET SLAVE 'main' ALL\"");
        servers.db3.sh(
            "/usr/bin/hidden.mariadb -e \"CHANGE MASTER TO MASTER_HOST = '10.77.0.11', MASTER_USER = 'replica',
             MASTER_PASSWORD = 'of-the-lab', MASTER_USE_GTID = slave_pos; START SLAVE\"",
        );
        let done = servers.transfer(&arguments).expect_success();
        assert!(done.stdout.contains("backup of 10.11."), "as the real tool says: {done}");
    }
    assert!(
        eventually(SERVED, || replication(&servers.db3) == [",Yes,Yes"]),
        "{:?}",
        replication(&servers.db3)
    );
    servers.catch_up(&servers.db3, "''");
    servers.start_with(&servers.at("in"));
    assert_eq!(checksums(&servers.db3), checksums(&servers.db2));
}
