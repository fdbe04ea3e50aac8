//! Connects to all hosts of a run and learns everything about them, side by side. Changes nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::task::JoinSet;

use crate::endpoint::{Endpoint, HostName};
use crate::host::facts::Facts;
use crate::host::scripts::Script;
use crate::host::wire::{Field, printable};
use crate::host::{Host, HostError};
use crate::settings::Settings;

/// What is known of the ends of a run. A target that could not be asked has its error instead.
#[derive(Debug)]
pub struct Probe {
    /// The source.
    pub source: Probed,
    /// The targets, in their order.
    pub targets: Vec<Result<ProbedTarget, HostError>>,
    /// All connections, to be closed at the end.
    pub hosts: Hosts,
}

/// Connections by name; ends on one host share one.
pub type Hosts = BTreeMap<HostName, Arc<Host>>;

/// One end.
#[derive(Clone, Debug)]
pub struct Probed {
    /// The connection.
    pub host: Arc<Host>,
    /// What it told.
    pub facts: Facts,
    /// By how many seconds its clock is ahead of ours.
    pub skew: Option<f64>,
}

/// A target, with the addresses of the data path.
#[derive(Clone, Debug)]
pub struct ProbedTarget {
    /// The connection and what it told.
    pub end: Probed,
    /// Its address as the source reaches it, if that could be learnt.
    pub address: Option<IpAddr>,
    /// The source's address when it does.
    pub peer: Option<IpAddr>,
}

/// Asks the source and the targets. An error is the source's; targets keep theirs.
pub async fn probe(settings: &Settings, source: &Endpoint, targets: &[Endpoint]) -> Result<Probe, HostError> {
    let mut names: Vec<&HostName> = targets.iter().map(|target| &target.host).chain([&source.host]).collect();
    names.sort();
    names.dedup();
    let mut connecting = JoinSet::new();
    for name in names {
        let (name, login, silence) = (name.clone(), settings.login.clone(), settings.lease_time);
        connecting.spawn(async move { (name.clone(), Host::connect(&name, &login, silence).await) });
    }
    let mut hosts = Hosts::new();
    let mut failed: BTreeMap<HostName, HostError> = BTreeMap::new();
    while let Some(joined) = connecting.join_next().await {
        match joined {
            Ok((name, Ok(host))) => drop(hosts.insert(name, Arc::new(host))),
            Ok((name, Err(error))) => drop(failed.insert(name, error)),
            Err(_) => {}
        }
    }

    let name = source.name().unwrap_or_default();
    let exclude: Vec<Field> = settings.exclude.iter().flat_map(|pattern| pattern.below(name)).collect();
    let final_name = settings.final_name(source).as_bytes();
    let owner = settings.chown.as_ref().map_or("", |owner| &owner.0).as_bytes();
    let path = |endpoint: &Endpoint| endpoint.path.as_os_str().as_bytes().to_vec();
    let mut asking = JoinSet::new();
    let ends = [source].into_iter().chain(targets);
    for (index, endpoint) in ends.enumerate() {
        let Some(host) = hosts.get(&endpoint.host).map(Arc::clone) else { continue };
        let script = match index {
            0 => Script::source_facts(&path(endpoint), name.as_bytes(), &exclude),
            _ => Script::target_facts(&path(endpoint), final_name, owner),
        };
        asking.spawn(async move { (index, ask(host, &script).await) });
    }
    let mut answers = BTreeMap::new();
    while let Some(joined) = asking.join_next().await {
        if let Ok((index, answer)) = joined {
            answers.insert(index, answer);
        }
    }

    let unreachable = |endpoint: &Endpoint, failed: &mut BTreeMap<HostName, HostError>| {
        failed.remove(&endpoint.host).unwrap_or_else(|| HostError::Connect {
            host: endpoint.host.to_string(),
            text: "no connection (see the message of its first use)".into(),
        })
    };
    let mut source_end = match answers.remove(&0) {
        Some(answer) => answer?,
        None => return Err(unreachable(source, &mut failed)),
    };
    let mut probed = Vec::new();
    for (index, endpoint) in targets.iter().enumerate() {
        probed.push(match answers.remove(&(index + 1)) {
            Some(Ok(end)) => {
                let address = settings.address_of(endpoint).or_else(|| address_of(&source_end, &end));
                Ok(ProbedTarget { end, address, peer: None })
            }
            Some(Err(error)) => Err(error),
            None => Err(unreachable(endpoint, &mut failed)),
        });
    }
    find_peers(settings.source_address, &source_end, &mut probed).await?;
    if probed.iter().flatten().any(|target| target.end.facts.target.as_ref().is_some_and(|of| of.folds_case))
    {
        find_twin(source, &exclude, &mut source_end).await?;
    }
    Ok(Probe { source: source_end, targets: probed, hosts })
}

/// The target's address that the source is to connect to: the one that the controller reached over SSH, which needs no
/// resolver on the source.
fn address_of(source: &Probed, target: &Probed) -> Option<IpAddr> {
    match (source.host.name(), target.host.name()) {
        (HostName::Local, HostName::Local) => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        // The source knows this machine as the address that its SSH connection came from.
        (_, HostName::Local) => source.facts.ssh.map(|(controller, _)| controller),
        _ => target.facts.ssh.map(|(_, own)| own),
    }
}

async fn ask(host: Arc<Host>, script: &Script) -> Result<Probed, HostError> {
    let messages = host.ask("probe", script).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |now| now.as_secs_f64());
    let facts = Facts::parse(&messages);
    Ok(Probed { host, skew: facts.clock.map(|clock| clock - now), facts })
}

/// Asks the source for two names that are one on a target that does not tell upper from lower case.
async fn find_twin(endpoint: &Endpoint, exclude: &[Field], source: &mut Probed) -> Result<(), HostError> {
    let name = endpoint.name().unwrap_or_default().as_bytes();
    let script = Script::twins(endpoint.parent().as_os_str().as_bytes(), name, exclude);
    let answer = source.host.ask("comparison of names", &script).await?;
    let twin = answer.iter().find(|message| message.len() > 1 && message[0] == b"twin");
    if let (Some(twin), Some(facts)) = (twin, &mut source.facts.source) {
        facts.twin = Some(printable(&twin[1]));
    }
    Ok(())
}

/// Asks the source from which of its addresses it reaches each target, where `said` does not say it.
async fn find_peers(
    said: Option<IpAddr>,
    source: &Probed,
    targets: &mut [Result<ProbedTarget, HostError>],
) -> Result<(), HostError> {
    let addresses: Vec<String> = targets
        .iter()
        .flatten()
        .filter_map(|target| target.address)
        .map(|address| address.to_string())
        .collect();
    if addresses.is_empty() {
        return Ok(());
    }
    let routes = source.host.ask("route query", &Script::routes(&addresses)).await?;
    for target in targets.iter_mut().flatten() {
        let Some(address) = target.address else { continue };
        let text = address.to_string();
        if said.is_some() {
            target.peer = said.filter(|said| said.is_ipv4() == address.is_ipv4());
            continue;
        }
        target.peer = routes
            .iter()
            .find(|route| route.len() > 2 && route[1] == text.as_bytes())
            .and_then(|route| String::from_utf8_lossy(&route[2]).parse::<IpAddr>().ok())
            // Without `ip` there: the address that the controller reached.
            .or_else(|| {
                source.facts.ssh.map(|(_, own)| own).filter(|own| own.is_ipv4() == address.is_ipv4())
            });
    }
    Ok(())
}
