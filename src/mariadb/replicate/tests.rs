//! Following and comparing with real servers. Nothing is tested where none is installed.

use std::time::Duration;

use super::contents::{Contents, Differences};
use super::follow::Following;
use super::watch::Limits;
use super::{donor, moment};
use crate::config::values::TableCheck;
use crate::host::conversation::Conversation;
use crate::host::database::Database;
use crate::host::tests::converse;
use crate::mariadb::plan::{Account, Position, Whose};
use crate::mariadb::sql::{RemoteServer, Server, text};
use crate::proto::HostBytes;
use crate::proto::server::{Login, Remote};

const LIMIT: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(20);
const PASSWORD: &str = r#"it's "a\secret"#;

fn servers<const N: usize>(numbers: [u32; N]) -> Option<[Database; N]> {
    Database::all(nix::unistd::geteuid().as_raw(), numbers)
}

fn server<'a>(agent: &'a Conversation, database: &Database) -> Server<'a> {
    let [socket, defaults_file] = [database.socket(), database.options()].map(|path| HostBytes::from(&path));
    Server { agent, login: Login { socket, defaults_file }, unit: None }
}

/// Two servers, of which one replicates from the other, and the agent of both.
struct Pair {
    agent: Conversation,
    primary: Database,
    replica: Database,
    account: Account,
}

impl Pair {
    async fn new() -> Option<Self> {
        let [primary, replica] = servers([1, 2])?;
        let account = Account::new("repl".into(), PASSWORD.into()).unwrap();
        Some(Self { agent: converse().await, primary, replica, account })
    }

    fn server<'a>(&'a self, database: &Database) -> Server<'a> {
        server(&self.agent, database)
    }

    fn following<'a>(&'a self, account: &'a Account) -> Following<'a> {
        let remote = Remote { host: "127.0.0.1".into(), port: self.primary.port(), tls: false };
        Following {
            server: self.server(&self.replica),
            upstream: RemoteServer { agent: &self.agent, remote, account },
            limits: Limits { max_lag: Duration::from_secs(5), idle: IDLE, whose: Whose::Own },
            events: true,
        }
    }

    /// Executes statements and returns all fields of their results.
    async fn sql(&self, database: &Database, statements: &str) -> Vec<String> {
        let sets = self.server(database).query(LIMIT, statements).await.unwrap();
        let rows = sets.iter().flat_map(|set| &set.rows);
        rows.flat_map(|row| (0..row.len()).map(|index| text(row, index))).collect()
    }

    /// Creates tables of all kinds, with names that need quotes, and what a replica must not run.
    async fn fill(&self) {
        let password = crate::base::statement::literal(PASSWORD);
        self.sql(
            &self.primary,
            &format!(
                "CREATE USER repl@'%' IDENTIFIED BY {password}; GRANT REPLICATION SLAVE ON *.* TO repl@'%';
                 CREATE DATABASE shop; CREATE DATABASE `e``v;il\n'\"\\`; USE shop;
                 CREATE TABLE plain (id INT AUTO_INCREMENT PRIMARY KEY, text TEXT) ENGINE=InnoDB;
                 CREATE TABLE locked (id INT AUTO_INCREMENT PRIMARY KEY, text TEXT) ENGINE=MyISAM;
                 CREATE TABLE lost (id INT) ENGINE=MEMORY; CREATE VIEW seen AS SELECT * FROM plain;
                 CREATE TABLE `e``v;il\n'\"\\`.`;\ndelimiter x\n;` (id INT);
                 INSERT INTO plain (text) SELECT seq FROM seq_1_to_1000;
                 INSERT INTO locked (text) SELECT seq FROM seq_1_to_1000;
                 INSERT INTO lost VALUES (1)"
            ),
        )
        .await;
        self.sql(
            &self.replica,
            "CHANGE MASTER 'o''ld' TO MASTER_HOST = '127.0.0.1', MASTER_PORT = 1, MASTER_USER = 'x';
             CREATE DATABASE own;
             CREATE DEFINER = `o'ne`@`%` EVENT own.`e'``x` ON SCHEDULE EVERY 1 DAY DO SELECT 1",
        )
        .await;
    }

    /// Asserts that a wrong password ends the wait and is not shown.
    async fn is_refused(&self) {
        let wrong = Account::new("repl".into(), r"wro'ng\word".into()).unwrap();
        let following = self.following(&wrong);
        let error = following.upstream.query("SELECT 1").await.unwrap_err().to_string();
        assert!(error.contains("1045") && !error.contains("wro"), "{error}");
        following.start(&Position::Gtid(String::new())).await.unwrap();
        let error = following.wait(|_| ()).await.unwrap_err().to_string();
        assert!(error.starts_with("it cannot fetch: ") && !error.contains("wro"), "{error}");
    }

    /// Compares the tables of both at one moment of the primary.
    async fn differences(&self, began: &Position, check: TableCheck) -> Option<String> {
        let (primary, replica) = (self.server(&self.primary), self.server(&self.replica));
        let stopped = moment::stop(&replica, IDLE).await.unwrap();
        self.sql(&self.primary, "INSERT INTO shop.plain (text) VALUES ('between')").await;
        let snapshot = donor::begin(&primary, Whose::Own, IDLE, &[stopped]).await.unwrap();
        let position = snapshot.moment().position(began).unwrap();
        let row = "SET lock_wait_timeout = 1; INSERT INTO shop.locked (text) VALUES ('behind it')";
        assert!(primary.query(LIMIT, row).await.is_err(), "a table is not locked");
        self.sql(&self.primary, "INSERT INTO shop.plain (text) VALUES ('behind it')").await;
        let there: Contents = snapshot.read(check).await.unwrap();
        let here = moment::read_at(&replica, &position, check, IDLE).await.unwrap();
        assert_eq!(there.len(), 3);
        Differences::between(&there, &here).map(|differences| differences.to_string())
    }
}

