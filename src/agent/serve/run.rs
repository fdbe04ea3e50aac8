//! Changes of a run, each journaled before it is made, and its rollback.

mod servers;

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

use super::failure::{Fallible, busy, failed, of_publication};
use super::names;
use super::outbox::Outbox;
use super::program;
use super::undoer::HostUndoer;
use crate::agent::files::durable::Durability;
use crate::agent::files::publish::{PublishError, PublishEvent, Publisher};
use crate::agent::files::source::Source;
use crate::agent::files::staging::StagingDirectory;
use crate::agent::firewall::{self, Rule};
use crate::agent::flock::Wait;
use crate::agent::job::files;
use crate::agent::jobs::{Handlers, Jobs, Start};
use crate::agent::journal::Journal;
use crate::agent::locks::ports::{PortError, PortLease, lease_port};
use crate::agent::locks::{Lock, LockError};
use crate::agent::rollback::{self, Policy, Rollback, watchdog};
use crate::agent::sockets;
use crate::agent::state::{self, Directories};
use crate::agent::{processes, service, tool};
use crate::proto::command::{Answer, Awaited, Begin, Code, Command, Event, Failure};
use crate::proto::files::{FileId, FillTask, Naming, PublishTask, StagingTask};
use crate::proto::job::{JobName, JobReport, List};
use crate::proto::journal::{Family, Header, Layer, Undo, VERSION};
use crate::proto::name::AgentName;
use crate::proto::secret::Secret;
use crate::proto::status::RollbackEvent;
use crate::proto::task::{Held as HeldName, Task};
use crate::proto::{HostBytes, Text};

/// Time to wait for a lock that a clean-up may hold for a moment.
const PATIENCE: Wait = Wait::For(Duration::from_secs(1));
/// Size in bytes of a part of a list.
const PART: usize = 512 << 10;
/// Maximum time for the processes of a job to end.
const END_LIMIT: Duration = Duration::from_secs(3);

/// Run of this agent.
pub(crate) struct Run {
    name: AgentName,
    controller: Text,
    directories: Directories,
    journal: Journal,
    jobs: Jobs,
    outbox: Outbox,
    /// Reaped at the end, if it is over by then.
    _watchdog: Child,
    name_lock: Option<Lock>,
    port: Option<PortLease>,
    servers: Vec<Lock>,
    staging: Option<StagingDirectory>,
    source: Option<Source>,
    publication: Publication,
    durability: Durability,
}

/// Progress of the publication.
#[derive(Debug, Default)]
struct Publication {
    /// Set while new data is provisional.
    provisional: Option<Replaced>,
    is_done: bool,
}

/// Data that provisional data has replaced.
#[derive(Debug, Default)]
struct Replaced {
    /// Path, if the data still exists.
    path: Option<HostBytes>,
}

/// Parts of the agent that jobs need.
struct JobHandlers(Outbox);

impl Handlers for JobHandlers {
    fn report(&self, job: JobName, report: JobReport) {
        self.0.event(Event::Job(job, report));
    }

    fn end(&self, lock: &std::path::Path) -> Result<(), Text> {
        processes::end_all(lock, END_LIMIT).map_err(|error| Text::from(&error))
    }
}

impl Run {
    /// Begins a run: from now on the agent rolls back when it ends.
    pub(crate) fn begin(directories: &Directories, begin: Begin, outbox: &Outbox) -> Result<Self, Failure> {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let header = Header {
            version: VERSION,
            program: Text::new(env!("CARGO_PKG_VERSION")),
            boot: Text::from(state::boot_id().or_failed()?),
            role: begin.role,
            controller: begin.controller.clone(),
            started,
            path: begin.path,
        };
        let journal = Journal::create(directories, &begin.agent, header, program::keep_in).or_failed()?;
        let mut command = std::process::Command::new("/proc/self/exe");
        command.args(["watchdog", begin.agent.as_str()]);
        let watchdog = watchdog::start(command).or_failed().inspect_err(|_| {
            // Nothing has been changed yet, and the lock is still held.
            let _ = state::remove(journal.directory());
            directories.prune();
        })?;
        let handlers = Arc::new(JobHandlers(outbox.clone()));
        Ok(Self {
            name: begin.agent,
            controller: begin.controller,
            directories: directories.clone(),
            jobs: Jobs::new(journal.directory().to_owned(), begin.nice, handlers),
            journal,
            outbox: outbox.clone(),
            _watchdog: watchdog,
            name_lock: None,
            port: None,
            servers: Vec::new(),
            staging: None,
            source: None,
            publication: Publication::default(),
            durability: Durability::Synced,
        })
    }

