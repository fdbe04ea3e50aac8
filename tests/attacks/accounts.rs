//! The account of replicas, and files in data directories: a hostile server, or another machine at its
//! address, gets neither a password nor a file of root's.

use crate::support::attackers::impostors::{Impostor, Posing};
use crate::support::attackers::stand::Stand;
use crate::support::changes::Changed;
use crate::support::hosts::Host;
use crate::support::scenes::SOON;
use crate::support::servers::sql;

/// An existing replication account, in a file of the controller.
const ACCOUNT: &str = "/root/attacks-account.cnf";
/// Password of the account.
const WORD: &str = "of-the-replicas";
/// Address of db3, where an impostor listens on the port of servers.
const ELSEWHERE: &str = "10.77.0.13";

#[track_caller]
fn account(stand: &Stand) -> Changed {
    let ctl = stand.host("ctl");
    ctl.put(format!("[client]\nuser = replica\npassword = {WORD}\n"), ACCOUNT, 0o600);
    Changed::new(&ctl, ":", &format!("rm -f {ACCOUNT}"))
}

/// An impostor on another machine than the primary's.
#[track_caller]
fn elsewhere(stand: &Stand, asks: &str) -> Posing {
    stand.eve("db3").poses_as("anything").listens("3306").asks(asks).start()
}

/// Makes db1 a replica of another machine, with its replication stopped.
#[track_caller]
fn donor(stand: &Stand) -> Host {
    let db1 = stand.serve("db1", "");
    sql(
        &db1,
        &format!(
            "CHANGE MASTER TO MASTER_HOST = '{ELSEWHERE}', MASTER_USER = 'replica', MASTER_PASSWORD = 'another',
             MASTER_USE_GTID = slave_pos"
        ),
    );
    stand.configure("db2", "");
    db1
}

#[test]
fn exclusive_account_is_used_only_at_named_hosts() {
    let Some(stand) = Stand::on(&["db1", "db2", "db3"]) else { return };
    let _account = account(&stand);
    donor(&stand);
    let impostor = elsewhere(&stand, "clear");
    for more in ["--dry-run", "--sibling"] {
        let run = stand.transfer(&["replica", "db1", "db2", "--account", ACCOUNT, more]);
        impostor.expect_nothing_received();
        let refused = run.expect_code(4).stderr;
        assert!(refused.contains(ELSEWHERE), "{refused}");
    }
}

#[test]
fn exclusive_fake_primary_gets_no_password() {
    let Some(stand) = Stand::on(&["db1", "db2", "db3"]) else { return };
    let _account = account(&stand);
    let db1 = stand.serve("db1", "");
    stand.configure("db2", "");
    sql(
        &db1,
        &format!(
            "CREATE USER replica@'%' IDENTIFIED BY '{WORD}'; GRANT REPLICATION SLAVE ON *.* TO replica@'%'"
        ),
    );
    for asks in ["clear", "dialog", "infile:/etc/shadow"] {
        let impostor = elsewhere(&stand, asks);
        // Any server at the address that the user names.
        let order =
            ["replica", "db1", "db2", "--account", ACCOUNT, "--primary-address", ELSEWHERE, "--dry-run"];
        let run = stand.transfer(&order);
        let received = impostor.received();
        assert!(!received.contains(WORD), "{asks}: {received}\n{run}");
        assert!(!received.contains("root:"), "{asks}: {received}\n{run}");
        let refused = run.expect_code(4).stderr;
        assert!(refused.contains(ELSEWHERE) && !refused.contains(WORD), "{asks}: {refused}");
    }
}

#[test]
fn exclusive_fake_primary_gets_no_generated_password() {
    let Some(stand) = Stand::on(&["db1", "db2", "db3"]) else { return };
    stand.serve("db1", "");
    stand.configure("db2", "");
    for asks in ["clear", "dialog"] {
        let impostor = elsewhere(&stand, asks);
        let order =
            ["replica", "db1", "db2", "--create-account", "--primary-address", ELSEWHERE, "--idle-timeout=5"];
        let run = stand.transfer(&order);
        let received = impostor.received();
        // 32 hexadecimal digits and a zero.
        let digits = received.as_bytes().split(|byte| !byte.is_ascii_hexdigit()).any(|word| word.len() >= 32);
        assert!(!digits, "{asks}: {received}\n{run}");
        assert!(!run.status.success(), "{run}");
    }
}

/// Runs with a donor whose account file is another name of a file that only root can read, on the file system
/// of the data.
#[track_caller]
fn expect_unread(link: &str) {
    let Some(stand) = Stand::on(&["db1", "db2", "db3"]) else { return };
    let db1 = donor(&stand);
    let secret = "/var/lib/secret-of-root";
    // Lines 5 and 6 of an account file have user and password.
    let _secret = Changed::new(
        &db1,
        &format!(
            "(umask 077; printf '%s\\n' one two three four fifth-line-of-root sixth-line-of-root >{secret})"
        ),
        &format!("rm -f {secret}"),
    );
    db1.sh(&format!("{link} -fn {secret} /var/lib/mysql/master.info"));
    let impostor = elsewhere(&stand, "clear");
    let run = stand.transfer(&["replica", "db1", "db2", "--dry-run"]);
    impostor.expect_nothing_received();
    let refused = run.expect_code(4);
    assert!(!format!("{refused}").contains("line-of-root"), "{refused}");
}

