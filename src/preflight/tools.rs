//! Programs that every host needs.

use super::{Findings, Requirements};
use crate::config::settings::Settings;
use crate::host::facts::Facts;

impl Findings {
    /// Refuses a host that lacks programs, or has unsupported ones.
    pub(super) fn tools(&mut self, settings: &Settings, requirements: &Requirements, facts: &Facts) {
        let netcat = requirements.netcat.filter(|_| facts.netcats.is_empty());
        let mut needed: Vec<(&str, &str)> = requirements.programs.clone();
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
    }
}
