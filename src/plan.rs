//! What a run will do, as plain data: settings and facts go in, nothing is decided later.

use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::firewall;
use crate::host::facts::{Facts, Layer};
use crate::host::netcat::Netcat;
use crate::run_id::{GuardId, RunId};
use crate::settings::{Replace, Settings};
use crate::values::{Compress, Compressor, FileDigest, Owner, Pattern, PortRange};

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
    /// Silence after which a guard undoes everything.
    pub lease_time: Duration,
    /// Standstill after which the run has failed.
    pub idle_timeout: Duration,
}

/// The source's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourcePlan {
    /// As the user wrote it.
    pub endpoint: Endpoint,
    /// Its guard's name.
    pub guard: GuardId,
    /// The directory that holds what is copied.
    pub parent: PathBuf,
    /// The name of what is copied.
    pub name: OsString,
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
}

/// One target's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPlan {
    /// As the user wrote it.
    pub endpoint: Endpoint,
    /// From 1.
    pub number: usize,
    /// Its guard's name.
    pub guard: GuardId,
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
        let program = match settings.compress {
            Compress::No => None,
            Compress::Auto => first_common.or(Some(Compressor::Gzip)),
            Compress::With(program) => Some(program),
        };
        let compression = program.map(|program| Compression {
            program,
            // Said for another one, where the program was not.
            level: settings.compress_level.min(program.highest_level()),
        });
        // Encryption alone does not notice an altered byte: CTR has no authentication.
        let stream_digest = (settings.parallel_checksum || settings.encrypt)
            .then_some(if everybody_has("openssl") { StreamDigest::Sha256 } else { StreamDigest::Md5 });
        let of_source = source_facts.source.clone().unwrap_or_default();
        let addresses: Vec<IpAddr> = targets.iter().map(|target| target.address).collect();
        Self {
            run: run.clone(),
            source: SourcePlan {
                endpoint: source.clone(),
                guard: run.source_guard(),
                parent: source.parent().to_owned(),
                name: source.name().unwrap_or_default().to_owned(),
                root: source_facts.uid == 0,
                entries: of_source.entries,
                files: of_source.files,
                bytes: of_source.bytes,
                disk_bytes: of_source.disk_bytes,
                cores: source_facts.cores.max(1),
                address: settings.source_address,
                netcat: netcat(source_facts, &addresses),
            },
            targets: targets
                .iter()
                .enumerate()
                .map(|(index, target)| TargetPlan::new(run, index + 1, settings, source, target))
                .collect(),
            compression,
            encrypt: settings.encrypt,
            stream_digest,
            file_digest: settings.checksum,
            exclude: settings.exclude.clone(),
            ignore_changed: settings.ignore_changed,
            replace: settings.replace,
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

    /// The bytes that tar is expected to write: data of sparse files counts once, and each entry has a header.
    #[must_use]
    pub fn expected_bytes(&self) -> u64 {
        self.source
            .bytes
            .min(self.source.disk_bytes.max(1))
            .saturating_add(self.source.entries.saturating_mul(1024))
            .max(1)
    }
}

impl TargetPlan {
    fn new(
        run: &RunId,
        number: usize,
        settings: &Settings,
        source: &Endpoint,
        target: &TargetFactsOf<'_>,
    ) -> Self {
        let guard = run.target_guard(number);
        let directory: &Path = &target.endpoint.path;
        let mut old_name = settings.final_name(source).to_owned();
        old_name.push(format!(".old-{run}"));
        Self {
            endpoint: target.endpoint.clone(),
            number,
            address: target.address,
            peer: target.peer,
            layers: firewall::layers(target.facts, settings.firewall, target.peer),
            staging: directory.join(format!(".transfer-{guard}")),
            final_path: directory.join(settings.final_name(source)),
            old: target.facts.target.as_ref().and_then(|target| target.exists.clone()),
            old_path: directory.join(old_name),
            root: target.facts.uid == 0,
            cores: target.facts.cores.max(1),
            netcat: netcat(target.facts, &[target.address]),
            guard,
        }
    }
}

/// The preflight has made sure that there is one.
fn netcat(facts: &Facts, addresses: &[IpAddr]) -> Netcat {
    facts.netcat(addresses).cloned().unwrap_or_default()
}
