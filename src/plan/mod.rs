//! Plan of a run as plain data: made from settings and facts, so that nothing is decided later.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::endpoint::Endpoint;
use crate::base::run_id::{AgentId, RunId};
use crate::config::settings::{Replace, Settings};
use crate::config::values::{
    AttributeKind, Compress, Compressor, FileDigest, Hook, Memory, Owner, Pattern, PortRange,
};
use crate::engine::netcat::variant::Netcat;
use crate::firewall;
use crate::host::facts::{Facts, Instance, Layer, Server};
use crate::mariadb::backup::{self, Tool, Vendor};
use crate::mariadb::plan::{Follow, ReplicaPlan};
use crate::shape::{Consumer, Producer, Publication, Shape, archiver, final_name};

/// Name of the data in the staging directory, if it brings no name with it.
const STAGED: &str = "data";
/// Directory in the staging directory where a copy arrives.
const INBOX: &str = "copy";
/// Default owner of a server's files.
const MYSQL: &str = "mysql:mysql";

/// Plan of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is one decision")]
pub struct Plan {
    /// Name of the run.
    pub run: RunId,
    /// The source.
    pub source: SourcePlan,
    /// The targets, one or more.
    pub targets: Vec<TargetPlan>,
    /// Engine that moves the data.
    pub engine: Engine,
    /// Contents of the copy on the source and on the targets.
    pub shape: Shape,
    /// Hot backup of a running server.
    pub backup: Option<BackupPlan>,
    /// Replication of the copies, if they become replicas.
    pub replica: Option<ReplicaPlan>,
    /// Commands of the user.
    pub hooks: Vec<Hook>,
    /// Number of threads that extract a backup; `None`: chosen by the processors of the target.
    pub backup_threads: Option<u32>,
    /// Name of the data in the staging directory.
    pub staged: OsString,
    /// Compression of the stream.
    pub compression: Option<Compression>,
    /// Whether the stream is encrypted with a key of this run.
    pub encrypt: bool,
    /// Digest of the stream, computed on both sides.
    pub stream_digest: Option<StreamDigest>,
    /// Digest by which every file is compared, disk against disk.
    pub file_digest: Option<FileDigest>,
    /// Patterns of entries to leave out.
    pub exclude: Vec<Pattern>,
    /// Whether files that change while they are copied are accepted.
    pub ignore_changed: bool,
    /// Treatment of data that has the final name already.
    pub replace: Replace,
    /// Owner of the copies.
    pub chown: Option<Owner>,
    /// Whether the data of a failed copy is kept.
    pub keep_staging: bool,
    /// Whether to wait until a copy is on the disk.
    pub fsync: bool,
    /// Number of processors that may be used on each host, if given.
    pub threads: Option<u32>,
    /// Nice value of the programs on hosts, 0 to 19.
    pub nice: u8,
    /// Ports that may be used.
    pub ports: PortRange,
    /// Silence of the controller after which an agent rolls back.
    pub lease_time: Duration,
    /// Time without progress after which the run fails.
    pub idle_timeout: Duration,
}

/// Engine that moves the data of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// tar, meters and netcat in one pipeline on each end.
    Netcat,
}

impl Engine {
    /// Returns the engine of a run with these settings.
    #[must_use]
    pub fn of(_settings: &Settings) -> Self {
        Self::Netcat
    }
}

/// Plan of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePlan {
    /// The source as the user wrote it.
    pub endpoint: Endpoint,
    /// Name of its agent.
    pub agent: AgentId,
    /// Directory that contains the data.
    pub parent: PathBuf,
    /// Name of the data.
    pub name: OsString,
    /// Device and inode of the data, as the preflight saw them; empty if it is neither a file nor a
    /// directory.
    pub inode: String,
    /// Whether the data is a directory.
    pub is_directory: bool,
    /// Whether the login is root.
    pub root: bool,
    /// Number of files, directories and other entries.
    pub entries: u64,
    /// Number of regular files.
    pub files: u64,
    /// Sum of their sizes.
    pub bytes: u64,
    /// Disk space that they use.
    pub disk_bytes: u64,
    /// Number of processors.
    pub cores: u32,
    /// Address that the source connects from, if given.
    pub address: Option<IpAddr>,
    /// Netcat that sends to all targets.
    pub netcat: Netcat,
    /// Servers to quiesce while their data is read.
    pub servers: Vec<StopPlan>,
}

/// A server that is stopped and started again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopPlan {
    /// The systemd unit.
    pub unit: String,
    /// The socket, empty if unknown.
    pub socket: String,
    /// File with login options; empty: the host's default.
    pub defaults_file: String,
    /// Data directory.
    pub datadir: PathBuf,
    /// Maximum time to stop.
    pub timeout: Duration,
}

/// Plan of a hot backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackupPlan {
    /// Backup program.
    pub program: String,
    /// Data directory.
    pub datadir: PathBuf,
    /// File with login options; empty: the host's default.
    pub defaults_file: String,
    /// Number of threads that read files.
    pub threads: u32,
    /// Locations of files outside the data directory, as options.
    pub places: Vec<String>,
    /// Whether the server is a replica: then the backup contains its replication position.
    pub replica: bool,
    /// Whether running replication threads are stopped for the backup.
    pub stop_replication: bool,
}

/// Preparation of a backup on a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepare {
    /// Suitable tools for the version of the server, at least one (checked by the preflight).
    pub tools: Vec<Tool>,
    /// Maximum memory in bytes.
    pub memory: u64,
    /// Owner of the prepared files.
    pub owner: String,
}

