//! Statements for servers, through the agents of hosts.

use std::mem::size_of;
use std::time::{Duration, Instant};

use crate::host::conversation::{AgentError, Conversation};
use crate::proto::command::{Answer, Command};
use crate::proto::server::{Login, Remote, ResultSet, Row, SqlAnswer, SqlFailure, Statements};
use crate::proto::{HostBytes, Text};

use super::plan::Account;

/// Time beyond the limit of a statement for the agent to report that it has passed.
const MARGIN: Duration = Duration::from_secs(60);
/// Maximum size in memory of an answer that is collected.
const MOST_BYTES: usize = 32 << 20;
/// Time limit of a question to a server of another host: a bit more than the agent's own.
const REMOTE_LIMIT: Duration = Duration::from_secs(40);

/// Failure of statements.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum SqlError {
    /// The agent is gone, or could not carry out the command.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// The server, its client, or a check before the login refused.
    #[error("{}", .0.message)]
    Sql(SqlFailure),
    /// The answer is longer than any that is expected.
    #[error("the answer of the server is longer than {} MiB", MOST_BYTES >> 20)]
    TooLong,
}

/// Server of a host, and how it is logged in to.
#[derive(Clone, Debug)]
pub(crate) struct Server<'a> {
    /// Agent of its host.
    pub(crate) agent: &'a Conversation,
    /// Login.
    pub(crate) login: Login,
    /// Unit, if it is known: its account may listen on the socket.
    pub(crate) unit: Option<String>,
}

/// Server that is logged in to over the network, from the host of an agent, with a replication account.
#[derive(Clone, Debug)]
pub(crate) struct RemoteServer<'a> {
    /// Agent of the host that connects.
    pub(crate) agent: &'a Conversation,
    /// Address of the server.
    pub(crate) remote: Remote,
    /// Account.
    pub(crate) account: &'a Account,
}

/// Login to a server that stays. Dropping it ends it, whatever it executes: locks and snapshots must not
/// outlast a run that was cancelled.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    agent: &'a Conversation,
    number: u32,
}

/// Login that is repeated after an error has ended it.
#[derive(Debug)]
pub(crate) struct Connection<'a> {
    server: Server<'a>,
    session: Option<Session<'a>>,
}

impl<'a> Server<'a> {
    /// Executes statements in a login of their own. Returns the result sets of those that have one.
    pub(crate) async fn query(&self, limit: Duration, statements: &str) -> Result<Vec<ResultSet>, SqlError> {
        let statements = sealed(self.agent, limit, statements)?;
        let (login, unit) = (self.login.clone(), self.unit.clone());
        let command = Command::Query { login, unit, statements };
        Ok(sql(self.agent, limit + MARGIN, command).await?.sets)
    }

    /// Logs in.
    pub(crate) async fn open(&self) -> Result<Session<'a>, SqlError> {
        let (login, unit) = (self.login.clone(), self.unit.clone());
        match Box::pin(self.agent.call(Command::OpenSession { login, unit })).await {
            Ok(Answer::Session(number)) => Ok(Session { agent: self.agent, number }),
            Ok(_) => Err(self.agent.unexpected().into()),
            Err(AgentError::Failed { text, .. }) => {
                Err(SqlError::Sql(SqlFailure { number: None, message: Text::from(text) }))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Returns a connection that logs in when it is used.
    pub(crate) fn connection(&self) -> Connection<'a> {
        Connection { server: self.clone(), session: None }
    }
}

impl RemoteServer<'_> {
    /// Executes statements in a login of their own. Returns the result sets of those that have one.
    pub(crate) async fn query(&self, statements: &str) -> Result<Vec<ResultSet>, SqlError> {
        let command = Command::RemoteQuery {
            server: self.remote.clone(),
            user: self.account.user.clone(),
            password: self.agent.seal(self.account.password().as_bytes())?,
            statements: sealed(self.agent, REMOTE_LIMIT, statements)?,
        };
        Ok(sql(self.agent, REMOTE_LIMIT + MARGIN, command).await?.sets)
    }
}

impl Session<'_> {
    /// Executes statements. Returns the result sets of those that have one. The first error ends the session.
    pub(crate) async fn execute(
        &self,
        limit: Duration,
        statements: &str,
    ) -> Result<Vec<ResultSet>, SqlError> {
        let mut all = Collected::default();
        self.execute_in_parts(limit, statements, |sets| all.add(sets)).await?;
        Ok(all.sets)
    }

    /// Executes statements and passes on their result sets in parts, as they arrive: a set that continues
    /// goes on in the first one of the next part. The session is of no more use after an error.
    pub(crate) async fn execute_in_parts<E: From<SqlError>>(
        &self,
        limit: Duration,
        statements: &str,
        mut take: impl FnMut(Vec<ResultSet>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut statements = Some(sealed(self.agent, limit, statements).map_err(SqlError::from)?);
        let deadline = Instant::now() + limit + MARGIN;
        loop {
            let command = Command::Execute { session: self.number, statements: statements.take() };
            let left = deadline.saturating_duration_since(Instant::now());
            let SqlAnswer { sets, more } = sql(self.agent, left, command).await?;
            take(sets)?;
            if !more {
                return Ok(());
            }
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.agent.post(Command::CloseSession { session: self.number });
    }
}

impl Connection<'_> {
    /// Executes statements. Returns the result sets of those that have one.
    pub(crate) async fn execute(
        &mut self,
        limit: Duration,
        statements: &str,
    ) -> Result<Vec<ResultSet>, SqlError> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.server.open().await?,
        };
        let sets = session.execute(limit, statements).await?;
        self.session = Some(session);
        Ok(sets)
    }
}

