//! Hot copies: `--type mariabackup`.

use nix::libc;

use crate::databases::{HOLD, LEASE, Servers, checksums, expect_held, follow, let_go, replication};
use crate::support::agents::Found;
use crate::support::changes::{Changed, Wrapper};
use crate::support::holder::{OPEN, Point, Role};
use crate::support::hosts::Host;
use crate::support::processes;
use crate::support::roots;
use crate::support::servers::{SERVED, SOCKET, configure, second, sql};
use crate::support::trees::names;
use crate::support::waiting::eventually;

#[test]
fn exclusive_hot_copy_under_writes_becomes_a_replica() {
    let Some(servers) = Servers::set() else { return };
    servers.replicate("");
    let ways: [&[&str]; 3] = [
        &["--prepare"],
        &["--prepare", "--no-encrypt", "--no-compress", "--no-checksum", "--prepare-memory", "100M"],
        &["--prepare", "--compress=lz4", "--parallel-checksum", "--backup-threads", "3"],
    ];
    for way in ways {
        let writer = servers.write_rows();
        let report = servers.hot("db1", way);
        writer.stop();
        let backup = &report["targets"][0]["copy"]["backup"];
        let gtid = backup["gtid"].as_str().unwrap();
        assert!(gtid.starts_with("0-1-"), "{backup}");
        assert_eq!(backup["binlog_file"].as_str().unwrap(), "mysql-bin.000001");
        assert!(backup["binlog_position"].as_u64().unwrap() > 1000 && backup["prepared"] == true, "{backup}");
        for log in [&report["source"]["log"], &report["targets"][0]["log"]] {
            let last = log.as_array().unwrap().last().unwrap().as_str().unwrap();
            assert!(last.ends_with("completed OK!"), "{log}");
        }
        servers.start_with(&servers.at("hot"));
        if way.contains(&"--no-checksum") {
            let (file, position) = (&backup["binlog_file"], &backup["binlog_position"]);
            let at = format!("no, MASTER_LOG_FILE = {file}, MASTER_LOG_POS = {position}");
            follow(&servers.db2, "''", &at);
        } else {
            sql(&servers.db2, &format!("SET GLOBAL gtid_slave_pos = '{gtid}'"));
            follow(&servers.db2, "''", "slave_pos");
        }
        servers.catch_up(&servers.db2, "''");
        assert_eq!(checksums(&servers.db1), checksums(&servers.db2), "{way:?}");
    }
    servers.catch_up(&servers.db3, "'main'");
    assert_eq!(checksums(&servers.db1), checksums(&servers.db3), "replication goes on");
    servers.expect_nothing_left();
}

#[test]
fn exclusive_replication_is_stopped_and_restored_exactly() {
    let Some(servers) = Servers::set() else { return };
    servers.replicate("");
    // A source sends only one stream to a server: another connection needs another source.
    configure(&servers.db2, 2, "");
    servers.db2.sh("systemctl restart mariadb");
    sql(
        &servers.db2,
        "CREATE USER replica@'%' IDENTIFIED BY 'of-the-lab'; GRANT REPLICATION SLAVE ON *.* TO replica@'%'",
    );
    // A replica by file and position whose SQL thread is stopped, and one whose replication is stopped.
    sql(
        &servers.db3,
        "CHANGE MASTER 'half' TO MASTER_HOST = '10.77.0.12', MASTER_USER = 'replica', MASTER_PASSWORD = 'of-the-lab',
             MASTER_CONNECT_RETRY = 1, MASTER_LOG_FILE = 'mysql-bin.000001', MASTER_LOG_POS = 4; START SLAVE 'half' IO_THREAD;
         CHANGE MASTER \"it's odd\" TO MASTER_HOST = '10.77.0.11', MASTER_USER = 'nobody', MASTER_USE_GTID = no",
    );
    let before = ["half,Yes,No", "it's odd,No,No", "main,Yes,Yes"];
    let as_before = || replication(&servers.db3) == before;
    assert!(eventually(SERVED, as_before), "{:?}", replication(&servers.db3));
    // Seen by the backup when it begins.
    let seen = servers.at("seen");
    let _look = Wrapper::new(
        &servers.db3,
        "mariadb-backup",
        &format!(
            "[[ $* == *--backup* ]] && mariadb -e 'SHOW ALL SLAVES STATUS\\G' | grep -c ' Yes$' >{seen}"
        ),
    );
    let _writer = servers.write_rows();
    let report = servers.hot("db3", &["--stop-slave", "--prepare"]);
    assert_eq!(servers.db3.sh(&format!("cat {seen}")).trim(), "0", "something ran during the backup");
    assert!(eventually(SERVED, as_before), "{:?}", replication(&servers.db3));
    let position = report["targets"][0]["copy"]["backup"]["source_position"].as_str().unwrap();
    assert!(position.contains("CHANGE MASTER"), "{position}");
    servers.expect_nothing_left();
}

