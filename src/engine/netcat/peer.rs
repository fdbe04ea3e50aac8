//! Decision whose connection a target accepted, from the reports of both ends. Pure.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::judge::{BROKEN_PIPE, KILLED_AS_A_WHOLE, NOT_STARTED};
use super::port::Port;
use crate::base::endpoint::HostName;
use crate::engine::netcat::variant::Netcat;
use crate::error::Error;
use crate::host::agent::Job;
use crate::pipeline::messages::said;

/// Time limit for a receiver to listen and for a sender to connect.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// Time for a process that has ended to disappear from the lists of the kernel, and for its end to be reported.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Peer on one target's port after the start of the sender.
#[derive(Debug)]
pub(super) enum Peer {
    /// Our sender, as both ends confirm.
    Ours,
    /// Another peer, or one that cannot be proven to be ours.
    Unexpected(String),
    /// The connection failed for a reason that another port does not change.
    Failed(Error),
}

/// Reports of both ends at one time.
pub(super) struct Reports<'a> {
    /// The source's host.
    pub(super) origin: &'a str,
    /// The target's host.
    pub(super) host: &'a HostName,
    /// Address and port of the target.
    pub(super) address: SocketAddr,
    /// Sockets on that port of the target.
    pub(super) sockets: Port,
    /// Local addresses of our sender's connections to it.
    pub(super) made: Vec<SocketAddr>,
    /// The job on the source.
    pub(super) sender: Job,
    /// The job on the target.
    pub(super) receiver: Job,
    /// The sender's netcat.
    pub(super) netcat: &'a Netcat,
    /// Number of the target.
    pub(super) sink: usize,
    /// There is only one target.
    pub(super) alone: bool,
    /// An earlier attempt failed.
    pub(super) again: bool,
    /// Whether the receiver was seen to listen after the sender's connection was refused.
    pub(super) listens_after_refusal: bool,
}

/// Times since which something has been seen.
pub(super) struct Since {
    began: Instant,
    others: Option<Instant>,
    accepted: Option<Instant>,
    silent: Option<Instant>,
}

impl Since {
    /// Starts the time limits.
    pub(super) fn new(began: Instant) -> Self {
        Self { began, others: None, accepted: None, silent: None }
    }
}

impl Reports<'_> {
    /// Returns whether the sender's netcat could not connect: it reports that once and ends, while the rest of
    /// its pipeline waits for the gate. With several targets the sink reports it, too.
    pub(super) fn is_refused(&self) -> bool {
        let (address, port) = (self.address.ip(), self.address.port());
        let gives_up = |line: &String| self.netcat.gives_up(line, address, port, self.alone);
        self.sender.complaints.iter().any(gives_up) || self.sender.dropped.contains_key(&self.sink)
    }

    /// Decides whose connection the target accepted; `None` while that is not known yet.
    pub(super) fn decide(&self, since: &mut Since, now: Instant) -> Option<Peer> {
        if self.sockets.is_only(&self.made) {
            return Some(Peer::Ours);
        }
        let is_late = now >= since.began + CONNECT_LIMIT;
        let port = self.address.port();
        let accepted = self.sockets.accepted().first().copied();
        match (accepted, self.made.as_slice()) {
            (Some(accepted), [made, ..]) if accepted != *made => {
                return Some(Peer::Unexpected(format!(
                    "port {port} accepted a connection from {accepted}, expected {made} (another client, or \
                     NAT between the hosts)"
                )));
            }
            // A process that has just ended may still be listed.
            (_, [_, ..]) if self.sockets.others.is_some() && is_over(&mut since.others, now) => {
                let others = self.sockets.others.as_deref().unwrap_or_default();
                return Some(Peer::Unexpected(format!("another process uses port {port}: {others}")));
            }
            // The accepted peer connected first: our sender, not connected yet, came too late.
            (Some(accepted), []) if is_over(&mut since.accepted, now) => {
                return Some(Peer::Unexpected(self.not_our_sender(accepted)));
            }
            (None, [made, ..]) if is_late => {
                return Some(Peer::Unexpected(format!(
                    "port {port} accepted our connection from {made}, but not in our receiver"
                )));
            }
            _ => {}
        }
        if self.receiver.exit.is_some() {
            return Some(self.ended());
        }
        let is_refused = self.is_refused();
        if is_refused {
            // Some netcats stop listening once they have accepted a peer.
            if let Some(accepted) = accepted {
                return Some(Peer::Unexpected(self.not_our_sender(accepted)));
            }
            // Others have served a peer that is gone again, and their end may be reported at any moment. Behind
            // a firewall that refused us, the receiver would still listen.
            if !self.listens_after_refusal {
                return is_over(&mut since.silent, now).then(|| Peer::Unexpected(self.closed_early()));
            }
        }
        // A job that was killed as a whole has reported no stage.
        if !is_refused && self.sender.exit.is_some() && self.sender.stages.is_empty() {
            let origin = self.origin;
            return Some(failed(format!("{origin}: the sender failed: {KILLED_AS_A_WHOLE}")));
        }
        (is_refused || self.sender.exit.is_some() || is_late).then(|| self.no_connection(is_late))
    }

    /// Explains the end of a receiver whose peer is not known to be ours.
    fn ended(&self) -> Peer {
        let receiver = &self.receiver;
        let first = receiver.complaints.first().map_or_else(String::new, |line| format!(": {line}"));
        if let Some((stage, status)) = receiver.stages.iter().find(|(_, status)| is_broken(*status)) {
            let host = self.host;
            return failed(format!("{host}: the receiver failed: {stage} ended with status {status}{first}"));
        }
        // A failure of our own programs right after connecting looks like an unexpected peer, but on every
        // attempt.
        let mut causes =
            self.sender.complaints.iter().filter(|line| !is_consequence(line) && !self.netcat.wrote(line));
        if let (Some(cause), true) = (causes.next(), self.again) {
            return failed(format!("{}: the sender failed: {cause}", self.origin));
        }
        Peer::Unexpected(format!("{}{first}", self.closed_early()))
    }

    fn no_connection(&self, is_late: bool) -> Peer {
        let Self { host, address, .. } = self;
        let reason = match said(&self.sender) {
            said if said.is_empty() && is_late => format!(" within {} s", CONNECT_LIMIT.as_secs()),
            said => said,
        };
        failed(format!(
            "{host}: the source cannot connect to {address}{reason}; check firewalls between the hosts, and any \
             on {host} that --firewall does not open"
        ))
    }

    fn not_our_sender(&self, accepted: SocketAddr) -> String {
        let port = self.address.port();
        format!("port {port} accepted a connection from {accepted}, which is not our sender")
    }

    fn closed_early(&self) -> String {
        format!("port {} was closed before our sender connected", self.address.port())
    }
}

