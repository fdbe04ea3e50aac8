//! Commands of the agent: the only place that encodes them, and puts them in words for `--verbose`.

use std::ffi::OsStr;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

use super::event::JobName;
use crate::config::settings::Replace;
use crate::host::wire::{Field, LONGEST_TEXT, short};

/// Command to an agent. The arguments are those of `docs/guard-protocol.md`.
#[derive(Clone, Copy)]
pub enum Command<'a> {
    /// Commits the provisional data at this path.
    Commit(&'a Path),
    /// Reports the sockets on a target's port.
    AcceptedPeer {
        /// The receiving job.
        job: JobName,
        /// Address and port on which it listens.
        target: SocketAddr,
        /// Sockets to wait for, for a moment.
        awaited: Awaited,
    },
    /// Fails if the source's path leads to something else by now.
    CheckSource(&'a Path),
    /// Passes the result of the run to the hooks.
    Conclude {
        /// Whether every copy was published.
        done: bool,
    },
    /// Removes the replaced data at the agent's end.
    DropOld {
        /// The old data.
        old: &'a Path,
        /// The new data.
        new: &'a Path,
    },
    /// Publishes the entries of a directory one by one.
    Fill {
        /// The staged directory.
        staged: &'a Path,
        /// The target directory.
        directory: &'a Path,
        /// Whether the result must survive a power cut.
        durable: bool,
        /// Whether the target directory may have other entries.
        beside: bool,
    },
    /// Drops a kept account at the agent's end.
    GiveUpAccount(Account<'a>),
    /// Opens the source, which must have this inode.
    HoldSource {
        /// The source.
        path: &'a Path,
        /// Device and inode.
        inode: &'a str,
    },
    /// Keeps an account.
    KeepAccount(Account<'a>),
    /// Registers a hook that runs at the agent's end.
    LeaseHook {
        /// End of the run.
        end: &'a str,
        /// Position among the hooks of that end.
        number: usize,
        /// The command.
        command: &'a str,
        /// The source as typed.
        source: &'a str,
        /// The targets as typed.
        targets: &'a str,
    },
    /// Locks the first free port of a range.
    LeasePort {
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// Reports the local addresses of the sender's connections to a port.
    LocalAddress {
        /// The sending job.
        job: JobName,
        /// The port.
        port: u16,
    },
    /// Creates a replication account.
    MakeAccount {
        /// The account.
        account: Account<'a>,
        /// Hash of its password.
        hash: &'a str,
    },
    /// Creates the staging directory.
    MakeStaging {
        /// The directory.
        path: &'a Path,
        /// Whether it is kept if the run fails.
        keep: bool,
        /// How the copy gets its name.
        how: Naming,
        /// Name of the directory in it in which the copy arrives; empty for none.
        inner: &'a OsStr,
    },
    /// Records the state of a server's replication.
    NoteReplication(Server<'a>),
    /// Lets the stream of the last started job through.
    OpenGate,
    /// Opens a layer of the firewall for one peer and port.
    OpenRule {
        /// Layer of the firewall.
        layer: &'a str,
        /// The peer.
        peer: IpAddr,
        /// The port.
        port: u16,
    },
    /// Gives the copy its final name.
    Publish {
        /// The staged copy.
        staged: &'a Path,
        /// The final path.
        path: &'a Path,
        /// Treatment of data that has this name.
        replace: Replace,
        /// Path for that data, if it is kept.
        old: &'a Path,
        /// Whether the result must survive a power cut.
        durable: bool,
        /// Device and inode of that data as the preflight saw it; empty if there was none.
        seen: &'a str,
    },
    /// Makes the rollback restore the old data of a server, until the new one is committed.
    PublishProvisionally {
        /// Unit of the server.
        unit: &'a str,
        /// The data directory.
        path: &'a Path,
        /// The staged copy.
        staged: &'a Path,
        /// Path for the old data.
        old: &'a Path,
        /// Maximum time for the server to stop.
        timeout: Duration,
        /// Whether the old data has databases.
        holds_databases: bool,
        /// File that records the version for which the system tables were upgraded, and that version; empty if
        /// there is none.
        upgraded: (&'a str, &'a str),
    },
    /// Starts stopped servers and replication again.
    Restart,
    /// Starts a job: a script in processes of its own.
    StartJob {
        /// Name of the job.
        job: JobName,
        /// The script.
        script: &'a [u8],
        /// Key of the run, which the job reads from a pipe; may be empty.
        key: &'a str,
    },
    /// Starts a server with provisional data.
    StartServer {
        /// Unit of the server.
        unit: &'a str,
        /// The server.
        server: Server<'a>,
    },
    /// Ends the processes of a job.
    StopJob(JobName),
    /// Stops the replication of a server.
    StopReplication(Server<'a>),
    /// Stops a server.
    StopServer {
        /// Unit of the server.
        unit: &'a str,
        /// The server.
        server: Server<'a>,
        /// Maximum time to stop.
        timeout: Duration,
        /// Whether its replication was stopped before.
        replication_stopped: bool,
    },
    /// Locks the final name against other runs.
    TakeTarget {
        /// The target directory.
        directory: &'a Path,
        /// The name in it; `.` for the directory itself.
        name: &'a OsStr,
        /// How the copy gets its name.
        how: Naming,
        /// Device and inode of the data that has the name, as the preflight saw it; empty if there is none.
        seen: &'a str,
    },
    /// Closes a layer of the firewall again.
    UndoRules {
        /// Layer of the firewall.
        layer: &'a str,
        /// The peer.
        peer: IpAddr,
        /// The port.
        port: u16,
    },
}

/// Sockets that a report waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// A listening socket of the job.
    Listening,
    /// An accepted connection of the job.
    Ours,
}

/// How a copy gets its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Naming {
    /// By a rename, with this treatment of data that has the name.
    Rename(Replace),
    /// Entry by entry, into a directory.
    Fill,
}

impl Naming {
    fn word(self) -> &'static [u8] {
        match self {
            Self::Rename(replace) => replace.word(),
            Self::Fill => b"fill",
        }
    }
}

/// Server on the agent's host.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// Socket; empty if unknown.
    pub socket: &'a OsStr,
    /// File with login options; empty for the client's own.
    pub defaults_file: &'a str,
    /// Data directory.
    pub datadir: &'a Path,
}

impl<'a> Server<'a> {
    fn fields(&self) -> [&'a [u8]; 3] {
        [self.socket.as_bytes(), self.defaults_file.as_bytes(), self.datadir.as_os_str().as_bytes()]
    }
}

/// Account on a server of the agent's host.
#[derive(Clone, Copy, Debug)]
pub struct Account<'a> {
    /// Socket of the server.
    pub socket: &'a str,
    /// File with login options; empty for the client's own.
    pub defaults_file: &'a str,
    /// Name of the account.
    pub user: &'a str,
    /// Host from which it may log in.
    pub host: &'a str,
}

impl<'a> Account<'a> {
    fn fields(&self) -> [&'a [u8]; 4] {
        [self.socket, self.defaults_file, self.user, self.host].map(str::as_bytes)
    }
}

/// Encoded command.
pub(super) struct Encoded {
    /// Name in the protocol.
    pub(super) action: &'static str,
    /// Arguments.
    pub(super) fields: Vec<Field>,
    words: &'static str,
    /// Number of arguments from the left that may be shown: keys and hashes of passwords may not.
    shown: usize,
}

impl Encoded {
    fn new(action: &'static str, words: &'static str, fields: &[&[u8]]) -> Self {
        Self { action, words, fields: fields.iter().map(|field| field.to_vec()).collect(), shown: usize::MAX }
    }

    /// Returns the command with only some arguments shown.
    fn showing(self, shown: usize) -> Self {
        Self { shown, ..self }
    }

    /// Describes the command in words, followed by its arguments that are not secret.
    pub(super) fn describe(&self) -> String {
        let arguments = self.fields.iter().take(self.shown).map(|argument| short(argument, LONGEST_TEXT));
        let command: Vec<String> = std::iter::once(self.action.to_owned()).chain(arguments).collect();
        format!("{} ({})", self.words, command.join(" "))
    }
}

/// Shows no secret.
impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.encode().describe())
    }
}

