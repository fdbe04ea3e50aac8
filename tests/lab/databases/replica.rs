//! `transfer replica`: servers become replicas of a running one, or stay as they were.

mod failures;

use std::time::Instant;

use crate::databases::{Servers, checksums, follow, replication, report};
use crate::support::changes::{Changed, Wrapper};
use crate::support::commands::Running;
use crate::support::hosts::Host;
use crate::support::output::Output;
use crate::support::servers::{Reserved, SERVED, configure, sql};
use crate::support::waiting::eventually;

/// Required configuration of a replica.
const READ_ONLY: &str =
    "read_only=1\ninnodb_flush_log_at_trx_commit=2\nslave_parallel_threads=2\nslave_parallel_mode=optimistic";
/// An existing replication account, in a file of the controller.
const ACCOUNT: &str = "/root/account.cnf";

impl Servers {
    fn replica(&self, arguments: &[&str]) -> Output {
        self.transfer(&[&["replica"], arguments].concat())
    }

    /// Starts a server without databases on a host.
    fn empty(host: &Host, id: u8) {
        configure(host, id, READ_ONLY);
        host.sh("systemctl restart mariadb");
    }

    /// Makes db2 a replica of the primary, with a database of its own by which it is recognised.
    fn old_replica(&self) {
        configure(&self.db2, 2, "");
        self.db2.sh("systemctl restart mariadb");
        sql(&self.db2, "SET sql_log_bin = 0; CREATE DATABASE old_one");
        follow(&self.db2, "'main'", "slave_pos");
        self.catch_up(&self.db2, "'main'");
    }

    fn account(&self) -> Changed {
        let ctl = self.lab.host("ctl");
        ctl.put("[client]\nuser = replica\npassword = of-the-lab\n", ACCOUNT, 0o600);
        Changed::new(&ctl, ":", &format!("rm -f {ACCOUNT}"))
    }

    /// Asserts that a host is a replica: rows of the primary arrive, tables agree, and it is read-only.
    #[track_caller]
    fn expect_replica(&self, host: &Host) {
        assert_eq!(replication(host), [",Yes,Yes"]);
        assert_eq!(sql(host, "SELECT @@read_only").trim(), "1");
        sql(&self.db1, "INSERT INTO shop.plain (text) VALUES ('written behind it')");
        self.catch_up(host, "''");
        let row = sql(host, "SELECT COUNT(*) > 0 FROM shop.plain WHERE text = 'written behind it'");
        assert_eq!(row.trim(), "1");
        assert_eq!(checksums(host), checksums(&self.db1));
    }

    /// Asserts that the old replica of db2 is as it was, and that nothing is left on any host.
    #[track_caller]
    fn expect_old_one(&self, when: &str) {
        // Held programs may delay the rollback, until no process is left that does it; only then is it done
        // by another run.
        self.expect_nothing_left();
        let look = "mariadb -e 'USE old_one' && mariadb -e 'SHOW ALL SLAVES STATUS\\G' | grep -c ' Slave_.*_Running: Yes'";
        let is_back = || self.db2.run(&["bash", "-c", look]).stdout == "2\n";
        assert!(eventually(SERVED, is_back), "{when}: {}", self.db2.run(&["systemctl", "status", "mariadb"]));
        assert_eq!(sql(&self.db2, "SELECT @@read_only, @@event_scheduler"), "0\tOFF\n", "{when}");
        self.db2.sh("[[ ! -e /run/systemd/system/mariadb.service.d ]]");
        self.expect_no_accounts(when);
        let names = self.db2.sh("ls -A /var/lib | grep -E '^\\.transfer|old-' || :");
        assert_eq!(names, "", "{when}");
    }

    #[track_caller]
    fn expect_no_accounts(&self, when: &str) {
        let accounts = sql(&self.db1, "SELECT user FROM mysql.user WHERE user LIKE 'replica-%'");
        assert_eq!(accounts, "", "{when}");
    }
}

