//! What a run will do, as plain data: settings and facts go in, nothing is decided later.

pub mod replica;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::backup::{self, Tool, Vendor};
use crate::endpoint::Endpoint;
use crate::firewall;
use crate::host::facts::{Facts, Instance, Layer, Server};
use crate::host::netcat::Netcat;
use crate::run_id::{AgentId, RunId};
use crate::settings::{Replace, Settings};
use crate::shape::{Consumer, Producer, Publication, Shape, archiver, final_name};
use crate::values::{
    AttributeKind, Compress, Compressor, FileDigest, Hook, Memory, Owner, Pattern, PortRange,
};
use replica::{Follow, ReplicaPlan};

/// What has arrived is called so until it has its name, where it brings none with it.
const STAGED: &str = "data";
/// The directory in the staging directory in which a copy arrives.
const INBOX: &str = "copy";
/// Whose a server's files are, where nothing else is known.
const MYSQL: &str = "mysql:mysql";

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one decision")]
pub struct Plan {
    /// Its name.
    pub run: RunId,
    /// Where the data is.
    pub source: SourcePlan,
    /// Where it goes, one or more.
    pub targets: Vec<TargetPlan>,
    /// What the copy is made of, and what it becomes.
    pub shape: Shape,
    /// How a running server is copied, if one is.
    pub backup: Option<BackupPlan>,
    /// What becomes of the copies, where they are to be replicas.
    pub replica: Option<ReplicaPlan>,
    /// Commands of the user's.
    pub hooks: Vec<Hook>,
    /// Threads that extract a backup; `None`: by the processors there.
    pub backup_threads: Option<u32>,
    /// What has arrived is called so in the staging directory.
    pub staged: OsString,
    /// How it is made smaller on the way.
    pub compression: Option<Compression>,
    /// Encrypted with a key of this run.
    pub encrypt: bool,
    /// The digest of the stream, taken on both sides.
    pub stream_digest: Option<StreamDigest>,
    /// By which digest every file is compared, disk against disk.
    pub file_digest: Option<FileDigest>,
    /// What is left out.
    pub exclude: Vec<Pattern>,
    /// What changes while it is copied is no failure.
    pub ignore_changed: bool,
    /// What to do with what has the final name.
    pub replace: Replace,
    /// Whose the copies become.
    pub chown: Option<Owner>,
    /// Keep what has arrived of a failed copy.
    pub keep_staging: bool,
    /// Wait until a copy is on the disk.
    pub fsync: bool,
    /// Processors that may be used on each host, where it was said.
    pub threads: Option<u32>,
    /// How much the hosts' programs stand back, 0 to 19.
    pub nice: u8,
    /// Which ports may be used.
    pub ports: PortRange,
    /// Silence after which an agent undoes everything.
    pub lease_time: Duration,
    /// Standstill after which the run has failed.
    pub idle_timeout: Duration,
}

/// The source's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePlan {
    /// As the user wrote it.
    pub endpoint: Endpoint,
    /// Its agent's name.
    pub agent: AgentId,
    /// The directory that holds what is copied.
    pub parent: PathBuf,
    /// The name of what is copied.
    pub name: OsString,
    /// Device and inode of what is copied, as the preflight saw them; empty where that is no file and no directory.
    pub inode: String,
    /// It is a directory.
    pub is_directory: bool,
    /// We are root there.
    pub root: bool,
    /// Files, directories and all else.
    pub entries: u64,
    /// Regular files.
    pub files: u64,
    /// Their sizes, added up.
    pub bytes: u64,
    /// What they take on the disk.
    pub disk_bytes: u64,
    /// Processors.
    pub cores: u32,
    /// The address that it connects from, if it was said.
    pub address: Option<IpAddr>,
    /// What sends, to all targets.
    pub netcat: Netcat,
    /// Servers that rest while their data is read.
    pub servers: Vec<StopPlan>,
}

/// A server that is stopped, and started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopPlan {
    /// Its unit.
    pub unit: String,
    /// Its socket, empty where it is not known.
    pub socket: String,
    /// Options for logins there; empty: the host's own.
    pub defaults_file: String,
    /// Its data directory.
    pub datadir: PathBuf,
    /// How long that may take.
    pub timeout: Duration,
}

