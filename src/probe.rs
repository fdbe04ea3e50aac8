//! Connects to all hosts of a run in parallel and collects facts about them. Changes nothing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::future::join_all;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::base::endpoint::{Endpoint, HostName};
use crate::base::printable::{LONGEST_PATH, short};
use crate::config::settings::Settings;
use crate::config::values::TransferType;
use crate::host::agent::IdleAgent;
use crate::host::command::try_login;
use crate::host::conversation::{AgentError, Conversation};
use crate::host::facts::{Facts, PathType, Server};
use crate::host::{AT_ONCE, Host, HostError};
use crate::lease::login;
use crate::mariadb::survey;
use crate::proto::command::{Answer, Command, TreeQuery};
use crate::proto::facts::path::{SourceQuery, TargetQuery};
use crate::proto::facts::server;
use crate::proto::facts::{Route, Transfer};
use crate::proto::files::{AttributeScope, Tree};
use crate::proto::{HostBytes, Text};
use crate::shape;

/// Time limit of a question. Enough to list a tree of many millions of files.
const ASK_LIMIT: Duration = Duration::from_secs(3600);
/// Latest plausible time of a clock since the epoch: the year 5138.
const LATEST: Duration = Duration::from_secs(100_000_000_000);

/// Results of a probe. A target that could not be probed has its error instead.
#[derive(Debug)]
pub(crate) struct Probe {
    /// The source.
    pub source: Probed,
    /// The targets, in their order.
    pub targets: Vec<Result<ProbedTarget, HostError>>,
    /// All connections, to be closed at the end.
    pub hosts: Hosts,
}

/// Connections by name; ends on the same host share one.
pub(crate) type Hosts = BTreeMap<HostName, Arc<Host>>;

/// Result for one end.
#[derive(Clone, Debug)]
pub(crate) struct Probed {
    /// The connection.
    pub host: Arc<Host>,
    /// Facts that the host reported.
    pub facts: Facts,
    /// Seconds by which its clock is ahead of the controller's.
    pub skew: Option<f64>,
    /// Address that was given as its own on the data path but is not.
    pub foreign: Option<IpAddr>,
}

impl Probed {
    fn named(&self) -> NamedFacts<'_> {
        NamedFacts { name: self.host.name(), facts: &self.facts }
    }
}

/// Facts of a host, and its name in the command.
#[derive(Clone, Copy, Debug)]
pub struct NamedFacts<'a> {
    /// Name of the host.
    pub name: &'a HostName,
    /// Results of the probe.
    pub facts: &'a Facts,
}

/// Result for a target, with the addresses of the data path.
#[derive(Clone, Debug)]
pub(crate) struct ProbedTarget {
    /// Connection and facts.
    pub end: Probed,
    /// Address on the data path, if given.
    pub given: Option<IpAddr>,
    /// Address that the source can reach, if there is one.
    pub address: Option<IpAddr>,
    /// Source's address for connections to the target.
    pub peer: Option<IpAddr>,
}

/// Open connections and failed ones.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    /// Open connections.
    pub hosts: Hosts,
    /// Errors of the others.
    pub failed: BTreeMap<HostName, HostError>,
}

/// Connects to hosts in parallel.
pub(crate) async fn connect(settings: &Settings, mut names: Vec<HostName>) -> Connections {
    names.sort();
    names.dedup();
    let mut connecting = JoinSet::new();
    let at_once = Arc::new(Semaphore::new(AT_ONCE));
    for name in names {
        let (login, silence, at_once) = (settings.login.clone(), settings.lease_time, Arc::clone(&at_once));
        connecting.spawn(async move {
            let _turn = at_once.acquire().await;
            (name.clone(), Host::connect(&name, &login, silence).await)
        });
    }
    let mut connections = Connections::default();
    while let Some(joined) = connecting.join_next().await {
        match joined {
            Ok((name, Ok(host))) => drop(connections.hosts.insert(name, Arc::new(host))),
            Ok((name, Err(error))) => drop(connections.failed.insert(name, error)),
            Err(_) => {}
        }
    }
    connections
}

