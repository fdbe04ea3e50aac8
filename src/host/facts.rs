//! Facts about a host, as reported by one read-only probe.

mod installed;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

pub use crate::mariadb::facts::{Connection, Instance, OtherServer, Relation, Server};
pub use installed::{Installed, Upstream};

pub use crate::proto::journal::Layer;

use super::wire::{Field, LONGEST_TEXT, message, short};
use crate::base::archive::Archive;
use crate::config::values::AttributeKind;
use crate::engine::netcat::variant::Netcat;

/// Case-insensitive file systems, by their names in `stat -f`.
const FOLDING: [&str; 9] = ["msdos", "vfat", "exfat", "ntfs", "ntfs3", "cifs", "smb2", "hfs", "hfsplus"];

/// Maximum number of addresses of a host.
const MOST_ADDRESSES: usize = 64;
/// Maximum number of facts of one kind, such as netcats, firewall layers and tables.
const MOST_OF_A_KIND: usize = 16;
/// Maximum number of programs.
const MOST_TOOLS: usize = 64;
/// Maximum number of accounts and of groups; the probe reports no more.
const MOST_OWNERS: usize = 1000;
/// Latest plausible time of a clock, in seconds since the epoch: the year 5138.
const LATEST: f64 = 1e11;

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
    /// Version of bash, major and minor.
    pub bash: (u32, u32),
    /// The system call numbers that we need are known for this architecture.
    pub syscalls_known: bool,
    /// Installed programs, of those that a run may need.
    pub tools: BTreeSet<String>,
    /// First line of `tar --version`.
    pub tar: String,
    /// Supported netcats; the one called `nc` comes first.
    pub netcats: Vec<Netcat>,
    /// Addresses at which the host may be reached, IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
    /// Firewall layers that filter incoming packets, with their address family (4 or 6).
    pub firewall: Vec<(Layer, u8)>,
    /// User IDs by name: on a source the owners of the files, on a target all accounts.
    pub users: BTreeMap<String, u32>,
    /// Group IDs by name, likewise.
    pub groups: BTreeMap<String, u32>,
    /// Time of the host's clock when it answered, in seconds since the epoch.
    pub clock: Option<f64>,
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
    /// File type as named by `stat`: `directory`, `regular file`, `missing`, …
    pub file_type: String,
    /// The path is readable for us.
    pub readable: bool,
    /// Path with symbolic links resolved.
    pub real: PathBuf,
    /// Device, and path below the root of its file system: the same through every bind mount.
    pub place: PathBuf,
    /// Device and inode.
    pub inode: String,
    /// Run that has quiesced a server with this data.
    pub rests: Option<String>,
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

/// Component of a path that an account other than root and our login can replace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// Path of the component.
    pub component: String,
    /// Owner.
    pub owner: String,
    /// Mode, octal.
    pub mode: String,
}

/// Facts about the target's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of the probe")]
pub struct TargetFacts {
    /// Component of the path whose owner could redirect the copy.
    pub shared: Option<Shared>,
    /// File type as named by `stat`.
    pub file_type: String,
    /// The directory is writable for us.
    pub writable: bool,
    /// Path with symbolic links resolved.
    pub real: PathBuf,
    /// Device, and path below the root of its file system.
    pub place: PathBuf,
    /// The file system is mounted read-only.
    pub read_only: bool,
    /// Device and inode of the existing file or directory with the final name.
    pub exists: Option<String>,
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
    /// Device of the file system, to find directories that share one.
    pub device: String,
    /// Requested owners of the copy that are unknown on the host: `user mysql`, `group mysql`.
    pub unknown_owners: Vec<String>,
    /// Bytes on the file system that are free for us.
    pub free_bytes: u64,
    /// Number of free inodes; `None` if the file system has no such limit.
    pub free_inodes: Option<u64>,
}

