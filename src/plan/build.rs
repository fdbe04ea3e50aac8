//! Makes the plan of a run from its settings and facts. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use super::{
    BackupPlan, Compression, Engine, Plan, Prepare, SourceFactsOf, SourcePlan, StopPlan, TargetFactsOf,
    TargetPlan,
};
use crate::base::run_id::RunId;
use crate::config::settings::{Replace, Settings};
use crate::config::values::{AttributeKind, Compress, Compressor, DigestAlgorithm, Memory};
use crate::engine::netcat::variant::Netcat;
use crate::firewall;
use crate::host::facts::{Existing, Facts, Instance, PathType, Server};
use crate::mariadb::backup::{self, Vendor};
use crate::shape::{Consumer, Producer, Publication, Shape, archiver, final_name};

/// Name of the data in the staging directory, if it brings no name with it.
const STAGED: &str = "data";
/// Default owner of a server's files.
const MYSQL: &str = "mysql:mysql";

/// Basis of a plan: settings and facts.
#[derive(Clone, Copy)]
struct Basis<'a> {
    run: &'a RunId,
    settings: &'a Settings,
    source: SourceFactsOf<'a>,
    targets: &'a [TargetFactsOf<'a>],
    shape: Shape,
}

impl Plan {
    /// Makes the plan for `targets`, which have passed the preflight.
    #[must_use]
    pub fn new(
        run: &RunId,
        settings: &Settings,
        source: SourceFactsOf<'_>,
        targets: &[TargetFactsOf<'_>],
    ) -> Self {
        let shape = Shape::of(settings, source.facts);
        let basis = Basis { run, settings, source, targets, shape };
        let file_digest = basis.file_digest();
        let instance = source.facts.instance.as_ref().filter(|_| shape.producer == Producer::Backup);
        Self {
            run: run.clone(),
            source: basis.source_plan(),
            targets: (0..targets.len()).map(|index| basis.target_plan(index)).collect(),
            engine: Engine::of(settings),
            shape,
            backup: instance.map(|instance| BackupPlan::new(settings, source.facts, instance)),
            replica: None,
            hooks: settings.hooks.clone(),
            backup_threads: settings.servers.threads,
            staged: match shape.consumer {
                Consumer::Tree => source.endpoint.name().unwrap_or_default().to_owned(),
                _ => STAGED.into(),
            },
            compression: basis.compression(),
            encrypt: settings.encrypt,
            stream_digest: basis.stream_digest(file_digest),
            file_digest,
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
}

impl Basis<'_> {
    /// Returns whether all ends have a program.
    fn all_have(&self, program: &str) -> bool {
        self.source.facts.has(program) && self.targets.iter().all(|target| target.facts.has(program))
    }

    fn compression(&self) -> Option<Compression> {
        let Self { settings, source, shape, .. } = self;
        let mut fast = [Compressor::Zstd, Compressor::Pigz].into_iter();
        let program = match (shape.producer, shape.consumer, settings.compress) {
            (Producer::File, ..) => None,
            (_, Consumer::File, _) => archiver(settings, source.facts),
            (.., Compress::No) => None,
            (.., Compress::Auto) => {
                fast.find(|program| self.all_have(program.name())).or(Some(Compressor::Gzip))
            }
            (.., Compress::With(program)) => Some(program),
        };
        program.map(|program| Compression {
            program,
            // A level without a program was given for another one.
            level: settings.compress_level.min(program.highest_level()),
        })
    }

    fn file_digest(&self) -> Option<DigestAlgorithm> {
        self.settings.checksum.filter(|_| self.shape.compares_files())
    }

    /// Encryption alone does not detect an altered byte: CTR has no authentication. If files cannot be compared, the
    /// stream is.
    fn stream_digest(&self, files: Option<DigestAlgorithm>) -> Option<DigestAlgorithm> {
        let Self { settings, shape, .. } = self;
        let checked = settings.parallel_checksum || settings.encrypt || settings.checksum != files;
        (checked || shape.consumer == Consumer::File).then_some(DigestAlgorithm::Sha256)
    }

    fn source_plan(&self) -> SourcePlan {
        let Self { run, settings, source: SourceFactsOf { endpoint, facts }, targets, .. } = *self;
        let data = facts.source.clone().unwrap_or_default();
        let addresses: Vec<IpAddr> = targets.iter().map(|target| target.address).collect();
        SourcePlan {
            endpoint: endpoint.clone(),
            agent: run.source_agent(),
            parent: endpoint.parent().to_owned(),
            name: endpoint.name().unwrap_or_default().to_owned(),
            is_directory: data.path_type == PathType::Directory,
            id: data.id,
            root: facts.uid == 0,
            entries: data.entries,
            files: data.files,
            bytes: data.bytes,
            disk_bytes: data.disk_bytes,
            cores: facts.cores.max(1),
            address: settings.source_address,
            netcat: netcat(facts, &addresses),
            servers: stops(settings, facts, settings.servers.stop.source()),
        }
    }

    fn target_plan(&self, index: usize) -> TargetPlan {
        let Self { run, settings, source, targets, shape } = *self;
        let target = &targets[index];
        let number = index + 1;
        let agent = run.target_agent(number);
        let directory: &Path = &target.endpoint.path;
        let name = final_name(settings, source.endpoint, Some(source.facts));
        let final_path = match shape.publication {
            Publication::Fill => directory.to_owned(),
            Publication::Name | Publication::Add => directory.join(name.clone().unwrap_or_default()),
        };
        let mut old_name = name.unwrap_or_default();
        old_name.push(format!(".old-{run}"));
        let instance = source.facts.instance.as_ref();
        let host = &target.endpoint.host;
        let at_once = targets.iter().filter(|other| other.endpoint.host == *host).count() as u64;
        TargetPlan {
            endpoint: target.endpoint.clone(),
            number,
            address: target.address,
            peer: target.peer,
            layers: firewall::layers(target.facts, settings.firewall, target.peer),
            staging: directory.join(format!(".transfer-{agent}")),
            final_path,
            old: target.facts.target.as_ref().and_then(|target| match target.existing {
                Existing::Entry(id) => Some(id),
                Existing::Nothing | Existing::DigestFile => None,
            }),
            old_path: directory.join(old_name),
            root: target.facts.uid == 0,
            cores: target.facts.cores.max(1),
            netcat: netcat(target.facts, &[target.address]),
            servers: stops(settings, target.facts, settings.servers.stop.target()),
            may_lose: settings.drop_attributes.clone(),
            drops: drops(settings, source.facts, target.facts),
            extractor: instance
                .map_or_else(|| backup::extractor_at_hand(target.facts), |of| Vendor::of(of).extractor()),
            prepare: (settings.servers.prepare && shape.consumer == Consumer::Backup)
                .then(|| Prepare::new(settings, instance, target.facts, at_once)),
            follow: None,
            agent,
        }
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
