//! The account with which a server replicates.

use std::path::Path;

use zeroize::Zeroizing;

use crate::host::conversation::{AgentError, Conversation};
use crate::mariadb::plan::Account;
use crate::proto::HostBytes;
use crate::proto::command::{Answer, Command};

/// Returns the account with which the server of a data directory replicates over a connection. `None` if
/// there is none that can be read and used.
pub(crate) async fn account(
    agent: &Conversation,
    datadir: &Path,
    connection: &str,
) -> Result<Option<Account>, AgentError> {
    let (datadir, connection) = (HostBytes::from(datadir), connection.to_owned());
    let (user, password) = match agent.call(Command::ReplicationAccount { datadir, connection }).await {
        Ok(Answer::ReplicationAccount(Some(found))) => found,
        // The user is asked for another account.
        Ok(Answer::ReplicationAccount(None)) | Err(AgentError::Failed { .. }) => return Ok(None),
        Ok(_) => return Err(agent.unexpected()),
        Err(error) => return Err(error),
    };
    let password: Zeroizing<Vec<u8>> = agent.open(password)?;
    let password = std::str::from_utf8(&password).ok().map(ToOwned::to_owned);
    Ok(password.and_then(|password| Account::new(user, password)))
}