/// A run as typed: its settings and its ends.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    settings: &'a Settings,
    source: &'a Endpoint,
    targets: &'a [Endpoint],
}

/// Probes the source and the targets. Returns the error of the source; those of targets are in the result.
pub(crate) async fn probe(
    settings: &Settings,
    source: &Endpoint,
    targets: &[Endpoint],
    Connections { hosts, mut failed }: Connections,
) -> Result<Probe, HostError> {
    let wanted = Wanted { settings, source, targets };
    let Answers { source: answer, targets: answers } = wanted.ask_ends(&hosts).await?;
    let mut unreachable = |endpoint: &Endpoint| {
        failed.remove(&endpoint.host).unwrap_or_else(|| HostError::Connect {
            host: endpoint.host.to_string(),
            text: "no connection (reported at its first use)".into(),
            command: try_login(&settings.login, &endpoint.host.to_string()),
        })
    };
    let mut source_end = answer.ok_or_else(|| unreachable(source))?;
    let mut probed = Vec::new();
    for (endpoint, answer) in targets.iter().zip(answers) {
        let end = answer.unwrap_or_else(|| Err(unreachable(endpoint)));
        let given = wanted.address_of(endpoint);
        probed.push(end.map(|end| ProbedTarget { end, given, address: None, peer: None }));
    }
    find_addresses(settings.source_address, &source_end, &mut probed).await?;
    if probed.iter().flatten().any(|target| target.end.facts.target.as_ref().is_some_and(|of| of.folds_case))
    {
        wanted.find_twin(&mut source_end).await?;
    }
    wanted.find_attributes(&mut source_end, &probed).await?;
    Ok(Probe { source: source_end, targets: probed, hosts })
}

/// Answers of connected hosts; `None` without a connection.
struct Answers {
    source: Option<Probed>,
    /// In the order of the targets.
    targets: Vec<Option<Result<Probed, HostError>>>,
}

