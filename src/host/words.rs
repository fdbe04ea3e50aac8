//! Commands in words, for `--verbose` and for messages.

use crate::base::printable::{LONGEST_PATH, short};
use crate::proto::command::Command;

/// Describes a command with its arguments. Secrets are not shown.
pub(crate) fn describe(command: &Command) -> String {
    format!("{} ({})", action(command), short(format!("{command:?}").as_bytes(), LONGEST_PATH))
}

/// Returns whether a run sends such commands too often for a line of the log each.
pub(crate) fn is_frequent(command: &Command) -> bool {
    matches!(command, Command::Execute { .. } | Command::RemoteQuery { .. })
}

/// Returns what a command does, as an infinitive.
pub(crate) fn action(command: &Command) -> &'static str {
    match command {
        Command::HostFacts(_) => "examine the host",
        Command::SourceFacts(_) => "examine the source",
        Command::TargetFacts(_) => "examine the target",
        Command::InstalledServer { .. } => "find the server",
        Command::DataFacts { .. } => "examine the server's data directory",
        Command::InstanceFiles { .. } => "examine the server's files",
        Command::Routes(_) => "find routes",
        Command::Resolve(_) => "resolve a name",
        Command::Twin(_) => "compare names",
        Command::Attributes { .. } => "count attributes",
        Command::ReplicationAccount { .. } => "find the replication account",
        Command::Query { .. } | Command::Execute { .. } => "query the server",
        Command::RemoteQuery { .. } => "query the primary",
        Command::OpenSession { .. } => "log in to the server",
        Command::CloseSession { .. } => "log out of the server",
        Command::Attach { .. } => "reach the agent of the run",
        Command::Status => "list runs",
        Command::Clean { .. } => "roll back orphaned runs",
        Command::Settle { .. } => "roll back the run of a lost agent",
        Command::Begin(_) => "begin the run",
        Command::TakeName { .. } => "lock the final name",
        Command::MakeStaging(_) => "create the staging directory",
        Command::HoldSource { .. } => "open the source",
        Command::CheckSource => "check that the source is still the same",
        Command::LeasePort { .. } => "lock a free port",
        Command::OpenRule { .. } => "open the firewall for the source",
        Command::CloseRules { .. } => "close the firewall",
        Command::StartJob { .. } => "start a job",
        Command::OpenGate { .. } => "let the stream through",
        Command::StopJob { .. } => "stop a job",
        Command::AcceptedPeers { .. } => "look for the connection on the port",
        Command::OwnConnections { .. } => "find the address of the source on the data path",
        Command::Publish(_) => "publish the copy under its final name",
        Command::Fill(_) => "publish the entries one by one",
        Command::DropOld { .. } => "remove the replaced data at the end",
        Command::StopReplication(_) => "stop replication",
        Command::NoteReplication(_) => "record the state of replication",
        Command::StopServer(_) => "stop the server",
        Command::Restore => "start stopped servers and replication again",
        Command::PublishProvisionally(_) => "put the new data in place, provisionally",
        Command::StartServer(_) => "start the server",
        Command::Commit => "commit the new data",
        Command::MakeAccount { .. } => "create the replication account",
        Command::KeepAccount(_) => "keep the replication account",
        Command::DropAccount(_) => "drop the replication account",
        Command::LeaseHook(_) => "register a hook",
        Command::Conclude { .. } => "pass the result of the run to hooks",
        Command::ReadList { .. } => "read a list",
    }
}
