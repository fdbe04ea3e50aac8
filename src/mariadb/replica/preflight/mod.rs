//! Preflight checks of `transfer replica`. Pure.

mod reached;
mod source;
mod target;

use super::refusal;
use super::whom::{Asked, AskedHost, Whom};
use crate::base::printable::printable;
use crate::host::facts::Installed;
use crate::preflight::{Finding, Findings, Weight};

impl Asked<'_> {
    /// Checks the servers of all hosts.
    pub(super) fn servers(&self) -> Vec<Finding> {
        let mut found = self.source_server(&self.donor);
        if self.donor.name != self.primary.name {
            found.extend(self.source_server(&self.primary));
        }
        if found.iter().any(|finding| finding.weight == Weight::Refusal) {
            return found;
        }
        // Otherwise they read the binary log of an upstream that was not probed.
        if !self.beside() || self.order.from.is_some() {
            found.extend(self.binary_log());
        }
        if let Some(upstream) = self.upstream().filter(|_| self.beside()) {
            found.extend(self.replication_of_donor(upstream));
        }
        for (index, target) in self.targets.iter().enumerate() {
            found.extend(self.target(target, &self.targets[..index]));
        }
        found
    }

    /// Refuses `--create-account` on an upstream that is not a host of the command.
    pub(super) fn cannot_create(&self, whom: &Whom) -> Finding {
        let donor = &self.donor.name;
        refusal(
            donor,
            &format!("it replicates from {}, which was not given: cannot create an account there", whom.name),
            &format!("run: transfer replica PRIMARY TARGET --from {donor} --create-account"),
        )
    }

    /// Refuses to send the credentials of `--account` to a host that only the donor named.
    pub(super) fn account_for_unnamed(&self, whom: &Whom) -> Finding {
        let donor = &self.donor.name;
        refusal(
            donor,
            &format!(
                "it replicates from {}, which was not given: --account is used only for hosts that are",
                printable(whom.name.as_bytes())
            ),
            &format!("give the primary: transfer replica PRIMARY TARGET --from {donor}"),
        )
    }

    /// Reports that no replication account is known.
    pub(super) fn no_account(&self) -> Finding {
        refusal(
            &self.primary.name,
            "no replication account is known for the new replicas",
            "use --create-account or --account FILE",
        )
    }
}

/// Refuses a host with several servers of which none was chosen. Returns whether it is one.
fn has_several(host: &AskedHost, findings: &mut Findings) -> bool {
    let server = host.server();
    let has_several = server.unit.is_empty() && server.running.len() > 1;
    if has_several {
        findings.refuse(
            &format!("{} servers are running: {}", server.running.len(), server.running.join(", ")),
            "choose one with --unit",
        );
    }
    has_several
}

fn shown(server: &Installed) -> String {
    printable(server.datadir.as_os_str().as_encoded_bytes())
}
