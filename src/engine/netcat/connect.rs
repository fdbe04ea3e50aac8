//! Connects the sender to every target, and checks the peer on each port before any data is read. Until then
//! failures cost nothing: everything is started again on the next port.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::Receiver;
use super::build::{self, Sink};
use super::peer::{CONNECT_LIMIT, Peer, Reports, Since};
use super::port::{Port, made_to};
use crate::config::values::PortRange;
use crate::engine::netcat::variant::Netcat;
use crate::error::Error;
use crate::error::busy::Resource;
use crate::host::agent::Agent;
use crate::host::conversation::AgentError;
use crate::lease::{self, End, job};
use crate::pipeline::messages::said;
use crate::pipeline::summary::summary;
use crate::plan::{Plan, TargetPlan};
use crate::proto::command::{Answer, Awaited, Command};
use crate::proto::job::{JobName, Program};
use crate::proto::secret::Secret;
use crate::proto::task::Task;

/// Interval of checks of a socket; nothing announces its changes.
const SOCKET_POLL: Duration = Duration::from_millis(10);
/// Number of attempts to get a port of our own, mostly because of unexpected peers, before the run gives up.
const TRIES: usize = 10;

/// Connects the sender to the receivers. Marks receivers that cannot be reached as failed; fails only if the
/// source does.
pub(super) async fn connect(
    plan: &Plan,
    source: &End,
    receivers: &mut [Receiver<'_>],
    key: Option<&Secret>,
) -> Result<(), Error> {
    let mut ports: Vec<PortRange> = vec![plan.ports; receivers.len()];
    for attempt in 1.. {
        listen_all(plan, receivers, &mut ports, key).await;
        let sinks: Vec<Sink> = live(receivers).map(Receiver::sink).collect();
        if sinks.is_empty() {
            return Ok(());
        }
        let sender = build::sender(plan, &sinks);
        tracing::debug!("{}: sender: {}", source.agent.host(), summary(&sender));
        job::start(&source.agent, JobName::Sender, Task::Pipeline(sender), key).await?;
        let way = Way { netcat: &plan.source.netcat, alone: sinks.len() == 1, again: attempt > 1 };
        let peers = open_gates(source, receivers, way).await;
        if peers.iter().all(|peer| matches!(peer, Peer::Ours)) {
            return Ok(());
        }
        // The sender is one job for all of its sinks, so all start again.
        source.agent.order(Command::StopJob { job: JobName::Sender }).await?;
        let live = receivers.iter_mut().zip(&mut ports).filter(|(receiver, _)| receiver.is_live());
        join_all(live.zip(peers).map(|((receiver, ports), peer)| async move {
            if let Err(error) = stop(receiver).await {
                receiver.fail(error.into());
            }
            match peer {
                Peer::Ours => {}
                Peer::Failed(error) => receiver.fail(error),
                Peer::Unexpected(text) if attempt >= TRIES => {
                    let resource = Resource::Connection { text, attempts: TRIES };
                    receiver.fail(lease::busy(&receiver.end.host, resource).into());
                }
                Peer::Unexpected(text) => {
                    tracing::warn!("{}: {text}; trying again", receiver.plan.endpoint.host);
                    // A range of a single port leaves no choice but the same port.
                    if plan.ports.first < ports.last {
                        ports.first = receiver.port.saturating_add(1);
                    }
                }
            }
        }))
        .await;
    }
    Ok(())
}

fn live<'a, 'b>(receivers: &'a [Receiver<'b>]) -> impl Iterator<Item = &'a Receiver<'b>> {
    receivers.iter().filter(|receiver| receiver.is_live())
}