/// A hot backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupPlan {
    /// What copies the files.
    pub program: String,
    /// Its data directory.
    pub datadir: PathBuf,
    /// Options for logins there; empty: the host's own.
    pub defaults_file: String,
    /// Threads that read files.
    pub threads: u32,
    /// Where its other files are, as options: those that are not in the data directory.
    pub places: Vec<String>,
    /// It is a replica: the position of its source is in the backup.
    pub replica: bool,
    /// What runs of its replication is stopped meanwhile.
    pub stop_replication: bool,
}

/// How a backup is made ready on a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// What may do it, by the server of which the backup is. The preflight has made sure that there is one.
    pub tools: Vec<Tool>,
    /// Bytes of memory that it may take.
    pub memory: u64,
    /// Whose the files become.
    pub owner: String,
}

/// One target's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPlan {
    /// As the user wrote it.
    pub endpoint: Endpoint,
    /// From 1.
    pub number: usize,
    /// Its agent's name.
    pub agent: AgentId,
    /// The address it listens on.
    pub address: IpAddr,
    /// The source's address as the target sees it.
    pub peer: IpAddr,
    /// Firewall layers to be opened for the peer.
    pub layers: Vec<Layer>,
    /// Where the data arrives.
    pub staging: PathBuf,
    /// The name it gets when it is proven.
    pub final_path: PathBuf,
    /// Device and inode of what had it before the run.
    pub old: Option<String>,
    /// The name that what had it before gets, if it is kept.
    pub old_path: PathBuf,
    /// We are root there.
    pub root: bool,
    /// Processors.
    pub cores: u32,
    /// What receives.
    pub netcat: Netcat,
    /// Servers that rest until their data is replaced.
    pub servers: Vec<StopPlan>,
    /// Kinds of attributes that it may lose.
    pub may_lose: BTreeSet<AttributeKind>,
    /// Those of them that its file system cannot hold: they are left out. With the number of the source's files that have them.
    pub drops: BTreeMap<AttributeKind, u64>,
    /// What takes a backup's stream apart.
    pub extractor: &'static str,
    /// How the backup is made ready.
    pub prepare: Option<Prepare>,
    /// How its server follows another one, with the copy.
    pub follow: Option<Follow>,
}

/// How the stream is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// The program, which all ends have.
    pub program: Compressor,
    /// Its level.
    pub level: u8,
}

/// The digest of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamDigest {
    /// SHA-256 by openssl.
    Sha256,
    /// MD5 by md5sum, where an end has no openssl.
    Md5,
}

impl fmt::Display for StreamDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "sha256",
            Self::Md5 => "md5",
        })
    }
}

/// A target with what was learnt about it.
#[derive(Debug)]
pub struct TargetFactsOf<'a> {
    /// As the user wrote it.
    pub endpoint: &'a Endpoint,
    /// What the probe told.
    pub facts: &'a Facts,
    /// Its address as the source reaches it.
    pub address: IpAddr,
    /// The source's address when it does.
    pub peer: IpAddr,
}