/// Plan of one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPlan {
    /// The target as the user wrote it.
    pub endpoint: Endpoint,
    /// Number of the target, from 1.
    pub number: usize,
    /// Name of its agent.
    pub agent: AgentId,
    /// Address that the target listens on.
    pub address: IpAddr,
    /// Address of the source as the target sees it.
    pub peer: IpAddr,
    /// Firewall layers to open for the source.
    pub layers: Vec<Layer>,
    /// Staging directory.
    pub staging: PathBuf,
    /// Path of the published copy.
    pub final_path: PathBuf,
    /// Device and inode of the data that had the final name before the run.
    pub old: Option<String>,
    /// Path that the replaced data gets, if it is kept.
    pub old_path: PathBuf,
    /// Whether the login is root.
    pub root: bool,
    /// Number of processors.
    pub cores: u32,
    /// Netcat that receives.
    pub netcat: Netcat,
    /// Servers to quiesce until their data is replaced.
    pub servers: Vec<StopPlan>,
    /// Kinds of attributes that may be dropped.
    pub may_lose: BTreeSet<AttributeKind>,
    /// Kinds of attributes to drop because the file system cannot store them, with the number of source files
    /// that have them.
    pub drops: BTreeMap<AttributeKind, u64>,
    /// Program that extracts the stream of a backup.
    pub extractor: &'static str,
    /// Preparation of the backup.
    pub prepare: Option<Prepare>,
    /// Replication of its server, once it has the copy.
    pub follow: Option<Follow>,
}

/// Compression of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compression {
    /// Program, present on all ends.
    pub program: Compressor,
    /// Compression level.
    pub level: u8,
}

/// Digest of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamDigest {
    /// SHA-256 by openssl.
    Sha256,
    /// MD5 by md5sum, if an end has no openssl.
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

/// A target with the results of its probe.
#[derive(Debug)]
pub struct TargetFactsOf<'a> {
    /// The target as the user wrote it.
    pub endpoint: &'a Endpoint,
    /// Result of the probe.
    pub facts: &'a Facts,
    /// Address of the target, reachable from the source.
    pub address: IpAddr,
    /// Address of the source when it connects to the target.
    pub peer: IpAddr,
}

impl Plan {
    /// Makes the plan for `targets`, which have passed the preflight.
    #[must_use]
    pub fn new(
        run: &RunId,
        settings: &Settings,
        (source, source_facts): (&Endpoint, &Facts),
        targets: &[TargetFactsOf<'_>],
    ) -> Self {
        let all_have =
            |tool: &str| source_facts.has(tool) && targets.iter().all(|target| target.facts.has(tool));
        let first_common =
            [Compressor::Zstd, Compressor::Pigz].into_iter().find(|tool| all_have(tool.name()));
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
            // A level without a program was given for another one.
            level: settings.compress_level.min(program.highest_level()),
        });
        // Encryption alone does not detect an altered byte: CTR has no authentication. If files cannot be
        // compared, the stream is.
        let files = settings.checksum.filter(|_| shape.compares_files());
        let checked = settings.parallel_checksum || settings.encrypt || settings.checksum != files;
        let stream_digest = (checked || shape.consumer == Consumer::File).then_some(if all_have("openssl") {
            StreamDigest::Sha256
        } else {
            StreamDigest::Md5
        });
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
            engine: Engine::of(settings),
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
            // Without the comparison of files the changes could not be reported.
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

    /// Returns the plan with replication for the copies.
    #[must_use]
    pub fn for_replicas(mut self, replica: ReplicaPlan) -> Self {
        for target in &mut self.targets {
            let how = replica.targets.iter().find(|(host, _)| *host == target.endpoint.host);
            target.follow = how.map(|(_, how)| how.clone());
        }
        Self { replica: Some(replica), ..self }
    }

    /// Name of the account that is created for the target with this number.
    #[must_use]
    pub fn account_name(&self, number: usize) -> String {
        format!("replica-{}-{number}", self.run)
    }

    /// Returns whether the tables of new replicas are compared with those of the donor.
    #[must_use]
    pub fn compares_tables(&self) -> bool {
        self.replica.as_ref().is_some_and(|replica| replica.tables.is_some())
    }

    /// Returns whether something on the source is quiesced while it is copied.
    #[must_use]
    pub fn rests(&self) -> bool {
        !self.source.servers.is_empty() || self.backup.as_ref().is_some_and(|backup| backup.stop_replication)
    }

    /// Number of bytes that tar is expected to write: sparse files count with their data only, each entry has
    /// a header.
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
        // The tool reads these variables only from option files, which may be another server's.
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

/// Servers to stop on one end.
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
    /// Directory where a copy arrives. The staging directory above protects it, whatever mode or owner a
    /// stream gives it.
    #[must_use]
    pub fn inbox(&self) -> PathBuf {
        self.staging.join(INBOX)
    }

    /// Whether the old data is kept until its server runs with the new data.
    #[must_use]
    pub fn keeps_old_until_it_runs(&self) -> bool {
        !self.servers.is_empty() || self.follow.is_some()
    }

    /// `at_once`: number of targets on the same host.
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
    /// `at_once`: number of backups that are prepared on the host at the same time.
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

/// Kinds of attributes that the target's file system cannot store, with the number of source files that have
/// them. The preflight has checked that they may be dropped.
fn drops(settings: &Settings, source: &Facts, target: &Facts) -> BTreeMap<AttributeKind, u64> {
    let lacks = target.target.iter().flat_map(|target| &target.lacks);
    let of_source = |kind: &AttributeKind| Some((*kind, source.source.as_ref()?.attributes.get(kind)?.0));
    lacks.filter(|kind| settings.drop_attributes.contains(kind)).filter_map(of_source).collect()
}

/// Returns the netcat for the addresses; the preflight has checked that there is one.
fn netcat(facts: &Facts, addresses: &[IpAddr]) -> Netcat {
    facts.netcat(addresses).cloned().unwrap_or_default()
}