impl Wanted<'_> {
    /// Returns the address of a target on the data path, if given.
    fn address_of(&self, target: &Endpoint) -> Option<IpAddr> {
        self.settings.address_of(target, self.targets.len() == 1)
    }

    /// Returns the excluded paths of the source.
    fn excluded(&self) -> Vec<HostBytes> {
        let name = self.source.name().unwrap_or_default();
        let patterns = self.settings.exclude.iter().flat_map(|pattern| pattern.below(name));
        patterns.map(HostBytes::from).collect()
    }

    /// Returns the kind of the transfer as agents name it.
    fn transfer(&self) -> Transfer {
        match self.settings.transfer_type {
            TransferType::File => Transfer::Files,
            TransferType::Backup => Transfer::Backup,
            TransferType::Decompress => Transfer::Decompress,
            TransferType::Compress => Transfer::Compress,
        }
    }

    /// Returns the source's data in the directory above it.
    fn tree(&self) -> TreeQuery {
        let name = HostBytes::from(self.source.name().unwrap_or_default());
        TreeQuery {
            directory: HostBytes::from(self.source.parent()),
            tree: Tree { name, exclude: self.excluded() },
        }
    }

    /// Asks all ends for their facts, in parallel. Fails if the source does.
    async fn ask_ends(&self, hosts: &Hosts) -> Result<Answers, HostError> {
        let Self { settings, source, targets } = *self;
        let mut final_name = shape::final_name(settings, source, None);
        // The name of an archive depends on the kind of source, which must be known first.
        let first = settings.transfer_type == TransferType::Compress && final_name.is_none();
        let mut answer = None;
        if first {
            answer = self.ask_source(hosts).await?;
            final_name =
                answer.as_ref().and_then(|answer| shape::final_name(settings, source, Some(&answer.facts)));
        }
        let final_name = final_name.unwrap_or_default();
        let asking = targets.iter().map(|target| self.ask_target(hosts, target, &final_name));
        let (later, targets) = tokio::join!(
            async { if first { Ok(None) } else { self.ask_source(hosts).await } },
            join_all(asking)
        );
        Ok(Answers { source: answer.or(later?), targets })
    }

    async fn ask_source(&self, hosts: &Hosts) -> Result<Option<Probed>, HostError> {
        let Self { settings, source, .. } = *self;
        let Some(host) = hosts.get(&source.host) else { return Ok(None) };
        let idle = host.agent().await?;
        let query = SourceQuery {
            transfer: self.transfer(),
            path: HostBytes::from(&source.path),
            exclude: self.excluded(),
        };
        let agent = idle.conversation();
        let (mut asked, answer) =
            self.ask(agent, settings.source_address, Command::SourceFacts(query)).await?;
        let Answer::Source(of_source) = answer else { return Err(agent.unexpected().into()) };
        asked.facts.servers = self.servers(agent, &of_source.servers, settings.servers.stop.source()).await?;
        asked.facts.other_servers = survey::other_servers(&of_source.other_servers);
        let is_socket = of_source.path_type == PathType::Socket;
        asked.facts.add_source(*of_source);
        if is_socket && matches!(settings.transfer_type, TransferType::Backup | TransferType::Compress) {
            let defaults_file = settings.servers.defaults_file.as_deref().unwrap_or_default();
            let login = login(source.path.as_os_str(), defaults_file);
            let surveyed = survey::instance(agent, login, settings.servers.unit.clone()).await?;
            asked.facts.add_instance(surveyed.instance, surveyed.size);
        }
        Ok(Some(asked.probed(host, idle)))
    }

    async fn ask_target(
        &self,
        hosts: &Hosts,
        target: &Endpoint,
        final_name: &OsStr,
    ) -> Option<Result<Probed, HostError>> {
        Some(self.ask_one_target(hosts.get(&target.host)?, target, final_name).await)
    }

    async fn ask_one_target(
        &self,
        host: &Arc<Host>,
        target: &Endpoint,
        final_name: &OsStr,
    ) -> Result<Probed, HostError> {
        let settings = self.settings;
        let idle = host.agent().await?;
        let owner = settings.chown.as_ref().map_or("", |owner| owner.0.as_str());
        let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
        let query = TargetQuery {
            transfer: self.transfer(),
            directory: HostBytes::from(&target.path),
            name: HostBytes::from(final_name),
            user: Text::new(user),
            group: Text::new(group),
        };
        let agent = idle.conversation();
        let (mut asked, answer) =
            self.ask(agent, self.address_of(target), Command::TargetFacts(query)).await?;
        let Answer::Target(of_target) = answer else { return Err(agent.unexpected().into()) };
        if let Some(of) = &of_target.directory {
            asked.facts.servers = self.servers(agent, &of.servers, settings.servers.stop.target()).await?;
            asked.facts.other_servers = survey::other_servers(&of.other_servers);
        }
        asked.facts.add_target(*of_target);
        Ok(asked.probed(host, idle))
    }

    /// Returns the servers that an agent has found on a path. Those that the run stops are logged in to.
    async fn servers(
        &self,
        agent: &Conversation,
        found: &[server::Server],
        stops: bool,
    ) -> Result<Vec<Server>, AgentError> {
        if !stops {
            return Ok(survey::servers(found));
        }
        let defaults_file = self.settings.servers.defaults_file.as_deref().unwrap_or_default();
        survey::try_logins(agent, found, defaults_file).await
    }

    /// Asks one end about itself and its path, and returns the answer about the path; also asks whether the given
    /// address is its own.
    async fn ask(
        &self,
        agent: &Conversation,
        given: Option<IpAddr>,
        about_path: Command,
    ) -> Result<(Asked, Answer), AgentError> {
        let of_host = async {
            let answer = agent.call_within(ASK_LIMIT, Command::HostFacts(self.transfer())).await?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let Answer::Host(host) = answer else { return Err(agent.unexpected()) };
            Ok((Facts::of_host(*host), now))
        };
        let of_address = async {
            let Some(address) = given else { return Ok::<_, AgentError>(None) };
            let routes = routes(agent, vec![address]).await?;
            Ok(given.filter(|_| !routes.iter().any(|route| route.own)))
        };
        let (of_host, answer, foreign) =
            tokio::join!(of_host, agent.call_within(ASK_LIMIT, about_path), of_address);
        let (facts, now) = of_host?;
        let skew = Some(facts.clock)
            .filter(|clock| *clock < LATEST)
            .map(|clock| clock.as_secs_f64() - now.as_secs_f64());
        Ok((Asked { facts, skew, foreign: foreign? }, answer?))
    }

    /// Searches the source for two names that collide on a target with a case-insensitive file system.
    async fn find_twin(&self, source: &mut Probed) -> Result<(), HostError> {
        let idle = source.host.agent().await?;
        let agent = idle.conversation();
        let answer = agent.call_within(ASK_LIMIT, Command::Twin(self.tree())).await?;
        let Answer::Twin(twin) = answer else { return Err(agent.unexpected().into()) };
        source.host.keep(idle);
        if let Some(facts) = &mut source.facts.source {
            facts.twin = twin.map(|twin| twin.to_string());
        }
        Ok(())
    }

    /// Counts extended attributes on the source, if a target's file system cannot store all kinds of them.
    async fn find_attributes(
        &self,
        source: &mut Probed,
        targets: &[Result<ProbedTarget, HostError>],
    ) -> Result<(), HostError> {
        let ends = targets.iter().flatten().map(|target| &target.end.facts);
        let lacking =
            ends.filter(|facts| facts.target.as_ref().is_some_and(|target| !target.lacks.is_empty()));
        let lacking: Vec<&Facts> = lacking.collect();
        let Some(facts) = &mut source.facts.source else { return Ok(()) };
        if lacking.is_empty() || self.settings.transfer_type != TransferType::File {
            return Ok(());
        }
        // Without root, other attributes can be neither read nor set.
        let root = source.facts.uid == 0 && lacking.iter().any(|facts| facts.uid == 0);
        let scope = if root { AttributeScope::All } else { AttributeScope::Unprivileged };
        let idle = source.host.agent().await?;
        let agent = idle.conversation();
        let command = Command::Attributes { tree: self.tree(), scope };
        let Answer::Attributes(found) = agent.call_within(ASK_LIMIT, command).await? else {
            return Err(agent.unexpected().into());
        };
        source.host.keep(idle);
        let example = |path: &HostBytes| short(path.as_bytes(), LONGEST_PATH);
        facts.attributes =
            found.iter().map(|found| (found.kind, (found.files, example(&found.example)))).collect();
        Ok(())
    }
}