impl Facts {
    /// Parses the probe's answer. Unknown and malformed lines are ignored.
    #[must_use]
    #[expect(clippy::too_many_lines, reason = "one arm for each fact")]
    pub fn parse(messages: &[Vec<Field>]) -> Self {
        let mut facts = Self::default();
        for message in messages {
            let Some(key) = message.first() else { continue };
            let fields = Fields(message.get(1..).unwrap_or_default());
            let text = |index: usize| fields.text(index);
            let small = |index: usize| text(index).parse::<u32>().unwrap_or_default();
            match key.as_slice() {
                b"host" => {
                    (facts.machine, facts.boot, facts.machine_id) = (text(0), text(1), text(2));
                }
                b"user" => facts.uid = text(0).parse().unwrap_or(u32::MAX),
                b"ssh" => {
                    facts.ssh = text(0)
                        .parse()
                        .ok()
                        .zip(text(2).parse().ok())
                        .map(|(a, b): (IpAddr, IpAddr)| (a.to_canonical(), b.to_canonical()));
                }
                b"cores" => facts.cores = small(0),
                b"bash" => facts.bash = (small(0), small(1)),
                b"syscalls" => facts.syscalls_known = true,
                b"tools" => facts.tools = fields.all().take(MOST_TOOLS).collect(),
                b"tar" => facts.tar = text(0),
                b"netcat" if facts.netcats.len() < MOST_OF_A_KIND => {
                    facts.netcats.extend(Netcat::from_help(&text(0), &text(1)));
                }
                b"addresses" => {
                    let addresses = fields.all().filter_map(|address| address.parse().ok());
                    facts.addresses = addresses.take(MOST_ADDRESSES).collect();
                }
                b"firewall" if facts.firewall.len() < MOST_OF_A_KIND => {
                    let layer = [Layer::Nftables, Layer::IptablesNft, Layer::IptablesLegacy]
                        .into_iter()
                        .find(|layer| layer.name() == text(0));
                    let family = match text(1).as_str() {
                        "4" => Some(4),
                        "6" => Some(6),
                        _ => None,
                    };
                    facts.firewall.extend(layer.zip(family));
                }
                b"firewall_owned" if facts.owned_tables.len() < MOST_OF_A_KIND => {
                    facts.owned_tables.push(text(0));
                }
                b"owner" => {
                    let list = if text(0) == "user" { &mut facts.users } else { &mut facts.groups };
                    if list.len() < MOST_OWNERS {
                        list.extend(text(2).parse().ok().map(|number| (text(1), number)));
                    }
                }
                b"clock" => {
                    facts.clock = text(0).parse().ok().filter(|seconds| (0.0..LATEST).contains(seconds));
                }
                key if key.starts_with(b"source_") => {
                    facts.source.get_or_insert_default().take(&key[b"source_".len()..], fields);
                }
                key if key.starts_with(b"target_") => {
                    facts.target.get_or_insert_default().take(&key[b"target_".len()..], fields);
                }
                key => facts.take_servers(key, fields),
            }
        }
        facts
    }

    /// Parses one line about servers.
    fn take_servers(&mut self, key: &[u8], fields: Fields<'_>) {
        let text = |index: usize| fields.text(index);
        match key {
            b"backup_tool" if self.backup_tools.len() < MOST_OF_A_KIND => {
                self.backup_tools.push((text(0), text(1)));
            }
            b"memory" => self.memory = fields.number(0),
            b"server" if self.servers.len() < MOST_OF_A_KIND => {
                self.servers.extend(Relation::parse(&text(0)).map(|relation| Server {
                    relation,
                    datadir: fields.path(1),
                    unit: text(2),
                    socket: text(3),
                    error: fields.message(4),
                }));
            }
            b"other_server" if self.other_servers.len() < MOST_OF_A_KIND => {
                self.other_servers.push(OtherServer { datadir: fields.path(1), account: text(2) });
            }
            b"instance" | b"instance_error" if self.installed.is_some() => {
                let installed = self.installed.get_or_insert_default();
                match key {
                    b"instance" => installed.instance.add_variable(text(0), text(1)),
                    _ => installed.instance.error = Some(fields.message(0)),
                }
            }
            b"instance" => self.instance.get_or_insert_default().add_variable(text(0), text(1)),
            b"instance_error" => self.instance.get_or_insert_default().error = Some(fields.message(0)),
            b"instance_owner" => self.instance.get_or_insert_default().owner = text(0),
            b"connection" => {
                let connection = Connection { name: text(0), io: text(1) == "yes", sql: text(2) == "yes" };
                self.instance.get_or_insert_default().add_connection(connection);
            }
            b"archive" => {
                let archive = Archive::parse(&text(0), &text(1), &text(2), &text(3));
                self.source.get_or_insert_default().archive = Some(archive);
            }
            b"configured" | b"upstream" | b"downstream" | b"database" | b"client" | b"written" | b"stale" => {
                self.installed.get_or_insert_default().take(key, fields);
            }
            key if key.starts_with(b"installed") => self.installed.get_or_insert_default().take(key, fields),
            _ => {}
        }
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

/// Fields of one line of the answer.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [Field]);

impl Fields<'_> {
    /// Returns a name in a form that can be shown; empty if the field is missing.
    fn text(self, index: usize) -> String {
        self.0.get(index).map(|field| short(field, LONGEST_TEXT)).unwrap_or_default()
    }

    /// Returns the output of a program in a form that can be shown; empty if the field is missing.
    fn message(self, index: usize) -> String {
        self.0.get(index).map(|field| message(field, LONGEST_TEXT)).unwrap_or_default()
    }

    fn number(self, index: usize) -> u64 {
        self.text(index).parse().unwrap_or_default()
    }

    /// Returns a path, which may be any bytes.
    fn path(self, index: usize) -> PathBuf {
        use std::os::unix::ffi::OsStringExt as _;
        PathBuf::from(std::ffi::OsString::from_vec(self.0.get(index).cloned().unwrap_or_default()))
    }

    fn all(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|field| short(field, LONGEST_TEXT))
    }
}

