//! `transfer replica`: probes the servers of all hosts, and turns the command into a hot backup whose copies
//! become replicas.

mod account;
mod preflight;
#[cfg(test)]
mod tests;
mod whom;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use crate::base::endpoint::{Endpoint, HostName};
use crate::cli;
use crate::config::settings::{Replace, Settings};
use crate::config::values::{Ends, FileName, TransferType};
use crate::error::chain;
use crate::host::facts::Facts;
use crate::host::scripts::{Reach, Script};
use crate::host::wire::{LONGEST_TEXT, short};
use crate::host::{Host, HostError};
use crate::mariadb::plan::{Account, AccountPlan, Follow, ReplicaPlan};
use crate::preflight::{Finding, Weight};
use crate::probe::Connections;
use whom::{Asked, AskedHost, Reached, Role, Whom};

/// A `transfer replica` command, translated to a hot backup and a replica plan.
#[derive(Clone, Debug)]
pub(crate) struct Turned {
    /// Settings of the backup.
    pub settings: Settings,
    /// Socket of the donor.
    pub source: Endpoint,
    /// Parents of the targets' data directories.
    pub targets: Vec<Endpoint>,
    /// Plan to make the copies replicas.
    pub replica: ReplicaPlan,
}

/// Returns all hosts of the command: targets, primary and donor.
#[must_use]
pub(crate) fn hosts(order: &cli::Replica) -> Vec<HostName> {
    order.hosts().iter().chain([&order.primary]).chain(&order.from).cloned().collect()
}