/// Facts about one end.
struct Asked {
    facts: Facts,
    skew: Option<f64>,
    foreign: Option<IpAddr>,
}

impl Asked {
    fn probed(self, host: &Arc<Host>, idle: IdleAgent) -> Probed {
        host.keep(idle);
        Probed { host: Arc::clone(host), facts: self.facts, skew: self.skew, foreign: self.foreign }
    }
}

/// Asks for the ways to addresses.
pub(crate) async fn routes(agent: &Conversation, addresses: Vec<IpAddr>) -> Result<Vec<Route>, AgentError> {
    match agent.call(Command::Routes(addresses)).await? {
        Answer::Routes(routes) => Ok(routes),
        _ => Err(agent.unexpected()),
    }
}

/// Returns the addresses of a target that the source may connect to, in order of preference: first the one
/// that the controller reached over SSH, which needs no name resolution on the source. Both ends have a
/// netcat for each.
#[must_use]
pub fn candidates(source: NamedFacts<'_>, target: NamedFacts<'_>) -> Vec<IpAddr> {
    let (here, there) = (source.facts, target.facts);
    let reached = match (source.name, target.name) {
        (HostName::Local, HostName::Local) => return vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
        // The source knows this machine by the address that its SSH connection came from.
        (_, HostName::Local) => here.ssh.map(|(controller, _)| controller),
        _ => there.ssh.map(|(_, own)| own),
    };
    // An address that both hosts have leads the source back to itself; mostly a bridge for containers.
    let others = there.addresses.iter().copied().filter(|address| !here.addresses.contains(address));
    let leads_there = |address: &IpAddr| !address.is_loopback() || here.same_machine(there);
    let mut candidates = Vec::new();
    for address in reached.into_iter().filter(leads_there).chain(others) {
        if speaks(here, address) && speaks(there, address) && !candidates.contains(&address) {
            candidates.push(address);
        }
    }
    candidates
}