impl Command<'_> {
    /// Returns whether the command changes what the final name leads to.
    pub(super) fn publishes(&self) -> bool {
        matches!(
            self,
            Self::Publish { .. } | Self::Fill { .. } | Self::PublishProvisionally { .. } | Self::Commit(_)
        )
    }

    /// Encodes the command.
    #[expect(clippy::too_many_lines, reason = "an arm for each command")]
    pub(super) fn encode(&self) -> Encoded {
        let new = Encoded::new;
        let number = |number: u64| number.to_string().into_bytes();
        match *self {
            Self::Commit(path) => new("accept", "commit the new data", &[bytes(path)]),
            Self::AcceptedPeer { job, target, awaited } => {
                let (port, address) = (number(target.port().into()), target.ip().to_string());
                let (awaited, words): (&[u8], _) = match awaited {
                    Awaited::Listening => (b"listening", "check that the receiver listens"),
                    Awaited::Ours => (b"ours", "look for the connection on the port"),
                };
                new("accepted_peer", words, &[job.name().as_bytes(), &port, address.as_bytes(), awaited])
            }
            Self::CheckSource(path) => {
                new("check_source", "check that the source is still the same", &[bytes(path)])
            }
            Self::Conclude { done } => {
                let status: &[u8] = if done { b"done" } else { b"failed" };
                new("conclude", "pass the result of the run to hooks", &[status])
            }
            Self::DropOld { old, new: data } => {
                new("drop_old", "remove the replaced data at the end", &[bytes(old), bytes(data)])
            }
            Self::Fill { staged, directory, durable, beside } => {
                let beside: &[u8] = if beside { b"beside" } else { b"empty" };
                let fields = [bytes(staged), bytes(directory), sync(durable), beside];
                new("fill", "publish the entries one by one", &fields)
            }
            Self::GiveUpAccount(account) => {
                new("give_up_account", "drop the replication account", &account.fields()).showing(3)
            }
            Self::HoldSource { path, inode } => {
                new("hold_source", "open the source", &[bytes(path), inode.as_bytes()])
            }
            Self::KeepAccount(account) => {
                new("keep_account", "keep the replication account", &account.fields()).showing(3)
            }
            Self::LeaseHook { end, number: position, command, source, targets } => {
                let position = position.to_string();
                let fields = [end, &position, command, source, targets].map(str::as_bytes);
                new("lease_hook", "register a hook", &fields)
            }
            Self::LeasePort { first, last } => {
                new("lease_port", "lock a free port", &[&number(first.into()), &number(last.into())])
            }
            Self::LocalAddress { job, port } => new(
                "local_address",
                "find the address of the source on the data path",
                &[job.name().as_bytes(), &number(port.into())],
            ),
            Self::MakeAccount { account, hash } => {
                let fields = [&account.fields()[..], &[hash.as_bytes()]].concat();
                new("make_account", "create the replication account", &fields).showing(4)
            }
            Self::MakeStaging { path, keep, how, inner } => {
                let kind: &[u8] = if keep { b"kept_staging" } else { b"staging" };
                let fields = [bytes(path), kind, how.word(), inner.as_bytes()];
                new("make_staging", "create the staging directory", &fields)
            }
            Self::NoteReplication(server) => {
                new("note_replication", "record the state of replication", &server.fields())
            }
            Self::OpenGate => new("open_gate", "let the stream through", &[]),
            Self::OpenRule { layer, peer, port } => {
                let (address, port) = (peer.to_string(), number(port.into()));
                let fields = [layer.as_bytes(), family(peer), address.as_bytes(), &port];
                new("open_rule", "open the firewall for the source", &fields)
            }
            Self::Publish { staged, path, replace, old, durable, seen } => {
                let fields =
                    [bytes(staged), bytes(path), replace.word(), bytes(old), sync(durable), seen.as_bytes()];
                new("publish", "publish the copy under its final name", &fields)
            }
            Self::PublishProvisionally { unit, path, staged, old, timeout, holds_databases, upgraded } => {
                let holds: &[u8] = if holds_databases { b"databases" } else { b"none" };
                let (file, version) = (upgraded.0.as_bytes(), upgraded.1.as_bytes());
                let seconds = number(timeout.as_secs());
                let paths = [bytes(path), bytes(staged), bytes(old)];
                let fields = [&[unit.as_bytes()], &paths[..], &[&seconds, holds, file, version]].concat();
                new("put_on_trial", "put the new data in place, provisionally", &fields)
            }
            Self::Restart => new("restart", "start stopped servers and replication again", &[]),
            Self::StartJob { job, script, key } => {
                new("start_job", "start processes", &[job.name().as_bytes(), script, key.as_bytes()])
                    .showing(1)
            }
            Self::StartServer { unit, server } => {
                let fields = [&[unit.as_bytes()], &server.fields()[..]].concat();
                new("start_server", "start the server", &fields)
            }
            Self::StopJob(job) => new("stop_job", "end processes", &[job.name().as_bytes()]),
            Self::StopReplication(server) => new("stop_replication", "stop replication", &server.fields()),
            Self::StopServer { unit, server, timeout, replication_stopped } => {
                let state: &[u8] = if replication_stopped { b"rests" } else { b"runs" };
                let seconds = number(timeout.as_secs());
                let fields = [&[unit.as_bytes()], &server.fields()[..], &[&seconds, state]].concat();
                new("stop_server", "stop the server", &fields)
            }
            Self::TakeTarget { directory, name, how, seen } => {
                let fields = [bytes(directory), name.as_bytes(), how.word(), seen.as_bytes()];
                new("take_target", "lock the final name", &fields)
            }
            Self::UndoRules { layer, peer, port } => {
                let fields = [layer.as_bytes(), family(peer), &number(port.into())];
                new("undo_rules", "close the firewall", &fields)
            }
        }
    }
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

