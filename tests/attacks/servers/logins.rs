//! Logins: no process of another account gets one, and a compromised server gets neither password nor file.

use crate::support::attackers::impostors::Impostor;
use crate::support::attackers::stand::{SECRET, Stand};
use crate::support::changes::{Changed, Wrapper};
use crate::support::output::Output;
use crate::support::servers::{SOCKET, sql};

#[test]
fn exclusive_forged_server_in_a_target_gets_no_password() {
    let Some(stand) = Stand::without_servers(&["db1", "db2"]) else { return };
    let _secret = stand.secret("db2");
    let target = stand.directory("db2", "in");
    let ends = ["db1:/etc/hostname", &format!("db2:{target}")];
    let eve = stand.eve("db2");
    let socket = eve.at("mysqld.sock");
    let forged = eve.poses_as("mysqld").in_directory(&target).listens(&socket).asks("clear").start();
    let planned = stand.transfer(&[ends[0], ends[1], "--dry-run"]);
    forged.expect_nothing_received();
    planned.expect_success();
    let done = stand.transfer(&ends);
    forged.expect_nothing_received();
    done.expect_success();
}

#[test]
fn exclusive_forged_server_in_namespace_gets_no_password() {
    let Some(stand) = Stand::without_servers(&["db1", "db2"]) else { return };
    let _secret = stand.secret("db1");
    let (tree, target) = (stand.directory("db1", "tree"), stand.directory("db2", "in"));
    stand.host("db1").sh(&format!("echo 1 >{tree}/file"));
    let eve = stand.eve("db1");
    let socket = eve.at("mysqld.sock");
    // As root of a user namespace.
    let forged = eve
        .poses_as("mariadbd")
        .by(&["unshare", "--user", "--map-root-user", "--mount", "perl"])
        .in_directory(&tree)
        .listens(&socket)
        .asks("clear")
        .start();
    let ends = [&format!("db1:{tree}"), &format!("db2:{target}"), "--stop-server=source"];
    let planned = stand.transfer(&[ends[0], ends[1], ends[2], "--dry-run"]);
    forged.expect_nothing_received();
    planned.expect_success();
    let done = stand.transfer(&[ends[0], ends[1]]);
    forged.expect_nothing_received();
    done.expect_success();
}

#[test]
fn exclusive_foreign_socket_gets_no_backup_login() {
    let Some(stand) = Stand::without_servers(&["db1", "db2"]) else { return };
    let _secret = stand.secret("db1");
    let target = stand.directory("db2", "in");
    let eve = stand.eve("db1");
    // A usual path, while the server is not running.
    let _gone = Changed::new(&stand.host("db1"), ":", "rm -f /tmp/mysql.sock");
    for socket in ["/tmp/mysql.sock", &eve.at("mysqld.sock")] {
        let forged = eve.poses_as("mariadbd").listens(socket).asks("clear").start();
        for kind in ["mariabackup", "compress", "xtrabackup"] {
            let order = [&format!("db1:{socket}"), &format!("db2:{target}"), "--type", kind, "--dry-run"];
            let refused = stand.transfer(&order);
            forged.expect_nothing_received();
            eve.expect_named(&refused.expect_code(4).stderr, socket);
        }
    }
}

#[test]
fn exclusive_changeable_socket_path_gets_no_login() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    let db1 = stand.serve("db1", "");
    let _secret = stand.secret("db1");
    let target = stand.directory("db2", "in");
    let eve = stand.eve("db1");
    let (directory, own) = (eve.at("run"), eve.at("own"));
    let socket = format!("{directory}/mysqld.sock");
    eve.sh(&format!("mkdir {own}; ln -s /run/mysqld {directory}"), &[]);
    let forged = eve.poses_as("mariadbd").listens(&format!("{own}/mysqld.sock")).asks("clear").start();
    // The real server until the backup begins, and her socket from then on.
    let _exchange = Wrapper::new(
        &db1,
        "mariadb-backup",
        &format!("[[ $* == *--backup* ]] && setpriv --reuid eve --clear-groups ln -sfn {own} {directory}"),
    );
    let ends = [&format!("db1:{socket}"), &format!("db2:{target}")];
    let run = stand.transfer(&["--type=mariabackup", ends[0], ends[1]]);
    forged.expect_nothing_received();
    eve.expect_named(&run.expect_code(4).stderr, &socket);
}