/// Returns whether an end has a netcat for the address; a host without any is a separate finding.
fn speaks(facts: &Facts, address: IpAddr) -> bool {
    facts.netcats.is_empty() || facts.netcat(&[address]).is_some()
}

/// Asks the source which of the targets' addresses it can reach, and from which of its own.
/// `given`: source's address, if the user gave one.
async fn find_addresses(
    given: Option<IpAddr>,
    source: &Probed,
    targets: &mut [Result<ProbedTarget, HostError>],
) -> Result<(), HostError> {
    let of_targets: Vec<Vec<IpAddr>> = targets
        .iter()
        .flatten()
        .map(|target| match target.given {
            Some(address) => {
                let ends = [&source.facts, &target.end.facts];
                [address].into_iter().filter(|address| ends.iter().all(|end| speaks(end, *address))).collect()
            }
            None => candidates(source.named(), target.end.named()),
        })
        .collect();
    let mut addresses: Vec<IpAddr> = of_targets.iter().flatten().copied().collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Ok(());
    }
    let idle = source.host.agent().await?;
    let routes = routes(idle.conversation(), addresses).await?;
    source.host.keep(idle);
    let own = |address: &IpAddr| {
        if given.is_some() {
            return given.filter(|given| given.is_ipv4() == address.is_ipv4());
        }
        routes.iter().find(|route| route.address == *address)?.source
    };
    for (target, candidates) in targets.iter_mut().flatten().zip(of_targets) {
        let reached = candidates.into_iter().find_map(|address| Some((address, own(&address)?)));
        (target.address, target.peer) = reached.unzip();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::netcat::variant::{Dialect, Netcat};

    fn host(id: &str, reached: &str, addresses: &[&str]) -> Facts {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        Facts {
            machine_id: id.into(),
            ssh: Some((ip("10.0.0.9"), ip(reached))),
            addresses: addresses.iter().map(|address| ip(address)).collect(),
            ..Facts::default()
        }
    }

    fn between(source: &Facts, target: &Facts) -> Vec<String> {
        let name = HostName::Ssh("db".into());
        let named = |facts| NamedFacts { name: &name, facts };
        candidates(named(source), named(target)).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ssh_address_is_first_and_shared_ones_are_excluded() {
        let source = host("a", "10.0.0.1", &["10.0.0.1", "172.17.0.1"]);
        let target = host("b", "fd77::2", &["10.0.0.2", "172.17.0.1", "fd77::2"]);
        assert_eq!(between(&source, &target), ["fd77::2", "10.0.0.2"]);
    }

    #[test]
    fn addresses_without_a_netcat_are_excluded() {
        let traditional = || vec![Netcat { dialect: Dialect::Traditional, program: "nc".into() }];
        let source = host("a", "10.0.0.1", &["10.0.0.1"]);
        let target = host("b", "fd77::2", &["10.0.0.2", "fd77::2"]);
        assert_eq!(between(&Facts { netcats: traditional(), ..source.clone() }, &target), ["10.0.0.2"]);
        assert_eq!(between(&source, &Facts { netcats: traditional(), ..target }), ["10.0.0.2"]);
    }

    #[test]
    fn loopback_serves_only_the_same_host() {
        let target = host("b", "127.0.0.1", &["10.0.0.2"]);
        assert_eq!(between(&host("a", "10.0.0.1", &[]), &target), ["10.0.0.2"]);
        assert_eq!(between(&host("b", "10.0.0.2", &["10.0.0.2"]), &target), ["127.0.0.1"]);
    }

    #[test]
    fn controller_is_reached_at_the_address_of_its_ssh_connection() {
        let (source, target) = (host("a", "10.0.0.1", &[]), host("c", "10.0.0.3", &["10.0.0.9", "fd77::9"]));
        let named = |name, facts| NamedFacts { name, facts };
        let db = HostName::Ssh("db".into());
        let found = candidates(named(&db, &source), named(&HostName::Local, &target));
        assert_eq!(found, ["10.0.0.9", "fd77::9"].map(|text| text.parse::<IpAddr>().unwrap()));
    }
}
