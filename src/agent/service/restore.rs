//! Undos of servers: they run again as they did, on the data that they had.
//!
//! No server is started for a journal from before a reboot or of another run, unless that is requested:
//! systemd has decided by then which servers run, and the administrator may have changed something.

use crate::proto::HostBytes;
use crate::proto::journal::Undo;
use crate::proto::server::{DataDirectory, Login, StartState, Threads};

use super::account::AccountError;
use super::client::SqlError;
use super::replication::ReplicationError;
use super::roll_back::{Held, RollBack, RollBackError, is_provisional};
use super::start::StartError;
use super::{Service, inode_behind};

/// Journals whose servers may be started, and whose hooks run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MayStart {
    /// Journal of the run that ends itself, unless its host went down in between.
    Own,
    /// Any: a person requested it.
    All,
    /// None.
    No,
}

/// Circumstances of a rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Circumstances {
    /// Journals whose servers may be started.
    pub(crate) may_start: MayStart,
    /// The host went down since the journal was begun.
    pub(crate) is_rebooted: bool,
}

impl Circumstances {
    /// Returns whether servers of the journal may be started now, and its hooks run.
    pub(crate) fn may_start_now(self) -> bool {
        self.may_start == MayStart::All || self.may_start == MayStart::Own && !self.is_rebooted
    }
}

