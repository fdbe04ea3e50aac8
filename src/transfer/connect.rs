//! From leased ports to a sender that is connected to every target, with the right peer on each port and nothing read
//! yet. What goes wrong here costs nothing: everything is started again, on the next port.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

use super::Lane;
use super::judge::{BROKEN_PIPE, KILLED_AS_A_WHOLE, NOT_STARTED};
use crate::error::Error;
use crate::host::agent::{Agent, AgentError};
use crate::host::netcat::Netcat;
use crate::host::wire::printable;
use crate::lease::{self, End};
use crate::pipeline::{build, render};
use crate::plan::{Plan, TargetPlan};

/// How long a listener may take to listen, and a sender to be connected.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// The wait between two looks at a socket; nothing announces a change of it.
const SOCKET_POLL: Duration = Duration::from_millis(10);
/// How long a receiver that listens no more may take to say what became of it.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How many sockets of a port are looked at.
const MOST_SOCKETS: usize = 64;
/// How often a port may be lost, to strangers mostly, before the run gives up.
const TRIES: usize = 10;

/// How one target's port stands once the sender was started.
enum Peer {
    Ours,
    /// Somebody else was accepted in our place, or we cannot prove that it was us.
    Stranger(String),
    Failed(Error),
}

/// Brings sender and receivers together. Lanes that cannot be reached have failed afterwards; the error is the source's
/// own.
pub(super) async fn connect(
    plan: &Plan,
    source: &End,
    lanes: &mut [Lane<'_>],
    key: &str,
) -> Result<(), Error> {
    let mut ranges: Vec<(u16, u16)> = vec![(plan.ports.first, plan.ports.last); lanes.len()];
    for attempt in 1.. {
        join_all(lanes.iter_mut().zip(&mut ranges).filter(|(lane, _)| lane.is_live()).map(
            |(lane, range)| async {
                match listen(plan, lane, range, key).await {
                    Ok(port) => lane.port = port,
                    Err(error) => lane.fail(error),
                }
            },
        ))
        .await;
        let sinks: Vec<(usize, IpAddr, u16)> = lanes
            .iter()
            .filter(|lane| lane.is_live())
            .map(|lane| (lane.plan.number, lane.plan.address, lane.port))
            .collect();
        if sinks.is_empty() {
            return Ok(());
        }
        let script = render::script(&build::sender(plan, &sinks));
        lease::job(&source.agent, "sender", &script, key).await?;
        let alone = sinks.len() == 1;
        let way = Way { netcat: &plan.source.netcat, alone, again: attempt > 1 };
        let live = lanes.iter().filter(|lane| lane.is_live());
        let mut peers = join_all(live.map(|lane| peer(source, lane, way))).await;
        if peers.iter().all(|peer| matches!(peer, Peer::Ours)) {
            let live = lanes.iter().filter(|lane| lane.is_live());
            peers = join_all(live.map(|lane| async {
                let opened = lane.end.agent.call("open_gate", &[]).await;
                opened.map_or_else(|error| Peer::Failed(error.into()), |_| Peer::Ours)
            }))
            .await;
            if peers.iter().all(|peer| matches!(peer, Peer::Ours)) {
                return Ok(());
            }
        }

        // The sender has one script for all of its sinks, so all start again.
        source.agent.call("stop_job", &[b"sender"]).await?;
        let live = lanes.iter_mut().zip(&mut ranges).filter(|(lane, _)| lane.is_live());
        join_all(live.zip(peers).map(|((lane, (first, last)), peer)| async move {
            if let Err(error) = stop(lane, lane.port).await {
                lane.fail(error.into());
            }
            match peer {
                Peer::Ours => {}
                Peer::Failed(error) => lane.fail(error),
                Peer::Stranger(text) if attempt >= TRIES => {
                    lane.fail(Error::Busy(format!("{}: {text}, {TRIES} times", lane.plan.endpoint.host)));
                }
                Peer::Stranger(text) => {
                    tracing::warn!("{}: {text}; trying again", lane.plan.endpoint.host);
                    // One that was asked for by number is tried again.
                    if plan.ports.first < *last {
                        *first = lane.port.saturating_add(1);
                    }
                }
            }
        }))
        .await;
    }
    Ok(())
}

/// Locks a port, opens the firewall and starts the receiver on it, until one listens.
async fn listen(plan: &Plan, lane: &Lane<'_>, range: &mut (u16, u16), key: &str) -> Result<u16, Error> {
    let agent = &lane.end.agent;
    let target: &TargetPlan = lane.plan;
    for _ in 0..TRIES {
        if range.0 > range.1 {
            return Err(Error::Busy(format!(
                "{}: every port up to {} was lost to others",
                agent.host(),
                range.1
            )));
        }
        let port = lease::port(lane.end, *range).await?;
        lease::firewall(agent, target, port).await?;
        let script = render::script(&build::receiver(plan, target, port));
        lease::job(agent, "receiver", &script, key).await?;
        let listener = listener(agent, target.address, port).await?;
        if let Listener::Listens = listener {
            return Ok(port);
        }
        let job = agent.job("receiver");
        stop(lane, port).await?;
        // A netcat that ended well had a visitor already, who is not ours.
        let visited = matches!(listener, Listener::Visited)
            || job.stages.iter().any(|(stage, status)| stage == "netcat" && *status == 0);
        let taken = job.complaints.iter().any(|line| Netcat::finds_port_taken(line));
        if !visited && !taken {
            let said = job.complaints.join("; ");
            return Err(Error::Failed(format!(
                "{}: the receiver did not listen on port {port}: {said}",
                agent.host()
            )));
        }
        tracing::debug!(
            host = agent.host(),
            port,
            visited,
            "the port was lost before our sender was started"
        );
        if plan.ports.first < plan.ports.last {
            range.0 = port.saturating_add(1);
        } else if !visited {
            return Err(Error::Busy(format!(
                "{}: port {port} was taken; choose another --port",
                agent.host()
            )));
        }
    }
    Err(Error::Busy(format!(
        "{}: {TRIES} times in a row a port was taken, or took a connection from somebody else",
        agent.host()
    )))
}

async fn stop(lane: &Lane<'_>, port: u16) -> Result<(), AgentError> {
    lane.end.agent.call("stop_job", &[b"receiver"]).await?;
    lease::close_firewall(&lane.end.agent, lane.plan, port).await
}

/// What became of a receiver that was to listen.
enum Listener {
    Listens,
    /// It has a visitor before ours was told of it, and some netcats listen no more then.
    Visited,
    Failed,
}

async fn listener(agent: &Agent, address: IpAddr, port: u16) -> Result<Listener, Error> {
    let deadline = Instant::now() + CONNECT_LIMIT;
    let (address, port) = (address.to_string(), port.to_string());
    let receiver: [&[u8]; 3] = [b"receiver", port.as_bytes(), address.as_bytes()];
    while Instant::now() < deadline {
        if !agent.call("check_listening", &receiver[..2]).await?.is_empty() {
            return Ok(Listener::Listens);
        }
        if !Port::parse(&agent.call("accepted_peer", &receiver).await?).ours.is_empty() {
            return Ok(Listener::Visited);
        }
        let job = agent.job("receiver");
        // The traditional netcat would go on trying.
        if job.exit.is_some() || job.complaints.iter().any(|line| Netcat::finds_port_taken(line)) {
            break;
        }
        tokio::time::sleep(SOCKET_POLL).await;
    }
    Ok(Listener::Failed)
}

/// How our sender connects.
#[derive(Clone, Copy)]
struct Way<'a> {
    netcat: &'a Netcat,
    /// To one target only.
    alone: bool,
    /// Not for the first time.
    again: bool,
}

