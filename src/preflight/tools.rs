//! Programs that every host needs.

use super::{Findings, Requirements};
use crate::config::settings::Settings;
use crate::config::values::FileDigest;
use crate::host::facts::Facts;

/// Programs that every host needs with any engine, with their Debian packages.
const TOOLS: [(&str, &str); 7] = [
    ("awk", "mawk"),
    ("find", "findutils"),
    ("flock", "util-linux"),
    ("ip", "iproute2"),
    ("sha256sum", "coreutils"),
    ("sort", "coreutils"),
    ("sync", "coreutils"),
];

impl Findings {
    /// Refuses a host that lacks programs, or has unsupported ones.
    pub(super) fn tools(&mut self, settings: &Settings, requirements: &Requirements, facts: &Facts) {
        let netcat = requirements.netcat.filter(|_| facts.netcats.is_empty());
        let mut needed: Vec<(&str, &str)> = TOOLS.iter().chain(&requirements.programs).copied().collect();
        if settings.checksum == Some(FileDigest::Blake2b) {
            needed.push((FileDigest::Blake2b.program(), "coreutils"));
        }
        if settings.nice > 0 {
            needed.push(("ionice", "util-linux"));
        }
        needed.extend(netcat.map(|package| ("nc", package)));
        let mut missing: Vec<_> = needed.into_iter().filter(|(tool, _)| !facts.has(tool)).collect();
        missing.sort_unstable();
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
        if let Some(package) = netcat.filter(|_| facts.has("nc")) {
            self.refuse(
                "nc is not a supported netcat (OpenBSD, traditional or ncat)",
                &format!("apt install {package}"),
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
