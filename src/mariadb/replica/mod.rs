//! `transfer replica`: probes the servers of all hosts, and turns the command into a hot backup whose copies
//! become replicas.

mod account;
mod hosts;
mod preflight;
#[cfg(test)]
mod tests;
mod whom;

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;

use crate::base::endpoint::{Endpoint, HostName};
use crate::cli;
use crate::config::settings::{Replace, Settings};
use crate::config::values::{Ends, FileName, TransferType};
use crate::error::chain;
use crate::host::HostError;
use crate::mariadb::plan::{Account, AccountPlan, Follow, ReplicaPlan};
use crate::mariadb::survey::{self, Reached};
use crate::preflight::{Finding, Weight};
use crate::probe::Connections;
use whom::{Asked, AskedHost, Whom};

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
    let facts = hosts::ask_all(settings, order, connections, note).await?;
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
    let account_of_all = account.as_ref();
    let reached = join_all(asked.targets.iter().map(|AskedHost { name, facts }| async move {
        let host = &connections.hosts[name];
        let idle = host.agent().await?;
        let reached = survey::reach(idle.conversation(), &whom.seen_by(order, facts), account_of_all).await?;
        host.keep(idle);
        Ok::<_, HostError>(reached)
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
        let found = async {
            let idle = host.agent().await?;
            let found = survey::account(idle.conversation(), &server.datadir, &upstream.name).await?;
            host.keep(idle);
            Ok(found)
        };
        if let Some(account) = found.await.map_err(Trouble::Host)? {
            return Ok(Some(account));
        }
    }
    Err(Trouble::Finding(asked.no_account()))
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
