//! Facts that a run needs about a host before it changes anything. Nothing here changes anything either.

pub(crate) mod addresses;
mod archive;
pub(crate) mod data;
mod decode;
pub(crate) mod installed;
mod owners;
pub(crate) mod source;
pub(crate) mod target;
mod tools;
mod tree;

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::firewall;
use super::holders::HoldersError;
use super::tool::ToolError;
use crate::proto::Text;
use crate::proto::facts::{HostFacts, Transfer};

/// Maximum time for a program that describes itself.
const LIMIT: Duration = Duration::from_secs(20);

/// Error of a question that has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FactsError {
    /// A path cannot be examined.
    #[error("cannot examine {}", path.display())]
    Examine {
        /// Path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The servers of the host cannot be found.
    #[error(transparent)]
    Holders(#[from] HoldersError),
    /// Accounts or units cannot be looked up.
    #[error(transparent)]
    Tool(#[from] ToolError),
}

/// Returns the facts about the host itself. `connection` is sshd's `SSH_CONNECTION`.
pub(crate) fn host(transfer: Transfer, connection: &str) -> HostFacts {
    let layers = firewall::layers();
    let is_backup = transfer != Transfer::Files;
    HostFacts {
        machine: Text::new(rustix::system::uname().machine().to_bytes()),
        boot: content("/proc/sys/kernel/random/boot_id"),
        machine_id: content("/etc/machine-id"),
        uid: rustix::process::geteuid().as_raw(),
        ssh: addresses::ssh(connection),
        cores: cores(),
        memory: available(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        hook_shell: tools::hook_shell(),
        tools: tools::tools(),
        tar: tools::tar(),
        netcats: tools::netcats(),
        addresses: addresses::addresses(),
        firewall: layers.used,
        owned_tables: layers.owned.iter().map(Text::new).collect(),
        backup_tools: if is_backup { tools::backup_tools() } else { Vec::new() },
        // Last: the time that everything else took must not count.
        clock: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
    }
}

/// Returns the message of an error with its causes.
fn explain(error: &dyn std::error::Error) -> Text {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |error| error.source()).map(ToString::to_string) {
        // Some messages have their cause in them.
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    Text::from(text)
}

/// Returns the content of a small file of one line, or an empty text.
fn content(path: &str) -> Text {
    std::fs::read(path).map(Text::new).unwrap_or_default()
}

/// Returns the number of processors that this process may use.
fn cores() -> u32 {
    let set = rustix::thread::sched_getaffinity(None);
    set.map(|set| set.count()).unwrap_or_default().max(1)
}

/// Returns the available memory in bytes.
fn available(meminfo: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or_default().saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_knows_itself() {
        let facts = host(Transfer::Files, "10.0.0.9 5000 10.0.0.1 22");
        assert_eq!(facts.ssh, Some(([10, 0, 0, 9].into(), [10, 0, 0, 1].into())));
        assert_eq!(facts.uid, rustix::process::geteuid().as_raw());
        assert!(facts.cores >= 1 && facts.memory > 1 << 20 && facts.boot.as_str().len() == 36);
        assert!(facts.clock.as_secs() > 1_700_000_000);
        assert!(facts.backup_tools.is_empty());
    }

    #[test]
    fn memory_is_that_which_is_available() {
        assert_eq!(available("MemTotal: 8 kB\nMemAvailable:    5 kB\n"), 5120);
        assert_eq!(available(""), 0);
    }
}