/// Kills processes, none of which can act for another one: the kernel continues stopped ones when their
/// parent dies.
fn kill_at_once(host: &Host, whom: &[&str]) {
    let found = Found::of(host, whom);
    found.freeze();
    found.signal("KILL");
    found.thaw();
}

/// Starts a copy of a replica, which is held while the replication is stopped.
fn held(servers: &Servers, options: &[&str]) -> (crate::support::commands::Running, Wrapper) {
    servers.db2.sh(&format!("mkdir -p {}", servers.at("in")));
    let wait = format!("if [[ $* == *--backup* ]]; then {HOLD}; fi");
    let hold = Wrapper::new(&servers.db3, "mariadb-backup", &wait);
    let ends = [format!("db3:{SOCKET}"), format!("db2:{}", servers.at("in"))];
    let mut arguments =
        vec!["--type=mariabackup", "--stop-replication", "--lease-time", LEASE, &ends[0], &ends[1]];
    arguments.extend(options);
    let run = servers.lab.transfer_spawn(&arguments);
    let run = expect_held(&servers.db3, run);
    assert_eq!(replication(&servers.db3), ["main,No,No"]);
    (run, hold)
}

#[test]
fn exclusive_replication_runs_again_after_any_kill() {
    let Some(servers) = Servers::set() else { return };
    servers.replicate("");
    let runs = || replication(&servers.db3) == ["main,Yes,Yes"];
    for whom in ["controller", "agent", "backup", "signal"] {
        let (run, hold) = held(&servers, &[]);
        let kill = |whom: &str| {
            processes::sh(&servers.db3, &format!("kill -KILL $({whom})"));
        };
        match whom {
            "controller" => run.signal("KILL"),
            "signal" => run.signal("TERM"),
            "backup" => kill("process sender mariadb-backup --backup"),
            _ => kill("agent"),
        }
        let ended = run.wait();
        assert!(!ended.status.success(), "{whom}: {ended}");
        assert!(eventually(SERVED, runs), "{whom}: {:?}", replication(&servers.db3));
        let_go(&servers.db3);
        drop(hold);
        servers.expect_nothing_left();
        assert_eq!(names(&servers.db2, &servers.at("in")), Vec::<String>::new(), "{whom}");
    }
}

#[test]
fn exclusive_orphaned_replication_starts_only_on_request() {
    let Some(servers) = Servers::set() else { return };
    servers.replicate("");
    let (run, hold) = held(&servers, &[]);
    run.signal("STOP");
    kill_at_once(&servers.db3, &["agent", "watchdog", "with $home/sender.job 8"]);
    run.signal("KILL");
    drop((run.wait(), hold));
    let_go(&servers.db3);
    let cleaned = servers.transfer(&["clean", "db3"]).expect_code(6);
    assert!(cleaned.stdout.contains("db3: STOPPED: replication 'main' of the server"), "{cleaned}");
    assert!(cleaned.stdout.contains("transfer clean --start-servers db3"), "{cleaned}");
    assert_eq!(replication(&servers.db3), ["main,No,No"]);
    // Another run cleans up what it can, and does not start the replication.
    servers.hot("db3", &[]);
    assert_eq!(replication(&servers.db3), ["main,No,No"]);
    servers.transfer(&["clean", "--start-servers", "db3"]).expect_success();
    assert_eq!(replication(&servers.db3), ["main,Yes,Yes"]);
    servers.expect_nothing_left();
}

