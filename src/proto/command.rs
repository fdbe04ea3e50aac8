//! Messages between controller and agent.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::bounded::at_most;
use super::facts::path::{SourceFacts, SourceQuery, TargetFacts, TargetQuery};
use super::facts::server::{DataFacts, Installed, InstanceFiles};
use super::facts::{HostFacts, MOST_ADDRESSES, Route, Transfer};
use super::files::{AttributeScope, AttributeUse, FileId, FillTask, Naming, PublishTask, StagingTask, Tree};
use super::job::{JobName, JobReport, List};
use super::journal::{Family, Hook, Layer};
use super::locks::IgnoredLock;
use super::name::AgentName;
use super::server::{
    Account, Login, Provisional, Remote, Restored, Server, SqlReply, StartServer, Statements, StopServer,
};
use super::sockets::{Connection, PortSocket};
use super::status::{RollbackEvent, StatusEntry};
use super::task::Task;
use super::vault::Sealed;
use super::{HostBytes, Text};

/// Message to an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToAgent {
    /// Sign of life.
    Ping {
        /// Number of messages that have arrived from the agent since the conversation began. The agent keeps the
        /// later ones, for a connection that may be cut.
        arrived: u64,
    },
    /// Command, to be answered under its number.
    Call {
        /// Number of the command.
        id: u64,
        /// The command.
        command: Command,
    },
    /// Order to roll back and to end.
    Release,
}

/// Message of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromAgent {
    /// Answer to the command of that number.
    Reply {
        /// Number of the command.
        id: u64,
        /// The answer.
        result: Result<Answer, Failure>,
    },
    /// Something has happened.
    Event(Event),
}

/// Failure of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Reason, as far as the controller acts on it.
    pub code: Code,
    /// Reason, for people.
    pub text: Text,
}

/// Reason why a command failed, as far as the controller acts on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Code {
    /// Another run or program uses the resource.
    Busy,
    /// Another process has created what the command was to create.
    Exists,
    /// The change was made, but could not be made durable.
    Sync,
    /// Any other reason, which only its text explains.
    Other,
}

/// Reason why an agent begins to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// The controller has released it.
    Released,
    /// No message within the lease time.
    Silence,
    /// The input ended.
    Closed,
    /// A signal.
    Signal(EndingSignal),
}

/// Signal that ends an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndingSignal {
    /// SIGHUP
    Hangup,
    /// SIGINT
    Interrupt,
    /// SIGTERM
    Terminate,
}

