//! Programs of forged servers: none of them is executed, and no unit of theirs is stopped.

use super::expect_same;
use crate::support::attackers::stand::Stand;

#[test]
fn exclusive_forged_server_on_a_target_is_not_executed() {
    let Some(stand) = Stand::on(&["db1", "db3"]) else { return };
    stand.serve("db1", "");
    stand.configure("db3", "");
    let order = ["replica", "db1", "db3", "--create-account", "--dry-run"];
    let without = stand.transfer(&order).expect_success();
    let eve = stand.eve("db3");
    let trap = eve.trap();
    let mut forged = eve.poses_as("mysqld").by(&[&trap.program]).start();
    trap.set();
    let with = stand.transfer(&order);
    trap.expect_untouched();
    forged.expect_alive();
    expect_same(&without, &with);
}

#[test]
fn exclusive_forged_server_beside_a_real_one_is_not_counted() {
    let Some(stand) = Stand::on(&["db1", "db3"]) else { return };
    stand.serve("db1", "");
    stand.serve("db3", "");
    let order = ["replica", "db1", "db3", "--create-account", "--dry-run"];
    let without = stand.transfer(&order).expect_success();
    let (of_source, of_target) = (stand.eve("db1"), stand.eve("db3"));
    let _forged = [of_source.poses_as("mariadbd").start(), of_target.poses_as("mysqld").start()];
    expect_same(&without, &stand.transfer(&order));
}

#[test]
fn exclusive_forged_server_on_a_donor_is_not_executed() {
    let Some(stand) = Stand::on(&["db1", "db3"]) else { return };
    stand.configure("db1", "");
    let _secret = stand.secret("db1");
    stand.configure("db3", "");
    let eve = stand.eve("db1");
    let trap = eve.trap();
    let socket = eve.at("mysqld.sock");
    let forged = eve.poses_as("mariadbd").by(&[&trap.program]).listens(&socket).asks("clear").start();
    trap.set();
    let refused = stand.transfer(&["replica", "db1", "db3", "--create-account", "--dry-run"]);
    trap.expect_untouched();
    forged.expect_nothing_received();
    let refused = refused.expect_code(4).stderr;
    assert!(refused.contains("db1: no MariaDB server is running"), "{refused}");
}

#[test]
fn exclusive_forged_server_in_own_unit_is_not_executed() {
    let Some(stand) = Stand::on(&["db1", "db3"]) else { return };
    stand.serve("db1", "");
    stand.configure("db3", "");
    let order = ["replica", "db1", "db3", "--create-account", "--dry-run"];
    let without = stand.transfer(&order).expect_success();
    let eve = stand.eve("db3");
    let trap = eve.trap();
    let _unit = eve.poses_as("mysqld").by(&[&trap.program]).start_in_unit("shop-of-eve.service");
    trap.set();
    let with = stand.transfer(&order);
    trap.expect_untouched();
    expect_same(&without, &with);
}

#[test]
fn exclusive_forged_name_does_not_stop_foreign_unit() {
    let Some(stand) = Stand::without_servers(&["db1", "db2"]) else { return };
    let (tree, target) = (stand.directory("db1", "tree"), stand.directory("db2", "in"));
    stand.host("db1").sh(&format!("echo 1 >{tree}/file"));
    let unit = stand.eve("db1").poses_as("mysqld").in_directory(&tree).start_in_unit("shop-of-eve.service");
    let before = unit.pid();
    let done = stand.transfer(&[&format!("db1:{tree}"), &format!("db2:{target}"), "--stop-server=source"]);
    assert_eq!(unit.pid(), before, "a unit that is no server's was stopped: {done}");
    done.expect_success();
}
