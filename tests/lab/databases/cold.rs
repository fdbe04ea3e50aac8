//! Cold copies: `--stop-server`.

use crate::databases::{HOLD, LEASE, Servers, checksums, expect_held, follow, let_go, replication};
use crate::support::changes::{Changed, Wrapper};
use crate::support::commands::Running;
use crate::support::hosts::Host;
use crate::support::processes;
use crate::support::servers::{SERVED, configure, second, sql};
use crate::support::trees::names;
use crate::support::waiting::eventually;

fn is_active(host: &Host, unit: &str) -> bool {
    host.run(&["systemctl", "is-active", "--quiet", unit]).status.success()
}

fn answers(host: &Host) -> bool {
    host.run(&["mariadb", "-e", "SELECT 1"]).status.success()
}

#[test]
fn exclusive_cold_copy_matches_and_restarts_the_server() {
    let Some(servers) = Servers::set() else { return };
    servers.db2.sh(&format!("mkdir {}", servers.at("in")));
    let target = format!("db2:{}", servers.at("in"));
    let refused = servers.transfer(&["db1:/var/lib/mysql", &target]).expect_code(4).stderr;
    assert!(
        refused.contains("db1: mariadb.service (in /var/lib/mysql) is running on the data to be copied"),
        "{refused}"
    );
    let above = servers.transfer(&["db1:/var/lib", &target, "--exclude", "dpkg"]).expect_code(4).stderr;
    assert!(above.contains("mariadb.service"), "{above}");
    let table = servers.transfer(&["db1:/var/lib/mysql/shop", &target]).expect_code(4).stderr;
    assert!(table.contains("mariadb.service"), "{table}");

    let before = checksums(&servers.db1);
    let done = servers
        .transfer(&["db1:/var/lib/mysql", &target, "--stop-server", "source", "--chown", "mysql:mysql"])
        .expect_success();
    assert!(answers(&servers.db1), "{done}");
    assert!(done.stdout.contains("note: db1: mariadb.service was down for "), "{done}");
    assert_eq!(checksums(&servers.db1), before);
    servers.start_with(&servers.at("in/mysql"));
    assert_eq!(checksums(&servers.db2), before);
    let log = servers.db2.sh("journalctl -u mariadb --no-pager -n 200");
    assert!(!log.contains("crash recovery from"), "its files needed recovery: {log}");
    servers.expect_nothing_left();
}

#[test]
fn exclusive_stopped_server_is_not_started() {
    let Some(servers) = Servers::set() else { return };
    servers.db1.sh("systemctl stop mariadb");
    servers.db2.sh(&format!("mkdir {}", servers.at("in")));
    let target = format!("db2:{}", servers.at("in"));
    let done = servers
        .transfer(&["db1:/var/lib/mysql", &target, "--stop-server", "source", "--chown", "mysql:mysql"])
        .expect_success();
    assert!(done.stderr.contains("no server is running in /var/lib/mysql"), "{done}");
    assert!(!is_active(&servers.db1, "mariadb"));
}

#[test]
fn exclusive_only_the_copied_server_is_stopped() {
    let Some(servers) = Servers::set() else { return };
    let _two = second(&servers.db1);
    servers.db2.sh(&format!("mkdir {}", servers.at("in")));
    let target = format!("db2:{}", servers.at("in"));
    let process = |unit: &str| servers.db1.sh(&format!("systemctl show -p MainPID --value {unit}"));
    let before = ["mariadb", "mariadb@two"].map(process);
    servers
        .transfer(&["db1:/srv/two", &target, "--stop-server=source", "--chown=mysql:mysql"])
        .expect_success();
    let after = ["mariadb", "mariadb@two"].map(process);
    assert_eq!(before[0], after[0], "the other one went on");
    assert!(before[1] != after[1] && after[1].trim() != "0", "{before:?}, then {after:?}");
    let socket = "--socket=/run/mysqld/two.sock";
    assert_eq!(servers.db1.sh(&format!("mariadb {socket} -Ne 'SELECT a FROM second.t'")).trim(), "2");
    servers.start_with(&servers.at("in/two"));
    assert_eq!(sql(&servers.db2, "SELECT a FROM second.t").trim(), "2");
}

