//! Replication accounts: given, or created on the upstream for one replica.

use super::Setup;
use crate::base::run_id::random_hex;
use crate::error::Error;
use crate::host::conversation::AgentError;
use crate::lease::{self, End};
use crate::mariadb::plan::{Account, Follow};
use crate::mariadb::sql::SqlError;
use crate::proto::server;

/// Origin of the replication accounts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Credentials<'a> {
    /// Existing account.
    Given(&'a Account),
    /// Accounts to be created on this server.
    Create(Creation<'a>),
}

/// Server on which accounts are created.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Creation<'a> {
    /// Agent and connection of its host.
    pub(crate) end: &'a End,
    /// Socket of the server.
    pub(crate) socket: &'a str,
    /// File with login options; empty: the host's default.
    pub(crate) defaults_file: &'a str,
}

impl Creation<'_> {
    /// Returns the account as the agent names it.
    fn account(&self, account: &Account, how: &Follow) -> server::Account {
        let server = lease::login(self.socket.as_ref(), self.defaults_file);
        server::Account { server, user: account.user.clone(), host: how.own.clone() }
    }

    /// Keeps the account of one replica.
    pub(super) async fn keep(&self, account: &Account, how: &Follow) -> Result<(), AgentError> {
        lease::keep_account(self.end, self.account(account, how)).await
    }

    /// Drops an account at the end of the run although it was kept.
    pub(super) async fn give_up(&self, account: &Account, how: &Follow) -> Result<(), AgentError> {
        lease::give_up_account(self.end, self.account(account, how)).await
    }
}

/// Returns the account of a replica, and the server on which it was created for it.
pub(super) async fn provide<'a>(
    setup: Setup<'_>,
    credentials: Credentials<'a>,
) -> Result<(Account, Option<Creation<'a>>), Error> {
    let Setup { plan, replica, target, how, end } = setup;
    let creation = match credentials {
        Credentials::Given(account) => return Ok((account.clone(), None)),
        Credentials::Create(creation) => creation,
    };
    let password = random_hex::<16>()
        .map_err(|error| Error::Failed(format!("cannot get random numbers for a password: {error}")))?;
    let account = Account::made(plan.account_name(target.number), password);
    lease::make_account(creation.end, creation.account(&account, how), &account.hash()).await?;
    // Checked now, not after hours of copying.
    match setup.upstream(&account).query("SELECT 1").await {
        Ok(_) => Ok((account, Some(creation))),
        // Names the host itself.
        Err(SqlError::Agent(error)) => Err(Error::Failed(error.to_string())),
        Err(error) => Err(Error::Failed(format!(
            "{}: the account {}@{} was created on {}, but a login with it failed here: {error}",
            end.agent.host(),
            account.user,
            how.own,
            replica.primary,
        ))),
    }
}