impl Plan {
    /// Decides everything. `targets` have passed the preflight.
    #[must_use]
    pub fn new(
        run: &RunId,
        settings: &Settings,
        (source, source_facts): (&Endpoint, &Facts),
        targets: &[TargetFactsOf<'_>],
    ) -> Self {
        let everybody_has =
            |tool: &str| source_facts.has(tool) && targets.iter().all(|target| target.facts.has(tool));
        let first_common =
            [Compressor::Zstd, Compressor::Pigz].into_iter().find(|tool| everybody_has(tool.name()));
        let shape = Shape::of(settings, source_facts);
        let program = match (shape.producer, shape.consumer, settings.compress) {
            (Producer::File, ..) => None,
            (_, Consumer::File, _) => archiver(settings, source_facts),
            (.., Compress::No) => None,
            (.., Compress::Auto) => first_common.or(Some(Compressor::Gzip)),
            (.., Compress::With(program)) => Some(program),
        };
        let compression = program.map(|program| Compression {
            program,
            // Said for another one, where the program was not.
            level: settings.compress_level.min(program.highest_level()),
        });
        // Encryption alone does not notice an altered byte: CTR has no authentication. Where files cannot be compared, the
        // stream is.
        let files = settings.checksum.filter(|_| shape.compares_files());
        let checked = settings.parallel_checksum || settings.encrypt || settings.checksum != files;
        let stream_digest = (checked || shape.consumer == Consumer::File)
            .then_some(if everybody_has("openssl") { StreamDigest::Sha256 } else { StreamDigest::Md5 });
        let of_source = source_facts.source.clone().unwrap_or_default();
        let addresses: Vec<IpAddr> = targets.iter().map(|target| target.address).collect();
        Self {
            run: run.clone(),
            source: SourcePlan {
                endpoint: source.clone(),
                agent: run.source_agent(),
                parent: source.parent().to_owned(),
                name: source.name().unwrap_or_default().to_owned(),
                inode: of_source.inode.clone(),
                is_directory: of_source.file_type == "directory",
                root: source_facts.uid == 0,
                entries: of_source.entries,
                files: of_source.files,
                bytes: of_source.bytes,
                disk_bytes: of_source.disk_bytes,
                cores: source_facts.cores.max(1),
                address: settings.source_address,
                netcat: netcat(source_facts, &addresses),
                servers: stops(settings, source_facts, settings.servers.stop.source()),
            },
            targets: targets
                .iter()
                .enumerate()
                .map(|(index, target)| {
                    let host = &target.endpoint.host;
                    let at_once = targets.iter().filter(|other| other.endpoint.host == *host).count() as u64;
                    TargetPlan::new(
                        run,
                        (index + 1, at_once),
                        (settings, shape),
                        (source, source_facts),
                        target,
                    )
                })
                .collect(),
            shape,
            backup: source_facts
                .instance
                .as_ref()
                .filter(|_| shape.producer == Producer::Backup)
                .map(|instance| BackupPlan::new(settings, source_facts, instance)),
            replica: None,
            hooks: settings.hooks.clone(),
            backup_threads: settings.servers.threads,
            staged: match shape.consumer {
                Consumer::Tree => source.name().unwrap_or_default().to_owned(),
                _ => STAGED.into(),
            },
            compression,
            encrypt: settings.encrypt,
            stream_digest,
            file_digest: files,
            exclude: if shape.producer == Producer::Tree { settings.exclude.clone() } else { Vec::new() },
            // Nobody would know what changed.
            ignore_changed: settings.ignore_changed && shape.compares_files(),
            replace: if shape.publication == Publication::Name { settings.replace } else { Replace::No },
            chown: settings.chown.clone(),
            keep_staging: settings.keep_staging,
            fsync: settings.fsync,
            threads: settings.threads,
            nice: settings.nice,
            ports: settings.ports,
            lease_time: settings.lease_time,
            idle_timeout: settings.idle_timeout,
        }
    }

    /// The same, for copies that become replicas.
    #[must_use]
    pub fn for_replicas(mut self, replica: ReplicaPlan) -> Self {
        for target in &mut self.targets {
            let how = replica.targets.iter().find(|(host, _)| *host == target.endpoint.host);
            target.follow = how.map(|(_, how)| how.clone());
        }
        Self { replica: Some(replica), ..self }
    }

    /// What an account is called that is made for the target of that number.
    #[must_use]
    pub fn account_name(&self, number: usize) -> String {
        format!("replica-{}-{number}", self.run)
    }

    /// Something on the source rests while it is copied.
    #[must_use]
    pub fn rests(&self) -> bool {
        !self.source.servers.is_empty() || self.backup.as_ref().is_some_and(|backup| backup.stop_replication)
    }

    /// The bytes that tar is expected to write: data of sparse files counts once, and each entry has a header.
    #[must_use]
    pub fn expected_bytes(&self) -> u64 {
        let headers = match self.shape.producer {
            Producer::Tree => self.source.entries.saturating_mul(1024),
            Producer::Backup | Producer::File => 0,
        };
        self.source.bytes.min(self.source.disk_bytes.max(1)).saturating_add(headers).max(1)
    }
}

impl BackupPlan {
    fn new(settings: &Settings, facts: &Facts, instance: &Instance) -> Self {
        let tool = backup::tool(facts, instance);
        let datadir = instance.datadir();
        // It knows them only from files of options, which may be another server's.
        let places = ["innodb_data_home_dir", "innodb_undo_directory", "innodb_log_group_home_dir"];
        let place = |name: &str| {
            let value = instance.variable(name);
            value.starts_with('/').then(|| format!("--{}={value}", name.replace('_', "-")))
        };
        Self {
            program: tool.map(|tool| tool.program).unwrap_or_default(),
            datadir,
            defaults_file: settings.servers.defaults_file.clone().unwrap_or_default(),
            threads: settings.servers.threads.unwrap_or(facts.cores.max(1).div_ceil(2)),
            places: places.into_iter().filter_map(place).collect(),
            replica: !instance.connections.is_empty(),
            stop_replication: settings.servers.stop_replication,
        }
    }
}

/// The servers of an end that are to be stopped.
fn stops(settings: &Settings, facts: &Facts, wanted: bool) -> Vec<StopPlan> {
    let stop = |server: &Server| StopPlan {
        unit: settings.servers.unit.clone().unwrap_or_else(|| server.unit.clone()),
        socket: server.socket.clone(),
        defaults_file: settings.servers.defaults_file.clone().unwrap_or_default(),
        datadir: server.datadir.clone(),
        timeout: settings.servers.timeout,
    };
    facts.servers.iter().filter(|_| wanted).map(stop).collect()
}

impl TargetPlan {
    /// The directory in which a copy arrives, below the staging directory, which protects it whatever a stream does to it.
    #[must_use]
    pub fn inbox(&self) -> PathBuf {
        self.staging.join(INBOX)
    }

