//! What a host is and has, as one probe of it tells: nothing on it is changed to learn this.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use super::netcat::Netcat;
use super::wire::{Field, printable};

/// Everything a run must know about a host before it changes anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// As the guard's protocol calls it.
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
    /// Files, directories and all else, sockets aside.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// The sizes of the files, added up.
    pub bytes: u64,
    /// What they take on the disk, in bytes; less than `bytes` where they are sparse.
    pub disk_bytes: u64,
}

/// The target's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetFacts {
    /// As `stat` calls it.
    pub file_type: String,
    /// We may write into it.
    pub writable: bool,
    /// Where it really is, symbolic links resolved.
    pub real: PathBuf,
    /// Something has the final name already.
    pub exists: bool,
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
            let (Some(key), rest) = (message.first(), message.get(1..).unwrap_or_default()) else { continue };
            let text = |index: usize| rest.get(index).map(|field| printable(field)).unwrap_or_default();
            let number = |index: usize| text(index).parse::<u64>().unwrap_or_default();
            let small = |index: usize| text(index).parse::<u32>().unwrap_or_default();
            let path = |index: usize| {
                use std::os::unix::ffi::OsStringExt as _;
                PathBuf::from(std::ffi::OsString::from_vec(rest.get(index).cloned().unwrap_or_default()))
            };
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
                b"tools" => facts.tools = rest.iter().map(|field| printable(field)).collect(),
                b"tar" => facts.tar = text(0),
                b"netcat" => facts.netcats.extend(Netcat::from_help(&text(0), &text(1))),
                b"addresses" => {
                    facts.addresses = rest.iter().filter_map(|field| printable(field).parse().ok()).collect();
                }
                b"firewall" => {
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
                b"source_real" => facts.source.get_or_insert_default().real = path(0),
                b"source_type" => facts.source.get_or_insert_default().file_type = text(0),
                b"source_readable" => facts.source.get_or_insert_default().readable = true,
                b"source_size" => {
                    let source = facts.source.get_or_insert_default();
                    (source.entries, source.files) = (number(0), number(1));
                    (source.bytes, source.disk_bytes) = (number(2), number(3));
                }
                b"target_type" => facts.target.get_or_insert_default().file_type = text(0),
                b"target_real" => facts.target.get_or_insert_default().real = path(0),
                b"target_writable" => facts.target.get_or_insert_default().writable = true,
                b"target_exists" => facts.target.get_or_insert_default().exists = true,
                b"target_free" => {
                    let target = facts.target.get_or_insert_default();
                    target.free_bytes = number(0).saturating_mul(number(1));
                    target.free_inodes = (number(3) > 0).then(|| number(2));
                }
                _ => {}
            }
        }
        facts
    }

    /// The host has that program.
    #[must_use]
    pub fn has(&self, tool: &str) -> bool {
        self.tools.contains(tool)
    }

    /// The netcat to be used with all of these addresses: its `nc` where that will do.
    #[must_use]
    pub fn netcat(&self, addresses: &[IpAddr]) -> Option<&Netcat> {
        self.netcats.iter().find(|netcat| addresses.iter().all(|address| netcat.speaks(*address)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::wire::decode;

    #[test]
    fn an_answer_is_read_and_rubbish_is_not() {
        let answer = "Last login: yesterday\nhost\tx86_64\tb-1\tm-1\nuser\t0\nssh\t10.0.0.9\t5\t10.0.0.1\t22\n\
                      cores\t8\ntools\ttar\tnc\nfirewall\tnftables\t4\nfirewall\tpf\t4\nsource_size\t3\t2\t100\t4096\n\
                      target_free\t10\t4096\t5\t100\text2/ext3\nnetcat\tnc\t[v1.10-47]\n\
                      netcat\tnc.odd\twho knows\nnetcat\tncat\tNcat 7.93\naddresses\t10.0.0.1\tfd77::1\tx\nend";
        let messages: Vec<_> = answer.lines().map(|line| decode(line.as_bytes())).collect();
        let facts = Facts::parse(&messages);
        assert_eq!(facts.machine, "x86_64");
        assert_eq!(facts.ssh.unwrap().1.to_string(), "10.0.0.1");
        assert_eq!(facts.firewall, [(Layer::Nftables, 4)]);
        assert_eq!(facts.source.as_ref().unwrap().disk_bytes, 4096);
        assert_eq!(facts.target.as_ref().unwrap().free_bytes, 40960);
        assert!(facts.has("tar") && !facts.has("zstd"));
        assert_eq!(facts.netcats.len(), 2);
        assert_eq!(facts.netcat(&facts.addresses[..1]).unwrap().program, "nc");
        assert_eq!(facts.netcat(&facts.addresses).unwrap().program, "ncat", "the other one knows no IPv6");
    }
}