/// Whether the connection that the target accepted is the one that our sender made: both ends are asked.
async fn peer(source: &End, lane: &Lane<'_>, way: Way<'_>) -> Peer {
    match ask_both(source, lane, way).await {
        Ok(peer) => peer,
        Err(error) => Peer::Failed(error),
    }
}

async fn ask_both(source: &End, lane: &Lane<'_>, way: Way<'_>) -> Result<Peer, Error> {
    let Way { netcat, alone, again } = way;
    let port = lane.port.to_string();
    let address = lane.plan.address.to_string();
    let deadline = Instant::now() + CONNECT_LIMIT;
    let host = &lane.plan.endpoint.host;
    let (mut silent_since, mut others_since, mut accepted_since) = (None, None, None);
    loop {
        let there: [&[u8]; 3] = [b"receiver", port.as_bytes(), address.as_bytes()];
        let here: [&[u8]; 2] = [b"sender", port.as_bytes()];
        let (accepted, made) = tokio::join!(
            lane.end.agent.call("accepted_peer", &there),
            source.agent.call("local_address", &here)
        );
        let seen = Port::parse(&accepted?);
        let made = made_to(&made?, SocketAddr::new(lane.plan.address, lane.port));
        if seen.is_only(&made) {
            return Ok(Peer::Ours);
        }
        let accepted = seen.accepted();
        match (accepted.first(), made.as_slice()) {
            (Some(accepted), [made, ..]) if accepted != made => {
                return Ok(Peer::Stranger(format!(
                    "port {port} took a connection from {accepted} while ours is {made} (a stranger, or address translation between the hosts)"
                )));
            }
            // One that has just gone may still be listed.
            (_, [_, ..]) if seen.others.is_some() && is_over(&mut others_since, LAST_WORDS) => {
                let others = seen.others.unwrap_or_default();
                return Ok(Peer::Stranger(format!("another process uses port {port}, too: {others}")));
            }
            // Whoever was accepted was connected before: a sender of ours that is not has come too late.
            (Some(accepted), []) if is_over(&mut accepted_since, LAST_WORDS) => {
                return Ok(Peer::Stranger(format!(
                    "port {port} took a connection from {accepted}, which is not ours"
                )));
            }
            (None, [made, ..]) if Instant::now() >= deadline => {
                return Ok(Peer::Stranger(format!(
                    "port {port} answered {made}, which is ours, but it was not our receiver that did"
                )));
            }
            _ => {}
        }
        let sender = source.agent.job("sender");
        let receiver = lane.end.agent.job("receiver");
        if receiver.exit.is_some() {
            let said = receiver.complaints.first().map_or_else(String::new, |line| format!(": {line}"));
            if let Some((stage, status)) = receiver.stages.iter().find(|(_, status)| is_broken(*status)) {
                let text = format!("{host}: the receiver failed: {stage} ended with status {status}{said}");
                return Ok(Peer::Failed(Error::Failed(text)));
            }
            // A connection that our own programs ended at once looks like somebody else's, every time.
            let words = sender.complaints.iter().find(|line| !is_consequence(line) && !netcat.wrote(line));
            if let Some(words) = words.filter(|_| again) {
                let origin = source.agent.host();
                return Ok(Peer::Failed(Error::Failed(format!("{origin}: the sender failed: {words}"))));
            }
            return Ok(Peer::Stranger(format!(
                "port {port} was used up before our sender was connected{said}"
            )));
        }
        // netcat says it once and ends; the rest of its pipeline waits for the gate.
        let refused = |line: &String| netcat.gives_up(line, lane.plan.address, lane.port, alone);
        // Where it is one of several its pump knows, too.
        let refused = sender.complaints.iter().any(refused)
            || sender.dropped.contains_key(&build::sink_name(lane.plan.number));
        // Some netcats listen no more once they have a visitor.
        if let (true, Some(accepted)) = (refused, accepted.first()) {
            return Ok(Peer::Stranger(format!(
                "port {port} took a connection from {accepted}, which is not ours"
            )));
        }
        // Others had a visitor who has left: that they end for it is told at any moment. A firewall leaves the listener alone.
        if refused && lane.end.agent.call("check_listening", &there[..2]).await?.is_empty() {
            if !is_over(&mut silent_since, LAST_WORDS) {
                tokio::time::sleep(SOCKET_POLL).await;
                continue;
            }
            return Ok(Peer::Stranger(format!("port {port} was used up before our sender was connected")));
        }
        // A job that was killed as a whole has told of no stage.
        if !refused && sender.exit.is_some() && sender.stages.is_empty() {
            return Ok(Peer::Failed(Error::Failed(format!(
                "{}: the sender failed: {KILLED_AS_A_WHOLE}",
                source.agent.host()
            ))));
        }
        let late = Instant::now() >= deadline;
        if refused || sender.exit.is_some() || late {
            let said = sender.complaints.join("; ");
            return Ok(Peer::Failed(Error::Failed(format!(
                "{host}: the source cannot connect to {}{}; is another firewall between them, or on \
                 {host} one that --firewall does not open?",
                SocketAddr::new(lane.plan.address, lane.port),
                match said.as_str() {
                    "" if late => format!(" within {} s", CONNECT_LIMIT.as_secs()),
                    "" => String::new(),
                    said => format!(": {said}"),
                }
            ))));
        }
        tokio::time::sleep(SOCKET_POLL).await;
    }
}

