//! Questions to the hosts of the command: their servers, and what orphaned runs have left on targets.

use std::collections::BTreeMap;

use futures_util::future::join_all;

use crate::base::endpoint::HostName;
use crate::cli;
use crate::config::settings::Settings;
use crate::error::chain;
use crate::host::agent::IdleAgent;
use crate::host::conversation::{AgentError, Conversation, REPLY_LIMIT};
use crate::host::facts::Facts;
use crate::host::{Host, HostError};
use crate::mariadb::survey::{self, Role};
use crate::preflight::{Finding, Weight};
use crate::probe::Connections;
use crate::proto::command::{Answer, Command};
use crate::proto::facts::Transfer;
use crate::proto::name::AgentName;

/// Surveys the servers of all hosts in parallel. Rolls back provisional data of orphaned runs on targets
/// first.
pub(super) async fn ask_all(
    settings: &Settings,
    order: &cli::Replica,
    connections: &Connections,
    note: &mut impl FnMut(Vec<Finding>) -> Vec<String>,
) -> Result<BTreeMap<HostName, Facts>, Vec<String>> {
    let targets = &order.hosts();
    let answers = join_all(connections.hosts.iter().map(|(name, host)| async move {
        let role = if targets.contains(name) { Role::Target } else { Role::Source };
        (name, ask(settings, host, role).await)
    }))
    .await;
    let mut problems: Vec<String> = connections.failed.values().map(|error| chain(error)).collect();
    let mut all = BTreeMap::new();
    for (name, answer) in answers {
        match answer {
            Ok(HostSurvey { facts, cleaned }) => {
                if cleaned {
                    problems.extend(note(vec![Finding {
                        host: name.to_string(),
                        weight: Weight::Warning,
                        problem: "an orphaned run had left provisional data on the server".into(),
                        fix: "it was rolled back to the old data".into(),
                        kind: None,
                    }]));
                }
                all.insert(name.clone(), facts);
            }
            Err(error) => problems.push(chain(&error)),
        }
    }
    if problems.is_empty() { Ok(all) } else { Err(problems) }
}

/// Facts about a host and its server.
struct HostSurvey {
    facts: Facts,
    /// Provisional data of orphaned runs was rolled back.
    cleaned: bool,
}

async fn ask(settings: &Settings, host: &Host, role: Role) -> Result<HostSurvey, HostError> {
    let idle = host.agent().await?;
    let agent = idle.conversation();
    let (stale, cleaned) = match role {
        Role::Source => (Vec::new(), false),
        Role::Target => provisional_data(settings, &idle).await?,
    };
    let unit = settings.servers.unit.as_deref().unwrap_or_default();
    let defaults_file = settings.servers.defaults_file.as_deref().unwrap_or_default();
    let mut facts = host_facts(agent).await?;
    facts.installed = survey::installed(agent, role, unit, defaults_file).await?;
    if !stale.is_empty() {
        facts.installed.get_or_insert_default().stale = stale;
    }
    host.keep(idle);
    Ok(HostSurvey { facts, cleaned })
}

/// Rolls back provisional data of orphaned runs, except in a dry run. Returns the data that is left, and whether all
/// of it was rolled back.
async fn provisional_data(
    settings: &Settings,
    idle: &IdleAgent,
) -> Result<(Vec<(String, bool)>, bool), AgentError> {
    let found = survey::provisional_data(&idle.status().await?);
    // After a reboot, the provisional data may have been in use: an operator has to decide.
    let orphans = found.iter().filter(|(_, is_rebooted)| !is_rebooted && !settings.dry_run);
    let orphans: Vec<AgentName> = orphans.filter_map(|(agent, _)| AgentName::new(agent)).collect();
    if orphans.is_empty() {
        return Ok((found, false));
    }
    for agent in orphans {
        idle.roll_back(REPLY_LIMIT, Command::Settle { agent, seconds: 0 }).await?;
    }
    // A leftover is a finding.
    let left = survey::provisional_data(&idle.status().await?);
    let cleaned = left.is_empty();
    Ok((left, cleaned))
}

/// Returns the facts about a host that the command needs besides those about its server.
async fn host_facts(agent: &Conversation) -> Result<Facts, AgentError> {
    let Answer::Host(facts) = agent.call(Command::HostFacts(Transfer::Files)).await? else {
        return Err(agent.unexpected());
    };
    Ok(Facts::of_host(*facts))
}
