//! Replication accounts: given, or created on the upstream for one replica.

use super::Setup;
use crate::base::run_id::random_hex;
use crate::error::Error;
use crate::host::agent::{AgentError, command};
use crate::host::scripts::{Reach, Script};
use crate::host::wire::{LONGEST_TEXT, message};
use crate::lease::{self, End};
use crate::mariadb::plan::{Account, Follow};

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
    fn account<'b>(&'b self, account: &'b Account, how: &'b Follow) -> command::Account<'b> {
        let Self { socket, defaults_file, .. } = *self;
        command::Account { socket, defaults_file, user: &account.user, host: &how.own }
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
    let script = Script::reach(&Reach {
        name: &how.host,
        address: "",
        port: replica.port,
        ssl: replica.ssl,
        user: &account.user,
        password: account.password(),
    });
    let answer = end.host.ask("a login with the new account", &script).await?;
    let refused = answer.iter().find(|fields| fields.len() > 1 && fields[0] == b"reach_error");
    match refused {
        Some(fields) => Err(Error::Failed(format!(
            "{}: the account {}@{} was created on {}, but a login with it failed here: {}",
            end.agent.host(),
            account.user,
            how.own,
            replica.primary,
            message(&fields[1], LONGEST_TEXT)
        ))),
        None => Ok((account, Some(creation))),
    }
}