#[test]
fn exclusive_replacing_data_stops_the_running_server() {
    let Some(servers) = Servers::set() else { return };
    // As an older version has left it.
    configure(&servers.db2, 2, "");
    servers.db2.sh("systemctl restart mariadb");
    follow(&servers.db2, "'main'", "slave_pos");
    sql(&servers.db2, "CREATE DATABASE old");
    let source =
        ["--type=mariabackup", "db1:/run/mysqld/mysqld.sock", "db2:/var/lib", "--as", "mysql", "--prepare"];
    let refused = servers.transfer(&[&source[..], &["--replace"]].concat()).expect_code(4).stderr;
    assert!(
        refused
            .contains("db2: mariadb.service (in /var/lib/mysql) is running in the destination of the copy"),
        "{refused}"
    );
    let within = servers.transfer(&["db1:/etc/hostname", "db2:/var/lib/mysql"]).expect_code(4).stderr;
    assert!(within.contains("is running in the destination of the copy"), "{within}");
    let hot = [&source[..], &["--replace", "--stop-server", "target"]].concat();
    let done = servers.transfer(&hot).expect_success();
    assert!(done.stdout.contains("its replication is stopped"), "{done}");
    assert_eq!(replication(&servers.db2), Vec::<String>::new());
    assert!(answers(&servers.db2));
    assert_eq!(checksums(&servers.db2), checksums(&servers.db1));
    assert_eq!(sql(&servers.db2, "SHOW DATABASES LIKE 'old'"), "");
    servers.expect_nothing_left();
}

#[test]
fn exclusive_copied_replica_does_not_start_replication() {
    let Some(servers) = Servers::set() else { return };
    servers.replicate("");
    configure(&servers.db2, 2, "");
    servers.db2.sh("systemctl restart mariadb");
    let both =
        ["db3:/var/lib/mysql", "db2:/var/lib", "--replace", "--stop-server=both", "--chown=mysql:mysql"];
    servers.transfer(&both).expect_success();
    assert_eq!(replication(&servers.db3), ["main,Yes,Yes"]);
    assert_eq!(replication(&servers.db2), ["main,No,No"]);
    servers.expect_nothing_left();
}

#[test]
fn exclusive_failed_start_keeps_the_old_data() {
    let Some(servers) = Servers::set() else { return };
    configure(&servers.db2, 2, "");
    servers.db2.sh("systemctl restart mariadb");
    // Created by root, for root only.
    let hot = [
        "--type=mariabackup",
        "db1:/run/mysqld/mysqld.sock",
        "db2:/var/lib",
        "--as=mysql",
        "--replace",
        "--stop-server=target",
        "--prepare",
        "--chown=root:root",
    ];
    let failed = servers.transfer(&hot);
    assert!(!failed.status.success(), "{failed}");
    assert!(
        failed
            .stderr
            .contains("/var/lib/mysql is the copy, complete and verified, but its server is not running"),
        "{failed}"
    );
    assert!(failed.stderr.contains("the old data is /var/lib/mysql.old-"), "{failed}");
    servers
        .db2
        .sh("ls /var/lib/mysql.old-*/ibdata1; rm -rf /var/lib/mysql.old-*; chown -R mysql: /var/lib/mysql");
    servers.transfer(&["clean", "--start-servers", "db2"]).expect_success();
    assert!(answers(&servers.db2));
    servers.expect_nothing_left();
}

#[test]
fn exclusive_interrupted_start_keeps_the_old_data() {
    let Some(servers) = Servers::set() else { return };
    servers.replicate("");
    configure(&servers.db2, 2, "");
    servers.db2.sh("systemctl restart mariadb");
    sql(&servers.db2, "CREATE DATABASE old");
    let _slow = Changed::new(
        &servers.db2,
        "mkdir -p /run/systemd/system/mariadb.service.d
         printf '[Service]\\nExecStartPre=/bin/sleep 10\\n' >/run/systemd/system/mariadb.service.d/slow.conf
         systemctl daemon-reload",
        "rm -f /run/systemd/system/mariadb.service.d/slow.conf; systemctl daemon-reload",
    );
    let both =
        ["db3:/var/lib/mysql", "db2:/var/lib", "--replace", "--stop-server=both", "--chown=mysql:mysql"];
    let run = servers.lab.transfer_spawn(&both);
    let starting = || servers.db2.sh("systemctl is-active mariadb || :").trim() == "activating";
    assert!(eventually(SERVED, starting), "the new data is not started: {}", run.wait());
    run.signal("INT");
    let ended = run.wait();
    assert!(ended.stderr.contains("published before the interruption"), "{ended}");
    assert!(ended.stderr.contains("the old data is now /var/lib/mysql.old-"), "{ended}");
    servers.db2.sh("ls -d /var/lib/mysql.old-*/old; rm -rf /var/lib/mysql.old-*");
    assert!(answers(&servers.db2));
    assert_eq!(replication(&servers.db2), ["main,No,No"]);
    assert_eq!(replication(&servers.db3), ["main,Yes,Yes"]);
    servers.expect_nothing_left();
}