#[test]
fn exclusive_hot_copy_is_refused_before_any_change() {
    let Some(servers) = Servers::set() else { return };
    servers.db2.sh(&format!("mkdir {0}/empty {0}/full; touch {0}/full/something", servers.scratch.path()));
    let (empty, full) = (format!("db2:{}", servers.at("empty")), format!("db2:{}", servers.at("full")));
    let refused = |from: &str, to: &str, options: &[&str]| {
        let from = format!("db1:{from}");
        let mut arguments = vec!["--type=mariabackup", &from, to];
        arguments.extend(options);
        servers.transfer(&arguments).expect_code(4).stderr
    };
    let reported = refused("/run/mysqld/other.sock", &empty, &[]);
    assert!(reported.contains("db1: /run/mysqld/other.sock does not exist"), "{reported}");
    let reported = refused("/var/lib/mysql", &empty, &[]);
    assert!(reported.contains("is a directory; give the socket of a server"), "{reported}");
    let reported = refused(SOCKET, &full, &[]);
    assert!(reported.contains("is not empty: it contains") && reported.contains("--as NAME"), "{reported}");
    servers.db1.put("[client]\nuser = nobody\n", &servers.at("login.cnf"), 0o600);
    let login = servers.at("login.cnf");
    let reported = refused(SOCKET, &empty, &["--defaults-file", &login]);
    assert!(
        reported.contains("Access denied for user 'nobody'") && reported.contains("--defaults-file"),
        "{reported}"
    );
    {
        let version =
            "[[ $1 == --version ]] && echo 'mariadb-backup based on MariaDB server 11.4.2-MariaDB' && exit";
        let _other = Wrapper::new(&servers.db1, "mariadb-backup", version);
        let _older = Wrapper::new(&servers.db1, "mariabackup", version);
        let reported = refused(SOCKET, &empty, &[]);
        assert!(
            reported.contains("db1: mariadb-backup 11.4.2 does not support MariaDB 10.11."),
            "{reported}"
        );
    }
    {
        let _none = Changed::without(&servers.db2, &["mbstream"]);
        let reported = refused(SOCKET, &empty, &[]);
        assert!(reported.contains("db2: not installed: mbstream; apt install mariadb-backup"), "{reported}");
    }
    // A socket without a listener.
    servers.db1.sh("systemctl stop mariadb");
    servers.db1.sh(&format!(
        "perl -MIO::Socket::UNIX -e 'IO::Socket::UNIX->new(Local => \"{}\", Listen => 1)'",
        servers.at("dead.sock")
    ));
    let reported = refused(&servers.at("dead.sock"), &empty, &[]);
    assert!(
        reported.contains("cannot query the server at")
            && reported.contains("check that the server is running"),
        "{reported}"
    );
    assert_eq!(names(&servers.db2, &servers.at("empty")), Vec::<String>::new());
}

#[test]
fn exclusive_failed_backup_shows_error_and_leaves_nothing() {
    let Some(servers) = Servers::set() else { return };
    servers.db2.sh(&format!("mkdir {}", servers.at("in")));
    let ends = [format!("db1:{SOCKET}"), format!("db2:{}", servers.at("in"))];
    // A backup with exit status 0 that does not report its completion.
    let quiet = "[[ $* == *--backup* ]] && echo 'the table space ran away' >&2 && exit 0";
    let _quiet = Wrapper::new(&servers.db1, "mariadb-backup", quiet);
    let failed = servers.transfer(&["--type=mariabackup", &ends[0], &ends[1]]).expect_code(1).stderr;
    assert!(failed.contains("db1: ") && failed.contains("the table space ran away"), "{failed}");
    let broken = "[[ $* == *--backup* ]] && echo 'FATAL ERROR: of the disk' >&2 && exit 1";
    let _broken = Wrapper::new(&servers.db1, "mariadb-backup", broken);
    let failed = servers.transfer(&["--type=mariabackup", &ends[0], &ends[1]]).expect_code(1).stderr;
    assert!(failed.contains("backup ended with status 1: FATAL ERROR: of the disk"), "{failed}");
    assert_eq!(names(&servers.db2, &servers.at("in")), Vec::<String>::new());
    servers.expect_nothing_left();
}

#[test]
fn exclusive_orphaned_fill_leaves_directory_full_or_empty() {
    let Some(servers) = Servers::set() else { return };
    let ends = [format!("db1:{SOCKET}"), format!("db2:{}", servers.at("in"))];
    // In the middle of the renames, and after the last one before it is known.
    let half = Point::After(&[libc::SYS_renameat2], |call| call.entries(2) >= 6);
    let all = Point::Before(OPEN, |call| call.opened() == "filled");
    for point in [half, all] {
        servers.db2.sh(&format!("rm -rf {0}; mkdir {0}", servers.at("in")));
        let holder = roots::hold(&servers.db2, &[Role::Serve], point);
        let mut run =
            servers.lab.transfer_spawn(&["--type=mariabackup", "--lease-time", LEASE, &ends[0], &ends[1]]);
        holder.expect_held(&mut run);
        assert!(names(&servers.db2, &servers.at("in")).len() >= 4, "some have their names already");
        run.signal("STOP");
        kill_at_once(&servers.db2, &["with $home/journal.bin"]);
        run.signal("KILL");
        drop((run.wait(), holder));
        servers.transfer(&["clean", "db1", "db2"]).expect_success();
        assert_eq!(names(&servers.db2, &servers.at("in")), Vec::<String>::new());
        servers.hot("db1", &[]);
    }
    servers.expect_nothing_left();
}

#[test]
fn exclusive_one_of_two_servers_is_copied_alone() {
    let Some(servers) = Servers::set() else { return };
    let _two = second(&servers.db1);
    servers.db2.sh(&format!("mkdir {}", servers.at("two")));
    let target = format!("db2:{}", servers.at("two"));
    servers
        .transfer(&["--type=mariabackup", "db1:/run/mysqld/two.sock", &target, "--prepare"])
        .expect_success();
    servers.start_with(&servers.at("two"));
    assert_eq!(sql(&servers.db2, "SELECT * FROM second.t").trim(), "2");
    assert_eq!(sql(&servers.db2, "SHOW DATABASES LIKE 'shop'"), "");
}
