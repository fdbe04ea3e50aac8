//! Changes of a run to database servers.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use zeroize::Zeroizing;

use super::super::failure::{Fallible, busy, failed};
use super::super::names;
use super::super::surroundings::SERVICE;
use super::super::undoer::held;
use super::{PATIENCE, Replaced, Run};
use crate::agent::journal::Journal;
use crate::agent::journal::contents::Contents;
use crate::agent::locks::{Lock, LockError};
use crate::agent::service::restore::{Circumstances, MayStart, Restorer};
use crate::agent::service::{account, provisional};
use crate::agent::state;
use crate::proto::HostBytes;
use crate::proto::command::{Answer, Command, Event, Failure};
use crate::proto::files::FileId;
use crate::proto::journal::{Record, Undo};
use crate::proto::server::{Account, Provisional, Server, StartState};

impl Run {
    /// Carries out a command about servers. `key` is the decrypted secret of the command.
    pub(super) fn obey_about_servers(
        &mut self,
        command: Command,
        key: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Answer, Failure> {
        match command {
            Command::StopReplication(server) => {
                self.lock_server(&server)?;
                let count = SERVICE.quiesce_replication(&server, &mut recorder(&mut self.journal));
                count.or_failed().map(Answer::Stopped)
            }
            Command::NoteReplication(server) => {
                self.lock_server(&server)?;
                let start =
                    SERVICE.note_replication(&server, &mut recorder(&mut self.journal)).or_failed()?;
                Ok(Answer::Replicating { partly: start != StartState::Configured })
            }
            Command::StopServer(request) => {
                SERVICE.stop_server(&request, &mut recorder(&mut self.journal)).or_failed()?;
                Ok(Answer::Done)
            }
            Command::Restore => self.restore(),
            Command::PublishProvisionally(request) => self.publish_provisionally(&request),
            Command::StartServer(request) => {
                SERVICE.start_provisionally(&request).or_failed().map(|()| Answer::Done)
            }
            Command::Commit => self.commit(),
            Command::MakeAccount { account, .. } => self.make_account(&account, key),
            Command::KeepAccount(account) => {
                account::keep(&account, &mut recorder(&mut self.journal)).or_failed().map(|()| Answer::Done)
            }
            Command::DropAccount(account) => account::give_up(&account, &mut recorder(&mut self.journal))
                .or_failed()
                .map(|()| Answer::Done),
            _ => Err(failed("the command is not one of a run")),
        }
    }

    /// Locks a server: no other run quiesces it. Where a run quiesces several, the first lock stands for all.
    fn lock_server(&mut self, server: &Server) -> Result<(), Failure> {
        if !self.servers.is_empty() {
            return Ok(());
        }
        let data = names::open(&server.datadir).or_failed()?;
        let id = names::id(data.as_fd()).or_failed()?;
        self.lock_data(id)
    }

    fn lock_data(&mut self, id: FileId) -> Result<(), Failure> {
        let mut lock = match Lock::of_server(&self.directories, id, PATIENCE) {
            Ok(lock) => lock,
            Err(LockError::Held { holder }) => return Err(busy(&holder)),
            Err(error) => return Err(failed(&error)),
        };
        // The oldest of its scope: it is undone when the server is running again.
        self.journal.lease(&Undo::ServerLock { lock: HostBytes::from(lock.path()) }).or_failed()?;
        lock.sign(&self.name, &self.controller).or_failed()?;
        self.servers.push(lock);
        Ok(())
    }

    fn restore(&mut self) -> Result<Answer, Failure> {
        let journal = File::open(self.journal.directory().join(state::JOURNAL)).or_failed()?;
        let contents = Contents::read(&journal).or_failed()?;
        let circumstances = Circumstances { may_start: MayStart::Own, is_rebooted: false };
        let restorer = Restorer::new(&SERVICE, circumstances);
        let restorer = match held(self.staging.as_ref()) {
            Some(held) => restorer.with_held(held),
            None => restorer,
        };
        let restored =
            SERVICE.restore_all(&contents.undos, restorer, &mut recorder(&mut self.journal)).or_failed()?;
        self.publication.provisional = None;
        Ok(Answer::Restored(restored))
    }

    fn publish_provisionally(&mut self, request: &Provisional) -> Result<Answer, Failure> {
        if let Ok(data) = names::open(&request.datadir) {
            if self.servers.is_empty() {
                let id = names::id(data.as_fd()).or_failed()?;
                self.lock_data(id)?;
            }
        }
        let Self { journal, staging, .. } = self;
        let arrived = staging.as_ref().ok_or_else(|| failed("there is no staging directory"))?.copy();
        provisional::publish_provisionally(request, arrived, &mut recorder(journal)).or_failed()?;
        self.publication.provisional = Some(Replaced::default());
        Ok(Answer::Done)
    }

    fn commit(&mut self) -> Result<Answer, Failure> {
        provisional::commit(&mut recorder(&mut self.journal)).or_failed()?;
        let old = self.publication.provisional.take().and_then(|replaced| replaced.path);
        self.publication.is_done = true;
        self.outbox.event(Event::Published { old });
        Ok(Answer::Done)
    }

    fn make_account(
        &mut self,
        account: &Account,
        hash: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Answer, Failure> {
        let hash = hash.unwrap_or_default();
        let hash = std::str::from_utf8(&hash).map_err(|_| failed("the hash of a password is not text"))?;
        SERVICE.make_account(account, hash, &mut recorder(&mut self.journal)).or_failed()?;
        Ok(Answer::Done)
    }
}

/// Writes records for the parts of the agent that deal with servers.
fn recorder(journal: &mut Journal) -> impl FnMut(Record) -> io::Result<()> + '_ {
    |record| {
        let written = match record {
            Record::Lease(undo) => journal.lease(&undo),
            Record::Closed(undo) => journal.close(&undo),
            Record::Committed => journal.commit(),
            Record::Concluded { done } => journal.conclude(done),
            Record::Header(_) => return Err(io::ErrorKind::InvalidInput.into()),
        };
        written.map_err(io::Error::other)
    }
}
