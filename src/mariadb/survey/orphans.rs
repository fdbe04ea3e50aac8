//! Orphaned runs that have left provisional data.

use super::MOST;
use crate::proto::journal::Undo;
use crate::proto::status::{Condition, StatusEntry};

/// Returns the agents of orphaned runs that have left provisional data on a host, and whether the host was
/// rebooted since, from the listing of its runs.
#[must_use]
pub(crate) fn provisional_data(listing: &[StatusEntry]) -> Vec<(String, bool)> {
    let mut found: Vec<(String, bool)> = Vec::new();
    let mut run = None;
    for entry in listing {
        match entry {
            StatusEntry::Run(status) => run = Some(status).filter(|run| run.condition == Condition::Orphaned),
            StatusEntry::Foreign(_) => run = None,
            StatusEntry::Lease(Undo::Provisional { .. }) if found.len() < MOST => {
                // A run may have several.
                found.extend(run.take().map(|run| (run.agent.to_string(), run.is_rebooted)));
            }
            StatusEntry::Lease(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::journal::{Header, VERSION};
    use crate::proto::name::AgentName;
    use crate::proto::server::DataDirectory;
    use crate::proto::status::{Foreign, ForeignJournal, RunStatus};
    use crate::proto::{HostBytes, Text};

    fn run(name: &str, condition: Condition, is_rebooted: bool) -> StatusEntry {
        let header = Header {
            version: VERSION,
            program: Text::default(),
            boot: Text::default(),
            role: Text::new("target"),
            controller: Text::default(),
            started: 0,
            path: HostBytes::default(),
        };
        StatusEntry::Run(RunStatus { agent: AgentName::new(name).unwrap(), condition, is_rebooted, header })
    }

    fn provisional() -> StatusEntry {
        StatusEntry::Lease(Undo::Provisional {
            unit: "mariadb.service".into(),
            data: DataDirectory { path: HostBytes::from("/var/lib/mysql"), inode: 7 },
            old: None,
            aside: HostBytes::default(),
            seconds: 60,
        })
    }

    #[test]
    fn only_provisional_data_of_orphans_counts() {
        let foreign = StatusEntry::Foreign(ForeignJournal {
            directory: HostBytes::default(),
            condition: Condition::Orphaned,
            reason: Foreign::Shell { leases: Vec::new() },
            has_agent: false,
        });
        let listing = [
            provisional(),
            run("a-target1", Condition::Live, false),
            provisional(),
            run("b-target1", Condition::Orphaned, false),
            StatusEntry::Lease(Undo::Port(4400)),
            provisional(),
            provisional(),
            run("c-target2", Condition::Orphaned, true),
            provisional(),
            run("d-target1", Condition::Orphaned, true),
            foreign,
            provisional(),
        ];
        let expected = [("b-target1".to_owned(), false), ("c-target2".to_owned(), true)];
        assert_eq!(provisional_data(&listing), expected);
        let many: Vec<StatusEntry> = (0..500)
            .flat_map(|n| [run(&format!("r{n}-target1"), Condition::Orphaned, false), provisional()])
            .collect();
        assert_eq!(provisional_data(&many).len(), MOST);
    }
}
