//! Replication connections of a server: their status, and starting and stopping their threads.

use std::time::{Duration, Instant};

use bstr::ByteSlice as _;

use crate::proto::Text;
use crate::proto::server::{ConnectionStatus, ResultSet, SYNTAX_ERROR, Threads};

use super::client::{Client, SqlError};
use crate::base::statement::literal;

/// Time for the threads of a connection to be as they should.
const LIMIT: Duration = Duration::from_secs(30);
/// Interval of the questions for the state of threads.
const INTERVAL: Duration = Duration::from_millis(250);
/// Number of questions after which the threads are started or stopped again.
const ROUNDS: u32 = 20;

/// Error of a change of replication.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplicationError {
    /// The connections are unknown.
    #[error("cannot list the replication connections: {0}")]
    Unknown(#[source] SqlError),
    /// A server was not seen.
    #[error("the server does not answer: {0}")]
    Silent(#[source] SqlError),
    /// A statement failed.
    #[error("connection '{connection}': {source}")]
    Refused {
        /// Connection.
        connection: String,
        /// Cause.
        source: SqlError,
    },
    /// The threads have another state.
    #[error("connection '{connection}': expected {}; found {}{complaint}", words(*expected), words(*found))]
    State {
        /// Connection.
        connection: String,
        /// State of the threads.
        found: Threads,
        /// State that they should have.
        expected: Threads,
        /// Error of the threads, behind a colon.
        complaint: Text,
    },
}

/// Returns a state in words.
fn words(threads: Threads) -> &'static str {
    match (threads.io, threads.sql) {
        (true, true) => "IO running, SQL running",
        (true, false) => "IO running, SQL stopped",
        (false, true) => "IO stopped, SQL running",
        (false, false) => "IO stopped, SQL stopped",
    }
}

/// Connection with its running threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    /// Name.
    pub(crate) name: String,
    /// Threads that run.
    pub(crate) threads: Threads,
}

/// Start or stop of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Start,
    Stop,
}

impl Client {
    /// Returns the status of all replication connections.
    pub(crate) fn replication_status(&self) -> Result<Vec<ConnectionStatus>, SqlError> {
        let sets = self.first_known(&ConnectionStatus::STATEMENTS)?;
        Ok(sets.into_iter().flat_map(ConnectionStatus::list).collect())
    }

    /// Returns the replication connections and which of their threads run.
    pub(crate) fn connections(&self) -> Result<Vec<Connection>, SqlError> {
        let connection = |status: &ConnectionStatus| Connection {
            name: status.name().to_str_lossy().into_owned(),
            threads: status.threads(),
        };
        Ok(self.replication_status()?.iter().map(connection).collect())
    }

    /// Starts and stops threads until those of a connection are as they should. A connection that does not
    /// exist was one of other data: nothing is restored then.
    pub(crate) fn set_threads(&self, name: &str, expected: Threads) -> Result<(), ReplicationError> {
        self.set_threads_within(name, expected, LIMIT)
    }

    fn set_threads_within(
        &self,
        name: &str,
        expected: Threads,
        limit: Duration,
    ) -> Result<(), ReplicationError> {
        let deadline = Instant::now() + limit;
        let mut refused = None;
        for round in 0u32.. {
            let connections = self.connections().map_err(ReplicationError::Silent)?;
            let Some(found) = connections.into_iter().find(|connection| connection.name == name) else {
                break;
            };
            let found = found.threads;
            if found == expected {
                break;
            }
            if Instant::now() >= deadline {
                let connection = name.to_owned();
                if let Some(source) = refused {
                    return Err(ReplicationError::Refused { connection, source });
                }
                let complaint = self.complaint(name);
                return Err(ReplicationError::State { connection, found, expected, complaint });
            }
            if round % ROUNDS == 0 {
                let more = |one: Threads, other: Threads| Threads {
                    io: one.io && !other.io,
                    sql: one.sql && !other.sql,
                };
                let started = self.turn(name, Turn::Start, more(expected, found));
                let stopped = self.turn(name, Turn::Stop, more(found, expected));
                refused = started.and(stopped).err();
            }
            std::thread::sleep(INTERVAL);
        }
        Ok(())
    }

    /// Stops all replication.
    pub(crate) fn stop_replication(&self) -> Result<(), ReplicationError> {
        let connections = self.connections().map_err(ReplicationError::Unknown)?;
        let running = connections.iter().filter(|connection| connection.threads.any());
        running.into_iter().try_for_each(|connection| self.set_threads(&connection.name, Threads::STOPPED))
    }