/// Result sets of an answer, put together from its parts.
#[derive(Debug, Default)]
struct Collected {
    sets: Vec<ResultSet>,
    size: usize,
}

impl Collected {
    fn add(&mut self, sets: Vec<ResultSet>) -> Result<(), SqlError> {
        for set in sets {
            self.size += size(&set);
            match self.sets.last_mut().filter(|last| last.continues) {
                Some(last) => {
                    last.continues = set.continues;
                    if last.columns.is_empty() {
                        last.columns = set.columns;
                    }
                    last.rows.extend(set.rows);
                }
                None => self.sets.push(set),
            }
        }
        if self.size > MOST_BYTES { Err(SqlError::TooLong) } else { Ok(()) }
    }
}

/// Returns the size of a result set in memory, about.
fn size(set: &ResultSet) -> usize {
    let field = |field: &HostBytes| size_of::<HostBytes>() + field.as_bytes().len();
    let row = |row: &Row| {
        let fields = row.iter().map(|value| value.as_ref().map_or(size_of::<HostBytes>(), field));
        size_of::<Row>() + fields.sum::<usize>()
    };
    size_of::<ResultSet>()
        + set.columns.iter().map(field).sum::<usize>()
        + set.rows.iter().map(row).sum::<usize>()
}

fn sealed(agent: &Conversation, limit: Duration, statements: &str) -> Result<Statements, AgentError> {
    Ok(Statements { text: agent.seal(statements.as_bytes())?, seconds: limit.as_secs().max(1) })
}

async fn sql(agent: &Conversation, limit: Duration, command: Command) -> Result<SqlAnswer, SqlError> {
    match Box::pin(agent.call_within(limit, command)).await? {
        Answer::Sql(reply) => reply.map_err(SqlError::Sql),
        _ => Err(agent.unexpected().into()),
    }
}

/// Returns the first field of an answer, as bytes; `None` if it is NULL or missing.
pub(crate) fn value(sets: &[ResultSet]) -> Option<&HostBytes> {
    sets.first()?.rows.first()?.first()?.as_ref()
}

/// Returns a field of a row as a part of a statement, whose names are UTF-8; empty if it is NULL or missing.
pub(crate) fn name(row: &Row, index: usize) -> String {
    let field = row.get(index).and_then(Option::as_ref);
    field.map(|field| String::from_utf8_lossy(field.as_bytes()).into_owned()).unwrap_or_default()
}

/// Returns a field of a row in a form that can be shown; empty if it is NULL or missing.
pub(crate) fn text(row: &Row, index: usize) -> String {
    row.get(index).and_then(Option::as_ref).map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(rows: usize, value: &str, continues: bool) -> ResultSet {
        let row = vec![Some(HostBytes::from(value)), None];
        ResultSet { columns: vec![HostBytes::from("f")], rows: vec![row; rows], continues }
    }

    #[test]
    fn continued_sets_are_put_together() {
        let mut all = Collected::default();
        all.add(vec![set(1, "a", false), set(2, "b", true)]).unwrap();
        all.add(vec![set(1, "b", true)]).unwrap();
        all.add(vec![set(3, "b", false), set(1, "c", false)]).unwrap();
        let found: Vec<(usize, bool)> = all.sets.iter().map(|set| (set.rows.len(), set.continues)).collect();
        assert_eq!(found, [(1, false), (6, false), (1, false)]);
        assert_eq!(value(&all.sets).unwrap().as_bytes(), b"a");
    }

    #[test]
    fn endless_answers_are_errors() {
        for part in
            [set(1 << 10, "x", true), ResultSet { rows: vec![Row::new(); 1 << 10], ..set(0, "", true) }]
        {
            let mut all = Collected::default();
            let added = (0..1 << 20).find_map(|_| all.add(vec![part.clone()]).err());
            assert!(matches!(added, Some(SqlError::TooLong)));
            assert!(all.sets.iter().map(size).sum::<usize>() < 2 * MOST_BYTES);
        }
        let mut all = Collected::default();
        let added = (0..1 << 20).find_map(|_| all.add(vec![ResultSet::default(); 100]).err());
        assert!(matches!(added, Some(SqlError::TooLong)));
    }

    #[test]
    fn missing_fields_and_nulls_are_no_value() {
        assert_eq!(value(&[]), None);
        assert_eq!(value(&[set(0, "", false)]), None);
        let row = vec![None, Some(HostBytes::from("a\nb"))];
        assert_eq!([text(&row, 0), text(&row, 1), text(&row, 2)], ["", "a\\nb", ""]);
        assert_eq!([name(&row, 0), name(&row, 1), name(&row, 2)], ["", "a\nb", ""]);
    }
}