/// Probes all hosts and makes the plan. Passes findings to `note` as they come, which returns the refusals
/// among them.
pub(crate) async fn turn(
    settings: &Settings,
    order: &cli::Replica,
    connections: &Connections,
    note: &mut impl FnMut(Vec<Finding>) -> Vec<String>,
) -> Result<Turned, Vec<String>> {
    let facts = ask_all(settings, order, connections, note).await?;
    let named = |name: &HostName| AskedHost { name: name.clone(), facts: facts[name].clone() };
    let donor = order.from.as_ref().unwrap_or(&order.primary);
    let asked = Asked {
        order,
        donor: named(donor),
        primary: named(&order.primary),
        targets: order.hosts().iter().map(named).collect(),
    };
    let mut problems = note(asked.servers());
    if !problems.is_empty() {
        return Err(problems);
    }
    let whom = &asked.whom().map_err(|finding| note(vec![finding]))?;
    let account = match choose_account(order, &asked, connections, whom).await {
        Ok(account) => account,
        Err(Trouble::Finding(finding)) => return Err(note(vec![finding])),
        Err(Trouble::Host(error)) => return Err(vec![chain(&error)]),
    };
    let (user, password) = account.as_ref().map_or(("", ""), |of| (of.user.as_str(), of.password()));
    let reached = join_all(asked.targets.iter().map(|AskedHost { name, facts }| async move {
        let (host, address) = whom.seen_by(order, facts);
        let (port, ssl) = (whom.port, whom.ssl);
        reach(connections, name, Reach { name: &host, address: &address, port, ssl, user, password }).await
    }));
    let mut targets = Vec::new();
    for (target, reached) in asked.targets.iter().zip(reached.await) {
        match reached {
            Ok(reached) => {
                problems.extend(note(asked.reached(whom, target, account.as_ref(), &reached)));
                targets.push(Connected { target, reached });
            }
            Err(error) => problems.push(chain(&error)),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(plan(settings, order, &asked, whom, account, &targets))
}

/// Target that has passed its connection test.
struct Connected<'a> {
    target: &'a AskedHost,
    reached: Reached,
}

enum Trouble {
    Finding(Finding),
    Host(HostError),
}

/// Probes the servers of all hosts in parallel. Rolls back provisional data of orphaned runs on targets
/// first.
async fn ask_all(
    settings: &Settings,
    order: &cli::Replica,
    connections: &Connections,
    note: &mut impl FnMut(Vec<Finding>) -> Vec<String>,
) -> Result<BTreeMap<HostName, Facts>, Vec<String>> {
    let targets = order.hosts();
    let role = |name: &HostName| match () {
        () if targets.contains(name) => Role::Target,
        () if order.from.as_ref().unwrap_or(&order.primary) == name => Role::Donor,
        () => Role::Primary,
    };
    let names: Vec<HostName> = connections.hosts.keys().cloned().collect();
    let answers = join_all(connections.hosts.iter().map(|(name, host)| async move {
        let facts = ask(settings, host, role(name)).await?;
        // After a reboot, the provisional data may have been in use: an operator has to decide.
        let stale =
            facts.installed.iter().flat_map(|server| &server.stale).filter(|(_, went_down)| !went_down);
        let stale: Vec<&str> = stale.map(|(agent, _)| agent.as_str()).collect();
        if stale.is_empty() || role(name) != Role::Target || settings.dry_run {
            return Ok::<_, HostError>((facts, false));
        }
        for agent in stale {
            host.ask("clean-up", &Script::admin(&["settle", agent, "0"])).await?;
        }
        // A leftover is a finding.
        Ok((ask(settings, host, role(name)).await?, true))
    }))
    .await;
    let mut problems: Vec<String> = connections.failed.values().map(|error| chain(error)).collect();
    let mut all = BTreeMap::new();
    for (name, answer) in names.into_iter().zip(answers) {
        match answer {
            Ok((facts, cleaned)) => {
                if cleaned && facts.installed.as_ref().is_some_and(|server| server.stale.is_empty()) {
                    problems.extend(note(vec![Finding {
                        host: name.to_string(),
                        weight: Weight::Warning,
                        problem: "an orphaned run had left provisional data on the server".into(),
                        fix: "it was rolled back to the old data".into(),
                        kind: None,
                    }]));
                }
                all.insert(name, facts);
            }
            Err(error) => problems.push(chain(&error)),
        }
    }
    if problems.is_empty() { Ok(all) } else { Err(problems) }
}

async fn ask(settings: &Settings, host: &Arc<Host>, role: Role) -> Result<Facts, HostError> {
    let unit = settings.servers.unit.as_deref().unwrap_or_default();
    let defaults = settings.servers.defaults_file.as_deref().unwrap_or_default();
    Ok(Facts::parse(&host.ask("server query", &Script::server_facts(role.name(), unit, defaults)).await?))
}

/// Returns the account that the replicas use; `None` if each gets one of its own.
async fn choose_account(
    order: &cli::Replica,
    asked: &Asked<'_>,
    connections: &Connections,
    whom: &Whom,
) -> Result<Option<Account>, Trouble> {
    if let Some(file) = &order.account {
        // The upstream's name comes from the donor, which could name any machine.
        if !whom.is_asked && order.primary_address.is_none() {
            return Err(Trouble::Finding(asked.account_for_unnamed(whom)));
        }
        return account::read(file).map(Some).map_err(Trouble::Finding);
    }
    if order.create_account {
        return if whom.is_asked { Ok(None) } else { Err(Trouble::Finding(asked.cannot_create(whom))) };
    }
    let server = asked.donor();
    let upstream = asked.upstream().or(server.upstreams.first());
    if let (Some(upstream), Some(host)) = (upstream, connections.hosts.get(&asked.donor.name)) {
        use std::os::unix::ffi::OsStrExt as _;
        let script = Script::account(server.datadir.as_os_str().as_bytes(), &upstream.name);
        let answer = host.ask("account lookup", &script).await.map_err(Trouble::Host)?;
        let found = answer.iter().find(|message| message.len() > 2 && message[0] == b"account");
        let text = |field: &[u8]| std::str::from_utf8(field).ok().map(ToOwned::to_owned);
        if let Some((user, password)) = found.and_then(|found| text(&found[1]).zip(text(&found[2]))) {
            if let Some(account) = Account::new(user, password) {
                return Ok(Some(account));
            }
        }
    }
    Err(Trouble::Finding(asked.no_account()))
}

/// Tests a target's connection to the server that it will replicate from.
async fn reach(connections: &Connections, name: &HostName, server: Reach<'_>) -> Result<Reached, HostError> {
    let script = Script::reach(&server);
    let Some(target) = connections.hosts.get(name) else { return Ok(Reached::default()) };
    let mut reached = Reached::default();
    for message in target.ask("connection test", &script).await? {
        let text =
            |index: usize| message.get(index).map(|field| short(field, LONGEST_TEXT)).unwrap_or_default();
        match message.first().map(Vec::as_slice) {
            Some(b"reach") => reached.host = text(1),
            Some(b"own") => reached.own = text(1),
            Some(b"current") => reached.current = text(1),
            Some(b"primary") => drop(reached.variables.insert(text(1), text(2))),
            Some(b"grant") => reached.may_replicate = true,
            Some(b"reach_error") => reached.error = Some(text(1)),
            _ => {}
        }
    }
    Ok(reached)
}

/// Makes the plan, after all checks.
fn plan(
    settings: &Settings,
    order: &cli::Replica,
    asked: &Asked<'_>,
    whom: &Whom,
    account: Option<Account>,
    targets: &[Connected<'_>],
) -> Turned {
    let (donor, primary) = (asked.donor(), asked.primary.server());
    let follow = |Connected { target, reached }: &Connected<'_>| {
        let server = target.server();
        Follow {
            unit: server.unit.clone(),
            socket: server.socket.clone(),
            host: reached.host.clone(),
            own: reached.own.clone(),
            // Backups lack this file, without which the first start would upgrade current system tables.
            upgraded: donor.upgraded.clone(),
            holds: order.typed.options.replace == Some(true),
            events: server.configured.get("event_scheduler").is_some_and(|value| value == "ON"),
            timeout: settings.servers.timeout,
        }
    };
    let in_parent = |target: &AskedHost| Endpoint {
        host: target.name.clone(),
        path: target.server().datadir.parent().unwrap_or(Path::new("/")).to_owned(),
    };
    let first = targets.first().and_then(|first| first.target.server().datadir.file_name());
    let mut servers = settings.servers.clone();
    // Overrides what configuration files set for other runs. Nothing is stopped on the donor.
    (servers.prepare, servers.stop, servers.stop_replication) = (true, Ends::Target, false);
    Turned {
        settings: Settings {
            transfer_type: TransferType::Backup,
            servers,
            rename: Some(FileName(first.unwrap_or(OsStr::new("mysql")).to_owned())),
            // The preflight has checked that databases may be replaced, if there are any.
            replace: if settings.replace == Replace::Keep { Replace::Keep } else { Replace::Remove },
            chown: None,
            keep_staging: false,
            skip_refused: false,
            ..settings.clone()
        },
        source: Endpoint { host: asked.donor.name.clone(), path: donor.socket.clone().into() },
        targets: targets.iter().map(|connected| in_parent(connected.target)).collect(),
        replica: ReplicaPlan {
            primary: whom.name.clone(),
            port: whom.port,
            ssl: whom.ssl,
            position: whom.position,
            account: match account {
                Some(account) => AccountPlan::Given(account),
                None => AccountPlan::Create {
                    place: Endpoint { host: asked.primary.name.clone(), path: primary.datadir.clone() },
                    socket: primary.socket.clone(),
                },
            },
            max_lag: order.max_lag.map_or(Duration::from_secs(1), |lag| lag.0),
            tables: order.verify_tables,
            defaults_file: settings.servers.defaults_file.clone().unwrap_or_default(),
            targets: targets
                .iter()
                .map(|connected| (connected.target.name.clone(), follow(connected)))
                .collect(),
        },
    }
}

/// Makes a refusal.
pub(crate) fn refusal(host: &impl ToString, problem: &str, fix: &str) -> Finding {
    Finding {
        host: host.to_string(),
        weight: Weight::Refusal,
        problem: problem.into(),
        fix: fix.into(),
        kind: None,
    }
}
