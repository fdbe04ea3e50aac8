//! The only server of a host, for commands that name neither a socket nor a path.

use super::fields::shown;
use super::variables::Variables;
use super::{MOST, activity, fact, replication};
use crate::host::conversation::{AgentError, Conversation};
use crate::host::facts::Installed;
use crate::mariadb::client::LoginError;
use crate::mariadb::sql::Server;
use crate::proto::command::{Answer, Command};
use crate::proto::facts::server::{DataFacts, Installed as Found, InstalledServer};
use crate::proto::server::Login;
use crate::proto::{HostBytes, Text};

/// Role of a server in a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The server is copied or replicated from.
    Source,
    /// The server becomes a replica.
    Target,
}

/// Surveys the server of a unit, or without one the only server of the host. `None` if there is none.
/// Provisional data of orphaned runs is not part of it.
pub(crate) async fn installed(
    agent: &Conversation,
    role: Role,
    unit: &str,
    defaults_file: &str,
) -> Result<Option<Installed>, AgentError> {
    let found = match agent.call(Command::InstalledServer { unit: Text::from(unit) }).await? {
        Answer::Installed(found) => *found,
        _ => return Err(agent.unexpected()),
    };
    let found = match found {
        Found::Nothing => return Ok(None),
        Found::Several(units) => {
            return Ok(Some(Installed { running: several(&units), ..Installed::default() }));
        }
        Found::Server(found) => *found,
    };
    let mut installed = configured(&found);
    if !found.running {
        installed.take_data(found.data.as_ref());
        return Ok(Some(installed));
    }
    let login = Login { socket: found.socket.clone(), defaults_file: defaults_file.into() };
    let unit = Some(installed.unit.clone()).filter(|unit| !unit.is_empty());
    let server = Server { agent, login, unit };
    let datadir = match Variables::ask(&server).await? {
        Ok(variables) => {
            installed.instance.variables = variables.shown;
            Some(variables.datadir)
        }
        Err(error) => {
            installed.instance.error = Some(error);
            None
        }
    };
    let data = data(agent, found, datadir.as_ref()).await?;
    installed.take_data(data.as_ref());
    if let (Some(datadir), Role::Target) = (&datadir, role) {
        installed.instance.error = not_served(&installed.unit, datadir, data.as_ref());
    }
    if datadir.is_some() && data.is_some() {
        survey_activity(&server, role, &mut installed).await?;
    }
    Ok(Some(installed))
}

/// Returns the names of running servers.
fn several(units: &[Text]) -> Vec<String> {
    let name = |unit: &Text| if unit.is_empty() { "one without a unit".to_owned() } else { unit.to_string() };
    units.iter().take(MOST).map(name).collect()
}

/// Returns the facts about a server that need neither a login nor a data directory.
fn configured(found: &InstalledServer) -> Installed {
    let setting = |(name, value): (&Text, &HostBytes)| (name.to_string(), shown(value.as_bytes()));
    Installed {
        unit: found.unit.to_string(),
        runs: found.running,
        running: found.running.then(|| found.unit.to_string()).into_iter().collect(),
        version: found.version.to_string(),
        socket: found.socket.to_string(),
        configured: found.configured.iter().take(MOST).map(setting).collect(),
        ..Installed::default()
    }
}

/// Returns the facts about the data directory that a server uses, or else the configured one.
async fn data(
    agent: &Conversation,
    found: InstalledServer,
    datadir: Option<&HostBytes>,
) -> Result<Option<DataFacts>, AgentError> {
    let configured = found.configured.get(&Text::new("datadir"));
    let used = datadir.or(configured).map(HostBytes::as_path);
    let Some(used) = used.filter(|path| path.is_absolute() && path.parent().is_some()) else {
        return Ok(None);
    };
    if found.data.is_some() && configured.is_some_and(|configured| configured.as_path() == used) {
        return Ok(found.data);
    }
    match agent.call(Command::DataFacts { datadir: HostBytes::from(used), unit: found.unit }).await? {
        Answer::Data(data) => Ok(Some(*data)),
        _ => Err(agent.unexpected()),
    }
}

