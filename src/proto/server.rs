//! Database servers of a host: requests of the controller and their answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::vault::Sealed;
use super::{HostBytes, Text};

/// Maximum size in bytes of the rows of one answer, well below that of a message.
pub const ANSWER_LIMIT: usize = 512 << 10;

/// Number of the error of a statement that a server does not know.
pub const SYNTAX_ERROR: u32 = 1064;

/// How a server is logged in to: through its socket, as the agent's own user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// Socket; empty if unknown.
    pub socket: HostBytes,
    /// File with login options; empty for the client's own.
    pub defaults_file: HostBytes,
}

/// Server with the data directory that it works on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Server {
    /// Login.
    pub login: Login,
    /// Data directory.
    pub datadir: HostBytes,
}

/// Threads of a replication connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threads {
    /// The IO thread runs, or tries to connect.
    pub io: bool,
    /// The SQL thread runs.
    pub sql: bool,
}

impl Threads {
    /// Both threads are stopped.
    pub const STOPPED: Self = Self { io: false, sql: false };

    /// Returns whether a thread runs.
    #[must_use]
    pub fn any(self) -> bool {
        self.io || self.sql
    }
}

/// Data directory and the inode that it had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataDirectory {
    /// Path.
    pub path: HostBytes,
    /// Inode, which a reboot does not change.
    pub inode: u64,
}

/// State of replication for which a server is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartState {
    /// As the server is configured.
    Configured,
    /// Without replication.
    NoReplication,
    /// Without replication, writing clients and events.
    Isolated,
}

/// Replication account of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The server.
    pub server: Login,
    /// Name of the account.
    pub user: String,
    /// Host from which it may log in.
    pub host: String,
}

/// Request to stop a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopServer {
    /// Unit of systemd.
    pub unit: String,
    /// The server.
    pub server: Server,
    /// Maximum time for it to stop, in seconds.
    pub seconds: u64,
    /// State in which it is started again.
    pub start: StartState,
}

/// Request to start a server with provisional data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartServer {
    /// Unit of systemd.
    pub unit: String,
    /// The server.
    pub server: Server,
}

/// Request to prepare the publication of provisional data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisional {
    /// Unit of systemd.
    pub unit: String,
    /// Data directory, which may not exist yet.
    pub datadir: HostBytes,
    /// New data: path below the directory in which the copy has arrived.
    pub staged: HostBytes,
    /// Path for the old data, or for the new data if there was no old data.
    pub aside: HostBytes,
    /// Maximum time for the server to stop, in seconds.
    pub seconds: u64,
    /// Permitted contents of the old data.
    pub old: OldData,
    /// Mark to add to the new data, if there is one.
    pub upgraded: Option<UpgradeMark>,
}

/// Permitted contents of data that is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OldData {
    /// Any databases.
    Any,
    /// No databases but the server's own.
    NoDatabases,
}

/// File of a data directory that names the version for which the system tables were upgraded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeMark {
    /// Name of the file.
    pub file: String,
    /// Version.
    pub version: String,
}

/// Answer to the end of a quiescence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// Units that ran already: someone else has started them.
    pub already_running: Vec<Text>,
}

/// Server of another host, which is logged in to over the network with a replication account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remote {
    /// Name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Encrypt the connection, without checking whose certificate it is.
    pub tls: bool,
}

/// Request to execute statements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statements {
    /// Statements, separated by semicolons. Any bytes, which may contain a password.
    pub text: Sealed,
    /// Maximum time for the answer, in seconds.
    pub seconds: u64,
}

/// Fields of a row; `None` is NULL. A client shows bytes of value 0 as blanks: `HEX()` keeps them.
pub type Row = Vec<Option<HostBytes>>;

/// Rows of one statement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultSet {
    /// Names of the columns; empty if there are no rows.
    pub columns: Vec<HostBytes>,
    /// Rows.
    pub rows: Vec<Row>,
    /// More rows of it are in the next answer.
    pub continues: bool,
}

/// Result sets of statements.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlAnswer {
    /// Result sets of those statements that have one.
    pub sets: Vec<ResultSet>,
    /// Another answer to the same statements must be fetched.
    pub more: bool,
}

/// Failure of a statement, of a login or of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlFailure {
    /// Number of the error, if the server or its client reported one. Those of clients are 2000 to 2999.
    pub number: Option<u32>,
    /// Message, without the words of a statement.
    pub message: Text,
}