#[test]
fn exclusive_foreign_option_file_is_not_read() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    let db1 = stand.serve("db1", "");
    let target = stand.directory("db2", "in");
    let eve = stand.eve("db1");
    let login = eve.at("login.cnf");
    // Root has all privileges in the server, and statements in this file are executed as root.
    eve.sh(&format!(
        "printf '[client]\\n[client-mariadb]\\n[mysql]\\ninit-command=\"GRANT SUPER ON *.* TO eve@localhost IDENTIFIED BY 1\"\\n' |
         sed 's/ BY 1/ VIA unix_socket/' >{login}; chmod 600 {login}"
    ), &[]);
    let run = stand.transfer(&[
        "--type=mariabackup",
        "--dry-run",
        "--defaults-file",
        &login,
        &format!("db1:{SOCKET}"),
        &format!("db2:{target}"),
    ]);
    let made = sql(&db1, "SELECT user FROM mysql.user WHERE user = 'eve'");
    assert_eq!(made, "", "eve's statements were said in root's name: {run}");
    eve.expect_named(&run.expect_code(4).stderr, &login);
}

/// Runs a backup of a compromised server, which runs as the real one's account, listens on its socket and
/// asks for something. Returns what the server received.
#[track_caller]
fn compromised(stand: &Stand, asks: &str) -> (String, Output) {
    let db1 = stand.host("db1");
    let own = stand.at("mysql");
    db1.sh(&format!(
        "chmod 755 {}; install -d -o mysql -m 755 {own}; install -d -o mysql -g root -m 755 /run/mysqld",
        stand.scratch.path()
    ));
    let target = stand.directory("db2", "in");
    let impostor = Impostor::new(&db1, "mysql", &format!("{own}/record"));
    let server = impostor.with("name", "mariadbd").listens(SOCKET).asks(asks).start();
    let order = ["--type=mariabackup", &format!("db1:{SOCKET}"), &format!("db2:{target}"), "--dry-run"];
    let run = stand.transfer(&order);
    (server.received(), run)
}

#[test]
fn exclusive_compromised_server_gets_no_password() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    let _secret = stand.secret("db1");
    for asks in ["clear", "dialog"] {
        let (received, run) = compromised(&stand, asks);
        assert!(!received.contains(SECRET), "{asks}: a password: {received}\n{run}");
        let refused = run.expect_code(4).stderr;
        assert!(refused.contains("db1: ") && refused.contains("plugin"), "{asks}: {refused}");
    }
}

#[test]
fn exclusive_compromised_server_gets_no_file() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    // As set by users who load files by hand.
    let _options = Changed::new(
        &stand.host("db1"),
        &format!(
            "(umask 077; printf '[client]\\npassword={SECRET}\\n[mysql]\\nlocal-infile=1\\n' >/root/.my.cnf)"
        ),
        "rm -f /root/.my.cnf",
    );
    for asks in ["infile:/etc/shadow", "infile:/root/.my.cnf"] {
        let (received, run) = compromised(&stand, asks);
        let is_file = received.contains("root:") || received.contains(SECRET);
        assert!(!is_file, "{asks}: {received}\n{run}");
        run.expect_code(4);
    }
}

#[test]
fn exclusive_only_permitted_login_plugins_are_used() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    let db1 = stand.serve("db1", "");
    let target = stand.directory("db2", "in");
    sql(
        &db1,
        "INSTALL SONAME 'auth_ed25519'; CREATE USER copier@localhost IDENTIFIED VIA ed25519 USING PASSWORD('of-the-copier');
         GRANT ALL PRIVILEGES ON *.* TO copier@localhost",
    );
    let login = stand.at("login.cnf");
    db1.put("[client]\nuser=copier\npassword=of-the-copier\n", &login, 0o600);
    let order =
        ["--type=mariabackup", "--defaults-file", &login, &format!("db1:{SOCKET}"), &format!("db2:{target}")];
    let refused = stand.transfer(&order).expect_code(4).stderr;
    assert!(refused.contains("/etc/transfer/client-plugins"), "{refused}");
    let _permitted = Changed::new(
        &db1,
        "mkdir -p /etc/transfer/client-plugins
         ln -s /usr/lib/*/libmariadb3/plugin/client_ed25519.so /etc/transfer/client-plugins/",
        "rm -rf /etc/transfer/client-plugins; rmdir /etc/transfer 2>/dev/null || :",
    );
    stand.transfer(&order).expect_success();
}