#[test]
fn exclusive_empty_server_becomes_replica_under_writes() {
    let Some(servers) = Servers::set() else { return };
    configure(&servers.db2, 2, &format!("{READ_ONLY}\nevent_scheduler=ON"));
    servers.db2.sh("systemctl restart mariadb");
    let planned = servers.replica(&["db1", "db2", "--create-account", "--dry-run"]).expect_success().stdout;
    for step in [
        "CREATE USER 'replica-",
        "in one step (provisional)",
        "CHANGE MASTER TO db1:3306",
        "catch up",
        "accept",
    ] {
        assert!(planned.contains(step), "{step}: {planned}");
    }
    // Objects that the primary runs by itself, and a replica must not.
    sql(
        &servers.db1,
        "CREATE EVENT shop.`its $(event)` ON SCHEDULE EVERY 1 SECOND DO INSERT INTO shop.plain (text) VALUES (@@server_id);
         SET GLOBAL event_scheduler = ON",
    );
    let before = sql(&servers.db1, "SELECT @@gtid_binlog_pos");
    let (clock, writer) = (Instant::now(), servers.write_rows());
    let done = servers.replica(&["db1", "db2", "--create-account", "--verify-tables"]).expect_success();
    writer.stop();
    let number = |gtid: &str| gtid.trim().rsplit('-').next().unwrap().parse::<f64>().unwrap();
    let written = number(&sql(&servers.db1, "SELECT @@gtid_binlog_pos")) - number(&before);
    let rate = written / clock.elapsed().as_secs_f64();
    // Thousands on idle machines; here another lab runs at the same time.
    assert!(rate > 200.0, "{rate:.0} rows a second were written");
    let text = &done.stdout;
    assert!(
        text.contains("db2: replicates from db1 (db1:3306), ") && text.contains(" s behind, read-only"),
        "{done}"
    );
    assert!(
        text.contains("tables equal to the donor's at GTID 0-1-") && text.contains("by checksum"),
        "{done}"
    );
    assert!(text.contains("account replica-") && text.contains("catching up "), "{done}");
    sql(&servers.db1, "SET GLOBAL event_scheduler = OFF");
    servers.expect_replica(&servers.db2);
    servers.expect_nothing_left();
    let event = "SELECT status FROM information_schema.events";
    assert_eq!(sql(&servers.db1, event), "ENABLED\n");
    assert_eq!(sql(&servers.db2, event), "SLAVESIDE_DISABLED\n");
    assert_eq!(sql(&servers.db2, "SELECT @@event_scheduler"), "ON\n", "as its configuration says");
    assert_eq!(sql(&servers.db2, "SELECT COUNT(*) FROM shop.plain WHERE text = '2'"), "0\n");
    // As root sees it, and as any other account.
    let said = format!("{done}{}", servers.db2.sh("cat /var/log/mysql/*.log 2>/dev/null || :"));
    let password = servers.db2.sh("sed -n 6p /var/lib/mysql/master.info");
    assert!(password.trim().len() == 32 && !said.contains(password.trim()), "{said}");
}

#[test]
fn exclusive_password_and_hash_are_never_exposed() {
    let Some(servers) = Servers::set() else { return };
    Servers::empty(&servers.db2, 2);
    for host in [&servers.db1, &servers.db2] {
        sql(host, "SET GLOBAL general_log = 1, GLOBAL general_log_file = '/tmp/general.log'");
    }
    // Records every process that starts on the two hosts, and what the agents write.
    let watch = "touch /run/watching; while [[ -e /run/watching ]]; do cat /proc/[0-9]*/cmdline /var/lib/transfer/*/journal.bin \
                 /var/lib/transfer/*/*.job 2>/dev/null | tr '\\0' ' '; sleep 0.005; done >/tmp/watched";
    let watches: Vec<Running> =
        [&servers.db1, &servers.db2].map(|host| host.spawn(&["bash", "--norc", "-c", watch])).into();
    let done = servers.replica(&["db1", "db2", "--create-account", "-v"]).expect_success();
    for host in [&servers.db1, &servers.db2] {
        host.sh("rm /run/watching");
    }
    for watch in watches {
        drop(watch.wait());
    }
    sql(&servers.db1, "SET GLOBAL general_log = 0");
    let password = servers.db2.sh("sed -n 6p /var/lib/mysql/master.info").trim().to_owned();
    let hash = sql(&servers.db1, &format!("SELECT PASSWORD('{password}')")).trim().to_owned();
    assert!(password.len() == 32 && hash.len() == 41, "{password} {hash}");
    let seen = |host: &Host, word: &str, files: &str| {
        host.sh(&format!("grep -ac -- '{word}' {files} 2>/dev/null || :"))
            .lines()
            .any(|line| !line.ends_with('0'))
    };
    assert!(!format!("{done}").contains(&password) && !format!("{done}").contains(&hash), "{done}");
    for host in [&servers.db1, &servers.db2] {
        assert!(host.sh("wc -c </tmp/watched").trim().parse::<u64>().unwrap() > 100_000);
        assert!(!seen(host, &password, "/tmp/watched /tmp/general.log"), "the password");
        assert!(!seen(host, &hash[1..], "/tmp/watched"), "the hash");
        host.sh("rm -f /tmp/watched /tmp/general.log");
    }
    // An account that the primary never had.
    assert!(!seen(&servers.db1, &password, "/var/lib/mysql/mysql-bin.*"));
}

