//! Surveys of database servers: everything that a run must know about them, by SQL through the agents of
//! their hosts. Changes nothing.
//!
//! A server that refuses or does not answer is a fact, [`LoginError`]; an agent that is gone is an error.

mod account;
mod activity;
mod fields;
mod installed;
mod instance;
mod logins;
mod orphans;
mod reach;
mod replication;
mod variables;

use std::time::Duration;

use super::client::LoginError;
use super::sql::SqlError;
use crate::host::conversation::AgentError;

pub(crate) use account::account;
pub(crate) use installed::{Role, installed};
pub(crate) use instance::instance;
pub(crate) use logins::{other_servers, servers, try_logins};
pub(crate) use orphans::provisional_data;
pub(crate) use reach::{Primary, Reached, reach};

/// Time limit of a question to a server.
const LIMIT: Duration = Duration::from_secs(60);
/// Maximum number of facts of one kind about a server.
const MOST: usize = 64;

/// Separates the error of a server, which is a fact, from that of the agent.
fn fact<T>(result: Result<T, SqlError>) -> Result<Result<T, LoginError>, AgentError> {
    match result {
        Ok(answer) => Ok(Ok(answer)),
        Err(SqlError::Agent(error)) => Err(error),
        Err(SqlError::Sql(failure)) => Ok(Err(LoginError::of(&failure))),
        Err(other) => Ok(Err(LoginError { problem: other.to_string(), ..LoginError::default() })),
    }
}
