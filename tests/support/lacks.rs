//! Hosts that lack programs or addresses until the end of a scope.

use super::changes::Changed;
use super::hosts::Host;

impl Changed {
    /// Hides programs of a host.
    #[track_caller]
    pub(crate) fn without(host: &Host, programs: &[&str]) -> Self {
        let each = |script: &str| format!("cd /usr/bin; for p in {}; do {script}; done", programs.join(" "));
        Self::new(host, &each("mv -T $p hidden.$p"), &each("mv -nT hidden.$p $p"))
    }

    /// Removes one of the addresses of a host's only link; ssh uses the other one.
    #[track_caller]
    pub(crate) fn without_address(host: &Host, address: &str) -> Self {
        // Without duplicate address detection.
        let nodad = if address.contains(':') { "nodad" } else { "" };
        let back = format!("ip address add {address} dev e0 {nodad}");
        Self::new(host, &format!("ip address del {address} dev e0"), &back)
    }
}