fn failed(text: String) -> Peer {
    Peer::Failed(Error::Failed(text))
}

/// Returns whether more time than a process has for its last words has passed since the first call.
fn is_over(since: &mut Option<Instant>, now: Instant) -> bool {
    now.duration_since(*since.get_or_insert(now)) > LAST_WORDS
}

/// Returns whether a line of standard error is only a consequence of the next stage's end.
fn is_consequence(line: &str) -> bool {
    ["error writing output file", "Broken pipe", "the reader of"].iter().any(|words| line.contains(words))
}

/// Returns whether no data can cause a status: the program could not be started, or a signal other than
/// SIGPIPE killed it.
fn is_broken(status: i32) -> bool {
    status >= NOT_STARTED && status != BROKEN_PIPE
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::job::Program;
    use crate::proto::sockets::PortSocket;

    const OURS: &str = "10.0.0.1:40000";

    fn netcat() -> Netcat {
        Netcat::from_help("nc", "OpenBSD netcat (Debian patchlevel 1.219-1)").unwrap()
    }

    fn job(complaints: &[&str], stages: &[(&str, i32)], exit: Option<i32>) -> Job {
        Job {
            complaints: complaints.iter().map(ToString::to_string).collect(),
            stages: stages.iter().map(|(stage, status)| (Program::named(stage), *status)).collect(),
            exit,
            ..Job::default()
        }
    }

    #[derive(Default)]
    struct Jobs {
        sender: Job,
        receiver: Job,
    }

    /// Decides from sockets on the target, connections of the sender, and both jobs: at once, or after
    /// `seconds` in which nothing changed.
    fn decide(seen: &[&str], made: &[&str], jobs: Jobs, seconds: u64) -> String {
        decide_with(seen, made, jobs, seconds, |_| {})
    }

    fn decide_with(
        seen: &[&str],
        made: &[&str],
        Jobs { sender, receiver }: Jobs,
        seconds: u64,
        change: impl Fn(&mut Reports<'_>),
    ) -> String {
        let (netcat, host) = (netcat(), HostName::parse("db2".as_ref()).unwrap());
        let seen: Vec<PortSocket> = seen.iter().copied().map(socket).collect();
        let mut reports = Reports {
            origin: "db1",
            host: &host,
            address: "10.0.0.2:4400".parse().unwrap(),
            sockets: Port::of(&seen),
            made: made.iter().map(|address| address.parse().unwrap()).collect(),
            sender,
            receiver,
            netcat: &netcat,
            sink: 1,
            alone: true,
            again: false,
            listens_after_refusal: false,
        };
        change(&mut reports);
        let began = Instant::now();
        let mut since = Since::new(began);
        let at_once = reports.decide(&mut since, began);
        let decided = at_once.or_else(|| reports.decide(&mut since, began + Duration::from_secs(seconds)));
        match decided {
            None => "?".into(),
            Some(Peer::Ours) => "ours".into(),
            Some(Peer::Unexpected(text)) => format!("unexpected: {text}"),
            Some(Peer::Failed(error)) => format!("failed: {error}"),
        }
    }

    fn socket(text: &str) -> PortSocket {
        let (kind, address) = text.split_once(' ').unwrap_or((text, "0.0.0.0:0"));
        let address = address.parse().unwrap();
        match kind {
            "listening" => PortSocket::Listening,
            "ours" => PortSocket::Ours(address),
            "other" => PortSocket::Other(address),
            _ => PortSocket::Listener(address),
        }
    }

    fn running() -> Jobs {
        Jobs::default()
    }

    #[test]
    fn connection_that_both_ends_confirm_is_ours() {
        assert_eq!(decide(&["ours 10.0.0.1:40000"], &[OURS], running(), 0), "ours");
        assert_eq!(decide(&["listening"], &[], running(), 2), "?");
        assert_eq!(decide(&[], &[OURS], running(), 2), "?");
    }

    #[test]
    fn other_peers_are_unexpected() {
        let other = decide(&["ours 10.0.0.9:5"], &[OURS], running(), 0);
        assert_eq!(
            other,
            "unexpected: port 4400 accepted a connection from 10.0.0.9:5, expected 10.0.0.1:40000 (another \
             client, or NAT between the hosts)"
        );
        let first = "unexpected: port 4400 accepted a connection from 10.0.0.9:5, which is not our sender";
        assert_eq!(decide(&["ours 10.0.0.9:5"], &[], running(), 0), "?", "ours may follow");
        assert_eq!(decide(&["ours 10.0.0.9:5"], &[], running(), 2), first);
        let thief = ["ours 10.0.0.1:40000", "listener 0.0.0.0:4400"];
        assert_eq!(decide(&thief, &[OURS], running(), 0), "?", "it may have just ended");
        assert_eq!(
            decide(&thief, &[OURS], running(), 2),
            "unexpected: another process uses port 4400: a listener on 0.0.0.0:4400"
        );
        assert_eq!(
            decide(&["listening"], &[OURS], running(), 16),
            "unexpected: port 4400 accepted our connection from 10.0.0.1:40000, but not in our receiver"
        );
    }

    #[test]
    fn refused_connection_is_told_from_a_receiver_that_served_another_peer() {
        let refusal = "nc: connect to 10.0.0.2 port 4400 (tcp) failed: Connection refused";
        let refused = || Jobs { sender: job(&[refusal], &[], None), ..running() };
        let early = "unexpected: port 4400 was closed before our sender connected";
        assert_eq!(decide(&[], &[], refused(), 0), "?", "the receiver's end may follow");
        assert_eq!(decide(&[], &[], refused(), 2), early);
        let listens = |reports: &mut Reports<'_>| reports.listens_after_refusal = true;
        let firewall = decide_with(&["listening"], &[], refused(), 0, listens);
        assert!(
            firewall.starts_with("failed: db2: the source cannot connect to 10.0.0.2:4400: nc: connect to")
                && firewall.ends_with(
                    "; check firewalls between the hosts, and any on db2 that --firewall does not open"
                ),
            "{firewall}"
        );
        let served = decide(&["ours 10.0.0.9:5"], &[], refused(), 0);
        assert!(served.ends_with("which is not our sender"), "{served}");
        let slow = decide(&["listening"], &[], running(), 16);
        assert!(slow.contains("cannot connect to 10.0.0.2:4400 within 15 s; check"), "{slow}");
    }

    #[test]
    fn ended_jobs_are_explained() {
        let ended = |stages: &[(&str, i32)]| job(&["tar: oops"], stages, Some(1));
        assert_eq!(
            decide(&[], &[], Jobs { receiver: ended(&[("tar", 127)]), ..running() }, 0),
            "failed: db2: the receiver failed: tar ended with status 127: tar: oops"
        );
        let early = "unexpected: port 4400 was closed before our sender connected: tar: oops";
        assert_eq!(
            decide(&[], &[], Jobs { receiver: ended(&[("netcat", 0), ("tar", 141)]), ..running() }, 0),
            early
        );
        let both =
            || Jobs { sender: job(&["tar: cannot open: No such file"], &[], None), receiver: ended(&[]) };
        assert_eq!(decide(&[], &[], both(), 0), early, "it may be another client");
        let again = |reports: &mut Reports<'_>| reports.again = true;
        assert_eq!(
            decide_with(&[], &[], both(), 0, again),
            "failed: db1: the sender failed: tar: cannot open: No such file"
        );
        assert_eq!(
            decide(&["listening"], &[], Jobs { sender: job(&[], &[], Some(137)), ..running() }, 0),
            "failed: db1: the sender failed: its processes were killed from outside"
        );
    }
}
