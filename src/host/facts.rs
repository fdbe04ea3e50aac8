//! Facts about a host, as its agent has answered, and those that were asked of its servers.

mod installed;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use crate::mariadb::facts::{Connection, Instance, OtherServer, Relation, Server};
pub use crate::proto::facts::path::{Existing, PathTrust, PathType};
pub use crate::proto::journal::{Family, Layer};
pub use installed::{Installed, Upstream};

use crate::config::values::AttributeKind;
use crate::engine::netcat::variant::Netcat;
use crate::proto::Text;
use crate::proto::facts::path::{self, Archive, Owners};
use crate::proto::facts::{self, HostFacts, TreeSize};
use crate::proto::files::FileId;

/// Facts that a run needs about a host before it changes anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Processor architecture, as reported by `uname -m`.
    pub machine: String,
    /// Boot ID, a UUID of the kernel.
    pub boot: String,
    /// Contents of `/etc/machine-id`, or empty.
    pub machine_id: String,
    /// User ID of our login.
    pub uid: u32,
    /// Addresses of the SSH connection as the host sees them: the controller's and the host's own.
    pub ssh: Option<(IpAddr, IpAddr)>,
    /// Number of processors.
    pub cores: u32,
    /// Installed programs, of those that a run may need.
    pub tools: BTreeSet<String>,
    /// First line of `tar --version`.
    pub tar: String,
    /// Supported netcats; the one called `nc` comes first.
    pub netcats: Vec<Netcat>,
    /// Addresses at which the host may be reached, IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
    /// Firewall layers that filter incoming packets, with their address family.
    pub firewall: Vec<(Layer, Family)>,
    /// User IDs by name: on a source the owners of the files, on a target all accounts.
    pub users: BTreeMap<String, u32>,
    /// Group IDs by name, likewise.
    pub groups: BTreeMap<String, u32>,
    /// Time of the host's clock when it answered, since the epoch.
    pub clock: Duration,
    /// Tables of nftables, such as `inet site`, that filter incoming packets and that only their owner
    /// process can change.
    pub owned_tables: Vec<String>,
    /// Hot backup programs with their version output.
    pub backup_tools: Vec<(String, String)>,
    /// Available memory in bytes.
    pub memory: u64,
    /// Running servers whose data the path concerns.
    pub servers: Vec<Server>,
    /// Running servers of ordinary accounts whose data the path concerns.
    pub other_servers: Vec<OtherServer>,
    /// Server behind the socket that is the source.
    pub instance: Option<Instance>,
    /// The host's only server, where none was named; only if queried.
    pub installed: Option<Installed>,
    /// Facts about the path, on a source.
    pub source: Option<SourceFacts>,
    /// Facts about the directory, on a target.
    pub target: Option<TargetFacts>,
}

/// Facts about the source's path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFacts {
    /// Type; a symbolic link is not followed.
    pub path_type: PathType,
    /// The path is readable for us.
    pub readable: bool,
    /// Path with symbolic links resolved.
    pub real: PathBuf,
    /// Device, and path below the root of its file system: the same through every bind mount. Empty if unknown.
    pub place: PathBuf,
    /// Identity of the file or directory.
    pub id: Option<FileId>,
    /// Run that has quiesced a server with this data.
    pub quiesced: Option<String>,
    /// Contents, if the path is an archive and the contents matter.
    pub archive: Option<Archive>,
    /// A name that differs from another one only in case; queried only if a target requires it.
    pub twin: Option<String>,
    /// Number of files with extended attributes of each kind, with an example; queried only if a target
    /// requires it.
    pub attributes: BTreeMap<AttributeKind, (u64, String)>,
    /// Number of entries: files, directories and others, without sockets.
    pub entries: u64,
    /// Number of regular files.
    pub files: u64,
    /// Total size of the files.
    pub bytes: u64,
    /// Bytes that the files occupy on disk; less than `bytes` if they are sparse.
    pub disk_bytes: u64,
}

/// Facts about the target's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of the probe")]
pub struct TargetFacts {
    /// Type; symbolic links are followed.
    pub path_type: PathType,
    /// Whether other accounts can redirect the copy.
    pub trust: PathTrust,
    /// The directory is writable for us.
    pub writable: bool,
    /// Path with symbolic links resolved.
    pub real: PathBuf,
    /// Device, and path below the root of its file system. Empty if unknown.
    pub place: PathBuf,
    /// The file system is mounted read-only.
    pub read_only: bool,
    /// Data with the final name.
    pub existing: Existing,
    /// User who owns the directory.
    pub owner: String,
    /// Name of an existing entry, where the copy is to fill the directory.
    pub holds: Option<String>,
    /// Something is mounted at the final name or below it.
    pub mounted: bool,
    /// Run that is writing to the final name.
    pub busy: Option<String>,
    /// The file system is case-insensitive.
    pub folds_case: bool,
    /// Kinds of extended attributes that the file system cannot store, as far as this could be tried.
    pub lacks: BTreeSet<AttributeKind>,
    /// Identity of the directory.
    pub id: Option<FileId>,
    /// Requested owners of the copy that are unknown on the host: `user mysql`, `group mysql`.
    pub unknown_owners: Vec<String>,
    /// Bytes on the file system that are free for us.
    pub free_bytes: u64,
    /// Number of free inodes; `None` if the file system has no such limit.
    pub free_inodes: Option<u64>,
}

