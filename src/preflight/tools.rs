//! Programs that every host needs.

use super::{Findings, NETCAT};
use crate::host::facts::Facts;
use crate::settings::Settings;
use crate::values::{Compress, FileDigest};

/// Programs that every host needs in addition to a netcat, with their Debian packages.
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
    /// Refuses a host that lacks programs, or has unsupported ones.
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
                &format!("not installed: {}", tools.join(", ")),
                &format!("apt install {}", packages.join(" ")),
            );
        }
        if facts.netcats.is_empty() && facts.has("nc") {
            self.refuse(
                "nc is not a supported netcat (OpenBSD, traditional or ncat)",
                &format!("apt install {NETCAT}"),
            );
        }
        if facts.has("tar") && !facts.tar.contains("GNU tar") {
            self.refuse("tar is not GNU tar", "apt install tar");
        }
        // Older versions would write the key to a temporary file.
        if facts.bash < (5, 1) {
            self.refuse(
                &format!("bash {}.{} is too old", facts.bash.0, facts.bash.1),
                "install bash 5.1 or newer",
            );
        }
        if !facts.syscalls_known {
            self.refuse(
                &format!("CPU architecture {} is not supported", facts.machine),
                "use an x86_64 or aarch64 host",
            );
        }
    }
}