#[test]
fn exclusive_unstarted_server_becomes_replica_by_position() {
    let Some(servers) = Servers::set() else { return };
    let _account = servers.account();
    configure(&servers.db2, 2, READ_ONLY);
    // There are no GTIDs yet.
    sql(&servers.db1, "RESET MASTER");
    for (make, way) in [(":", "with an empty data directory"), ("rm -r /var/lib/mysql", "with none at all")] {
        servers.db2.sh(&format!(
            "systemctl stop mariadb; rm -rf /var/lib/mysql; cp -a /var/lib/mysql.package /var/lib/mysql; {make}"
        ));
        sql(&servers.db1, "RESET MASTER");
        let arguments = ["db1", "db2", "--account", ACCOUNT, "--verify-tables=rows", "--json"];
        let done = servers.replica(&arguments).expect_success();
        let report = report(&done);
        let replica = &report["targets"][0]["copy"]["replica"];
        assert_eq!(replica["began_from"]["file"], "mysql-bin.000001", "{way}: {replica}");
        assert_eq!(replica["tables"]["check"], "rows", "{way}: {replica}");
        assert!(
            replica["lag_seconds"].as_f64().unwrap() <= 1.0 && replica["account_created"] == false,
            "{replica}"
        );
        assert!(report["phases"]["catching_up"].as_f64().is_some(), "{report}");
        servers.expect_replica(&servers.db2);
        servers.expect_nothing_left();
    }
}

#[test]
fn exclusive_target_with_databases_requires_replace() {
    let Some(servers) = Servers::set() else { return };
    let _account = servers.account();
    servers.old_replica();
    let order = ["db1", "db2", "--account", ACCOUNT];
    let refused = servers.replica(&order).expect_code(4).stderr;
    assert!(
        refused.contains("db2: the server has databases: ") && refused.contains("--replace"),
        "{refused}"
    );
    servers.expect_old_one("refused");
    let kept = servers.replica(&[&order[..], &["--replace", "--keep-old"]].concat()).expect_success();
    assert!(kept.stdout.contains("the old data is now /var/lib/mysql.old-"), "{kept}");
    servers.expect_replica(&servers.db2);
    servers.db2.sh("[[ -d $(echo /var/lib/mysql.old-*)/old_one ]] && rm -r /var/lib/mysql.old-*");
    servers.replica(&[&order[..], &["--replace"]].concat()).expect_success();
    servers.expect_replica(&servers.db2);
    assert_eq!(servers.db2.sh("ls -d /var/lib/mysql.old-* 2>/dev/null || :"), "");
    servers.expect_nothing_left();
}