fn sync(durable: bool) -> &'static [u8] {
    if durable { b"sync" } else { b"no-sync" }
}

fn family(peer: IpAddr) -> &'static [u8] {
    if peer.is_ipv4() { b"4" } else { b"6" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const ACCOUNT: Account<'_> =
        Account { socket: "/run/s.sock", defaults_file: "", user: "replica-1", host: "10.0.0.2" };

    /// Returns one command of each kind.
    fn all() -> Vec<Command<'static>> {
        let path = Path::new("/srv/x");
        let peer = IpAddr::from([10, 0, 0, 2]);
        let server = Server { socket: "/run/s.sock".as_ref(), defaults_file: "", datadir: path };
        let timeout = Duration::from_secs(9);
        let how = Naming::Rename(Replace::Keep);
        vec![
            Command::Commit(path),
            Command::AcceptedPeer {
                job: JobName::Receiver,
                target: SocketAddr::new(peer, 4400),
                awaited: Awaited::Ours,
            },
            Command::CheckSource(path),
            Command::Conclude { done: true },
            Command::DropOld { old: path, new: path },
            Command::Fill { staged: path, directory: path, durable: true, beside: false },
            Command::GiveUpAccount(ACCOUNT),
            Command::HoldSource { path, inode: "1:2" },
            Command::KeepAccount(ACCOUNT),
            Command::LeaseHook { end: "source", number: 0, command: "true", source: "a", targets: "b" },
            Command::LeasePort { first: 4400, last: 4500 },
            Command::LocalAddress { job: JobName::Sender, port: 4400 },
            Command::MakeAccount { account: ACCOUNT, hash: "*HASH" },
            Command::MakeStaging { path, keep: false, how, inner: "data".as_ref() },
            Command::NoteReplication(server),
            Command::OpenGate,
            Command::OpenRule { layer: "nftables", peer, port: 4400 },
            Command::Publish {
                staged: path,
                path,
                replace: Replace::No,
                old: path,
                durable: false,
                seen: "1:2",
            },
            Command::PublishProvisionally {
                unit: "mariadb.service",
                path,
                staged: path,
                old: path,
                timeout,
                holds_databases: true,
                upgraded: ("mysql_upgrade_info", "10.11"),
            },
            Command::Restart,
            Command::StartJob { job: JobName::Sender, script: b"script", key: "key" },
            Command::StartServer { unit: "mariadb.service", server },
            Command::StopJob(JobName::Sender),
            Command::StopReplication(server),
            Command::StopServer { unit: "mariadb.service", server, timeout, replication_stopped: false },
            Command::TakeTarget { directory: path, name: "x".as_ref(), how: Naming::Fill, seen: "" },
            Command::UndoRules { layer: "nftables", peer, port: 4400 },
        ]
    }

    #[test]
    fn commands_are_those_that_the_agent_obeys() {
        let script = include_str!("../sh/guard.sh");
        let obey = script.split("obey() {").nth(1).and_then(|text| text.split("\n}").next()).expect("obey");
        let labels =
            obey.lines().filter_map(|line| line.split_once(") ")).flat_map(|(labels, _)| labels.split('|'));
        let obeyed: BTreeSet<&str> =
            labels.map(str::trim).filter(|label| !["ping", "release", "*"].contains(label)).collect();
        let known: BTreeSet<&str> = all().iter().map(|command| command.encode().action).collect();
        assert_eq!(known, obeyed);
    }

    #[test]
    fn secrets_are_not_shown() {
        let shown: Vec<String> = all().iter().map(|command| command.encode().describe()).collect();
        let account = "create the replication account (make_account /run/s.sock  replica-1 10.0.0.2)";
        assert!(shown.iter().any(|text| text == account), "{shown:#?}");
        assert!(shown.contains(&"start processes (start_job sender)".to_owned()), "{shown:#?}");
        assert!(!shown.iter().any(|text| text.contains("HASH") || text.contains("key")), "{shown:#?}");
    }

    #[test]
    fn arguments_are_in_the_order_of_the_protocol() {
        let of = |action: &str| {
            let all = all();
            let command = all.iter().map(Command::encode).find(|command| command.action == action);
            let fields = command.unwrap().fields;
            fields.iter().map(|field| String::from_utf8(field.clone()).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(of("publish"), ["/srv/x", "/srv/x", "no", "/srv/x", "no-sync", "1:2"]);
        assert_eq!(of("stop_server"), ["mariadb.service", "/run/s.sock", "", "/srv/x", "9", "runs"]);
        assert_eq!(
            of("put_on_trial"),
            [
                "mariadb.service",
                "/srv/x",
                "/srv/x",
                "/srv/x",
                "9",
                "databases",
                "mysql_upgrade_info",
                "10.11"
            ]
        );
        assert_eq!(of("accepted_peer"), ["receiver", "4400", "10.0.0.2", "ours"]);
        assert_eq!(of("open_rule"), ["nftables", "4", "10.0.0.2", "4400"]);
        assert_eq!(of("take_target"), ["/srv/x", "x", "fill", ""]);
    }
}