/// Command to an agent: questions, tasks for one agent without a run, and, after [`Command::Begin`], the changes
/// of a run. Paths are those of the agent's host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Facts about the host itself. Answer: [`Answer::Host`].
    HostFacts(Transfer),
    /// Facts about a source. Answer: [`Answer::Source`].
    SourceFacts(SourceQuery),
    /// Facts about the directory of a target. Answer: [`Answer::Target`].
    TargetFacts(TargetQuery),
    /// The server of a unit, or the only one of the host. Answer: [`Answer::Installed`].
    InstalledServer {
        /// Unit of systemd, or empty.
        unit: Text,
    },
    /// Facts about the data directory of a server, for one that is not the configured one. Answer:
    /// [`Answer::Data`].
    DataFacts {
        /// Data directory.
        datadir: HostBytes,
        /// Unit of systemd, or empty.
        unit: Text,
    },
    /// Files of a running server, as far as a backup contains them. Answer: [`Answer::InstanceFiles`].
    InstanceFiles {
        /// Data directory.
        datadir: HostBytes,
        /// Beginning of the paths of its binary log; empty for none.
        binlog: HostBytes,
    },
    /// Ways to addresses. Answer: [`Answer::Routes`].
    Routes(Vec<IpAddr>),
    /// Addresses of a name, in the order in which the host would try them. Answer: [`Answer::Addresses`].
    Resolve(String),
    /// Two names of a tree that differ only in the case of ASCII letters. Answer: [`Answer::Twin`].
    Twin(TreeQuery),
    /// Extended attributes of the files of a tree. Answer: [`Answer::Attributes`].
    Attributes {
        /// Tree.
        tree: TreeQuery,
        /// Attributes that count.
        scope: AttributeScope,
    },
    /// Account with which a server replicates over a connection. Answer: [`Answer::ReplicationAccount`].
    ReplicationAccount {
        /// Data directory.
        datadir: HostBytes,
        /// Name of the connection.
        connection: String,
    },
    /// Statements for a server of this host, in a login of their own. Answer: [`Answer::Sql`].
    Query {
        /// Server.
        login: Login,
        /// Unit of the server, if one is known: its account may listen on the socket.
        unit: Option<String>,
        /// Statements.
        statements: Statements,
    },
    /// Statements for a server of another host. Answer: [`Answer::Sql`].
    RemoteQuery {
        /// Server.
        server: Remote,
        /// Account.
        user: String,
        /// Password.
        password: Sealed,
        /// Statements.
        statements: Statements,
    },
    /// A login that stays. Answer: [`Answer::Session`].
    OpenSession {
        /// Server.
        login: Login,
        /// Unit of the server, if one is known.
        unit: Option<String>,
    },
    /// Statements of a session. Sessions execute beside each other and all other commands.
    /// Answer: [`Answer::Sql`].
    Execute {
        /// Number of the session.
        session: u32,
        /// Statements; `None` for the rest of an answer that was too long for one message.
        statements: Option<Statements>,
    },
    /// The end of a session, whatever it executes. Answer: [`Answer::Done`].
    CloseSession {
        /// Number of the session.
        session: u32,
    },
    /// Connection to the agent of a run whose own connection was cut. Behind the answer, [`Answer::Done`], this
    /// agent passes on what both of them say, beginning with [`attach::Challenge`](super::attach::Challenge).
    Attach {
        /// Agent of the run.
        agent: AgentName,
    },
    /// Runs that have changes in place. Events: [`Event::Status`]. Answer: [`Answer::Done`].
    Status,
    /// Rollback of all orphaned runs. Events: [`Event::Rollback`]. Answer: [`Answer::Done`].
    Clean {
        /// Start servers and run hooks, too.
        start_servers: bool,
        /// Forget hooks that have not run.
        forget_hooks: bool,
    },
    /// Rollback of a run whose agent was lost, after its watchdog had this time for it. Events:
    /// [`Event::Rollback`]. Answer: [`Answer::Done`].
    Settle {
        /// Name of the agent.
        agent: AgentName,
        /// Time for the watchdog, in seconds.
        seconds: u64,
    },
    /// Begin of a run. From here on the agent rolls back when it ends. Answer: [`Answer::Done`].
    Begin(Begin),
    /// Lock of a final name. Fails with [`Code::Busy`] and the run that holds it, or with [`Code::Exists`].
    /// Answer: [`Answer::Done`].
    TakeName {
        /// Target directory.
        directory: HostBytes,
        /// Name in it; `.` for the directory itself.
        name: HostBytes,
        /// How the copy gets its name.
        naming: Naming,
        /// Data that may have the name already.
        seen: Option<FileId>,
    },
    /// Staging directory. Answer: [`Answer::Done`].
    MakeStaging(StagingTask),
    /// Opens the source, which must be this file or directory. Answer: [`Answer::Done`].
    HoldSource {
        /// Path.
        path: HostBytes,
        /// Identity.
        id: FileId,
    },
    /// Fails if the path of the source leads to something else by now. Answer: [`Answer::Done`].
    CheckSource,
    /// Lock of the first free port of a range. Fails with [`Code::Busy`]. Answer: [`Answer::Port`].
    LeasePort {
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// Hole in one layer of the firewall. Answer: [`Answer::Rules`].
    OpenRule {
        /// Layer.
        layer: Layer,
        /// Peer.
        peer: IpAddr,
        /// Port.
        port: u16,
    },
    /// Removal of the holes in one layer, for another attempt on another port. Answer: [`Answer::Done`].
    CloseRules {
        /// Layer.
        layer: Layer,
        /// Address family.
        family: Family,
    },
    /// Start of a job. Its reports are [`Event::Job`]. Answer: [`Answer::Done`].
    StartJob {
        /// Name.
        job: JobName,
        /// Task.
        task: Task,
        /// Key of the stream.
        key: Option<Sealed>,
    },
    /// Opens the gate of a job. Answer: [`Answer::Done`].
    OpenGate {
        /// Name.
        job: JobName,
    },
    /// Ends all processes of a job. Answer: [`Answer::Done`].
    StopJob {
        /// Name.
        job: JobName,
    },
    /// Sockets on the port of a receiver. Answer: [`Answer::Sockets`].
    AcceptedPeers {
        /// Receiving job.
        job: JobName,
        /// Address and port on which it listens.
        target: SocketAddr,
        /// Sockets to wait for, for a moment.
        awaited: Awaited,
    },
    /// Connections of a sender to a port of other hosts. Answer: [`Answer::Connections`].
    OwnConnections {
        /// Sending job.
        job: JobName,
        /// Port.
        port: u16,
    },
    /// Gives a copy its final name. Fails with [`Code::Exists`] or [`Code::Sync`]. Answer: [`Answer::Done`].
    Publish(PublishTask),
    /// Gives the entries of a staged directory their names. Fails with [`Code::Exists`] or [`Code::Sync`].
    /// Answer: [`Answer::Done`].
    Fill(FillTask),
    /// Removes replaced data at the end of the run, when the new data is on the disk. Answer: [`Answer::Done`].
    DropOld {
        /// Old data.
        old: HostBytes,
        /// New data.
        new: HostBytes,
    },
    /// Stops the replication of a running server. Answer: [`Answer::Stopped`].
    StopReplication(Server),
    /// Records the replication of a server that is about to be stopped. Answer: [`Answer::Replicating`].
    NoteReplication(Server),
    /// Stops a server. Answer: [`Answer::Done`].
    StopServer(StopServer),
    /// Starts stopped servers and replication, or rolls provisional data back. Answer: [`Answer::Restored`].
    Restore,
    /// Makes the rollback restore the old data of a server, until the commit. Answer: [`Answer::Done`].
    PublishProvisionally(Provisional),
    /// Starts a server with provisional data. Answer: [`Answer::Done`].
    StartServer(StartServer),
    /// Commits the provisional data. Answer: [`Answer::Done`].
    Commit,
    /// Creates a replication account with this hash of a password. Answer: [`Answer::Done`].
    MakeAccount {
        /// Account.
        account: Account,
        /// Hash of its password, as the server stores it.
        hash: Sealed,
    },
    /// Keeps an account. Answer: [`Answer::Done`].
    KeepAccount(Account),
    /// Drops a kept account at the end of the run. Answer: [`Answer::Done`].
    DropAccount(Account),
    /// Registers an after-hook. Answer: [`Answer::Done`].
    LeaseHook(Hook),
    /// Passes the result of the run to hooks. Answer: [`Answer::Done`].
    Conclude {
        /// Every copy was published.
        done: bool,
    },
    /// Part of a list of the run. Answer: [`Answer::List`].
    ReadList {
        /// List; `None` for the paths that changed.
        list: Option<List>,
        /// Number of bytes before the part.
        offset: u64,
    },
}

