//! Processes, sockets and locks of other accounts: none of them is taken for a server, is executed, gets a login, or keeps a run from
//! its work.

use crate::fixtures::{Changed, Wrapper};
use crate::harness::Output;
use crate::impostor::{Impostor, PROMPT, Posing};
use crate::stand::{SECRET, SOCKET, Stand, answers, answers_at, main_pid, sql};

/// A dry run says the same as without eve, in all that is no number.
#[track_caller]
fn expect_same(without: &Output, with: &Output) {
    let words = |text: &str| text.replace(|c: char| c.is_ascii_hexdigit(), "");
    assert_eq!(with.status.code(), without.status.code(), "with eve: {with}\nwithout her: {without}");
    assert_eq!(words(&with.stdout), words(&without.stdout), "with eve: {with}\nwithout her: {without}");
}

// ------------------------------------------------------------------------------------- what is executed

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
    assert!(refused.contains("db1: no MariaDB server runs there"), "{refused}");
}

#[test]
fn exclusive_forged_server_in_a_unit_of_its_own_is_not_executed() {
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
fn exclusive_unit_of_another_account_is_not_stopped_for_a_forged_name() {
    let Some(stand) = Stand::without_servers(&["db1", "db2"]) else { return };
    let (tree, target) = (stand.directory("db1", "tree"), stand.directory("db2", "in"));
    stand.host("db1").sh(&format!("echo 1 >{tree}/file"));
    let unit = stand.eve("db1").poses_as("mysqld").in_directory(&tree).start_in_unit("shop-of-eve.service");
    let before = unit.pid();
    let done = stand.transfer(&[&format!("db1:{tree}"), &format!("db2:{target}"), "--stop-server=source"]);
    assert_eq!(unit.pid(), before, "a unit that is no server's was stopped: {done}");
    done.expect_success();
}

// ------------------------------------------------------------------------------------- who gets a login

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
fn exclusive_forged_server_in_a_source_gets_no_password_from_another_namespace() {
    let Some(stand) = Stand::without_servers(&["db1", "db2"]) else { return };
    let _secret = stand.secret("db1");
    let (tree, target) = (stand.directory("db1", "tree"), stand.directory("db2", "in"));
    stand.host("db1").sh(&format!("echo 1 >{tree}/file"));
    let eve = stand.eve("db1");
    let socket = eve.at("mysqld.sock");
    // As root of a container of hers.
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
fn exclusive_socket_of_another_account_gets_no_login_for_a_backup() {
    let Some(stand) = Stand::without_servers(&["db1", "db2"]) else { return };
    let _secret = stand.secret("db1");
    let target = stand.directory("db2", "in");
    let eve = stand.eve("db1");
    // Where many expect it, while the server does not run.
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
fn exclusive_path_of_a_socket_that_another_account_can_change_gets_no_login() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    let db1 = stand.serve("db1", "");
    let _secret = stand.secret("db1");
    let target = stand.directory("db2", "in");
    let eve = stand.eve("db1");
    let (directory, own) = (eve.at("run"), eve.at("own"));
    let socket = format!("{directory}/mysqld.sock");
    eve.sh(&format!("mkdir {own}; ln -s /run/mysqld {directory}"));
    let forged = eve.poses_as("mariadbd").listens(&format!("{own}/mysqld.sock")).asks("clear").start();
    // The real server until the backup begins, and hers from then on.
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
fn exclusive_file_of_options_of_another_account_is_not_read() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    let db1 = stand.serve("db1", "");
    let target = stand.directory("db2", "in");
    let eve = stand.eve("db1");
    let login = eve.at("login.cnf");
    // Root is all-powerful in the server, too, and whatever is in this file is said in his name.
    eve.sh(&format!(
        "printf '[client]\\n[client-mariadb]\\n[mysql]\\ninit-command=\"GRANT SUPER ON *.* TO eve@localhost IDENTIFIED BY 1\"\\n' |
         sed 's/ BY 1/ VIA unix_socket/' >{login}; chmod 600 {login}"
    ));
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

/// What a server of the real one's account hears, where the real one listens, when it asks for something.
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
    // As some have it, who load files by hand.
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
fn exclusive_plugins_for_logins_are_those_that_the_administrator_permits() {
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

// ------------------------------------------------------------------------- whose socket a server's is

/// A process of eve's whose name is what `ss` puts behind each socket of that pid, and that listens often.
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
fn exclusive_forged_pid_on_a_source_moves_no_login_of_a_cold_copy() {
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
fn exclusive_forged_pid_of_a_server_of_a_named_unit_moves_no_login() {
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
fn exclusive_forged_pid_of_one_of_two_servers_moves_no_login() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    let db1 = stand.serve("db1", "");
    let _two = Changed::new(
        &db1,
        "mkdir -p /srv/two && chown mysql: /srv/two
         printf '[mariadbd.two]\\ndatadir=/srv/two\\nsocket=/run/mysqld/two.sock\\nport=3307\\npid-file=/run/mysqld/two.pid\\n' \
            >/etc/mysql/mariadb.conf.d/98-two.cnf
         mariadb-install-db --user=mysql --datadir=/srv/two --skip-test-db >/dev/null 2>&1
         systemctl start mariadb@two",
        "systemctl stop mariadb@two; rm -rf /srv/two /etc/mysql/mariadb.conf.d/98-two.cnf",
    );
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

// -------------------------------------------------------------------------------- what is in use

#[test]
fn exclusive_forged_server_in_a_source_or_a_target_keeps_no_copy_from_its_work() {
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
fn exclusive_forged_server_in_a_data_directory_fails_no_cold_copy() {
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
fn exclusive_forged_server_in_a_data_directory_fails_no_replica() {
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
fn exclusive_read_lock_of_another_account_is_no_server() {
    let Some(stand) = Stand::on(&["db1", "db2"]) else { return };
    stand.host("db1").sh("chmod 644 /var/lib/mysql/ibdata1");
    let target = stand.directory("db2", "in");
    let _reads = stand.eve("db1").poses_as("mariadbd").with("read", "/var/lib/mysql/ibdata1").start();
    let ends = ["db1:/var/lib/mysql", &format!("db2:{target}"), "--chown=mysql:mysql"];
    stand.transfer(&ends).expect_success();
}

#[test]
fn exclusive_locked_files_of_another_account_below_a_source_are_a_warning() {
    let Some(stand) = Stand::without_servers(&["db1", "db2"]) else { return };
    let (tree, target) = (stand.directory("db1", "tree"), stand.directory("db2", "in"));
    let eve = stand.eve("db1");
    stand.host("db1").sh(&format!("mkdir {tree}/home; install -d -o eve {tree}/home/eve"));
    let file = format!("{tree}/home/eve/ibdata1");
    eve.sh(&format!("echo 1 >{file}"));
    let _writes = eve.poses_as("sleep").with("write", &file).start();
    let done = stand.transfer(&[&format!("db1:{tree}"), &format!("db2:{target}")]).expect_success();
    let told = done.stderr.contains("warning: db1: ") && done.stderr.contains(&format!("{tree}/home/eve"));
    assert!(told, "{done}");
}

#[test]
fn exclusive_data_that_any_program_of_its_owner_writes_to_is_in_use() {
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
fn exclusive_server_by_any_name_is_seen() {
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
    server.wait_end(PROMPT);
    for refused in refused {
        let refused = refused.expect_code(4).stderr;
        assert!(refused.contains("/var/lib/mysql"), "{refused}");
    }
    as_target.expect_code(4);
}

#[test]
fn exclusive_server_without_a_unit_is_copied_while_it_runs() {
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
        server.wait_end(PROMPT);
        copied.expect_success();
    }
}

#[test]
fn exclusive_server_behind_a_socket_unit_is_copied() {
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
