//! `transfer replica`: asks for the servers of hosts, and turns what was ordered into a hot copy whose copies follow.

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

use crate::cli;
use crate::endpoint::{Endpoint, HostName};
use crate::error::chain;
use crate::host::facts::Facts;
use crate::host::scripts::Script;
use crate::host::wire::{LONGEST_TEXT, short};
use crate::host::{Host, HostError};
use crate::plan::replica::{Account, AccountPlan, Follow, ReplicaPlan};
use crate::preflight::{Finding, Weight};
use crate::probe::Connections;
use crate::settings::{Replace, Settings};
use crate::values::{Ends, FileName, TransferType};
use whom::{Asked, Reached, Role, Whom, server};

/// What an order means: a hot copy, and what becomes of it.
#[derive(Clone, Debug)]
pub struct Turned {
    /// How it is copied.
    pub settings: Settings,
    /// The socket of the server that is copied.
    pub source: Endpoint,
    /// The directories that hold the targets' data directories.
    pub targets: Vec<Endpoint>,
    /// What becomes of the copies.
    pub replica: ReplicaPlan,
}

/// All hosts of an order, each once.
#[must_use]
pub fn hosts(order: &cli::Replica) -> Vec<HostName> {
    order.hosts().iter().chain([&order.primary]).chain(&order.from).cloned().collect()
}

/// Asks all hosts, and decides. What was found is told to `note` as it comes, which returns what of it refuses the run.
pub async fn turn(
    settings: &Settings,
    order: &cli::Replica,
    connections: &Connections,
    note: &mut impl FnMut(Vec<Finding>) -> Vec<String>,
) -> Result<Turned, Vec<String>> {
    let facts = ask_all(settings, order, connections, note).await?;
    let named = |name: &HostName| (name.clone(), facts[name].clone());
    let donor = order.from.as_ref().unwrap_or(&order.primary);
    let asked = Asked {
        order,
        donor: named(donor),
        primary: named(&order.primary),
        targets: order.hosts().iter().map(named).collect(),
    };
    let mut against = note(asked.servers());
    if !against.is_empty() {
        return Err(against);
    }
    let whom = asked.whom().map_err(|finding| note(vec![finding]))?;
    let account = match choose_account(order, &asked, connections, &whom).await {
        Ok(account) => account,
        Err(Trouble::Finding(finding)) => return Err(note(vec![finding])),
        Err(Trouble::Host(error)) => return Err(vec![chain(&error)]),
    };
    let reached = join_all(asked.targets.iter().map(|(name, facts)| {
        let (host, address) = whom.seen_by(order, facts);
        reach(connections, name, (host, address), (whom.port, whom.ssl), account.as_ref())
    }));
    let mut targets = Vec::new();
    for ((name, facts), reached) in asked.targets.iter().zip(reached.await) {
        match reached {
            Ok(reached) => {
                against.extend(note(asked.reached(&whom, name, facts, account.as_ref(), &reached)));
                targets.push((name, facts, reached));
            }
            Err(error) => against.push(chain(&error)),
        }
    }
    if !against.is_empty() {
        return Err(against);
    }
    Ok(decide(settings, order, &asked, &whom, account, &targets))
}

enum Trouble {
    Finding(Finding),
    Host(HostError),
}

/// Asks all hosts for their servers, side by side. Where a run has died while new data was on trial, that is undone first.
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
        // A host that has gone down since may have served what was on trial: that is for people to decide.
        let stale =
            facts.installed.iter().flat_map(|server| &server.stale).filter(|(_, went_down)| !went_down);
        let stale: Vec<&str> = stale.map(|(agent, _)| agent.as_str()).collect();
        if stale.is_empty() || role(name) != Role::Target || settings.dry_run {
            return Ok::<_, HostError>((facts, false));
        }
        for agent in stale {
            host.ask("clean-up", &Script::admin(&["settle", agent, "0"])).await?;
        }
        // What is left of it is a finding.
        Ok((ask(settings, host, role(name)).await?, true))
    }))
    .await;
    let mut against: Vec<String> = connections.failed.values().map(|error| chain(error)).collect();
    let mut all = BTreeMap::new();
    for (name, answer) in names.into_iter().zip(answers) {
        match answer {
            Ok((facts, cleaned)) => {
                if cleaned && facts.installed.as_ref().is_some_and(|server| server.stale.is_empty()) {
                    against.extend(note(vec![Finding {
                        host: name.to_string(),
                        weight: Weight::Warning,
                        problem: "an earlier run had died while its data was on trial".into(),
                        fix: "its server has its old data again".into(),
                        kind: None,
                    }]));
                }
                all.insert(name, facts);
            }
            Err(error) => against.push(chain(&error)),
        }
    }
    if against.is_empty() { Ok(all) } else { Err(against) }
}

async fn ask(settings: &Settings, host: &Arc<Host>, role: Role) -> Result<Facts, HostError> {
    let unit = settings.servers.unit.as_deref().unwrap_or_default();
    let defaults = settings.servers.defaults_file.as_deref().unwrap_or_default();
    Ok(Facts::parse(
        &host.ask("questions to its server", &Script::server_facts(role.name(), unit, defaults)).await?,
    ))
}