    /// Carries out a command of a run. `key` is the decrypted secret of the command.
    pub(crate) fn obey(
        &mut self,
        command: Command,
        key: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Answer, Failure> {
        let _holding = tool::hold(self.journal.lock()).or_failed()?;
        match command {
            Command::TakeName { directory, name, naming, seen } => {
                self.take_name(&directory, &name, naming, seen)
            }
            Command::MakeStaging(task) => self.make_staging(&task),
            Command::HoldSource { path, id } => {
                self.source = Some(Source::hold(&path, id).or_failed()?);
                Ok(Answer::Done)
            }
            Command::CheckSource => self.source()?.check().or_failed().map(|()| Answer::Done),
            Command::LeasePort { first, last } => self.lease_port(first, last),
            Command::OpenRule { layer, peer, port } => self.open_rule(layer, peer, port),
            Command::CloseRules { layer, family } => self.close_rules(layer, family),
            Command::StartJob { job, task, .. } => self.start_job(job, task, key),
            Command::OpenGate { job } => self
                .jobs
                .control(job, crate::proto::task::Control::OpenGate)
                .or_failed()
                .map(|()| Answer::Done),
            Command::StopJob { job } => self.jobs.stop(job).or_failed().map(|()| Answer::Done),
            Command::AcceptedPeers { job, target, awaited } => {
                let awaited = match awaited {
                    Awaited::Listening => sockets::Awaited::Listener,
                    Awaited::Ours => sockets::Awaited::Connection,
                };
                sockets::accepted(&self.jobs.lock(job), target, awaited).or_failed().map(Answer::Sockets)
            }
            Command::OwnConnections { job, port } => {
                sockets::made(&self.jobs.lock(job), port).or_failed().map(Answer::Connections)
            }
            Command::Publish(task) => self.publish(&task),
            Command::Fill(task) => self.fill(&task),
            Command::DropOld { old, new } => self.drop_old(&old, &new),
            Command::LeaseHook(hook) => self.journaled(&Undo::Hook(hook)),
            Command::Conclude { done } => {
                self.journal.conclude(done || self.publication.is_done).or_failed()?;
                Ok(Answer::Done)
            }
            command => self.obey_about_servers(command, key),
        }
    }

    fn journaled(&mut self, undo: &Undo) -> Result<Answer, Failure> {
        self.journal.lease(undo).or_failed().map(|()| Answer::Done)
    }

    fn source(&self) -> Result<&Source, Failure> {
        self.source.as_ref().ok_or_else(|| failed("no source is held"))
    }

    fn staging(&self) -> Result<&StagingDirectory, Failure> {
        self.staging.as_ref().ok_or_else(|| failed("there is no staging directory"))
    }

    /// Locks a final name. Whoever had it until now may have made it, or other data in place of the old data.
    fn take_name(
        &mut self,
        directory: &HostBytes,
        name: &HostBytes,
        naming: Naming,
        seen: Option<FileId>,
    ) -> Result<Answer, Failure> {
        let place = names::open(directory).or_failed()?;
        let id = names::id(place.as_fd()).or_failed()?;
        let mut lock = match Lock::of_name(&self.directories, id, name, PATIENCE) {
            Ok(lock) => lock,
            Err(LockError::Held { holder }) => return Err(busy(&holder)),
            Err(error) => return Err(failed(&error)),
        };
        let taken = names::taken(place.as_fd(), name, naming, seen).or_failed();
        match taken {
            Ok(None) => {}
            Ok(Some(found)) => {
                lock.remove();
                return Err(Failure { code: Code::Exists, text: Text::new(format!("{found} exists")) });
            }
            Err(failure) => {
                lock.remove();
                return Err(failure);
            }
        }
        // A lock file without a record does no harm.
        self.journal.lease(&Undo::Name { lock: HostBytes::from(lock.path()) }).or_failed()?;
        lock.sign(&self.name, &self.controller).or_failed()?;
        self.name_lock = Some(lock);
        Ok(Answer::Done)
    }

    fn make_staging(&mut self, task: &StagingTask) -> Result<Answer, Failure> {
        let journal = &mut self.journal;
        let staging =
            StagingDirectory::create(task, &mut |undo| journal.lease(&undo).map_err(io::Error::other));
        self.staging = Some(staging.or_failed()?);
        Ok(Answer::Done)
    }

    fn lease_port(&mut self, first: u16, last: u16) -> Result<Answer, Failure> {
        self.port = None;
        let lease = match lease_port(&self.directories, first..=last) {
            Ok(lease) => lease,
            Err(PortError::Busy(reasons)) => return Err(busy(&reasons)),
            Err(error) => return Err(failed(&error)),
        };
        self.journal.lease(&Undo::Port(lease.port)).or_failed()?;
        let answer = Answer::Port { port: lease.port, ignored: lease.ignored.clone() };
        self.port = Some(lease);
        Ok(answer)
    }

    /// Comment of the run's firewall rules.
    fn tag(&self) -> String {
        format!("transfer-{}", self.name)
    }

    fn open_rule(&mut self, layer: Layer, peer: std::net::IpAddr, port: u16) -> Result<Answer, Failure> {
        let tag = self.tag();
        let undo = Undo::Rules { layer, family: firewall::family(peer), tag: tag.clone() };
        self.journal.lease(&undo).or_failed()?;
        let chains = firewall::open(&Rule { layer, peer, port, tag: &tag }).or_failed()?;
        Ok(Answer::Rules(u32::try_from(chains).unwrap_or(u32::MAX)))
    }

    fn close_rules(&mut self, layer: Layer, family: Family) -> Result<Answer, Failure> {
        let patience = rollback::Attempt::First.patience();
        firewall::close(layer, family, &self.tag(), patience).or_failed().map(|()| Answer::Done)
    }

    fn start_job(
        &mut self,
        job: JobName,
        task: Task,
        key: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<Answer, Failure> {
        let mut held = Vec::new();
        held.extend(self.source.as_ref().map(|source| (HeldName::Source, source.file())));
        held.extend(self.staging.as_ref().map(|staging| (HeldName::Staging, staging.copy())));
        let key = key.map(|key| Secret::new(key.to_vec()));
        let journal = &mut self.journal;
        self.jobs
            .start(Start { name: job, task, key, held }, |undo| {
                journal.lease(undo).map_err(|error| Text::from(&error))
            })
            .or_failed()?;
        Ok(Answer::Done)
    }

    fn publish(&mut self, task: &PublishTask) -> Result<Answer, Failure> {
        let staging = self.staging()?;
        let path = staging.path_of(task.name.as_os_str());
        if task.seen.is_some() && is_served(&path)? {
            return Err(failed(&format!("a server works in {path}; stop it")));
        }
        self.with_publisher(|publisher| publisher.publish(task))
    }

    fn fill(&mut self, task: &FillTask) -> Result<Answer, Failure> {
        let path = HostBytes::from(self.staging()?.target_path());
        if is_served(&path)? {
            return Err(failed(&format!("a server works in {path}; stop it")));
        }
        let home = state::open_owned(self.journal.directory()).or_failed()?;
        self.with_publisher(|publisher| publisher.fill(task, home.as_fd()))
    }

    fn with_publisher(
        &mut self,
        publish: impl FnOnce(&mut Publisher<'_>) -> Result<Durability, PublishError>,
    ) -> Result<Answer, Failure> {
        let Self { journal, staging, outbox, publication, .. } = self;
        let staging = staging.as_ref().ok_or_else(|| failed("there is no staging directory"))?;
        let mut report = |event| publication.take(event, outbox);
        let mut publisher = Publisher {
            staging,
            journal: &mut |undo| journal.lease(&undo).map_err(io::Error::other),
            report: &mut report,
        };
        let durability = publish(&mut publisher).map_err(|error| of_publication(&error))?;
        self.durability = durability;
        Ok(Answer::Done)
    }

    /// Removes replaced data at the end. The new data is on the disk before that, whatever was requested.
    fn drop_old(&mut self, old: &HostBytes, new: &HostBytes) -> Result<Answer, Failure> {
        let data = names::open(new).or_failed()?;
        rustix::fs::syncfs(&data).map_err(io::Error::from).or_failed()?;
        self.journal.lease(&Undo::Replaced { path: old.clone() }).or_failed()?;
        self.outbox.event(Event::OldGoes);
        Ok(Answer::Done)
    }

    /// Returns the directory of the run.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.journal.directory()
    }

    /// Returns a part of a list.
    pub(crate) fn read_list(&self, list: Option<List>, offset: u64) -> Result<Answer, Failure> {
        let name = list.map_or(files::CHANGED, List::name);
        let file = std::fs::File::open(self.journal.directory().join(name)).or_failed()?;
        let mut bytes = vec![0; PART];
        let mut length = 0;
        while length < PART {
            match file.read_at(&mut bytes[length..], offset + length as u64).or_failed()? {
                0 => break,
                read => length += read,
            }
        }
        bytes.truncate(length);
        Ok(Answer::List { bytes: bytes.into(), is_last: length < PART })
    }

    /// Rolls back. Everything is undone before anything is reported about it: the pipe may be full, and the
    /// controller gone.
    pub(crate) fn end(self) {
        let Self {
            name, directories, journal, staging, servers, durability, outbox, port, name_lock, ..
        } = self;
        // Their files are removed by the replay.
        drop((port, name_lock));
        let mut events = Vec::new();
        let mut undoer = HostUndoer::new(staging.as_ref());
        let durability = match durability {
            Durability::Synced => rollback::Durability::Synced,
            Durability::Hasty => rollback::Durability::Hasty,
        };
        let mut rollback = Rollback {
            directories: &directories,
            policy: Policy { durability, ..Policy::OWN },
            undoer: &mut undoer,
            observer: &mut |event| events.push(event),
        };
        let replayed = rollback.release(&name, journal.into_lock(), servers);
        for event in events {
            outbox.event(Event::Rollback(event));
        }
        if let Err(error) = replayed {
            outbox.event(Event::Rollback(RollbackEvent::Failed { agent: name, reason: Text::from(&error) }));
        }
    }
}

impl Publication {
    /// Notes and reports a publication. Provisional data counts as published when it is committed.
    fn take(&mut self, event: PublishEvent, outbox: &Outbox) {
        match event {
            PublishEvent::Published { aside, .. } => {
                if let Some(replaced) = &mut self.provisional {
                    replaced.path = aside;
                } else {
                    self.is_done = true;
                    outbox.event(Event::Published { old: aside });
                }
            }
            PublishEvent::Unpublished => {
                self.is_done = false;
                outbox.event(Event::Unpublished);
            }
        }
    }
}

/// Returns whether a server works in a directory.
fn is_served(path: &HostBytes) -> Result<bool, Failure> {
    use service::Surroundings as _;
    super::surroundings::HOST.is_served(path.as_path(), None).or_failed()
}
