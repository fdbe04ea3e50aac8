//! The server behind the socket of a source.

use super::variables::Variables;
use super::{MOST, fact, replication};
use crate::host::conversation::{AgentError, Conversation};
use crate::host::facts::Instance;
use crate::mariadb::sql::Server;
use crate::proto::command::{Answer, Command};
use crate::proto::facts::TreeSize;
use crate::proto::facts::server::InstanceFiles;
use crate::proto::server::Login;

/// State of a server, and its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Surveyed {
    /// State of the server.
    pub(crate) instance: Instance,
    /// Number and size of the files that a backup contains. There are none if the agent cannot read them.
    pub(crate) size: TreeSize,
}

/// Surveys a server for a hot backup. Stops at the first error of the server, which is part of the result.
/// `unit`: unit of the server, if the user named one.
pub(crate) async fn instance(
    agent: &Conversation,
    login: Login,
    unit: Option<String>,
) -> Result<Surveyed, AgentError> {
    let server = Server { agent, login, unit };
    let mut instance = Instance::default();
    let variables = match Variables::ask(&server).await? {
        Ok(variables) => variables,
        Err(error) => {
            instance.error = Some(error);
            return Ok(Surveyed { instance, size: TreeSize::default() });
        }
    };
    let Variables { shown, datadir, binlog } = variables;
    instance.variables = shown;
    match fact(replication::status(&server).await)? {
        Ok(statuses) => {
            instance.connections = statuses.iter().take(MOST).map(replication::connection).collect();
        }
        Err(error) => {
            instance.error = Some(error);
            return Ok(Surveyed { instance, size: TreeSize::default() });
        }
    }
    let size = match agent.call(Command::InstanceFiles { datadir, binlog }).await {
        Ok(Answer::InstanceFiles(InstanceFiles { user, group, size })) => {
            instance.owner = format!("{user}:{group}");
            size
        }
        Ok(_) => return Err(agent.unexpected()),
        // Of files that cannot be seen nothing is known, which is a finding.
        Err(AgentError::Failed { .. }) => TreeSize::default(),
        Err(error) => return Err(error),
    };
    Ok(Surveyed { instance, size })
}