    /// Returns the statement that keeps others out of the binary log of a server that is itself a replica:
    /// what it wrote there of its own would collide with the events of its upstream. There is none for other
    /// servers, whose replicas get what is executed there.
    pub(crate) fn unlogged(&self) -> &'static str {
        let is_replica = self.connections().is_ok_and(|connections| !connections.is_empty());
        if is_replica { "SET SESSION sql_log_bin = 0;" } else { "" }
    }

    fn turn(&self, name: &str, turn: Turn, threads: Threads) -> Result<(), SqlError> {
        let kind = match (threads.io, threads.sql) {
            (false, false) => return Ok(()),
            (true, true) => "",
            (true, false) => " IO_THREAD",
            (false, true) => " SQL_THREAD",
        };
        let verb = if turn == Turn::Start { "START" } else { "STOP" };
        let name = literal(name);
        if self.value("SELECT @@version")?.as_bytes().contains_str("MariaDB") {
            return self.query(&format!("{verb} SLAVE {name}{kind}")).map(drop);
        }
        let of = |word| format!("{verb} {word}{kind} FOR CHANNEL {name}");
        self.first_known(&[&of("REPLICA"), &of("SLAVE")]).map(drop)
    }

    /// Returns the result of the first statement that the server knows.
    fn first_known(&self, statements: &[&str]) -> Result<Vec<ResultSet>, SqlError> {
        let mut last = Err(SqlError::Ended);
        for statement in statements {
            last = self.query(statement);
            let is_unknown = |error: &SqlError| error.failure().number == Some(SYNTAX_ERROR);
            if !last.as_ref().is_err_and(is_unknown) {
                break;
            }
        }
        last
    }

    /// Returns what the server reports of a connection, behind a colon.
    fn complaint(&self, name: &str) -> Text {
        let all = self.replication_status().unwrap_or_default();
        let status = all.iter().find(|status| status.name() == name.as_bytes());
        let errors =
            status.iter().flat_map(|status| ["Last_SQL_Error", "Last_IO_Error"].map(|key| status.get(key)));
        let error = errors.into_iter().find(|error| !error.trim_ascii().is_empty());
        error.map_or_else(Text::default, |error| Text::new([b": ", error].concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::service::tests::Fake;

    const RUNNING: Threads = Threads { io: true, sql: true };

    #[test]
    fn threads_are_stopped_and_started_one_by_one() {
        let fake = Fake::new();
        fake.replicating(&[("", RUNNING), ("it's", Threads { io: false, sql: true })]);
        let client = fake.client();
        assert_eq!(client.unlogged(), "SET SESSION sql_log_bin = 0;");
        client.stop_replication().unwrap();
        assert_eq!(fake.statements(), ["STOP SLAVE ''", "STOP SLAVE 'it''s' SQL_THREAD"]);
        assert!(client.connections().unwrap().iter().all(|connection| !connection.threads.any()));
        client.set_threads("it's", Threads { io: true, sql: false }).unwrap();
        client.set_threads("it's", Threads { io: false, sql: true }).unwrap();
        let turned = fake.statements();
        assert_eq!(turned[2], "START SLAVE 'it''s' IO_THREAD");
        assert_eq!(turned[3..], ["START SLAVE 'it''s' SQL_THREAD", "STOP SLAVE 'it''s' IO_THREAD"]);
        client.set_threads("unknown", RUNNING).unwrap();
        assert_eq!(fake.statements().len(), 5);
    }

    #[test]
    fn mysql_is_addressed_by_its_words() {
        let fake = Fake::new();
        fake.replicating(&[("", RUNNING)]);
        fake.is_mysql();
        fake.client().set_threads("", Threads { io: true, sql: false }).unwrap();
        assert_eq!(fake.statements(), ["STOP REPLICA SQL_THREAD FOR CHANNEL ''"]);
    }

    #[test]
    fn server_without_replication_logs_its_statements() {
        let fake = Fake::new();
        fake.replicating(&[]);
        assert_eq!(fake.client().unlogged(), "");
        fake.client().stop_replication().unwrap();
        assert!(fake.statements().is_empty());
    }

    #[test]
    fn threads_that_stay_as_they_are_are_an_error() {
        let fake = Fake::new();
        fake.replicating(&[("stuck", RUNNING)]);
        let stop = || fake.client().set_threads_within("stuck", Threads::STOPPED, Duration::from_millis(300));
        let text =
            "connection 'stuck': expected IO stopped, SQL stopped; found IO running, SQL running: stuck";
        assert_eq!(stop().unwrap_err().to_string(), text);
    }

    #[test]
    fn silent_server_is_an_error() {
        let fake = Fake::new();
        fake.program("mariadb", "#!/bin/sh\necho 'ERROR 2002 (HY000): no server' >&2; exit 1");
        let error = fake.client().stop_replication().unwrap_err().to_string();
        assert_eq!(error, "cannot list the replication connections: ERROR 2002 (HY000): no server");
        let error = fake.client().set_threads("", RUNNING).unwrap_err().to_string();
        assert!(error.starts_with("the server does not answer"), "{error}");
    }
}
