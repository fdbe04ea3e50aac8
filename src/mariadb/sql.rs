//! Statements for a server, through the agent of its host.

use std::time::Duration;

use crate::host::conversation::{AgentError, Conversation};
use crate::proto::command::{Answer, Command};
use crate::proto::server::{Login, ResultSet, Row, SqlAnswer, SqlFailure, Statements};

/// Time beyond the limit of a statement for the agent to report that it has passed.
const MARGIN: Duration = Duration::from_secs(60);
/// Maximum number of bytes of an answer that is collected.
const MOST_BYTES: usize = 32 << 20;

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

/// Login to a server that stays. It ends with the conversation at the latest.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    agent: &'a Conversation,
    number: u32,
}

impl<'a> Server<'a> {
    /// Executes statements in a login of their own. Returns the result sets of those that have one.
    pub(crate) async fn query(&self, limit: Duration, statements: &str) -> Result<Vec<ResultSet>, SqlError> {
        let statements = sealed(self.agent, limit, statements)?;
        let (login, unit) = (self.login.clone(), self.unit.clone());
        let command = Command::Query { login, unit, statements };
        Ok(sql(self.agent, limit, command).await?.sets)
    }

    /// Logs in.
    pub(crate) async fn open(&self) -> Result<Session<'a>, SqlError> {
        let (login, unit) = (self.login.clone(), self.unit.clone());
        match self.agent.call(Command::OpenSession { login, unit }).await? {
            Answer::Session(number) => Ok(Session { agent: self.agent, number }),
            _ => Err(self.agent.unexpected().into()),
        }
    }
}

impl Session<'_> {
    /// Executes statements. Returns the result sets of those that have one. The first error ends the session.
    pub(crate) async fn execute(
        &self,
        limit: Duration,
        statements: &str,
    ) -> Result<Vec<ResultSet>, SqlError> {
        let mut statements = Some(sealed(self.agent, limit, statements)?);
        let mut all: Vec<ResultSet> = Vec::new();
        let mut bytes = 0;
        loop {
            let command = Command::Execute { session: self.number, statements: statements.take() };
            let SqlAnswer { sets, more } = sql(self.agent, limit, command).await?;
            for set in sets {
                bytes += set
                    .rows
                    .iter()
                    .flatten()
                    .flatten()
                    .map(|field| field.as_bytes().len() + 32)
                    .sum::<usize>();
                match all.last_mut().filter(|last| last.continues) {
                    Some(last) => {
                        last.continues = set.continues;
                        last.rows.extend(set.rows);
                    }
                    None => all.push(set),
                }
            }
            if bytes > MOST_BYTES {
                return Err(SqlError::TooLong);
            }
            if !more {
                return Ok(all);
            }
        }
    }

    /// Logs out, whatever the session executes.
    pub(crate) async fn close(self) -> Result<(), SqlError> {
        self.agent.call(Command::CloseSession { session: self.number }).await?;
        Ok(())
    }
}

fn sealed(agent: &Conversation, limit: Duration, statements: &str) -> Result<Statements, AgentError> {
    Ok(Statements { text: agent.seal(statements.as_bytes())?, seconds: limit.as_secs().max(1) })
}

async fn sql(agent: &Conversation, limit: Duration, command: Command) -> Result<SqlAnswer, SqlError> {
    match agent.call_within(limit + MARGIN, command).await? {
        Answer::Sql(reply) => reply.map_err(SqlError::Sql),
        _ => Err(agent.unexpected().into()),
    }
}

/// Returns a field of a row in a form that can be shown; empty if it is NULL or missing.
pub(crate) fn text(row: &Row, index: usize) -> String {
    row.get(index).and_then(Option::as_ref).map(ToString::to_string).unwrap_or_default()
}