#[test]
fn exclusive_unreachable_or_quiesced_server_is_not_stopped() {
    let Some(servers) = Servers::set() else { return };
    servers.db1.put("[client]\nuser = nobody\n", &servers.at("login.cnf"), 0o600);
    let (run, hold) = held(&servers);
    let target = format!("db2:{}", servers.at("in"));
    let cold = ["db1:/var/lib/mysql", &target, "--as=other", "--stop-server=source", "--chown=mysql:mysql"];
    let refused = servers.transfer(&cold).expect_code(4).stderr;
    assert!(refused.contains("another run has quiesced the server of /var/lib/mysql"), "{refused}");
    let_go(&servers.db1);
    run.wait().expect_success();
    drop(hold);
    let login = servers.at("login.cnf");
    let refused = servers.transfer(&[&cold[..], &["--defaults-file", &login]].concat()).expect_code(4).stderr;
    assert!(
        refused.contains("cannot query the replication state of") && refused.contains("--defaults-file"),
        "{refused}"
    );
    assert!(answers(&servers.db1));
}

#[test]
fn exclusive_cold_copy_restores_replication_state() {
    let Some(servers) = Servers::set() else { return };
    servers.replicate("");
    servers.db2.sh(&format!("mkdir {}", servers.at("in")));
    let target = format!("db2:{}", servers.at("in"));
    let cold = ["db3:/var/lib/mysql", &target, "--stop-server", "source", "--chown", "mysql:mysql"];
    servers.transfer(&[&cold[..], &["--as", "one"]].concat()).expect_success();
    assert_eq!(replication(&servers.db3), ["main,Yes,Yes"]);
    sql(&servers.db3, "STOP SLAVE 'main'");
    let position = sql(&servers.db3, "SELECT @@gtid_slave_pos");
    sql(&servers.db1, "INSERT INTO shop.plain (text) VALUES ('later')");
    servers.transfer(&[&cold[..], &["--as", "two"]].concat()).expect_success();
    assert_eq!(replication(&servers.db3), ["main,No,No"]);
    assert_eq!(sql(&servers.db3, "SELECT @@gtid_slave_pos"), position, "it ran for a moment");
    servers.db3.sh("[[ ! -e /run/systemd/system/mariadb.service.d ]]");
    // A replica that does not start its replication by itself, but is running it.
    configure(&servers.db3, 3, "skip-slave-start");
    servers.db3.sh("systemctl restart mariadb");
    sql(&servers.db3, "START SLAVE 'main'");
    servers.transfer(&[&cold[..], &["--as", "three"]].concat()).expect_success();
    assert_eq!(replication(&servers.db3), ["main,Yes,Yes"]);
    servers.expect_nothing_left();
}

/// Starts a cold copy of db1, which is held while its server is stopped.
fn held(servers: &Servers) -> (Running, Wrapper) {
    servers.db2.sh(&format!("mkdir -p {}", servers.at("in")));
    let hold = Wrapper::new(&servers.db1, "tar", &format!("if [[ $* == *--create* ]]; then {HOLD}; fi"));
    let target = format!("db2:{}", servers.at("in"));
    let run = servers.lab.transfer_spawn(&[
        "db1:/var/lib/mysql",
        &target,
        "--stop-server=source",
        "--chown=mysql:mysql",
        "--lease-time",
        LEASE,
    ]);
    let run = expect_held(&servers.db1, run);
    assert!(!is_active(&servers.db1, "mariadb"));
    (run, hold)
}

