//! Servers and replication that are stopped for a copy, and restored before the end of the run.
//!
//! The caller holds the lock of the server (`Undo::ServerLock`), so that no other run takes a stopped server
//! for one that does not run.

use std::io;

use crate::proto::journal::{Record, Undo};
use crate::proto::server::{DataDirectory, Restored, Server, StartState, StopServer, Threads};
use crate::proto::{HostBytes, Text};

use super::client::{Client, SqlError};
use super::replication::{Connection, ReplicationError};
use super::restore::{RestoreError, Restorer};
use super::units::UnitError;
use super::{Journal, Service, inode_behind};

/// Error of a server that cannot be stopped or restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuiesceError {
    /// The connections are unknown.
    #[error("cannot list the replication connections: {0}")]
    Unknown(#[source] SqlError),
    /// Replication does not stop.
    #[error(transparent)]
    Replication(#[from] ReplicationError),
    /// The data directory is missing.
    #[error("{0} does not exist any more")]
    Gone(HostBytes),
    /// The server does not run: an undo would start it.
    #[error("{0} does not run")]
    Stopped(String),
    /// The server does not stop.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// A server still works on the data.
    #[error("a server still works in {datadir} after {unit} has stopped")]
    Served {
        /// Unit.
        unit: String,
        /// Data directory.
        datadir: HostBytes,
    },
    /// The processes that work on the data are unknown.
    #[error("cannot determine whether a server works in {datadir}: {source}")]
    Holders {
        /// Data directory.
        datadir: HostBytes,
        /// Cause.
        source: io::Error,
    },
    /// The journal cannot be written.
    #[error("cannot write the journal: {0}")]
    Journal(#[source] io::Error),
    /// Something is not restored.
    #[error(transparent)]
    Restore(#[from] RestoreError),
}

impl Service<'_> {
    /// Stops each connection of which a thread runs, and waits for its end. Returns how many.
    pub(crate) fn quiesce_replication(
        &self,
        server: &Server,
        journal: &mut Journal<'_>,
    ) -> Result<u32, QuiesceError> {
        let (client, connections) = self.replicating(server)?;
        let mut count = 0;
        for Connection { name, threads } in connections {
            if !threads.any() {
                continue;
            }
            let undo = Undo::Replication { server: server.login.clone(), connection: name.clone(), threads };
            journal(Record::Lease(undo)).map_err(QuiesceError::Journal)?;
            client.set_threads(&name, Threads::STOPPED)?;
            count += 1;
        }
        Ok(count)
    }

    /// Journals the state of each connection of a server that will be stopped: it is restored unless the
    /// server has other data then. Returns the state in which the server must be started again.
    pub(crate) fn note_replication(
        &self,
        server: &Server,
        journal: &mut Journal<'_>,
    ) -> Result<StartState, QuiesceError> {
        let data = data_directory(server)?;
        let mut start = StartState::Configured;
        if server.login.socket.is_empty() {
            return Ok(start);
        }
        for Connection { name, threads } in self.replicating(server)?.1 {
            if threads != (Threads { io: true, sql: true }) {
                start = StartState::NoReplication;
            }
            let (server, data) = (server.login.clone(), data.clone());
            let undo = Undo::ServerReplication { server, connection: name, threads, data };
            journal(Record::Lease(undo)).map_err(QuiesceError::Journal)?;
        }
        Ok(start)
    }

    fn replicating(&self, server: &Server) -> Result<(Client, Vec<Connection>), QuiesceError> {
        let client = self.client(&server.login, None).map_err(|error| QuiesceError::Unknown(error.into()))?;
        let connections = client.connections().map_err(QuiesceError::Unknown)?;
        Ok((client, connections))
    }

    /// Stops a server so that its files need no recovery.
    pub(crate) fn stop_server(
        &self,
        request: &StopServer,
        journal: &mut Journal<'_>,
    ) -> Result<(), QuiesceError> {
        let StopServer { unit, server, seconds, start } = request;
        if !self.is_active(unit) {
            return Err(QuiesceError::Stopped(unit.clone()));
        }
        let undo = Undo::Server {
            unit: unit.clone(),
            server: server.login.clone(),
            start: *start,
            data: data_directory(server)?,
        };
        journal(Record::Lease(undo)).map_err(QuiesceError::Journal)?;
        self.shut_down_completely(server, unit);
        self.stop_unit(unit, *seconds)?;
        match self.surroundings.is_served(server.datadir.as_path(), None) {
            Ok(false) => Ok(self.check_result(unit)?),
            Ok(true) => Err(QuiesceError::Served { unit: unit.clone(), datadir: server.datadir.clone() }),
            Err(source) => Err(QuiesceError::Holders { datadir: server.datadir.clone(), source }),
        }
    }

    /// Takes back a setting by which a server leaves more work to its next start than it says. A server that
    /// does not let us log in is stopped as it is.
    fn shut_down_completely(&self, server: &Server, unit: &str) {
        let Ok(client) = self.client(&server.login, Some(unit)) else { return };
        let setting = client.value("SELECT @@innodb_fast_shutdown");
        if setting.is_ok_and(|setting| matches!(setting.as_bytes(), b"2" | b"3")) {
            let _ = client.query("SET GLOBAL innodb_fast_shutdown = 1");
        }
    }

    /// Restores servers and replication that were stopped, and rolls provisional data back, before the end.
    /// `undos` are the open leases of the journal, in its order. Everything is tried; the first error is
    /// returned.
    pub(crate) fn restore_all(
        &self,
        undos: &[Undo],
        mut restorer: Restorer<'_>,
        journal: &mut Journal<'_>,
    ) -> Result<Restored, QuiesceError> {
        let mut restored = Restored::default();
        let mut first = None;
        for undo in undos.iter().rev() {
            let is_of_server = matches!(
                undo,
                Undo::Provisional { .. }
                    | Undo::Server { .. }
                    | Undo::Replication { .. }
                    | Undo::ServerReplication { .. }
            );
            // The server would run with data that it must not have.
            let is_held_up = restorer.is_pending() && !matches!(undo, Undo::Provisional { .. });
            if !is_of_server || is_held_up {
                continue;
            }
            if let Undo::Server { unit, .. } = undo {
                if self.is_active(unit) {
                    restored.already_running.push(Text::from(unit.as_str()));
                }
            }
            let result = match restorer.undo(undo) {
                None => continue,
                Some(Ok(())) => journal(Record::Closed(undo.clone())).map_err(QuiesceError::Journal),
                Some(Err(error)) => Err(error.into()),
            };
            first = first.or(result.err());
        }
        first.map_or(Ok(restored), Err)
    }
}

fn data_directory(server: &Server) -> Result<DataDirectory, QuiesceError> {
    let inode = inode_behind(server.datadir.as_path());
    let inode = inode.ok_or_else(|| QuiesceError::Gone(server.datadir.clone()))?;
    Ok(DataDirectory { path: server.datadir.clone(), inode })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::service::restore::{Circumstances, MayStart};
    use crate::agent::service::tests::{Fake, UNIT};
    use std::fs;

    const RUNNING: Threads = Threads { io: true, sql: true };
    const SQL_ONLY: Threads = Threads { io: false, sql: true };
    const OWN: Circumstances = Circumstances { may_start: MayStart::Own, is_rebooted: false };

    fn server(fake: &Fake) -> Server {
        fs::create_dir(fake.path("data")).unwrap();
        Server { login: fake.login(), datadir: HostBytes::from(&fake.path("data")) }
    }

    fn stop(server: &Server, start: StartState) -> StopServer {
        StopServer { unit: UNIT.into(), server: server.clone(), seconds: 5, start }
    }

    /// Journal in memory, of which closed leases are removed.
    #[derive(Default)]
    struct Memory(Vec<Undo>);

    impl Memory {
        fn add(&mut self, record: Record) {
            match record {
                Record::Lease(undo) => self.0.push(undo),
                Record::Closed(undo) => self.0.retain(|open| *open != undo),
                other => panic!("{other:?}"),
            }
        }
    }

    fn restore(fake: &Fake, memory: &mut Memory) -> Result<Restored, QuiesceError> {
        let undos = memory.0.clone();
        let service = fake.service();
        service.restore_all(&undos, Restorer::new(&service, OWN), &mut |record| {
            memory.add(record);
            Ok(())
        })
    }

    #[test]
    fn running_replication_is_stopped_and_restored() {
        let fake = Fake::new();
        let server = server(&fake);
        fake.replicating(&[("", RUNNING), ("off", Threads::STOPPED), ("sql", SQL_ONLY)]);
        let mut memory = Memory::default();
        let mut journal = |record| {
            memory.add(record);
            Ok(())
        };
        assert_eq!(fake.service().quiesce_replication(&server, &mut journal).unwrap(), 2);
        assert_eq!(fake.statements(), ["STOP SLAVE ''", "STOP SLAVE 'sql' SQL_THREAD"]);
        restore(&fake, &mut memory).unwrap();
        assert_eq!(fake.statements()[2..], ["START SLAVE 'sql' SQL_THREAD", "START SLAVE ''"]);
        assert!(memory.0.is_empty());
    }

    #[test]
    fn server_is_stopped_and_runs_again_as_before() {
        let fake = Fake::new();
        fake.login();
        let server = server(&fake);
        fake.replicating(&[("sql", SQL_ONLY)]);
        fs::write(fake.path("active"), "").unwrap();
        let mut memory = Memory::default();
        let mut journal = |record| {
            memory.add(record);
            Ok(())
        };
        let service = fake.service();
        let start = service.note_replication(&server, &mut journal).unwrap();
        assert_eq!(start, StartState::NoReplication);
        service.stop_server(&stop(&server, start), &mut journal).unwrap();
        assert!(!service.is_active(UNIT));
        // Some servers start their replication by themselves.
        fake.replicating(&[("sql", RUNNING)]);
        assert_eq!(restore(&fake, &mut memory).unwrap(), Restored::default());
        assert!(service.is_active(UNIT) && memory.0.is_empty());
        assert!(fs::read_to_string(fake.path("started-with")).unwrap().contains("--skip-slave-start"));
        assert_eq!(fake.statements().last().unwrap(), "STOP SLAVE 'sql' IO_THREAD");
    }

    #[test]
    fn server_with_other_data_does_not_replicate() {
        let fake = Fake::new();
        fake.login();
        let server = server(&fake);
        fake.replicating(&[("", RUNNING)]);
        fs::write(fake.path("active"), "").unwrap();
        let mut memory = Memory::default();
        let mut journal = |record| {
            memory.add(record);
            Ok(())
        };
        let service = fake.service();
        let start = service.note_replication(&server, &mut journal).unwrap();
        assert_eq!(start, StartState::Configured);
        service.stop_server(&stop(&server, start), &mut journal).unwrap();
        fs::rename(fake.path("data"), fake.path("old")).unwrap();
        fs::create_dir(fake.path("data")).unwrap();
        restore(&fake, &mut memory).unwrap();
        assert!(service.is_active(UNIT) && memory.0.is_empty());
        assert_eq!(fake.statements(), ["SET GLOBAL innodb_fast_shutdown = 1", "STOP SLAVE ''"]);
    }

    #[test]
    fn server_that_others_started_is_reported() {
        let fake = Fake::new();
        fake.login();
        let server = server(&fake);
        fake.replicating(&[]);
        fs::write(fake.path("active"), "").unwrap();
        let mut memory = Memory::default();
        let request = stop(&server, StartState::Configured);
        fake.service()
            .stop_server(&request, &mut |record| {
                memory.add(record);
                Ok(())
            })
            .unwrap();
        fs::write(fake.path("active"), "").unwrap();
        assert_eq!(restore(&fake, &mut memory).unwrap().already_running, [Text::from(UNIT)]);
        // One that does not run is none of ours to start.
        fs::remove_file(fake.path("active")).unwrap();
        let error = fake.service().stop_server(&request, &mut |_| panic!("journaled")).unwrap_err();
        assert_eq!(error.to_string(), "mariadb.service does not run");
    }

    #[test]
    fn unclean_ends_are_errors() {
        let fake = Fake::new();
        let server = server(&fake);
        let request = stop(&server, StartState::Configured);
        let stop = || {
            fs::write(fake.path("active"), "").unwrap();
            fake.service().stop_server(&request, &mut |_| Ok(())).unwrap_err().to_string()
        };
        fs::write(fake.path("result"), "signal\n").unwrap();
        assert_eq!(stop(), "mariadb.service did not shut down cleanly: signal");
        fake.serve(&fake.path("data"));
        assert!(stop().contains("a server still works in"), "{}", stop());
        fs::remove_dir(fake.path("data")).unwrap();
        assert!(stop().ends_with("data does not exist any more"));
    }

    #[test]
    fn pending_provisional_data_holds_the_server_up() {
        let fake = Fake::new();
        let server = server(&fake);
        let data = data_directory(&server).unwrap();
        let aside = HostBytes::from(&fake.path("aside"));
        let mut memory = Memory(vec![
            Undo::Server {
                unit: UNIT.into(),
                server: server.login.clone(),
                start: StartState::Configured,
                data: data.clone(),
            },
            Undo::Provisional { unit: UNIT.into(), data, old: Some(1), aside, seconds: 5 },
        ]);
        let error = restore(&fake, &mut memory).unwrap_err().to_string();
        assert!(error.starts_with("the old data is not in"), "{error}");
        assert_eq!((memory.0.len(), fake.service().is_active(UNIT)), (2, false));
    }
}
