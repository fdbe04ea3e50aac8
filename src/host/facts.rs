//! What a host is and has, as one probe of it tells: nothing on it is changed to learn this.

mod installed;
mod servers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

pub use installed::{Installed, Upstream};
pub use servers::{Archive, Connection, Content, Format, Instance, OtherServer, Relation, Server};

use super::netcat::Netcat;
use super::wire::{Field, LONGEST_TEXT, short};
use crate::values::AttributeKind;

/// File systems that take names of other case for the same, as `stat -f` calls them.
const FOLDING: [&str; 9] = ["msdos", "vfat", "exfat", "ntfs", "ntfs3", "cifs", "smb2", "hfs", "hfsplus"];

/// How many addresses of a host are looked at.
const MOST_ADDRESSES: usize = 64;
/// How many of its netcats, and of its firewall's layers and tables.
const MOST_OF_A_KIND: usize = 16;
/// How many programs of those that may be needed.
const MOST_TOOLS: usize = 64;
/// How many accounts, and how many groups; the probe tells no more.
const MOST_OWNERS: usize = 1000;
/// The seconds of a clock that somebody may have set: the year 5138.
const LATEST: f64 = 1e11;

/// Everything a run must know about a host before it changes anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Its processor, as `uname -m` tells.
    pub machine: String,
    /// The boot, a UUID of the kernel.
    pub boot: String,
    /// `/etc/machine-id`, empty where there is none.
    pub machine_id: String,
    /// The user id that we are there.
    pub uid: u32,
    /// The controller's address, and the host's own that it reached, as the host saw the SSH connection.
    pub ssh: Option<(IpAddr, IpAddr)>,
    /// Processors.
    pub cores: u32,
    /// The version of bash, major and minor.
    pub bash: (u32, u32),
    /// The numbers of the system calls that we need are known for this processor.
    pub syscalls_known: bool,
    /// Programs that were found, of those that may be needed.
    pub tools: BTreeSet<String>,
    /// The first line of `tar --version`.
    pub tar: String,
    /// Its netcats, of those that we know; the one that it calls `nc` is the first.
    pub netcats: Vec<Netcat>,
    /// Its addresses that others may reach it by, IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
    /// Firewall layers that see incoming packets, with their address family (4 or 6).
    pub firewall: Vec<(Layer, u8)>,
    /// Accounts of the host with their numbers: on a source those who own something of it, on a target all.
    pub users: BTreeMap<String, u32>,
    /// Groups, likewise.
    pub groups: BTreeMap<String, u32>,
    /// Seconds of its clock when it answered, since the epoch.
    pub clock: Option<f64>,
    /// Tables of nftables, such as `inet site`, that filter incoming packets and that only the process which made them
    /// may change.
    pub owned_tables: Vec<String>,
    /// Programs that copy running servers, with what they tell of their versions.
    pub backup_tools: Vec<(String, String)>,
    /// Bytes of memory that are available.
    pub memory: u64,
    /// Servers that run there and work on what the path is about.
    pub servers: Vec<Server>,
    /// Those that ordinary accounts run by themselves there.
    pub other_servers: Vec<OtherServer>,
    /// The server behind the socket that is the source.
    pub instance: Option<Instance>,
    /// The server that is meant where none was named, if that was asked for.
    pub installed: Option<Installed>,
    /// What the path is, on a source.
    pub source: Option<SourceFacts>,
    /// What the directory is, on a target.
    pub target: Option<TargetFacts>,
}

/// One way in which a packet can be refused; each that is in use must be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// Base chains of nftables, those that iptables-nft made included.
    Nftables,
    /// The chains that iptables-nft made, through iptables.
    IptablesNft,
    /// The kernel's old tables.
    IptablesLegacy,
}

impl Layer {
    /// As the agent's protocol calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
        }
    }
}

/// The source's path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFacts {
    /// As `stat` calls it: `directory`, `regular file`, `missing`, …
    pub file_type: String,
    /// We may read it.
    pub readable: bool,
    /// Where it really is, symbolic links resolved.
    pub real: PathBuf,
    /// Where that is in its file system, the same through every bind mount: the device and the path below its root.
    pub place: PathBuf,
    /// Which file it is: device and inode.
    pub inode: String,
    /// Who makes a server rest whose data it is.
    pub rests: Option<String>,
    /// What is in it, if it is an archive that is asked for.
    pub archive: Option<Archive>,
    /// One of its names that differs from another only in case; asked for where a target needs it.
    pub twin: Option<String>,
    /// How many of its files have extended attributes of each kind, with an example; asked for where a target needs it.
    pub attributes: BTreeMap<AttributeKind, (u64, String)>,
    /// Files, directories and all else, sockets aside.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// The sizes of the files, added up.
    pub bytes: u64,
    /// What they take on the disk, in bytes; less than `bytes` where they are sparse.
    pub disk_bytes: u64,
}

