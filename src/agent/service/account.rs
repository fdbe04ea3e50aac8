//! Replication accounts on the server that replicas replicate from.

use std::io;

use crate::base::statement;
use crate::proto::journal::{Record, Undo};
use crate::proto::server::Account;

use super::client::{Client, SqlError};
use super::{Journal, Service};

/// Error of an account.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AccountError {
    /// The server refused.
    #[error("cannot create the account {account}: {source}")]
    Create {
        /// Account.
        account: String,
        /// Cause.
        source: SqlError,
    },
    /// The server refused.
    #[error("cannot drop the account {account}: {source}")]
    Drop {
        /// Account.
        account: String,
        /// Cause.
        source: SqlError,
    },
    /// The journal cannot be written.
    #[error("cannot write the journal: {0}")]
    Journal(#[source] io::Error),
}

impl Service<'_> {
    /// Creates an account that may replicate, and no more. `hash` is that of its password, as the server
    /// keeps it. The rollback drops the account, until it is [kept](keep).
    pub(crate) fn make_account(
        &self,
        account: &Account,
        hash: &str,
        journal: &mut Journal<'_>,
    ) -> Result<(), AccountError> {
        let name = statement::account(&account.user, &account.host);
        let refused = |source| AccountError::Create { account: name.clone(), source };
        let client = self.client(&account.server, None).map_err(|error| refused(error.into()))?;
        let unlogged = client.unlogged();
        journal(Record::Lease(Undo::Account(account.clone()))).map_err(AccountError::Journal)?;
        // Nothing of it is in the logs of the server.
        let statements = format!(
            "SET SESSION sql_log_off = 1, SESSION slow_query_log = 0; {unlogged} CREATE USER {name} \
             IDENTIFIED BY PASSWORD {}; GRANT REPLICATION SLAVE ON *.* TO {name};",
            statement::literal(hash)
        );
        client.query(&statements).map(drop).map_err(refused)
    }

    /// Drops an account, if it exists.
    pub(crate) fn drop_account(&self, account: &Account) -> Result<(), AccountError> {
        let name = statement::account(&account.user, &account.host);
        let refused = |source| AccountError::Drop { account: name.clone(), source };
        let client: Client = self.client(&account.server, None).map_err(|error| refused(error.into()))?;
        let unlogged = client.unlogged();
        client.query(&format!("{unlogged} DROP USER IF EXISTS {name}")).map(drop).map_err(refused)
    }
}

/// Keeps an account, which a replica needs.
pub(crate) fn keep(account: &Account, journal: &mut Journal<'_>) -> Result<(), AccountError> {
    journal(Record::Closed(Undo::Account(account.clone()))).map_err(AccountError::Journal)
}

/// Gives an account up that was kept: its replica is none.
pub(crate) fn give_up(account: &Account, journal: &mut Journal<'_>) -> Result<(), AccountError> {
    journal(Record::Lease(Undo::Account(account.clone()))).map_err(AccountError::Journal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::service::tests::Fake;
    use crate::proto::server::Threads;

    fn account(fake: &Fake) -> Account {
        Account { server: fake.login(), user: "repl-1".into(), host: "10.0.0.%".into() }
    }

    #[test]
    fn account_is_journaled_before_it_is_made() {
        let fake = Fake::new();
        fake.replicating(&[]);
        let account = account(&fake);
        let mut records = Vec::new();
        let made = fake.service().make_account(&account, "*AB", &mut |record| {
            assert!(fake.statements().is_empty());
            records.push(record);
            Ok(())
        });
        made.unwrap();
        let create = "SET SESSION sql_log_off = 1, SESSION slow_query_log = 0;  CREATE USER \
            'repl-1'@'10.0.0.%' IDENTIFIED BY PASSWORD '*AB'; \
            GRANT REPLICATION SLAVE ON *.* TO 'repl-1'@'10.0.0.%';";
        assert_eq!(fake.statements(), [create]);
        let mut journal = |record| {
            records.push(record);
            Ok(())
        };
        keep(&account, &mut journal).unwrap();
        give_up(&account, &mut journal).unwrap();
        let undo = Undo::Account(account.clone());
        let lease = Record::Lease(undo.clone());
        assert_eq!(records, [lease.clone(), Record::Closed(undo), lease]);
        fake.service().drop_account(&account).unwrap();
        assert_eq!(fake.statements()[1], " DROP USER IF EXISTS 'repl-1'@'10.0.0.%'");
    }

    #[test]
    fn replica_does_not_log_its_accounts() {
        let fake = Fake::new();
        fake.replicating(&[("", Threads { io: true, sql: true })]);
        let account = account(&fake);
        fake.service().make_account(&account, "*AB", &mut |_| Ok(())).unwrap();
        fake.service().drop_account(&account).unwrap();
        assert!(fake.statements().iter().all(|text| text.contains("SET SESSION sql_log_bin = 0;")));
    }

    #[test]
    fn nothing_is_made_without_a_journal() {
        let fake = Fake::new();
        fake.replicating(&[]);
        let full = &mut |_| Err(io::Error::other("no space"));
        let error = fake.service().make_account(&account(&fake), "*AB", full).unwrap_err().to_string();
        assert_eq!(error, "cannot write the journal: no space");
        assert!(fake.statements().is_empty());
    }
}
