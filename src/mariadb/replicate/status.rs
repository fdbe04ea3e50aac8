//! State of a replica's connection, as far as waits depend on it.

use crate::base::printable::{LONGEST_PATH, LONGEST_TEXT, message, short};
use crate::proto::HostBytes;
use crate::proto::server::ResultSet;

/// Statement whose answer is read here.
pub(super) const STATEMENT: &str = "SHOW ALL SLAVES STATUS";

/// State of an IO thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Io {
    /// Stopped.
    #[default]
    Stopped,
    /// About to connect.
    Connecting,
    /// Connected, and fetches changes.
    Running,
}

/// State of a replica's connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// Name of the connection.
    pub(super) name: String,
    /// IO thread.
    pub(super) io: Io,
    /// The SQL thread runs.
    pub(super) sql: bool,
    /// Lag in seconds, as the replica reports it.
    pub(super) behind: Option<u64>,
    /// Number of the last error of the IO thread; 0 if there is none.
    pub(super) io_errno: u64,
    /// Last error of the IO thread, or empty.
    pub(super) io_error: String,
    /// Last error of the SQL thread, or empty.
    pub(super) sql_error: String,
    /// GTID up to which changes were applied.
    pub(super) gtid: String,
    /// Position in the upstream's binlog up to which changes were applied.
    pub(super) applied: (String, u64),
    /// Offset in the upstream's binlog up to which changes were fetched.
    pub(super) fetched: u64,
}

impl Status {
    /// Returns the state of each connection.
    pub(super) fn all(sets: &[ResultSet]) -> Vec<Self> {
        sets.iter().flat_map(|set| set.rows.iter().map(|row| Self::of(&set.columns, row))).collect()
    }

    /// Returns the state of the first connection, the only one of a new replica. A server without one has no
    /// running threads.
    pub(super) fn first(sets: &[ResultSet]) -> Self {
        Self::all(sets).into_iter().next().unwrap_or_default()
    }

    fn of(columns: &[HostBytes], row: &[Option<HostBytes>]) -> Self {
        let bytes = |name: &str| {
            let at = columns.iter().position(|column| column.as_bytes() == name.as_bytes());
            at.and_then(|at| row.get(at)?.as_ref()).map(HostBytes::as_bytes).unwrap_or_default()
        };
        let text = |name| message(bytes(name), LONGEST_TEXT);
        let plain = |name| String::from_utf8_lossy(bytes(name)).into_owned();
        let number = |name| std::str::from_utf8(bytes(name)).ok().and_then(|text| text.parse().ok());
        Self {
            name: plain("Connection_name"),
            io: match bytes("Slave_IO_Running") {
                b"No" | b"" => Io::Stopped,
                b"Yes" => Io::Running,
                _ => Io::Connecting,
            },
            sql: bytes("Slave_SQL_Running") == b"Yes",
            behind: number("Seconds_Behind_Master"),
            io_errno: number("Last_IO_Errno").unwrap_or_default(),
            io_error: text("Last_IO_Error"),
            sql_error: text("Last_SQL_Error"),
            gtid: short(bytes("Gtid_Slave_Pos"), LONGEST_PATH),
            applied: (plain("Relay_Master_Log_File"), number("Exec_Master_Log_Pos").unwrap_or_default()),
            fetched: number("Read_Master_Log_Pos").unwrap_or_default(),
        }
    }

    /// Returns whether the replica reports that it applies changes that it has fetched. One of them may take
    /// long.
    pub(super) fn is_behind(&self) -> bool {
        self.behind.is_some_and(|seconds| seconds > 0)
    }

    /// Returns whether both threads are stopped.
    pub(super) fn is_stopped(&self) -> bool {
        self.io == Io::Stopped && !self.sql
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name() {
        let fields = [
            ("Connection_name", Some("")),
            ("Slave_IO_Running", Some("Preparing")),
            ("Slave_SQL_Running", Some("Yes")),
            ("Seconds_Behind_Master", None),
            ("Last_IO_Errno", Some("2003")),
            ("Last_IO_Error", Some("error connecting\nto master")),
            ("Last_SQL_Error", Some("")),
            ("Gtid_Slave_Pos", Some("0-1-6")),
            ("Relay_Master_Log_File", Some("bin.000001")),
            ("Exec_Master_Log_Pos", Some("12")),
            ("Read_Master_Log_Pos", Some("34")),
        ];
        let (columns, row) =
            fields.iter().map(|(name, value)| (HostBytes::from(name), value.map(HostBytes::from))).unzip();
        let set = ResultSet { columns, rows: vec![row], continues: false };
        let status = Status::first(&[set]);
        assert_eq!((status.io, status.sql, status.behind), (Io::Connecting, true, None));
        assert_eq!((status.io_errno, status.io_error.as_str()), (2003, "error connecting | to master"));
        assert_eq!((status.gtid.as_str(), &status.applied), ("0-1-6", &("bin.000001".to_owned(), 12)));
        assert_eq!(status.fetched, 34);
        assert!(!status.is_behind() && !status.is_stopped());
    }

    #[test]
    fn server_without_connections_is_stopped() {
        assert!(Status::first(&[]).is_stopped());
        assert!(Status::first(&[ResultSet::default()]).is_stopped());
    }
}