/// Makes every live receiver listen, each on a port of its range. Marks those that cannot as failed.
async fn listen_all(
    plan: &Plan,
    receivers: &mut [Receiver<'_>],
    ports: &mut [PortRange],
    key: Option<&Secret>,
) {
    let live = receivers.iter_mut().zip(ports).filter(|(receiver, _)| receiver.is_live());
    join_all(live.map(|(receiver, ports)| async {
        match listen(plan, receiver, ports, key).await {
            Ok(port) => receiver.port = port,
            Err(error) => receiver.fail(error),
        }
    }))
    .await;
}

/// Checks the peers of all live receivers, in order, and opens the gates if all of them are our sender.
async fn open_gates(source: &End, receivers: &[Receiver<'_>], way: Way<'_>) -> Vec<Peer> {
    let peers = join_all(live(receivers).map(|receiver| peer(source, receiver, way))).await;
    if !peers.iter().all(|peer| matches!(peer, Peer::Ours)) {
        return peers;
    }
    join_all(live(receivers).map(|receiver| async {
        let opened = receiver.end.agent.order(Command::OpenGate { job: JobName::Receiver }).await;
        opened.map_or_else(|error| Peer::Failed(error.into()), |()| Peer::Ours)
    }))
    .await
}

/// Locks a port, opens the firewall and starts the receiver; repeats this until a receiver listens.
async fn listen(
    plan: &Plan,
    receiver: &Receiver<'_>,
    ports: &mut PortRange,
    key: Option<&Secret>,
) -> Result<u16, Error> {
    let agent = &receiver.end.agent;
    let target: &TargetPlan = receiver.plan;
    for _ in 0..TRIES {
        if ports.first > ports.last {
            return Err(lease::busy(&receiver.end.host, Resource::LostPorts(ports.last)).into());
        }
        let port = lease::port(receiver.end, *ports).await?;
        lease::firewall(agent, target, port).await?;
        let pipeline = build::receiver(plan, target, port);
        tracing::debug!("{}: receiver: {}", agent.host(), summary(&pipeline));
        job::start(agent, JobName::Receiver, Task::Pipeline(pipeline), key).await?;
        let listener = listener(agent, target.address, port).await?;
        if let Listener::Listens = listener {
            return Ok(port);
        }
        let job = agent.job(JobName::Receiver);
        stop(receiver).await?;
        // A netcat that exited with 0 has already served a peer, which cannot be ours.
        let visited = matches!(listener, Listener::Visited)
            || job.stages.iter().any(|(stage, status)| *stage == Program::Netcat && *status == 0);
        let taken = job.complaints.iter().any(|line| Netcat::finds_port_taken(line));
        if !visited && !taken {
            return Err(Error::Failed(format!(
                "{}: the receiver did not listen on port {port}{}",
                agent.host(),
                said(&job)
            )));
        }
        tracing::debug!(host = agent.host(), port, visited, "port lost before the start of our sender");
        if plan.ports.first < plan.ports.last {
            ports.first = port.saturating_add(1);
        } else if !visited {
            return Err(lease::busy(&receiver.end.host, Resource::LostPort(port)).into());
        }
    }
    Err(lease::busy(&receiver.end.host, Resource::TriedPorts(TRIES)).into())
}

async fn stop(receiver: &Receiver<'_>) -> Result<(), AgentError> {
    receiver.end.agent.order(Command::StopJob { job: JobName::Receiver }).await?;
    lease::close_firewall(&receiver.end.agent, receiver.plan).await
}

/// State of a receiver after its start.
enum Listener {
    Listens,
    /// A peer connected before our sender was started; some netcats no longer listen after that.
    Visited,
    Failed,
}

/// Returns the sockets on a target's port.
async fn sockets(agent: &Agent, target: SocketAddr, awaited: Awaited) -> Result<Port, AgentError> {
    match agent.call(Command::AcceptedPeers { job: JobName::Receiver, target, awaited }).await? {
        Answer::Sockets(sockets) => Ok(Port::of(&sockets)),
        _ => Err(agent.unexpected()),
    }
}

/// Returns the local addresses of the sender's connections to a target's socket.
async fn made(agent: &Agent, target: SocketAddr) -> Result<Vec<SocketAddr>, AgentError> {
    match agent.call(Command::OwnConnections { job: JobName::Sender, port: target.port() }).await? {
        Answer::Connections(connections) => Ok(made_to(&connections, target)),
        _ => Err(agent.unexpected()),
    }
}

async fn listener(agent: &Agent, address: IpAddr, port: u16) -> Result<Listener, Error> {
    let deadline = Instant::now() + CONNECT_LIMIT;
    let target = SocketAddr::new(address, port);
    while Instant::now() < deadline {
        let seen = sockets(agent, target, Awaited::Listening).await?;
        if seen.listens {
            return Ok(Listener::Listens);
        }
        if !seen.ours.is_empty() {
            return Ok(Listener::Visited);
        }
        let job = agent.job(JobName::Receiver);
        // The traditional netcat would retry for a long time.
        if job.exit.is_some() || job.complaints.iter().any(|line| Netcat::finds_port_taken(line)) {
            break;
        }
        tokio::time::sleep(SOCKET_POLL).await;
    }
    Ok(Listener::Failed)
}

/// Circumstances of the sender's connection.
#[derive(Clone, Copy)]
struct Way<'a> {
    netcat: &'a Netcat,
    /// There is only one target.
    alone: bool,
    /// An earlier attempt failed.
    again: bool,
}

/// Queries both ends and determines whether the target accepted the connection of our sender.
async fn peer(source: &End, receiver: &Receiver<'_>, way: Way<'_>) -> Peer {
    match ask_both(source, receiver, way).await {
        Ok(peer) => peer,
        Err(error) => Peer::Failed(error),
    }
}

async fn ask_both(source: &End, receiver: &Receiver<'_>, way: Way<'_>) -> Result<Peer, Error> {
    let Way { netcat, alone, again } = way;
    let target = SocketAddr::new(receiver.plan.address, receiver.port);
    let mut since = Since::new(Instant::now());
    loop {
        let (accepted, made) =
            tokio::join!(sockets(&receiver.end.agent, target, Awaited::Ours), made(&source.agent, target));
        let mut reports = Reports {
            origin: source.agent.host(),
            host: &receiver.plan.endpoint.host,
            address: target,
            sockets: accepted?,
            made: made?,
            sender: source.agent.job(JobName::Sender),
            receiver: receiver.end.agent.job(JobName::Receiver),
            netcat,
            sink: receiver.plan.number,
            alone,
            again,
            listens_after_refusal: false,
        };
        // Only a question after the refusal tells a firewall from a receiver that has served another peer.
        if reports.is_refused() {
            let asked = sockets(&receiver.end.agent, target, Awaited::Listening).await?;
            reports.listens_after_refusal = asked.listens;
        }
        if let Some(peer) = reports.decide(&mut since, Instant::now()) {
            return Ok(peer);
        }
        tokio::time::sleep(SOCKET_POLL).await;
    }
}