/// Returns the error of a server whose unit works elsewhere: what is replaced is not for a server to decide.
fn not_served(unit: &str, datadir: &HostBytes, data: Option<&DataFacts>) -> Option<LoginError> {
    if unit.is_empty() || data.is_some_and(|data| data.served) {
        return None;
    }
    let problem = format!("{unit} reports the data directory {datadir}, but has no files open there");
    Some(LoginError { problem, ..LoginError::default() })
}

/// Surveys upstreams, replicas and clients of a running server.
async fn survey_activity(
    server: &Server<'_>,
    role: Role,
    installed: &mut Installed,
) -> Result<(), AgentError> {
    match fact(replication::status(server).await)? {
        Ok(statuses) => installed.upstreams = statuses.iter().take(MOST).map(replication::upstream).collect(),
        Err(error) => {
            installed.instance.error = Some(error);
            return Ok(());
        }
    }
    installed.downstreams = activity::downstreams(server).await?;
    if let Some(count) = activity::semi_sync_clients(server).await? {
        installed.instance.add_variable("rpl_semi_sync_master_clients".to_owned(), count);
    }
    if role == Role::Target {
        installed.clients = activity::clients(server).await?;
        installed.written = activity::is_written(server).await?;
    }
    Ok(())
}

impl Installed {
    fn take_data(&mut self, data: Option<&DataFacts>) {
        let Some(data) = data else { return };
        self.datadir = data.real.clone().into();
        self.mounted = data.mounted;
        self.upgraded = data.upgraded.as_ref().map(|(file, version)| (file.to_string(), version.to_string()));
        self.databases = data.databases.iter().take(MOST).map(|name| shown(name.as_bytes())).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mariadb::survey::fields::samples::{assert_harmless, hostile};

    fn data(served: bool) -> DataFacts {
        DataFacts {
            real: HostBytes::from("/srv/mysql"),
            mounted: true,
            upgraded: Some((Text::new("mariadb_upgrade_info"), Text::new("10.11.6-MariaDB"))),
            databases: vec![HostBytes::from("shop"), HostBytes::from(hostile().as_str())],
            served,
        }
    }

    fn found() -> InstalledServer {
        let settings = (0..500).map(|n| (Text::new(format!("x{n}")), HostBytes::from(hostile().as_str())));
        let known = [("server_id", "17"), ("read_only", "TRUE")]
            .map(|(name, value)| (Text::new(name), HostBytes::from(value)));
        InstalledServer {
            unit: Text::new("mariadb.service"),
            running: true,
            version: Text::new("mariadbd  Ver 10.11.6-MariaDB"),
            socket: HostBytes::from("/run/mysqld/mysqld.sock"),
            configured: known.into_iter().chain(settings).collect(),
            data: Some(data(true)),
        }
    }

    #[test]
    fn settings_and_data_are_taken() {
        let mut server = configured(&found());
        assert_eq!((server.unit.as_str(), server.running.len()), ("mariadb.service", 1));
        assert_eq!((server.next_server_id(), server.configured.len()), (17, MOST));
        assert!(server.runs && server.starts_with("read_only"));
        server.configured.values().for_each(|value| assert_harmless(value));
        server.take_data(found().data.as_ref());
        assert_eq!(server.datadir.as_os_str(), "/srv/mysql");
        assert_eq!(server.upgraded.unwrap().1, "10.11.6-MariaDB");
        assert!(server.mounted && server.databases[0] == "shop");
        assert_harmless(&server.databases[1]);
        let stopped = configured(&InstalledServer { running: false, ..found() });
        assert!(stopped.running.is_empty() && !stopped.runs);
    }

    #[test]
    fn several_servers_are_named() {
        let units = ["a.service", ""].map(Text::new);
        assert_eq!(several(&units), ["a.service", "one without a unit"]);
        assert_eq!(several(&vec![Text::default(); 500]).len(), MOST);
    }

    #[test]
    fn data_that_the_unit_does_not_use_is_an_error() {
        let datadir = HostBytes::from("/srv/mysql/");
        let of = |unit, data: Option<&DataFacts>| not_served(unit, &datadir, data).map(|error| error.problem);
        assert_eq!(of("mariadb.service", Some(&data(true))), None);
        assert_eq!(of("", None), None);
        let expected = "mariadb.service reports the data directory /srv/mysql/, but has no files open there";
        assert_eq!(of("mariadb.service", Some(&data(false))).unwrap(), expected);
        assert_eq!(of("mariadb.service", None).unwrap(), expected);
    }
}
