//! Facts about a host. An agent changes nothing to find them.

pub mod path;
pub mod server;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Text;
use super::bounded::at_most;
use super::journal::{Family, Layer};

/// Maximum number of addresses of a host.
pub const MOST_ADDRESSES: usize = 64;
/// Maximum number of facts of one kind, such as netcats, firewall layers and tables.
pub const MOST_OF_A_KIND: usize = 16;
/// Maximum number of programs.
pub const MOST_TOOLS: usize = 64;

/// Kind of a transfer, as far as it decides which facts matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transfer {
    /// Files and directories.
    Files,
    /// Backup of a running server.
    Backup,
    /// Archive that is unpacked on the targets.
    Decompress,
    /// Files that become an archive on the targets.
    Compress,
}

/// Facts about a host itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// Processor architecture, as `uname -m` names it.
    pub machine: Text,
    /// Boot ID, a UUID of the kernel.
    pub boot: Text,
    /// Contents of `/etc/machine-id`, or empty.
    pub machine_id: Text,
    /// User ID of the agent.
    pub uid: u32,
    /// Addresses of the SSH connection as the host sees them: the controller's and the host's own.
    pub ssh: Option<(IpAddr, IpAddr)>,
    /// Number of processors that the agent may use.
    pub cores: u32,
    /// Available memory in bytes.
    pub memory: u64,
    /// Shell that runs hooks.
    pub hook_shell: HookShell,
    /// Installed programs, of those that a run may need.
    #[serde(deserialize_with = "at_most::<MOST_TOOLS, _, _>")]
    pub tools: BTreeSet<Text>,
    /// First line of `tar --version`, or empty.
    pub tar: Text,
    /// Installed netcats; the one called `nc` comes first.
    #[serde(deserialize_with = "at_most::<MOST_OF_A_KIND, _, _>")]
    pub netcats: Vec<NetcatHelp>,
    /// Addresses at which the host may be reached.
    #[serde(deserialize_with = "at_most::<MOST_ADDRESSES, _, _>")]
    pub addresses: Vec<IpAddr>,
    /// Firewall layers that filter incoming packets, and of which address family.
    #[serde(deserialize_with = "at_most::<MOST_OF_A_KIND, _, _>")]
    pub firewall: Vec<(Layer, Family)>,
    /// Tables of nftables, such as `inet site`, that filter incoming packets and that only their owner
    /// process can change.
    #[serde(deserialize_with = "at_most::<MOST_OF_A_KIND, _, _>")]
    pub owned_tables: Vec<Text>,
    /// Hot backup programs and the line of their output that names the version; asked only for a backup.
    #[serde(deserialize_with = "at_most::<MOST_OF_A_KIND, _, _>")]
    pub backup_tools: Vec<BackupTool>,
    /// Time of the host's clock since the epoch, taken last.
    pub clock: Duration,
}

/// Shell that runs hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookShell {
    /// bash.
    Bash,
    /// The POSIX shell.
    Sh,
}

impl HookShell {
    /// Returns the name of the program.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Sh => "sh",
        }
    }
}

/// Netcat of a host. The controller decides which variant it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetcatHelp {
    /// Name of the program.
    pub program: Text,
    /// First line of its help.
    pub help: Text,
}

/// Hot backup program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupTool {
    /// Name of the program.
    pub program: Text,
    /// Line of its output that names the version.
    pub version: Text,
}

/// Way from a host to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Address.
    pub address: IpAddr,
    /// Address of the host from which it would connect; `None` without a route.
    pub source: Option<IpAddr>,
    /// The address is the host's own.
    pub own: bool,
}

/// Number and size of the entries of a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeSize {
    /// Number of entries: files, directories and others, without sockets.
    pub entries: u64,
    /// Number of regular files.
    pub files: u64,
    /// Total size of the files in bytes.
    pub bytes: u64,
    /// Bytes that the entries occupy on disk. Files with several names count once.
    pub disk_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> HostFacts {
        HostFacts {
            machine: Text::new("x86_64"),
            boot: Text::new("b-1"),
            machine_id: Text::new("m-1"),
            uid: 0,
            ssh: Some(([10, 0, 0, 9].into(), [10, 0, 0, 1].into())),
            cores: 8,
            memory: 1 << 30,
            hook_shell: HookShell::Bash,
            tools: BTreeSet::new(),
            tar: Text::new("tar (GNU tar) 1.34"),
            netcats: Vec::new(),
            addresses: Vec::new(),
            firewall: vec![(Layer::Nftables, Family::V4)],
            owned_tables: Vec::new(),
            backup_tools: Vec::new(),
            clock: Duration::from_micros(1_700_000_000_000_001),
        }
    }

    #[test]
    fn hostile_counts_and_texts_are_bounded() {
        let long = "x".repeat(2000);
        let many: Vec<u16> = (0..300).collect();
        let sent = HostFacts {
            tools: many.iter().map(|n| Text::new(format!("tool{n}"))).collect(),
            netcats: many
                .iter()
                .map(|_| NetcatHelp { program: Text::new("nc"), help: Text::new("") })
                .collect(),
            addresses: many.iter().map(|n| IpAddr::from([10, 0, 0, n.to_be_bytes()[1]])).collect(),
            owned_tables: many.iter().map(|_| Text::new(&long)).collect(),
            ..facts()
        };
        let got: HostFacts = postcard::from_bytes(&postcard::to_stdvec(&sent).unwrap()).unwrap();
        assert_eq!(
            [got.tools.len(), got.netcats.len(), got.addresses.len(), got.owned_tables.len()],
            [MOST_TOOLS, MOST_OF_A_KIND, MOST_ADDRESSES, MOST_OF_A_KIND]
        );
        assert!(got.owned_tables[0].as_str().len() < 600);
    }

    #[test]
    fn facts_survive_the_encoding() {
        let got: HostFacts = postcard::from_bytes(&postcard::to_stdvec(&facts()).unwrap()).unwrap();
        assert_eq!(got, facts());
    }
}