/// Error of an undo.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// The data under the server must be rolled back first.
    #[error("{0} is provisional data, and was not rolled back")]
    Pending(HostBytes),
    /// The server is not started without a request.
    #[error("{0} is stopped; start it, or run transfer clean --start-servers")]
    NotStarted(String),
    /// Provisional data is not rolled back without a request.
    #[error("{datadir} is provisional data{}; run transfer clean --start-servers", old_data(aside.as_ref()))]
    Provisional {
        /// Data directory.
        datadir: HostBytes,
        /// Path of the old data.
        aside: Option<HostBytes>,
    },
    /// The threads of a connection have another state, and are not started without a request.
    #[error(
        "the threads of connection '{0}' are not in the state that they had; start them, or run transfer \
         clean --start-servers"
    )]
    NotReplicating(String),
    /// The server cannot be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The server does not answer.
    #[error("connection '{connection}': {source}")]
    Silent {
        /// Connection.
        connection: String,
        /// Cause.
        source: SqlError,
    },
    /// The replication cannot be restored.
    #[error(transparent)]
    Replication(#[from] ReplicationError),
    /// The provisional data cannot be rolled back.
    #[error(transparent)]
    RollBack(#[from] RollBackError),
    /// The account cannot be dropped.
    #[error(transparent)]
    Account(#[from] AccountError),
}

fn old_data(aside: Option<&HostBytes>) -> String {
    aside.map(|aside| format!(", the old data is {aside}")).unwrap_or_default()
}

/// Undoes the leases of one journal about servers, the newest first.
pub(crate) struct Restorer<'a> {
    service: &'a Service<'a>,
    circumstances: Circumstances,
    held: Option<Held<'a>>,
    /// Unit that was started last: its account may listen, too.
    unit: Option<String>,
    /// Provisional data that must be rolled back before its server is started again.
    is_pending: bool,
}

impl<'a> Restorer<'a> {
    /// Creates it for a journal.
    pub(crate) fn new(service: &'a Service<'a>, circumstances: Circumstances) -> Self {
        Self { service, circumstances, held: None, unit: None, is_pending: false }
    }

    /// Adds the target directory that the agent of the run holds open.
    pub(crate) fn with_held(self, held: Held<'a>) -> Self {
        Self { held: Some(held), ..self }
    }

    /// Returns whether provisional data was not rolled back.
    pub(crate) fn is_pending(&self) -> bool {
        self.is_pending
    }

    /// Undoes a lease about servers, and may be repeated. `None` for leases of other subjects.
    pub(crate) fn undo(&mut self, undo: &Undo) -> Option<Result<(), RestoreError>> {
        Some(match undo {
            Undo::Server { unit, server, start, data } => self.restore_server(unit, server, *start, data),
            Undo::ServerReplication { server, connection, threads, data } => {
                self.restore_replication(server, connection, *threads, Some(data))
            }
            Undo::Replication { server, connection, threads } => {
                self.restore_replication(server, connection, *threads, None)
            }
            Undo::Provisional { unit, data, old, aside, seconds } => {
                let (old, seconds, held) = (*old, *seconds, self.held);
                self.roll_back(RollBack { unit, data, old, aside, seconds, held })
            }
            Undo::Account(account) => self.service.drop_account(account).map_err(Into::into),
            _ => return None,
        })
    }

    /// Starts a server that was stopped. With other data it starts without replication: which upstream that
    /// would follow is not for a run to know.
    fn restore_server(
        &mut self,
        unit: &str,
        server: &Login,
        start: StartState,
        data: &DataDirectory,
    ) -> Result<(), RestoreError> {
        if self.is_pending {
            return Err(RestoreError::Pending(data.path.clone()));
        }
        self.unit = Some(unit.to_owned());
        if !self.circumstances.may_start_now() {
            let _ = self.service.remove_drop_in(unit);
            // Others may have started it.
            return if self.service.is_active(unit) {
                Ok(())
            } else {
                Err(RestoreError::NotStarted(unit.into()))
            };
        }
        if has_its_data(data) {
            return Ok(self.service.start(unit, server, start)?);
        }
        self.service.start(unit, server, StartState::NoReplication)?;
        if server.socket.is_empty() {
            return Ok(());
        }
        let client = self.service.client(server, Some(unit));
        let client = client.map_err(|error| ReplicationError::Unknown(error.into()))?;
        Ok(client.stop_replication()?)
    }

    /// Restores the threads of a connection.
    fn restore_replication(
        &self,
        server: &Login,
        connection: &str,
        threads: Threads,
        data: Option<&DataDirectory>,
    ) -> Result<(), RestoreError> {
        if let Some(data) = data {
            if self.is_pending {
                return Err(RestoreError::Pending(data.path.clone()));
            }
            // The connection was one of data that is gone.
            if !has_its_data(data) {
                return Ok(());
            }
        }
        let silent = |source| RestoreError::Silent { connection: connection.to_owned(), source };
        let client =
            self.service.client(server, self.unit.as_deref()).map_err(|error| silent(error.into()))?;
        if self.circumstances.may_start_now() {
            return Ok(client.set_threads(connection, threads)?);
        }
        if self.circumstances.is_rebooted {
            // The server was started with its host, and replicates as it is configured.
            return client.answers().map_err(silent);
        }
        let found = client.connections().map_err(silent)?.into_iter().find(|found| found.name == connection);
        let is_restored = found.is_some_and(|found| found.threads == threads);
        if is_restored { Ok(()) } else { Err(RestoreError::NotReplicating(connection.into())) }
    }

    fn roll_back(&mut self, undo: RollBack<'_>) -> Result<(), RestoreError> {
        // Until that has succeeded, the server is not started again.
        self.is_pending = true;
        if !is_provisional(undo.data)? {
            self.is_pending = false;
            return Ok(());
        }
        if !self.circumstances.may_start_now() {
            let aside = undo.old.map(|_| undo.aside.clone());
            return Err(RestoreError::Provisional { datadir: undo.data.path.clone(), aside });
        }
        self.service.roll_back(undo)?;
        self.is_pending = false;
        Ok(())
    }
}

/// Returns whether a server that was stopped has the data that it had.
fn has_its_data(data: &DataDirectory) -> bool {
    inode_behind(data.path.as_path()) == Some(data.inode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::service::tests::{Fake, UNIT};
    use std::fs;

    const REBOOTED: Circumstances = Circumstances { may_start: MayStart::Own, is_rebooted: true };
    const RUNNING: Threads = Threads { io: true, sql: true };

    fn data(fake: &Fake) -> DataDirectory {
        let path = fake.path("data");
        fs::create_dir_all(&path).unwrap();
        DataDirectory { inode: inode_behind(&path).unwrap(), path: HostBytes::from(&path) }
    }

    fn undo(fake: &Fake, circumstances: Circumstances, undo: &Undo) -> Result<(), String> {
        let service = fake.service();
        let result = Restorer::new(&service, circumstances).undo(undo).unwrap();
        result.map_err(|error| error.to_string())
    }

    #[test]
    fn servers_start_for_own_journals_and_on_request() {
        let may = |may_start, is_rebooted| Circumstances { may_start, is_rebooted }.may_start_now();
        assert!(may(MayStart::Own, false) && may(MayStart::All, false) && may(MayStart::All, true));
        assert!(!may(MayStart::Own, true) && !may(MayStart::No, false));
    }

    #[test]
    fn server_is_not_started_after_a_reboot() {
        let fake = Fake::new();
        let (server, data) = (fake.login(), data(&fake));
        let lease = Undo::Server { unit: UNIT.into(), server, start: StartState::Configured, data };
        let error = undo(&fake, REBOOTED, &lease).unwrap_err();
        assert!(error.starts_with("mariadb.service is stopped; start it"), "{error}");
        assert!(fake.systemctl().is_empty());
        fs::write(fake.path("active"), "").unwrap();
        undo(&fake, REBOOTED, &lease).unwrap();
    }

    #[test]
    fn replication_is_left_as_it_is_without_a_request() {
        let fake = Fake::new();
        let server = fake.login();
        fake.replicating(&[("", Threads::STOPPED)]);
        let lease = Undo::Replication { server, connection: String::new(), threads: RUNNING };
        // The server was started with its host.
        undo(&fake, REBOOTED, &lease).unwrap();
        let no = Circumstances { may_start: MayStart::No, is_rebooted: false };
        assert!(undo(&fake, no, &lease).unwrap_err().starts_with("the threads of connection '' are not"));
        fake.replicating(&[("", RUNNING)]);
        undo(&fake, no, &lease).unwrap();
        assert!(fake.statements().is_empty());
        fake.replicating(&[("", Threads::STOPPED)]);
        undo(&fake, Circumstances { may_start: MayStart::All, ..REBOOTED }, &lease).unwrap();
        assert_eq!(fake.statements(), ["START SLAVE ''"]);
    }

    #[test]
    fn replication_of_data_that_is_gone_is_not_restored() {
        let fake = Fake::new();
        let mut data = data(&fake);
        data.inode += 1;
        let (server, threads) = (fake.login(), RUNNING);
        let lease = Undo::ServerReplication { server, connection: "x".into(), threads, data };
        undo(&fake, Circumstances { may_start: MayStart::All, is_rebooted: false }, &lease).unwrap();
        assert!(fake.statements().is_empty());
    }

    #[test]
    fn provisional_data_is_not_rolled_back_after_a_reboot() {
        let fake = Fake::new();
        let data = data(&fake);
        let aside = HostBytes::from(&fake.path("aside"));
        let lease =
            Undo::Provisional { unit: UNIT.into(), data: data.clone(), old: Some(1), aside, seconds: 5 };
        let service = fake.service();
        let mut restorer = Restorer::new(&service, REBOOTED);
        let error = restorer.undo(&lease).unwrap().unwrap_err().to_string();
        assert!(error.contains("is provisional data, the old data is /"), "{error}");
        // Its server neither.
        let start = StartState::Configured;
        let server = Undo::Server { unit: UNIT.into(), server: fake.login(), start, data };
        assert!(matches!(restorer.undo(&server), Some(Err(RestoreError::Pending(_)))));
        assert!(restorer.is_pending());
    }

    #[test]
    fn leases_of_other_subjects_are_not_undone() {
        let fake = Fake::new();
        let service = fake.service();
        let circumstances = Circumstances { may_start: MayStart::Own, is_rebooted: false };
        assert!(Restorer::new(&service, circumstances).undo(&Undo::Port(4400)).is_none());
    }
}
