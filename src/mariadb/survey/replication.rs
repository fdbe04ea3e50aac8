//! Replication of a server from its upstreams.

use super::fields::shown;
use super::{LIMIT, MOST};
use crate::host::facts::{Connection, Upstream};
use crate::mariadb::sql::{Server, SqlError};
use crate::proto::server::{ConnectionStatus, SYNTAX_ERROR, SqlFailure};

/// Columns of replication filters.
const FILTERS: [&str; 8] = [
    "Replicate_Do_DB",
    "Replicate_Ignore_DB",
    "Replicate_Do_Table",
    "Replicate_Ignore_Table",
    "Replicate_Wild_Do_Table",
    "Replicate_Wild_Ignore_Table",
    "Replicate_Do_Domain_Ids",
    "Replicate_Ignore_Domain_Ids",
];
/// Port of servers unless another one is configured.
const PORT: u16 = 3306;

/// Returns the status of the replication connections of a server.
pub(super) async fn status(server: &Server<'_>) -> Result<Vec<ConnectionStatus>, SqlError> {
    let mut last = Ok(Vec::new());
    for statement in ConnectionStatus::STATEMENTS {
        last = server.query(LIMIT, statement).await;
        if !matches!(&last, Err(SqlError::Sql(SqlFailure { number: Some(SYNTAX_ERROR), .. }))) {
            break;
        }
    }
    Ok(last?.into_iter().flat_map(ConnectionStatus::list).take(MOST).collect())
}

/// Returns a connection and its running threads.
pub(super) fn connection(status: &ConnectionStatus) -> Connection {
    let threads = status.threads();
    Connection { name: shown(status.name()), io: threads.io, sql: threads.sql }
}

/// Returns the upstream of a connection.
pub(super) fn upstream(status: &ConnectionStatus) -> Upstream {
    let text = |column: &str| shown(status.get(column));
    Upstream {
        name: shown(status.name()),
        runs: status.get("Slave_IO_Running") == b"Yes" && status.get("Slave_SQL_Running") == b"Yes",
        host: text("Master_Host"),
        port: text("Master_Port").parse().unwrap_or(PORT),
        by_gtid: !matches!(status.get("Using_Gtid"), b"" | b"No"),
        ssl: status.get("Master_SSL_Allowed") == b"Yes",
        server_id: text("Master_Server_Id").parse().unwrap_or_default(),
        filtered: FILTERS.iter().any(|column| !status.get(column).is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mariadb::survey::fields::samples::{assert_harmless, hostile};
    use crate::proto::HostBytes;

    fn status(columns: &[(&str, &str)]) -> ConnectionStatus {
        let columns = columns.iter().map(|(name, value)| ((*name).to_owned(), HostBytes::from(*value)));
        ConnectionStatus(columns.collect())
    }

    #[test]
    fn columns_of_a_running_replica_are_read() {
        let mut columns = vec![
            ("Connection_name", "one"),
            ("Slave_IO_Running", "Yes"),
            ("Slave_SQL_Running", "Yes"),
            ("Master_Host", "db1"),
            ("Master_Port", "3307"),
            ("Using_Gtid", "Slave_Pos"),
            ("Master_SSL_Allowed", "Yes"),
            ("Master_Server_Id", "11"),
            ("Replicate_Do_DB", ""),
        ];
        let found = upstream(&status(&columns));
        assert_eq!((found.name.as_str(), found.place().as_str(), found.server_id), ("one", "db1:3307", 11));
        assert!(found.runs && found.by_gtid && found.ssl && !found.filtered);
        assert_eq!(connection(&status(&columns)), Connection { name: "one".into(), io: true, sql: true });
        columns.push(("Replicate_Ignore_Domain_Ids", "5"));
        columns[1] = ("Slave_IO_Running", "Connecting");
        let found = upstream(&status(&columns));
        assert!(found.filtered && !found.runs);
        assert!(connection(&status(&columns)).io);
    }

    #[test]
    fn missing_columns_have_the_defaults_of_servers() {
        let found = upstream(&status(&[("Using_Gtid", "No")]));
        assert_eq!(found, Upstream { port: PORT, ..Upstream::default() });
        assert_eq!(upstream(&status(&[("Master_Port", "99999")])).port, PORT);
    }

    #[test]
    fn hostile_texts_are_harmless() {
        let long = hostile();
        let found =
            status(&[("Connection_name", &long), ("Master_Host", &long), ("Master_Server_Id", &long)]);
        assert_harmless(&upstream(&found).name);
        assert_harmless(&upstream(&found).host);
        assert_harmless(&connection(&found).name);
    }
}