#[tokio::test(flavor = "current_thread")]
async fn replica_follows_and_its_tables_are_compared() {
    let Some(pair) = Pair::new().await else { return };
    pair.fill().await;
    pair.is_refused().await;
    let following = pair.following(&pair.account);
    following.upstream.query("SELECT 1").await.unwrap();
    let first = Position::File("bin.000001".into(), 4);
    following.start(&first).await.unwrap();
    let (gtid, lag) = following.wait(|_| ()).await.unwrap();
    assert_eq!(gtid, pair.sql(&pair.primary, "SELECT @@gtid_binlog_pos").await[0]);
    assert!(lag < Duration::from_secs(5), "{lag:?}");
    let state =
        "SELECT @@read_only, @@event_scheduler; SELECT status, definer FROM information_schema.events";
    assert_eq!(pair.sql(&pair.replica, state).await, ["1", "ON", "SLAVESIDE_DISABLED", "o'ne@%"]);
    // Of its own events nothing is in its binlog.
    assert_eq!(pair.sql(&pair.replica, "SELECT @@gtid_binlog_state LIKE '%-2-%ALTER%'").await, ["0"]);
    for check in [TableCheck::Checksum, TableCheck::Rows] {
        assert_eq!(pair.differences(&first, check).await, None);
    }
    pair.sql(&pair.replica, "SET sql_log_bin = 0; DELETE FROM shop.plain LIMIT 1").await;
    let by_gtid = Position::Gtid(gtid);
    let differences = pair.differences(&first, TableCheck::Rows).await;
    assert_eq!(differences.as_deref(), Some("1 entry differs: shop/plain (different contents)"));
    // By GTID, from there.
    following.wait(|_| ()).await.unwrap();
    let own = pair.sql(&pair.replica, "SELECT @@gtid_slave_pos").await.remove(0);
    following.start(&Position::Gtid(own)).await.unwrap();
    following.wait(|_| ()).await.unwrap();
    let used = pair.server(&pair.replica).query(LIMIT, "SHOW ALL SLAVES STATUS").await.unwrap();
    let at = used[0].columns.iter().position(|name| name.as_bytes() == b"Using_Gtid").unwrap();
    assert_eq!((used[0].rows.len(), text(&used[0].rows[0], at).as_str()), (1, "Slave_Pos"));
    let differences = pair.differences(&by_gtid, TableCheck::Checksum).await;
    assert_eq!(differences.as_deref(), Some("1 entry differs: shop/plain (different contents)"));
    // As a donor beside its copies.
    let (own, _) = following.wait(|_| ()).await.unwrap();
    let replica = pair.server(&pair.replica);
    let snapshot = donor::begin(&replica, Whose::Upstream, IDLE, std::slice::from_ref(&own)).await.unwrap();
    assert_eq!(snapshot.moment().position(&by_gtid), Some(Position::Gtid(own)));
    drop(snapshot);
    pair.sql(&pair.replica, "SET sql_log_bin = 0; DROP TABLE shop.locked").await;
    pair.sql(&pair.primary, "INSERT INTO shop.locked (text) VALUES ('without it')").await;
    let error = following.wait(|_| ()).await.unwrap_err().to_string();
    assert!(error.starts_with("its SQL thread has stopped: ") && error.contains("shop.locked"), "{error}");
}

#[tokio::test(flavor = "current_thread")]
async fn long_answers_come_in_parts_and_locks_end_with_their_sessions() {
    let Some([database]) = servers([1]) else { return };
    let agent = converse().await;
    let server = server(&agent, &database);
    answers_come_in_parts(&server).await;
    let make = "CREATE DATABASE shop; CREATE TABLE shop.locked (id INT) ENGINE=MyISAM";
    server.query(LIMIT, make).await.unwrap();
    drop(donor::begin(&server, Whose::Own, IDLE, &[]).await.unwrap());
    server.query(LIMIT, "SET lock_wait_timeout = 20; INSERT INTO shop.locked VALUES (1)").await.unwrap();
}

async fn answers_come_in_parts(server: &Server<'_>) {
    let session = server.open().await.unwrap();
    let list = "SELECT 'shop', CONCAT('table_', seq), NULL FROM mysql.seq_1_to_100000";
    let sets = session.execute(LIMIT, list).await.unwrap();
    assert_eq!((sets.len(), sets[0].rows.len(), sets[0].columns.len()), (1, 100_000, 3));
    assert_eq!(text(&sets[0].rows[99_999], 1), "table_100000");
}