#[test]
fn exclusive_server_runs_again_after_any_kill() {
    let Some(servers) = Servers::set() else { return };
    for whom in ["controller", "agent", "tar", "signal"] {
        let (run, hold) = held(&servers);
        let kill = |whom: &str| {
            processes::sh(&servers.db1, &format!("kill -KILL $({whom})"));
        };
        match whom {
            "controller" => run.signal("KILL"),
            "signal" => run.signal("TERM"),
            "tar" => kill("process sender tar --create"),
            _ => kill("agent"),
        }
        let_go(&servers.db1);
        let ended = run.wait();
        assert!(!ended.status.success(), "{whom}: {ended}");
        assert!(eventually(SERVED, || answers(&servers.db1)), "{whom}: the server does not run again");
        drop(hold);
        servers.expect_nothing_left();
        assert_eq!(names(&servers.db2, &servers.at("in")), Vec::<String>::new(), "{whom}");
    }
}

#[test]
fn exclusive_crashed_server_is_started_only_on_request() {
    let Some(servers) = Servers::set() else { return };
    // A server that does not start at boot.
    let _disabled = Changed::new(&servers.db1, "systemctl disable mariadb", "systemctl enable mariadb");
    let (run, hold) = held(&servers);
    servers.db1.crash();
    let ended = run.wait();
    assert!(!ended.status.success(), "{ended}");
    servers.db1.boot();
    drop(hold);
    let status = servers.transfer(&["status", "db1"]).expect_success().stdout;
    assert!(status.contains("holds stopped server mariadb.service"), "{status}");
    // The agent of another run does not start it.
    servers.transfer(&["db1:/etc/hostname", &format!("db2:{}", servers.at("in"))]).expect_success();
    assert!(!is_active(&servers.db1, "mariadb"));
    let cleaned = servers.transfer(&["clean", "db1"]).expect_code(6);
    assert!(cleaned.stdout.contains("db1: STOPPED: mariadb.service was stopped by run"), "{cleaned}");
    assert!(!is_active(&servers.db1, "mariadb"));
    servers.transfer(&["clean", "--start-servers", "db1"]).expect_success();
    assert!(answers(&servers.db1));
    servers.expect_nothing_left();
}

#[test]
fn exclusive_unstoppable_or_unitless_server_is_reported() {
    let Some(servers) = Servers::set() else { return };
    servers.db2.sh(&format!("mkdir -p {}", servers.at("in")));
    let target = format!("db2:{}", servers.at("in"));
    let cold = ["db1:/var/lib/mysql", &target, "--stop-server=source", "--chown=mysql:mysql"];
    {
        let _slow = Changed::new(
            &servers.db1,
            "mkdir -p /run/systemd/system/mariadb.service.d
             printf '[Service]\\nExecStop=/bin/sleep 6\\n' >/run/systemd/system/mariadb.service.d/slow.conf; systemctl daemon-reload",
            "rm -r /run/systemd/system/mariadb.service.d; systemctl daemon-reload",
        );
        let failed =
            servers.transfer(&[&cold[..], &["--server-timeout", "2"]].concat()).expect_code(1).stderr;
        assert!(
            failed.contains("db1: ") && failed.contains("mariadb.service has not stopped within 2 s"),
            "{failed}"
        );
        assert!(eventually(SERVED, || answers(&servers.db1)));
    }
    // Started by hand.
    servers.db1.sh("systemctl stop mariadb; (cd /; setsid mariadbd --user=mysql >/dev/null 2>&1 &)");
    assert!(eventually(SERVED, || answers(&servers.db1)));
    let refused = servers.transfer(&cold).expect_code(4).stderr;
    assert!(
        refused.contains("does not run in a systemd unit of this host") && refused.contains("--unit"),
        "{refused}"
    );
    servers.db1.sh("mariadb-admin shutdown");
    servers.expect_nothing_left();
}

#[test]
fn exclusive_server_started_during_copy_fails_the_run() {
    let Some(servers) = Servers::set() else { return };
    let (run, hold) = held(&servers);
    servers.db1.sh("systemctl start mariadb");
    let_go(&servers.db1);
    let failed = run.wait();
    assert!(!failed.status.success(), "{failed}");
    drop(hold);
    assert!(answers(&servers.db1));
    assert_eq!(names(&servers.db2, &servers.at("in")), Vec::<String>::new(), "{failed}");
    servers.expect_nothing_left();
}
