//! What each end must have, whatever is copied.

use super::{Findings, NETCAT};
use crate::host::facts::Facts;
use crate::settings::Settings;
use crate::values::{Compress, FileDigest};

/// Programs that each end needs, besides one of several netcats, and the Debian packages that have them.
pub(super) const TOOLS: [(&str, &str); 11] = [
    ("awk", "mawk"),
    ("find", "findutils"),
    ("flock", "util-linux"),
    ("gzip", "gzip"),
    ("ip", "iproute2"),
    ("md5sum", "coreutils"),
    ("perl", "perl-base"),
    ("sha256sum", "coreutils"),
    ("sort", "coreutils"),
    ("sync", "coreutils"),
    ("tar", "tar"),
];

impl Findings {
    pub(super) fn tools(&mut self, settings: &Settings, facts: &Facts) {
        let mut needed: Vec<(&str, &str)> = TOOLS.to_vec();
        if settings.encrypt {
            needed.push(("openssl", "openssl"));
        }
        if let Compress::With(program) = settings.compress {
            needed.push((program.name(), program.name()));
        }
        if settings.checksum == Some(FileDigest::Blake2b) {
            needed.push((FileDigest::Blake2b.program(), "coreutils"));
        }
        if settings.nice > 0 {
            needed.push(("ionice", "util-linux"));
        }
        if facts.netcats.is_empty() {
            needed.push(("nc", NETCAT));
        }
        let mut missing: Vec<_> = needed.into_iter().filter(|(tool, _)| !facts.has(tool)).collect();
        missing.dedup();
        if !missing.is_empty() {
            let tools: Vec<&str> = missing.iter().map(|(tool, _)| *tool).collect();
            let mut packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
            packages.sort_unstable();
            packages.dedup();
            self.refuse(
                &format!("programs are missing: {}", tools.join(", ")),
                &format!("apt install {}", packages.join(" ")),
            );
        }
        if facts.netcats.is_empty() && facts.has("nc") {
            self.refuse(
                "its nc is neither OpenBSD's netcat nor the traditional one nor ncat",
                &format!("apt install {NETCAT}"),
            );
        }
        if facts.has("tar") && !facts.tar.contains("GNU tar") {
            self.refuse("its tar is not GNU tar", "apt install tar");
        }
        // Before 5.1 the key would pass through a temporary file.
        if facts.bash < (5, 1) {
            self.refuse(
                &format!("its bash is {}.{}", facts.bash.0, facts.bash.1),
                "bash 5.1 or newer is needed",
            );
        }
        if !facts.syscalls_known {
            self.refuse(&format!("its processor ({}) is not known", facts.machine), "x86_64 and aarch64 are");
        }
    }
}