    /// A server is at rest while its data is replaced, and has to run with the new data before the old goes.
    #[must_use]
    pub fn keeps_old_until_it_runs(&self) -> bool {
        !self.servers.is_empty() || self.follow.is_some()
    }

    /// `at_once`: how many of the targets are on its host.
    fn new(
        run: &RunId,
        (number, at_once): (usize, u64),
        (settings, shape): (&Settings, Shape),
        (source, source_facts): (&Endpoint, &Facts),
        target: &TargetFactsOf<'_>,
    ) -> Self {
        let agent = run.target_agent(number);
        let directory: &Path = &target.endpoint.path;
        let name = final_name(settings, source, Some(source_facts));
        let final_path = match shape.publication {
            Publication::Fill => directory.to_owned(),
            Publication::Name | Publication::Add => directory.join(name.clone().unwrap_or_default()),
        };
        let mut old_name = name.unwrap_or_default();
        old_name.push(format!(".old-{run}"));
        let instance = source_facts.instance.as_ref();
        Self {
            endpoint: target.endpoint.clone(),
            number,
            address: target.address,
            peer: target.peer,
            layers: firewall::layers(target.facts, settings.firewall, target.peer),
            staging: directory.join(format!(".transfer-{agent}")),
            final_path,
            old: target.facts.target.as_ref().and_then(|target| target.exists.clone()),
            old_path: directory.join(old_name),
            root: target.facts.uid == 0,
            cores: target.facts.cores.max(1),
            netcat: netcat(target.facts, &[target.address]),
            servers: stops(settings, target.facts, settings.servers.stop.target()),
            may_lose: settings.drop_attributes.clone(),
            drops: drops(settings, source_facts, target.facts),
            extractor: instance
                .map_or_else(|| backup::extractor_at_hand(target.facts), |of| Vendor::of(of).extractor()),
            prepare: (settings.servers.prepare && shape.consumer == Consumer::Backup)
                .then(|| Prepare::new(settings, instance, target.facts, at_once)),
            follow: None,
            agent,
        }
    }
}

impl Prepare {
    /// `at_once`: how many are prepared on the host at the same time.
    fn new(settings: &Settings, instance: Option<&Instance>, facts: &Facts, at_once: u64) -> Self {
        let tool = instance.and_then(|instance| backup::tool(facts, instance).ok());
        let pool = instance.map_or(u64::MAX, Instance::buffer_pool);
        let owner = || instance.map(|instance| instance.owner.clone()).filter(|owner| !owner.is_empty());
        Self {
            tools: tool.map_or_else(|| backup::tools(facts).collect(), |tool| vec![tool]),
            memory: settings
                .servers
                .prepare_memory
                .unwrap_or(pool.min(facts.memory / 2 / at_once).max(Memory::LEAST)),
            owner: settings
                .chown
                .as_ref()
                .map(|owner| owner.0.clone())
                .or_else(owner)
                .unwrap_or(MYSQL.into()),
        }
    }
}

/// Kinds of attributes that the target's file system cannot hold, with the number of the source's files that have them. The
/// preflight has made sure that they may be lost.
fn drops(settings: &Settings, source: &Facts, target: &Facts) -> BTreeMap<AttributeKind, u64> {
    let lacks = target.target.iter().flat_map(|target| &target.lacks);
    let of_source = |kind: &AttributeKind| Some((*kind, source.source.as_ref()?.attributes.get(kind)?.0));
    lacks.filter(|kind| settings.drop_attributes.contains(kind)).filter_map(of_source).collect()
}

/// The preflight has made sure that there is one.
fn netcat(facts: &Facts, addresses: &[IpAddr]) -> Netcat {
    facts.netcat(addresses).cloned().unwrap_or_default()
}