#[test]
fn exclusive_one_backup_feeds_replicas_of_any_binlog_format() {
    let Some(servers) = Servers::set() else { return };
    let ctl = servers.lab.host("ctl");
    let _ctl = Reserved::new(vec![ctl.clone()]);
    let targets = [(&servers.db2, 2), (&servers.db3, 3), (&ctl, 4)];
    let backups = servers.at("backups");
    let _count = Wrapper::new(
        &servers.db1,
        "mariadb-backup",
        &format!("[[ $* == *--backup* ]] && echo one >>{backups}"),
    );
    for (round, format) in ["ROW", "MIXED", "STATEMENT"].into_iter().enumerate() {
        let semi = "rpl_semi_sync_master_enabled=1\nrpl_semi_sync_slave_enabled=1\nrpl_semi_sync_master_timeout=2000";
        configure(&servers.db1, 1, &format!("binlog_format={format}\n{semi}"));
        servers.db1.sh("systemctl restart mariadb");
        for (host, id) in targets {
            configure(host, id, &format!("{READ_ONLY}\nbinlog_format={format}\n{semi}"));
            host.sh("systemctl restart mariadb");
        }
        let writer = servers.write_rows();
        // UUID() is unsafe for statement-based replication.
        let mut order = vec!["db1", "db2", "db3", "localhost", "--create-account", "--replace"];
        if format != "STATEMENT" {
            order.push("--verify-tables");
        }
        let done = servers.replica(&order).expect_success();
        writer.stop();
        for host in ["db2", "db3", "localhost"] {
            assert!(done.stdout.contains(&format!("{host}: replicates from db1")), "{done}");
        }
        assert_eq!(servers.db1.sh(&format!("wc -l <{backups}")).trim(), (round + 1).to_string());
        for (host, _) in targets {
            if format == "STATEMENT" {
                assert_eq!(replication(host), [",Yes,Yes"]);
                let semi = sql(host, "SHOW STATUS LIKE 'Rpl_semi_sync_slave_status'");
                assert!(semi.contains("ON"), "{semi}");
            } else {
                servers.expect_replica(host);
            }
        }
    }
    servers.expect_nothing_left();
}

#[test]
fn exclusive_replica_as_donor_works_in_every_topology() {
    let Some(servers) = Servers::set() else { return };
    servers.replicate("");
    // A stopped replica stays stopped, and its copies start at its position.
    sql(&servers.db3, "STOP SLAVE 'main'");
    let writer = servers.write_rows();
    Servers::empty(&servers.db2, 2);
    let refused = servers.replica(&["db3", "db2", "--verify-tables"]).expect_code(4).stderr;
    assert!(refused.contains("db3: replication is stopped") && refused.contains("START SLAVE"), "{refused}");
    let beside = servers.replica(&["db3", "db2"]).expect_success();
    assert!(beside.stdout.contains("db2: replicates from 10.77.0.11 (10.77.0.11:3306)"), "{beside}");
    assert_eq!(replication(&servers.db3), ["main,No,No"]);
    writer.stop();
    servers.expect_replica(&servers.db2);
    let from = ["db1", "db2", "--from", "db3", "--replace", "--create-account"];
    let from = servers.replica(&from).expect_success();
    assert!(from.stdout.contains("db2: replicates from db1 (db1:3306)"), "{from}");
    servers.expect_replica(&servers.db2);
    assert_eq!(replication(&servers.db3), ["main,No,No"]);
    sql(&servers.db3, "START SLAVE 'main'");
    servers.catch_up(&servers.db3, "'main'");
    let writer = servers.write_rows();
    servers.replica(&["db3", "db2", "--sibling", "--replace", "--verify-tables"]).expect_success();
    writer.stop();
    servers.expect_replica(&servers.db2);
    let chained = servers
        .replica(&[
            "db3",
            "db2",
            "--replicate-from-primary",
            "--replace",
            "--verify-tables",
            "--create-account",
        ])
        .expect_success();
    assert!(chained.stdout.contains("db2: replicates from db3 (db3:3306)"), "{chained}");
    assert_eq!(servers.db2.sh("sed -n 4p /var/lib/mysql/master.info").trim(), "db3");
    // The account is in no binary log: no replica has a GTID of its own.
    assert_eq!(sql(&servers.db3, "SELECT @@gtid_binlog_state LIKE '%-3-%'"), "0\n");
    servers.catch_up(&servers.db3, "'main'");
    servers.expect_replica(&servers.db2);
    servers.expect_nothing_left();
}

