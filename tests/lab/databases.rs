//! Real MariaDB servers, copied hot and cold, and archives.
//!
//! There is a primary with tables of all kinds on db1, a server for each test to change on db2, and a replica
//! on db3. Each test has the hosts for itself.

mod archives;
mod cold;
mod documents;
mod hot;
mod replica;
mod trouble;

use std::fmt::Write as _;

use crate::support::commands::Running;
use crate::support::hosts::{Host, Lab};
use crate::support::output::Output;
use crate::support::schema::expect_valid;
use crate::support::scratch::Scratch;
use crate::support::servers::{Reserved, SERVED, SOCKET, configure, sql};
use crate::support::waiting::eventually;

/// `--lease-time` of runs whose controller is killed.
const LEASE: &str = "4";

/// Creates tables of all kinds; the name of the last one needs quotes.
const TABLES: &str = r"
    CREATE USER replica@'%' IDENTIFIED BY 'of-the-lab'; GRANT REPLICATION SLAVE ON *.* TO replica@'%';
    CREATE DATABASE shop; USE shop;
    CREATE TABLE plain (id INT PRIMARY KEY AUTO_INCREMENT, text TEXT) ENGINE=InnoDB;
    INSERT INTO plain (text) SELECT REPEAT(MD5(seq), 20) FROM seq_1_to_5000;
    CREATE TABLE compressed (id INT PRIMARY KEY AUTO_INCREMENT, text TEXT) ENGINE=InnoDB PAGE_COMPRESSED=1;
    INSERT INTO compressed (text) SELECT REPEAT('x', 2000) FROM seq_1_to_5000;
    CREATE TABLE parts (id INT PRIMARY KEY AUTO_INCREMENT, text TEXT) PARTITION BY HASH (id) PARTITIONS 30;
    INSERT INTO parts (text) SELECT MD5(seq) FROM seq_1_to_3000;
    CREATE TABLE myisam (id INT PRIMARY KEY, text TEXT) ENGINE=MyISAM;
    INSERT INTO myisam SELECT seq, MD5(seq) FROM seq_1_to_1000;
    CREATE TABLE aria (id INT PRIMARY KEY, text TEXT) ENGINE=Aria;
    INSERT INTO aria SELECT seq, MD5(seq) FROM seq_1_to_1000;
    CREATE TABLE `odd $(name)` (id INT PRIMARY KEY); INSERT INTO `odd $(name)` VALUES (1);";

/// Script in front of a program that holds a run, until [`let_go`].
const HOLD: &str = "touch /run/databases-held; while [[ -e /run/databases-held ]]; do sleep 0.05; done";

/// Hosts with servers.
struct Servers {
    // First: servers may use the directory of the test.
    _reserved: Reserved,
    lab: Lab,
    db1: Host,
    db2: Host,
    db3: Host,
    scratch: Scratch,
}

impl Servers {
    /// Starts a primary on db1. No server runs on the other hosts.
    fn set() -> Option<Self> {
        let lab = Lab::get()?;
        let [db1, db2, db3] = ["db1", "db2", "db3"].map(|name| lab.host(name));
        let scratch = lab.scratch(&["db1", "db2", "db3"]);
        let reserved = Reserved::new([&db1, &db2, &db3].map(Host::clone).into());
        let servers = Self { _reserved: reserved, lab, db1, db2, db3, scratch };
        configure(&servers.db1, 1, "");
        servers.db1.sh("systemctl restart mariadb");
        sql(&servers.db1, TABLES);
        Some(servers)
    }

    /// Makes db3 a replica of the primary, by GTID, and waits until it has caught up.
    fn replicate(&self, more: &str) {
        configure(&self.db3, 3, more);
        self.db3.sh("systemctl restart mariadb");
        follow(&self.db3, "'main'", "slave_pos");
        self.catch_up(&self.db3, "'main'");
    }

    /// Waits until a replica has all transactions of the primary.
    #[track_caller]
    fn catch_up(&self, replica: &Host, connection: &str) {
        let gtid = sql(&self.db1, "SELECT @@gtid_binlog_pos");
        let gtid = gtid.trim();
        let reached = sql(
            replica,
            &format!("SET default_master_connection = {connection}; SELECT MASTER_GTID_WAIT('{gtid}', 60)"),
        );
        let status = sql(replica, "SHOW ALL SLAVES STATUS\\G");
        assert_eq!(reached.trim(), "0", "the replica does not reach {gtid}: {status}");
    }

