//! Process names that look like the pid of a server in the output of `ss`: no login goes to their sockets.

use super::expect_same;
use crate::support::attackers::impostors::Posing;
use crate::support::attackers::stand::{Stand, answers, main_pid};
use crate::support::servers::second;

/// Starts a process of eve's whose name forges the pid behind each of many sockets in the output of `ss`.
#[track_caller]
fn forged_pid(stand: &Stand, host: &str, pid: &str) -> Posing {
    let eve = stand.eve(host);
    let mut forged = eve.poses_as(&format!("pid={pid},")).asks("clear");
    for number in 0..60 {
        forged = forged.listens(&eve.at(&format!("{number}.sock")));
    }
    forged.start()
}

#[test]
fn exclusive_forged_pid_redirects_no_cold_copy_login() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    let db1 = stand.serve("db1", "");
    let _secret = stand.secret("db1");
    let target = stand.directory("db2", "in");
    let order =
        ["db1:/var/lib/mysql", &format!("db2:{target}"), "--stop-server=source", "--chown=mysql:mysql"];
    let forged = forged_pid(&stand, "db1", &main_pid(&db1, "mariadb"));
    let planned = stand.transfer(&[&order[..], &["--dry-run"]].concat());
    forged.expect_nothing_received();
    planned.expect_success();
    let done = stand.transfer(&order);
    forged.expect_nothing_received();
    done.expect_success();
    assert!(answers(&db1));
}

#[test]
fn exclusive_forged_pid_redirects_no_login_of_named_unit() {
    let Some(stand) = Stand::on(&["db1", "db3"]) else { return };
    let hosts = [("db1", stand.serve("db1", "")), ("db3", stand.serve("db3", ""))];
    let order = ["replica", "db1", "db3", "--create-account", "--unit=mariadb", "--dry-run"];
    let without = stand.transfer(&order).expect_success();
    for (name, host) in &hosts {
        let _secret = stand.secret(name);
        let forged = forged_pid(&stand, name, &main_pid(host, "mariadb"));
        let with = stand.transfer(&order);
        forged.expect_nothing_received();
        expect_same(&without, &with);
    }
}

#[test]
fn exclusive_forged_pid_redirects_no_login_of_two_servers() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    let db1 = stand.serve("db1", "");
    let _two = second(&db1);
    let _secret = stand.secret("db1");
    let target = stand.directory("db2", "in");
    let first = main_pid(&db1, "mariadb");
    let forged = forged_pid(&stand, "db1", &main_pid(&db1, "mariadb@two"));
    let order = ["db1:/srv/two", &format!("db2:{target}"), "--stop-server=source", "--chown=mysql:mysql"];
    let done = stand.transfer(&order);
    forged.expect_nothing_received();
    done.expect_success();
    assert_eq!(main_pid(&db1, "mariadb"), first, "the other one went on");
}
