//! Locks of ports, names and servers.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::HostBytes;

/// Name in `/tmp` that looks like a lock of transferpy and was ignored, since its owner cannot run transferpy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IgnoredLock {
    /// Path.
    pub path: HostBytes,
    /// Owner.
    pub uid: u32,
}

/// Reasons why no port of a range is free.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortsBusy {
    /// Number of ports that were tried.
    pub tried: u32,
    /// Number of ports on which a process listens.
    pub in_use: u32,
    /// Number of ports that other runs hold.
    pub held: u32,
    /// First lock of transferpy that is in the way.
    pub transferpy: Option<HostBytes>,
}

/// Shows the reasons, with numbers if several ports were tried.
impl fmt::Display for PortsBusy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counted = |count: u32, what: &str| match count {
            0 => None,
            _ if self.tried == 1 => Some(what.to_owned()),
            count => Some(format!("{count} {what}")),
        };
        let transferpy = self.transferpy.as_ref().map(|path| format!("locked by transferpy: {path}"));
        let reasons = [counted(self.in_use, "in use"), counted(self.held, "held by other runs"), transferpy];
        f.write_str(&reasons.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_have_numbers_if_several_ports_were_tried() {
        let one = PortsBusy { tried: 1, in_use: 1, ..PortsBusy::default() };
        assert_eq!(one.to_string(), "in use");
        let many =
            PortsBusy { tried: 5, in_use: 2, held: 1, transferpy: Some("/tmp/trnsfr_a_1.lock".into()) };
        assert_eq!(
            many.to_string(),
            "2 in use, 1 held by other runs, locked by transferpy: /tmp/trnsfr_a_1.lock"
        );
    }
}