    /// Writes rows as fast as possible, until it is stopped.
    fn write_rows(&self) -> Writer {
        let script = r#"touch /run/writing; while [[ -e /run/writing ]]; do
            for n in {1..50}; do
                echo "INSERT INTO shop.plain (text) VALUES (UUID()); INSERT INTO shop.parts (text) VALUES (UUID());
                    UPDATE shop.compressed SET text = UUID() WHERE id = $((RANDOM % 5000));
                    REPLACE INTO shop.myisam VALUES ($((RANDOM % 5000)), UUID()); REPLACE INTO shop.aria VALUES ($((RANDOM % 5000)), UUID());"
            done
        done | mariadb"#;
        Writer { running: Some(self.db1.spawn(&["bash", "--norc", "-c", script])), host: self.db1.clone() }
    }

    fn at(&self, name: &str) -> String {
        self.scratch.join(name)
    }

    fn transfer(&self, arguments: &[&str]) -> Output {
        self.lab.transfer(arguments)
    }

    /// Makes a hot copy of a server, prepared, in an empty directory of db2; returns the report.
    #[track_caller]
    fn hot(&self, from: &str, options: &[&str]) -> serde_json::Value {
        self.db2.sh(&format!("rm -rf {0}; mkdir {0}", self.at("hot")));
        let ends = [format!("{from}:{SOCKET}"), format!("db2:{}", self.at("hot"))];
        let mut arguments = vec!["--type", "mariabackup", "--json", &ends[0], &ends[1]];
        arguments.extend(options);
        let output = self.transfer(&arguments).expect_success();
        report(&output)
    }

    /// Starts the server of db2 with the data in a directory.
    #[track_caller]
    fn start_with(&self, directory: &str) {
        configure(&self.db2, 2, "");
        self.db2.sh(&format!(
            "systemctl stop mariadb; rm -rf /var/lib/mysql; mv -T {directory} /var/lib/mysql
             chown mysql: /var/lib/mysql; chmod 755 /var/lib/mysql; systemctl start mariadb"
        ));
    }

    /// Asserts that no run has left anything on the hosts.
    #[track_caller]
    fn expect_nothing_left(&self) {
        let nothing = "db1: no runs\ndb2: no runs\ndb3: no runs\n";
        let status = || self.transfer(&["status", "db1", "db2", "db3"]).expect_success().stdout;
        assert!(eventually(SERVED, || status() == nothing), "{}", status());
    }
}

/// Returns the report of a run with `--json`, after checking all lines against the schema.
#[track_caller]
fn report(output: &Output) -> serde_json::Value {
    let line = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    let lines: Vec<serde_json::Value> = output.stdout.lines().map(line).collect();
    lines.iter().for_each(expect_valid);
    lines.into_iter().next_back().expect("a report")
}

/// A client that writes rows.
struct Writer {
    running: Option<Running>,
    host: Host,
}

impl Writer {
    /// Stops writing, after the last row.
    #[track_caller]
    fn stop(mut self) {
        self.host.sh("rm -f /run/writing");
        if let Some(running) = self.running.take() {
            running.wait().expect_success();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.host.run(&["rm", "-f", "/run/writing"]);
    }
}

/// Waits until a run is held on a host.
#[track_caller]
fn expect_held(host: &Host, run: Running) -> Running {
    let is_held = || host.run(&["test", "-e", "/run/databases-held"]).status.success();
    assert!(eventually(SERVED, is_held), "it is not held: {}", run.wait());
    run
}

/// Lets the held program continue.
#[track_caller]
fn let_go(host: &Host) {
    host.sh("rm -f /run/databases-held");
}

/// Makes a replica of the primary, and starts its replication.
#[track_caller]
fn follow(replica: &Host, connection: &str, gtid: &str) {
    sql(
        replica,
        &format!(
            "CHANGE MASTER {connection} TO MASTER_HOST = '10.77.0.11', MASTER_USER = 'replica',
             MASTER_PASSWORD = 'of-the-lab', MASTER_CONNECT_RETRY = 1, MASTER_USE_GTID = {gtid}; START SLAVE {connection}"
        ),
    );
}

/// Returns the checksums of all tables of the shop.
#[track_caller]
fn checksums(host: &Host) -> String {
    let tables = sql(
        host,
        "SELECT CONCAT('`', table_schema, '`.`', table_name, '`') FROM information_schema.tables
         WHERE table_schema = 'shop' ORDER BY 1",
    );
    let mut all = String::new();
    for table in tables.lines() {
        let _ = write!(all, "{}", sql(host, &format!("CHECKSUM TABLE {table}")));
    }
    assert!(all.lines().count() >= 6, "{all}");
    all
}

/// Returns the name and the states of both threads for each connection of a replica.
#[track_caller]
fn replication(host: &Host) -> Vec<String> {
    let named = host.sh(r"mariadb --batch -e 'SHOW ALL SLAVES STATUS\G' | sed -n 's/^ *\(Connection_name\|Slave_IO_Running\|Slave_SQL_Running\): *//p' | paste -d, - - -");
    named.lines().map(ToOwned::to_owned).collect()
}