#[expect(clippy::too_many_lines, reason = "one set of servers for all refusals")]
#[test]
fn exclusive_replica_is_refused_before_any_change() {
    let Some(servers) = Servers::set() else { return };
    let _account = servers.account();
    Servers::empty(&servers.db2, 2);
    let process = servers.db2.sh("systemctl show -p MainPID --value mariadb");
    let refused = |arguments: &[&str]| servers.replica(arguments).expect_code(4).stderr;
    let order = ["db1", "db2", "--account", ACCOUNT];
    let reported = refused(&["db1", "db2"]);
    assert!(
        reported.contains("no replication account is known") && reported.contains("--create-account"),
        "{reported}"
    );
    assert!(refused(&["db1", "db1"]).contains("db1: it is the same host as db1"));
    assert!(refused(&["db1", "db2", "--sibling"]).contains("it is not a replica"));
    assert!(refused(&["db1", "db2", "--from", "db3"]).contains("db3: no MariaDB server is running"));
    {
        let version =
            "[[ $* == *--version* ]] && echo 'mariadbd  Ver 11.4.2-MariaDB for debian-linux-gnu' && exit";
        // The program of the running server is used.
        let _older = Changed::new(
            &servers.db2,
            &format!(
                "systemctl stop mariadb; mv /usr/sbin/mariadbd /usr/sbin/mariadbd.real
                 printf '#!/bin/bash\\n{}\\nexec /usr/sbin/mariadbd.real \"$@\"\\n' >/usr/sbin/mariadbd; chmod +x /usr/sbin/mariadbd",
                version.replace('\'', "'\\''")
            ),
            "mv -f /usr/sbin/mariadbd.real /usr/sbin/mariadbd; systemctl start mariadb",
        );
        let reported = refused(&order);
        assert!(reported.contains("db2: the server is 11.4.2, but that of db1 is 10.11."), "{reported}");
    }
    {
        // Only between the two servers.
        let _wall = Changed::new(
            &servers.db1,
            "iptables -I INPUT -s 10.77.0.12 -p tcp --dport 3306 -j REJECT",
            "iptables -D INPUT -s 10.77.0.12 -p tcp --dport 3306 -j REJECT",
        );
        let reported = refused(&order);
        assert!(reported.contains("open port 3306 of db1 for 10.77.0.12"), "{reported}");
    }
    {
        let _id = Changed::new(
            &servers.db2,
            "sed -i 's/^server_id=2/server_id=1/' /etc/mysql/mariadb.conf.d/99-lab.cnf",
            "sed -i 's/^server_id=1/server_id=2/' /etc/mysql/mariadb.conf.d/99-lab.cnf",
        );
        let reported = refused(&order);
        assert!(
            reported.contains("server_id 1 is already used by db1; set server_id=2 below [mysqld]"),
            "{reported}"
        );
    }
    {
        sql(&servers.db2, "CREATE USER app@'%' IDENTIFIED BY 'x'");
        let app =
            servers.db1.spawn(&["mariadb", "-h", "10.77.0.12", "-u", "app", "-px", "-e", "SELECT SLEEP(60)"]);
        let reported = || servers.replica(&order).stderr;
        let is_told = || reported().contains("the server has 1 connected client: app@10.77.0.11");
        assert!(eventually(SERVED, is_told), "{}", reported());
        sql(&servers.db2, "KILL USER app");
        drop(app);
    }
    sql(&servers.db1, "REVOKE REPLICATION SLAVE ON *.* FROM replica@'%'");
    let reported = refused(&order);
    assert!(
        reported.contains("account replica lacks REPLICATION SLAVE on ")
            && reported.contains("GRANT REPLICATION SLAVE"),
        "{reported}"
    );
    sql(&servers.db1, "DROP USER replica@'%'");
    let reported = refused(&order);
    assert!(
        reported.contains("cannot log in to db1:3306") && reported.contains("--create-account"),
        "{reported}"
    );
    configure(&servers.db1, 1, "skip_log_bin");
    servers.db1.sh("systemctl restart mariadb");
    let reported = refused(&["db1", "db2", "--create-account"]);
    assert!(reported.contains("db1: binary logging is off"), "{reported}");
    configure(&servers.db1, 1, "bind-address=127.0.0.1");
    servers.db1.sh("systemctl restart mariadb");
    let reported = refused(&["db1", "db2", "--create-account"]);
    assert!(reported.contains("db1: the server listens on 127.0.0.1 only"), "{reported}");
    assert_ne!(process.trim(), "0");
    servers.expect_no_accounts("refused");
    servers.expect_nothing_left();
}