/// Tree below a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeQuery {
    /// Directory.
    pub directory: HostBytes,
    /// Tree in it.
    pub tree: Tree,
}

/// Run that begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Name of the agent in this run.
    pub agent: AgentName,
    /// End of the run: `source`, `target`, `controller` or `primary`.
    pub role: Text,
    /// Lease time in seconds.
    pub lease_seconds: u64,
    /// Nice value of its jobs, 0 to 19.
    pub nice: u8,
    /// Controller, for people.
    pub controller: Text,
    /// Path that the run copies, for people.
    pub path: HostBytes,
}

/// Sockets that a question waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Awaited {
    /// A listening socket of the job.
    Listening,
    /// An accepted connection of the job.
    Ours,
}

/// Answer to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The command was carried out.
    Done,
    /// Facts about the host.
    Host(Box<HostFacts>),
    /// Facts about a source.
    Source(Box<SourceFacts>),
    /// Facts about a target.
    Target(Box<TargetFacts>),
    /// Server of the host.
    Installed(Box<Installed>),
    /// Data directory of a server.
    Data(Box<DataFacts>),
    /// Files of a server.
    InstanceFiles(InstanceFiles),
    /// Ways to addresses.
    Routes(Vec<Route>),
    /// Addresses of a name; empty if it has none.
    Addresses(#[serde(deserialize_with = "at_most::<MOST_ADDRESSES, _, _>")] Vec<IpAddr>),
    /// Name that differs from another one only in case.
    Twin(Option<HostBytes>),
    /// Attributes of a tree.
    Attributes(Vec<AttributeUse>),
    /// Account with which a server replicates: name and password.
    ReplicationAccount(Option<(String, Sealed)>),
    /// Rows.
    Sql(SqlReply),
    /// Number of a session.
    Session(u32),
    /// Port.
    Port {
        /// Number.
        port: u16,
        /// Lock of this port that was ignored.
        ignored: Option<IgnoredLock>,
    },
    /// Number of chains that were opened.
    Rules(u32),
    /// Sockets on a port.
    Sockets(Vec<PortSocket>),
    /// Connections to a port.
    Connections(Vec<Connection>),
    /// Number of connections whose replication was stopped.
    Stopped(u32),
    /// Replication of a server that is about to be stopped.
    Replicating {
        /// Some threads of it do not run.
        partly: bool,
    },
    /// State of the servers after their restoration.
    Restored(Restored),
    /// Part of a list.
    List {
        /// Bytes.
        bytes: HostBytes,
        /// The list has no further bytes.
        is_last: bool,
    },
}

/// Event of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The agent begins to end, for this reason.
    Ending(Ending),
    /// The rollback of every lease was attempted: the last message.
    Bye,
    /// The copy has its final name, whatever the answer to the command will be.
    Published {
        /// Path of the data that had the name before, if it still exists.
        old: Option<HostBytes>,
    },
    /// The final name leads to what it led to before.
    Unpublished,
    /// The old data will be removed.
    OldGoes,
    /// Progress of a rollback, of this run or of others.
    Rollback(RollbackEvent),
    /// Run that has changes in place, or one of its leases.
    Status(StatusEntry),
    /// Report of a job.
    Job(JobName, JobReport),
}