impl SqlFailure {
    /// Returns whether a server answered, with an error.
    #[must_use]
    pub fn is_of_server(&self) -> bool {
        self.number.is_some_and(|number| !(2000..3000).contains(&number))
    }
}

/// Answer to statements.
pub type SqlReply = Result<SqlAnswer, SqlFailure>;

/// Status of one replication connection. The names of columns are those of MariaDB: `Slave_IO_Running`,
/// `Master_Host`, `Connection_name`, whatever the server calls them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionStatus(pub BTreeMap<String, HostBytes>);

impl ConnectionStatus {
    /// Statements that return the status of all connections: that of MariaDB, that of MySQL, and that of
    /// MySQL before 8.0.22. A server refuses those that it does not know with [`SYNTAX_ERROR`].
    pub const STATEMENTS: [&'static str; 3] =
        ["SHOW ALL SLAVES STATUS", "SHOW REPLICA STATUS", "SHOW SLAVE STATUS"];

    /// Returns the status of each connection from the rows of such a statement.
    #[must_use]
    pub fn list(set: ResultSet) -> Vec<Self> {
        let names: Vec<String> = set.columns.iter().map(column).collect();
        let status = |row: Row| {
            let mut status = Self::default();
            for (name, value) in names.iter().zip(row) {
                if let Some(value) = value {
                    status.0.entry(name.clone()).or_insert(value);
                }
            }
            status
        };
        set.rows.into_iter().map(status).collect()
    }

    /// Returns a column; nothing if it is NULL or missing.
    #[must_use]
    pub fn get(&self, column: &str) -> &[u8] {
        self.0.get(column).map(HostBytes::as_bytes).unwrap_or_default()
    }

    /// Returns the name of the connection.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.get("Connection_name")
    }

    /// Returns which threads run. An IO thread that is about to connect was started.
    #[must_use]
    pub fn threads(&self) -> Threads {
        Threads { io: self.get("Slave_IO_Running") != b"No", sql: self.get("Slave_SQL_Running") == b"Yes" }
    }
}

/// Returns the name that MariaDB gives to a column: replicas and slaves, sources and masters, channels and
/// connections are the same.
fn column(name: &HostBytes) -> String {
    let name = name.to_string();
    let name = match name.strip_prefix("Replica_") {
        Some(rest) => format!("Slave_{rest}"),
        None => name,
    };
    match name.replace("Source", "Master").as_str() {
        "Channel_Name" => "Connection_name".into(),
        name => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_servers_are_not_those_of_clients() {
        let of = |number| SqlFailure { number, message: Text::default() }.is_of_server();
        assert!(of(Some(1045)) && of(Some(3159)) && of(Some(45000)));
        assert!(!of(Some(2002)) && !of(Some(2059)) && !of(None));
    }

    #[test]
    fn columns_of_mysql_get_the_names_of_mariadb() {
        let of = |name: &str| column(&HostBytes::from(name));
        assert_eq!(of("Replica_IO_Running"), "Slave_IO_Running");
        assert_eq!(of("Seconds_Behind_Source"), "Seconds_Behind_Master");
        assert_eq!(of("Relay_Source_Log_File"), "Relay_Master_Log_File");
        assert_eq!(of("Channel_Name"), "Connection_name");
        assert_eq!(of("Replicate_Do_DB"), "Replicate_Do_DB");
    }

    #[test]
    fn first_value_of_a_column_counts_and_null_is_nothing() {
        let set = ResultSet {
            columns: ["Channel_Name", "Connection_name", "Last_IO_Error"].map(HostBytes::from).into(),
            rows: vec![vec![Some(HostBytes::from("one")), Some(HostBytes::from("two")), None]],
            continues: false,
        };
        let [status] = ConnectionStatus::list(set).try_into().unwrap();
        assert_eq!((status.name(), status.get("Last_IO_Error")), (&b"one"[..], &b""[..]));
    }

    #[test]
    fn connecting_thread_counts_as_running() {
        let status = |io: &str, sql: &str| {
            let columns = [("Slave_IO_Running", io), ("Slave_SQL_Running", sql)];
            ConnectionStatus(columns.map(|(name, value)| (name.to_owned(), HostBytes::from(value))).into())
        };
        assert_eq!(status("Connecting", "Yes").threads(), Threads { io: true, sql: true });
        assert_eq!(status("No", "No").threads(), Threads::STOPPED);
        assert_eq!(status("Preparing", "").threads(), Threads { io: true, sql: false });
        assert!(!Threads::STOPPED.any());
    }
}