/// The account that the replicas use; `None` where each gets one of its own.
async fn choose_account(
    order: &cli::Replica,
    asked: &Asked<'_>,
    connections: &Connections,
    whom: &Whom,
) -> Result<Option<Account>, Trouble> {
    if let Some(file) = &order.account {
        // A donor may say of any machine that it replicates from there.
        if !whom.is_asked && order.primary_address.is_none() {
            return Err(Trouble::Finding(asked.account_for_unnamed(whom)));
        }
        return account::read(file).map(Some).map_err(Trouble::Finding);
    }
    if order.create_account {
        return if whom.is_asked { Ok(None) } else { Err(Trouble::Finding(asked.cannot_create(whom))) };
    }
    let (name, facts) = &asked.donor;
    let server = server(facts);
    let upstream = asked.upstream().or(server.upstreams.first());
    if let (Some(upstream), Some(host)) = (upstream, connections.hosts.get(name)) {
        use std::os::unix::ffi::OsStrExt as _;
        let script = Script::account(server.datadir.as_os_str().as_bytes(), &upstream.name);
        let answer = host.ask("question for its account", &script).await.map_err(Trouble::Host)?;
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

/// How a target reaches the server that it is to replicate from.
async fn reach(
    connections: &Connections,
    name: &HostName,
    (host, address): (String, String),
    port: (u16, bool),
    account: Option<&Account>,
) -> Result<Reached, HostError> {
    let credentials = account.map_or(("", ""), |account| (account.user.as_str(), account.password()));
    let script = Script::reach(&host, &address, port, credentials);
    let Some(target) = connections.hosts.get(name) else { return Ok(Reached::default()) };
    let mut reached = Reached::default();
    for message in target.ask("a try to reach its source", &script).await? {
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

/// All that is decided, when nothing is against it.
fn decide(
    settings: &Settings,
    order: &cli::Replica,
    asked: &Asked<'_>,
    whom: &Whom,
    account: Option<Account>,
    targets: &[(&HostName, &Facts, Reached)],
) -> Turned {
    let (donor_name, donor) = &asked.donor;
    let donor = server(donor);
    let datadir =
        |facts: &Facts| facts.installed.as_ref().map(|server| server.datadir.clone()).unwrap_or_default();
    let follow = |facts: &Facts, reached: &Reached| {
        let server = facts.installed.clone().unwrap_or_default();
        Follow {
            unit: server.unit,
            socket: server.socket,
            host: reached.host.clone(),
            own: reached.own.clone(),
            // A backup has no such file; without it the first start upgrades what is as new as the server.
            upgraded: donor.upgraded.clone(),
            holds: order.typed.options.replace == Some(true),
            events: server.configured.get("event_scheduler").is_some_and(|value| value == "ON"),
            timeout: settings.servers.timeout,
        }
    };
    let in_parent = |name: &HostName, facts: &Facts| Endpoint {
        host: name.clone(),
        path: datadir(facts).parent().unwrap_or(Path::new("/")).to_owned(),
    };
    let first = targets.first().map(|(_, facts, _)| datadir(facts)).unwrap_or_default();
    let mut servers = settings.servers.clone();
    // What a file says of other runs is not for replicas; nothing is stopped where they come from.
    (servers.prepare, servers.stop, servers.stop_replication) = (true, Ends::Target, false);
    let (primary_name, primary) = &asked.primary;
    let primary = server(primary);
    Turned {
        settings: Settings {
            transfer_type: TransferType::Backup,
            servers,
            rename: Some(FileName(first.file_name().unwrap_or(OsStr::new("mysql")).to_owned())),
            // Whether it may is known by now; an empty one always goes.
            replace: if settings.replace == Replace::Keep { Replace::Keep } else { Replace::Remove },
            chown: None,
            keep_staging: false,
            skip_refused: false,
            ..settings.clone()
        },
        source: Endpoint { host: donor_name.clone(), path: donor.socket.clone().into() },
        targets: targets.iter().map(|(name, facts, _)| in_parent(name, facts)).collect(),
        replica: ReplicaPlan {
            primary: whom.name.clone(),
            port: whom.port,
            ssl: whom.ssl,
            position: whom.position,
            account: match account {
                Some(account) => AccountPlan::Given(account),
                None => AccountPlan::Create {
                    place: Endpoint { host: primary_name.clone(), path: primary.datadir.clone() },
                    socket: primary.socket.clone(),
                },
            },
            max_lag: order.max_lag.map_or(Duration::from_secs(1), |lag| lag.0),
            tables: order.verify_tables,
            defaults_file: settings.servers.defaults_file.clone().unwrap_or_default(),
            targets: targets
                .iter()
                .map(|(name, facts, reached)| ((*name).clone(), follow(facts, reached)))
                .collect(),
        },
    }
}

/// A refusal of the run.
pub(crate) fn refusal(host: &impl ToString, problem: &str, fix: &str) -> Finding {
    Finding {
        host: host.to_string(),
        weight: Weight::Refusal,
        problem: problem.into(),
        fix: fix.into(),
        kind: None,
    }
}