impl SourceFacts {
    fn take(&mut self, key: &[u8], fields: Fields<'_>) {
        match key {
            b"real" => self.real = fields.path(0),
            b"place" => self.place = fields.path(0),
            b"type" => self.file_type = fields.text(0),
            b"inode" => self.inode = fields.text(0),
            b"readable" => self.readable = true,
            b"rests" => self.rests = Some(fields.text(0)),
            b"size" => {
                (self.entries, self.files) = (fields.number(0), fields.number(1));
                (self.bytes, self.disk_bytes) = (fields.number(2), fields.number(3));
            }
            _ => {}
        }
    }
}

impl TargetFacts {
    fn take(&mut self, key: &[u8], fields: Fields<'_>) {
        let text = |index: usize| fields.text(index);
        match key {
            b"type" => self.file_type = text(0),
            b"real" => self.real = fields.path(0),
            b"place" => self.place = fields.path(0),
            b"shared" => {
                self.shared = Some(Shared { component: text(0), owner: text(1), mode: text(2) });
            }
            b"writable" => self.writable = true,
            b"readonly" => self.read_only = true,
            b"exists" => self.exists = Some(text(0)),
            b"owner" => self.owner = text(0),
            b"holds" => self.holds = Some(text(0)).filter(|name| !name.is_empty()),
            b"mounted" => self.mounted = true,
            b"busy" => self.busy = Some(text(0)),
            b"folds_case" => self.folds_case = true,
            b"unknown_owner" if self.unknown_owners.len() < MOST_OF_A_KIND => {
                self.unknown_owners.push(format!("{} {}", text(0), text(1)));
            }
            b"lacks" => {
                self.lacks = fields.all().filter_map(|kind| AttributeKind::of_name(&kind)).collect();
            }
            b"device" => self.device = text(0),
            b"free" => {
                self.free_bytes = fields.number(0).saturating_mul(fields.number(1));
                self.free_inodes = (fields.number(3) > 0).then(|| fields.number(2));
                self.folds_case |= FOLDING.contains(&text(4).as_str());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::wire::decode;

    #[test]
    fn hostile_probe_fills_neither_the_memory_nor_the_screen() {
        let long = "x".repeat(60_000);
        let mut messages = Vec::new();
        for n in 0..3000 {
            for line in [
                format!("netcat\t{long}\tNcat 7.93"),
                format!("firewall_owned\tinet {n}"),
                "firewall\tnftables\t4".into(),
                format!("owner\tuser\tuser{n}\t{n}"),
                format!("target_unknown_owner\tuser\t{n}"),
                format!("tools\t{}", "tar\t".repeat(1000)),
                format!("target_busy\t{long}"),
            ] {
                messages.push(decode(line.as_bytes()));
            }
        }
        let facts = Facts::parse(&messages);
        let target = facts.target.unwrap();
        let lists = [
            facts.netcats.len(),
            facts.owned_tables.len(),
            facts.firewall.len(),
            target.unknown_owners.len(),
        ];
        assert_eq!(lists, [MOST_OF_A_KIND; 4]);
        assert_eq!(facts.users.len(), MOST_OWNERS);
        assert!(facts.netcats[0].program.len() + target.busy.unwrap().len() < 3 * LONGEST_TEXT);
        for clock in ["NaN", "inf", "-1", "1e300"] {
            assert_eq!(Facts::parse(&[decode(format!("clock\t{clock}").as_bytes())]).clock, None, "{clock}");
        }
    }

    #[test]
    fn known_lines_are_parsed_and_others_ignored() {
        let answer = "Last login: yesterday\nhost\tx86_64\tb-1\tm-1\nuser\t0\nssh\t10.0.0.9\t5\t10.0.0.1\t22\n\
                      cores\t8\ntools\ttar\tnc\nfirewall\tnftables\t4\nfirewall\tpf\t4\nfirewall_owned\tinet site\nsource_size\t3\t2\t100\t4096\n\
                      target_free\t10\t4096\t5\t100\text2/ext3\nnetcat\tnc\t[v1.10-47]\n\
                      netcat\tnc.odd\twho knows\nnetcat\tncat\tNcat 7.93\naddresses\t10.0.0.1\tfd77::1\tx\nend";
        let messages: Vec<_> = answer.lines().map(|line| decode(line.as_bytes())).collect();
        let facts = Facts::parse(&messages);
        assert_eq!(facts.machine, "x86_64");
        assert_eq!(facts.ssh.unwrap().1.to_string(), "10.0.0.1");
        assert_eq!(facts.firewall, [(Layer::Nftables, 4)]);
        assert_eq!(facts.owned_tables, ["inet site"]);
        assert_eq!(facts.source.as_ref().unwrap().disk_bytes, 4096);
        assert_eq!(facts.target.as_ref().unwrap().free_bytes, 40960);
        assert!(facts.has("tar") && !facts.has("zstd"));
        assert_eq!(facts.netcats.len(), 2);
        assert_eq!(facts.netcat(&facts.addresses[..1]).unwrap().program, "nc");
        assert_eq!(facts.netcat(&facts.addresses).unwrap().program, "ncat", "the other one knows no IPv6");
    }
}