/// A component of a path that an account other than root and the login can replace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shared {
    /// The component, a path.
    pub component: String,
    /// The account that it belongs to.
    pub owner: String,
    /// Its mode, octal.
    pub mode: String,
}

/// The target's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "what was found, each once")]
pub struct TargetFacts {
    /// Whoever owns this can have the copy arrive elsewhere.
    pub shared: Option<Shared>,
    /// As `stat` calls it.
    pub file_type: String,
    /// We may write into it.
    pub writable: bool,
    /// Where it really is, symbolic links resolved.
    pub real: PathBuf,
    /// Where that is in its file system, as of a source.
    pub place: PathBuf,
    /// Its file system is mounted for reading only.
    pub read_only: bool,
    /// Device and inode of what has the final name already.
    pub exists: Option<String>,
    /// The user whose directory it is.
    pub owner: String,
    /// Something that is in the directory already, where the copy is to fill it.
    pub holds: Option<String>,
    /// Something is mounted at that name or below it.
    pub mounted: bool,
    /// Who writes to that name at the moment.
    pub busy: Option<String>,
    /// Its names that differ only in case are one.
    pub folds_case: bool,
    /// Kinds of extended attributes that its file system cannot hold, as far as that could be tried.
    pub lacks: BTreeSet<AttributeKind>,
    /// Its file system's device, to tell whether two directories share one.
    pub device: String,
    /// Of the owner that the copy is to get, what the host does not know: `user mysql`, `group mysql`.
    pub unknown_owners: Vec<String>,
    /// Bytes free for us on its file system.
    pub free_bytes: u64,
    /// Files that may still be made there; `None` where the file system has no such limit.
    pub free_inodes: Option<u64>,
}

impl Facts {
    /// Reads the probe's answer. A line that we do not know, or whose fields are wrong, is not there.
    #[must_use]
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

    /// What is told of servers.
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
                    error: text(4),
                }));
            }
            b"other_server" if self.other_servers.len() < MOST_OF_A_KIND => {
                self.other_servers.push(OtherServer { datadir: fields.path(1), account: text(2) });
            }
            b"instance" | b"instance_error" if self.installed.is_some() => {
                let installed = self.installed.get_or_insert_default();
                match key {
                    b"instance" => installed.instance.add_variable(text(0), text(1)),
                    _ => installed.instance.error = Some(text(0)),
                }
            }
            b"instance" => self.instance.get_or_insert_default().add_variable(text(0), text(1)),
            b"instance_error" => self.instance.get_or_insert_default().error = Some(text(0)),
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

    /// The host has that program.
    #[must_use]
    pub fn has(&self, tool: &str) -> bool {
        self.tools.contains(tool)
    }

    /// Two answers of one host, under whatever names it was asked.
    #[must_use]
    pub fn same_machine(&self, other: &Self) -> bool {
        !self.machine_id.is_empty() && self.machine_id == other.machine_id && self.boot == other.boot
    }

    /// The netcat to be used with all of these addresses: its `nc` where that will do.
    #[must_use]
    pub fn netcat(&self, addresses: &[IpAddr]) -> Option<&Netcat> {
        self.netcats.iter().find(|netcat| addresses.iter().all(|address| netcat.speaks(*address)))
    }
}

/// The fields of one line of the answer.
#[derive(Clone, Copy)]
struct Fields<'a>(&'a [Field]);

impl Fields<'_> {
    /// As it may be shown, and not too long; empty where there is none.
    fn text(self, index: usize) -> String {
        self.0.get(index).map(|field| short(field, LONGEST_TEXT)).unwrap_or_default()
    }

    fn number(self, index: usize) -> u64 {
        self.text(index).parse().unwrap_or_default()
    }

    /// Any bytes.
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
    fn a_hostile_probe_fills_neither_the_memory_nor_the_screen() {
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
    fn an_answer_is_read_and_rubbish_is_not() {
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