/// Whether something has been so for a while, since it was asked for the first time.
fn is_over(since: &mut Option<Instant>, limit: Duration) -> bool {
    since.get_or_insert_with(Instant::now).elapsed() > limit
}

/// A line that a stage says because the next one has ended.
fn is_consequence(line: &str) -> bool {
    ["error writing output file", "Broken pipe", "the reader of"].iter().any(|words| line.contains(words))
}

/// A status that no data leads to: the program could not be started, or something but a broken pipe killed it.
fn is_broken(status: i32) -> bool {
    status >= NOT_STARTED && status != BROKEN_PIPE
}

/// What uses the port of a target, as `sockets.pl` tells it there.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// The other ends of connections that our receiver has accepted.
    ours: Vec<SocketAddr>,
    /// What processes that are not ours have there: connections, listeners.
    others: Option<String>,
    /// The other ends of connections that they have accepted.
    strangers: Vec<SocketAddr>,
}

impl Port {
    /// Takes an agent's reply apart.
    #[must_use]
    pub fn parse(fields: &[Vec<u8>]) -> Self {
        let mut port = Self::default();
        let mut others = Vec::new();
        for field in fields.iter().take(MOST_SOCKETS) {
            let text = printable(field);
            match text.split_once(' ') {
                Some(("ours", peer)) => port.ours.extend(socket(peer)),
                Some(("other", peer)) => {
                    port.strangers.extend(socket(peer));
                    others.push(format!("a connection from {peer}"));
                }
                Some(("listener", own)) => others.push(format!("it listens on {own}")),
                _ => {}
            }
        }
        port.others = (!others.is_empty()).then(|| others.join(", "));
        port
    }