impl Facts {
    /// Returns the facts about a host itself.
    #[must_use]
    pub fn of_host(host: HostFacts) -> Self {
        let text = |text: &Text| text.to_string();
        let canonical = |(controller, own): (IpAddr, IpAddr)| (controller.to_canonical(), own.to_canonical());
        Self {
            machine: text(&host.machine),
            boot: text(&host.boot),
            machine_id: text(&host.machine_id),
            uid: host.uid,
            ssh: host.ssh.map(canonical),
            cores: host.cores,
            tools: host.tools.iter().map(text).collect(),
            tar: text(&host.tar),
            netcats: host
                .netcats
                .iter()
                .filter_map(|netcat| Netcat::from_help(netcat.program.as_str(), netcat.help.as_str()))
                .collect(),
            addresses: host.addresses,
            firewall: host.firewall,
            clock: host.clock,
            owned_tables: host.owned_tables.iter().map(text).collect(),
            backup_tools: host
                .backup_tools
                .iter()
                .map(|facts::BackupTool { program, version }| (text(program), text(version)))
                .collect(),
            memory: host.memory,
            ..Self::default()
        }
    }

    /// Adds the facts about a source, without its servers.
    pub fn add_source(&mut self, source: path::SourceFacts) {
        self.add_owners(&source.owners);
        self.source = Some(SourceFacts {
            path_type: source.path_type,
            readable: source.readable,
            real: source.real.into(),
            place: source.place.map(PathBuf::from).unwrap_or_default(),
            id: source.id,
            quiesced: source.quiesced.map(|run| run.to_string()),
            archive: source.archive,
            twin: None,
            attributes: BTreeMap::new(),
            entries: source.size.entries,
            files: source.size.files,
            bytes: source.size.bytes,
            disk_bytes: source.size.disk_bytes,
        });
    }

    /// Adds the server behind the socket that is the source, and the size of its files.
    pub(crate) fn add_instance(&mut self, instance: Instance, size: TreeSize) {
        if let Some(source) = &mut self.source {
            (source.entries, source.files) = (size.entries, size.files);
            (source.bytes, source.disk_bytes) = (size.bytes, size.disk_bytes);
        }
        self.instance = Some(instance);
    }

    /// Adds the facts about a target, without its servers.
    pub fn add_target(&mut self, target: path::TargetFacts) {
        let path_type = target.path_type;
        let Some(directory) = target.directory else {
            self.target = Some(TargetFacts { path_type, ..TargetFacts::default() });
            return;
        };
        self.add_owners(&directory.owners);
        self.target = Some(TargetFacts {
            path_type,
            trust: directory.trust,
            writable: directory.writable,
            real: directory.real.into(),
            place: directory.place.map(PathBuf::from).unwrap_or_default(),
            read_only: directory.read_only,
            existing: directory.existing,
            owner: directory.owner.to_string(),
            holds: directory.holds.map(|name| name.to_string()),
            mounted: directory.mounted,
            busy: directory.busy.map(|run| run.to_string()),
            folds_case: directory.folds_case,
            lacks: directory.lacks,
            id: Some(directory.id),
            unknown_owners: directory.unknown_owners.iter().map(ToString::to_string).collect(),
            free_bytes: directory.free_bytes,
            free_inodes: directory.free_inodes,
        });
    }

    fn add_owners(&mut self, owners: &Owners) {
        let named = |owners: &BTreeMap<Text, u32>| {
            owners.iter().map(|(name, number)| (name.to_string(), *number)).collect()
        };
        (self.users, self.groups) = (named(&owners.users), named(&owners.groups));
    }

    /// Returns whether the host has a program.
    #[must_use]
    pub fn has(&self, tool: &str) -> bool {
        self.tools.contains(tool)
    }

    /// Returns whether two answers come from the same machine, even if it was queried under two names.
    #[must_use]
    pub fn same_machine(&self, other: &Self) -> bool {
        !self.machine_id.is_empty() && self.machine_id == other.machine_id && self.boot == other.boot
    }

    /// Returns a netcat that supports all of these addresses, preferably `nc`.
    #[must_use]
    pub fn netcat(&self, addresses: &[IpAddr]) -> Option<&Netcat> {
        self.netcats.iter().find(|netcat| addresses.iter().all(|address| netcat.speaks(*address)))
    }
}