#[test]
fn exclusive_symlinked_account_file_is_not_read() {
    expect_unread("ln -s");
}

#[test]
fn exclusive_hard_linked_account_file_is_not_read() {
    expect_unread("ln");
}

#[test]
fn exclusive_account_is_used_at_named_primary() {
    let Some(stand) = Stand::on(&["db1", "db2", "db3"]) else { return };
    let _account = account(&stand);
    let db3 = stand.serve("db3", "");
    let user = format!(
        "CREATE USER replica@'%' IDENTIFIED BY '{WORD}'; GRANT REPLICATION SLAVE ON *.* TO replica@'%'"
    );
    sql(&db3, &user);
    donor(&stand);
    let order = ["replica", "db3", "db2", "--from", "db1", "--account", ACCOUNT, "--dry-run"];
    let planned = stand.transfer(&order).expect_success().stdout;
    assert!(planned.contains("CHANGE MASTER TO db3:3306"), "{planned}");
    // By the name that the donor uses for it, and by the one that the user gives.
    let order = ["replica", "db1", "db2", "--primary-address", ELSEWHERE, "--account", ACCOUNT, "--dry-run"];
    stand.transfer(&order).expect_success();
}

#[test]
fn exclusive_fifo_as_account_file_does_not_block() {
    let Some(stand) = Stand::on(&["db1", "db2", "db3"]) else { return };
    let db1 = donor(&stand);
    let file = "/var/lib/mysql/master.info";
    for make in [
        format!("mkfifo {file}; chown mysql: {file}"),
        format!("mkfifo {file}.pipe; ln -s {file}.pipe {file}"),
        format!("ln -s /dev/zero {file}"),
    ] {
        db1.sh(&format!("rm -rf {file} {file}.pipe; {make}"));
        let mut run = stand.lab.transfer_spawn(&["replica", "db1", "db2", "--dry-run"]);
        assert_eq!(run.wait_end(SOON).code(), Some(4), "{make}");
    }
}

#[test]
fn exclusive_symlinked_upgrade_info_is_not_read() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    let db1 = stand.serve("db1", "");
    stand.configure("db2", "");
    let db2 = stand.host("db2");
    let secret = "/var/lib/secret-of-root";
    let _secret = Changed::new(
        &db1,
        &format!(
            "(umask 077; echo line-of-root >{secret}); cd /var/lib/mysql; rm -f m*_upgrade_info; ln -s {secret} mysql_upgrade_info"
        ),
        &format!("rm -f {secret}"),
    );
    let done = stand.transfer(&["replica", "db1", "db2", "--create-account"]).expect_success();
    assert!(!format!("{done}").contains("line-of-root"), "{done}");
    let arrived = db2.sh("cat /var/lib/mysql/m*_upgrade_info 2>/dev/null || :");
    assert!(!arrived.contains("line-of-root"), "what only root may read went to another host: {arrived}");
}

#[test]
fn exclusive_fifo_as_upgrade_info_does_not_block() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    let db1 = stand.serve("db1", "");
    stand.configure("db2", "");
    for make in ["mkfifo mysql_upgrade_info", "ln -s /dev/zero mysql_upgrade_info"] {
        db1.sh(&format!("cd /var/lib/mysql; rm -rf m*_upgrade_info; {make}"));
        let mut run = stand.lab.transfer_spawn(&["replica", "db1", "db2", "--create-account", "--dry-run"]);
        assert_eq!(run.wait_end(SOON).code(), Some(0), "{make}");
    }
}

#[test]
fn exclusive_compromised_primary_gets_no_password() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    let _account = account(&stand);
    let db1 = stand.serve("db1", "port=3307");
    stand.configure("db2", "");
    // Its configuration has one port; another account listens there, since the server was started with
    // another port.
    let record = stand.at("record");
    db1.sh(&format!("chmod 777 {}", stand.scratch.path()));
    let impostor =
        Impostor::new(&db1, "mysql", &record).with("name", "anything").listens("3306").asks("clear").start();
    db1.sh("nft -f - <<<'table ip posing { chain in { type nat hook prerouting priority -100; tcp dport 3307 redirect to :3306; }; }'");
    let _rules = Changed::new(&db1, ":", "nft delete table ip posing");
    let run = stand.transfer(&["replica", "db1", "db2", "--account", ACCOUNT, "--dry-run"]);
    let received = impostor.received();
    assert!(!received.contains(WORD), "{received}\n{run}");
    let refused = run.expect_code(4).stderr;
    assert!(refused.contains("db1:3307"), "{refused}");
}