    /// There is exactly one connection, it is ours on both ends, and nobody else listens.
    #[must_use]
    pub fn is_only(&self, made: &[SocketAddr]) -> bool {
        self.others.is_none() && self.ours.len() == 1 && self.ours == made
    }

    /// All other ends, those of our receiver first.
    fn accepted(&self) -> Vec<SocketAddr> {
        [&self.ours[..], &self.strangers].concat()
    }
}

/// Of the connections that an agent on the source replies, our own ends of those to that socket.
#[must_use]
pub fn made_to(fields: &[Vec<u8>], to: SocketAddr) -> Vec<SocketAddr> {
    let to = SocketAddr::new(to.ip().to_canonical(), to.port());
    let made = |field: &Vec<u8>| {
        let text = printable(field);
        let mut ends = text.strip_prefix("ours ")?.split(' ').map(socket);
        let (own, peer) = (ends.next()??, ends.next()??);
        (peer == to).then_some(own)
    };
    fields.iter().take(MOST_SOCKETS).filter_map(made).collect()
}

/// A socket address; one of IPv4 may be mapped into IPv6.
fn socket(text: &str) -> Option<SocketAddr> {
    let socket = text.parse::<SocketAddr>().ok()?;
    Some(SocketAddr::new(socket.ip().to_canonical(), socket.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(rows: &[&str]) -> Vec<Vec<u8>> {
        rows.iter().map(|row| row.as_bytes().to_vec()).collect()
    }

    fn sockets(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_gate_opens_for_one_connection_that_is_ours_on_both_ends() {
        let made = sockets(&["10.0.0.1:40000"]);
        let is_only = |rows: &[&str]| Port::parse(&fields(rows)).is_only(&made);
        assert!(is_only(&["ours 10.0.0.1:40000"]));
        assert!(is_only(&["ours [::ffff:10.0.0.1]:40000", "rubbish"]));
        assert!(!is_only(&[]));
        assert!(!is_only(&["ours 10.0.0.2:40000"]));
        assert!(!is_only(&["ours 10.0.0.1:40000", "ours 10.0.0.2:5"]));
        assert!(!is_only(&["ours 10.0.0.1:40000", "other 10.0.0.2:5"]));
        assert!(!is_only(&["ours 10.0.0.1:40000", "listener 0.0.0.0:4400"]));
        assert!(!is_only(&["other 10.0.0.1:40000"]));
        assert!(
            !Port::parse(&fields(&["ours 10.0.0.1:40000"]))
                .is_only(&sockets(&["10.0.0.1:40000", "10.0.0.1:40001"]))
        );
    }

    #[test]
    fn of_the_source_s_connections_those_to_the_target_count() {
        let rows = fields(&[
            "ours 10.0.0.1:40000 10.0.0.2:4400",
            "ours 10.0.0.1:40001 10.0.0.3:4400",
            "ours [fd77::1]:40002 [fd77::2]:4400",
            "10.0.0.1:1 10.0.0.2:4400",
        ]);
        assert_eq!(made_to(&rows, "10.0.0.2:4400".parse().unwrap()), sockets(&["10.0.0.1:40000"]));
        assert_eq!(made_to(&rows, "[fd77::2]:4400".parse().unwrap()), sockets(&["[fd77::1]:40002"]));
    }
}
