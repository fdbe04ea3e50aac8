//! The only server of a host, where no socket and no path was named. It may be running or not.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use rustix::fs::stat;

use super::data::data;
use super::{FactsError, LIMIT};
use crate::agent::holders::{Servers, Serving, socket_of};
use crate::agent::programs::find;
use crate::agent::tool::Tool;
use crate::agent::trust::{Trusted, shared_component};
use crate::agent::units;
use crate::proto::facts::server::{Installed, InstalledServer};
use crate::proto::{HostBytes, Text};

/// Names of the server programs.
const PROGRAMS: [&str; 2] = ["mariadbd", "mysqld"];
/// Settings that a replica needs.
const SETTINGS: [&str; 16] = [
    "aria-log-dir-path",
    "datadir",
    "event-scheduler",
    "innodb-data-file-path",
    "innodb-data-home-dir",
    "innodb-log-group-home-dir",
    "innodb-undo-directory",
    "log-bin",
    "log-bin-index",
    "port",
    "read-only",
    "relay-log",
    "relay-log-index",
    "server-id",
    "socket",
    "wsrep-on",
];

/// Unit of the server in question, if it has one, and whether it is running.
type Found = (Option<String>, bool);

/// Returns the server of a unit; without one the only server that is running, or else one that is installed.
pub(crate) fn installed(unit: Option<&str>, servers: &mut Servers) -> Result<Installed, FactsError> {
    let serving = servers.serving()?;
    let found = match unit {
        Some(unit) => Ok(named(unit)?),
        None => only(&serving)?,
    };
    let (unit, running) = match found {
        Ok(found) => found,
        Err(several) => return Ok(Installed::Several(several)),
    };
    if unit.is_none() && !running {
        return Ok(Installed::Nothing);
    }
    let pids: Vec<u32> =
        serving.iter().filter(|serving| serving.unit == unit).map(|serving| serving.pid).collect();
    Ok(Installed::Server(Box::new(server(unit.as_deref(), running, &pids, servers)?)))
}

/// Returns the server of a unit.
fn named(unit: &str) -> Result<Found, FactsError> {
    let unit = if unit.ends_with(".service") { unit.to_owned() } else { format!("{unit}.service") };
    let running = units::property(&unit, "MainPID")?.starts_with(|c: char| ('1'..='9').contains(&c));
    let exists = units::exists(&unit)?;
    Ok((exists.then_some(unit), running))
}

/// Returns the only server that is running, or else one that is installed; the units where several are running.
fn only(serving: &[Serving]) -> Result<Result<Found, Vec<Text>>, FactsError> {
    let serving = serving.iter().map(|serving| serving.unit.clone());
    let all = distinct(serving.chain(units::running_servers()?.into_iter().map(Some)));
    Ok(match all.as_slice() {
        [] => Ok((first_installed()?, false)),
        [one] => Ok((one.clone(), true)),
        several => Err(several.iter().map(|unit| Text::new(unit.as_deref().unwrap_or_default())).collect()),
    })
}

/// Removes units that are there again. Each process without a unit is a server of its own.
fn distinct(all: impl IntoIterator<Item = Option<String>>) -> Vec<Option<String>> {
    let mut found: Vec<Option<String>> = Vec::new();
    for unit in all {
        if unit.is_none() || !found.contains(&unit) {
            found.push(unit);
        }
    }
    found
}

fn first_installed() -> Result<Option<String>, FactsError> {
    for unit in units::SERVER_UNITS.into_iter().filter(|unit| !unit.contains('*')) {
        if units::exists(unit)? {
            return Ok(Some(unit.to_owned()));
        }
    }
    Ok(None)
}

fn server(
    unit: Option<&str>,
    running: bool,
    pids: &[u32],
    servers: &mut Servers,
) -> Result<InstalledServer, FactsError> {
    let program = program(unit, servers)?;
    let (version, configured) = program.map(|program| describe(&program, unit)).unwrap_or_default();
    let setting = |name: &str| configured.get(&Text::new(name)).cloned().unwrap_or_default();
    let mut socket = setting("socket");
    if running {
        // The server's own, wherever it listens.
        socket = socket_of(socket.as_path(), pids).as_ref().map_or(socket, HostBytes::from);
    }
    let datadir = PathBuf::from(setting("datadir"));
    let data = if datadir.is_absolute() && datadir != Path::new("/") {
        Some(data(&datadir, unit, servers)?)
    } else {
        None
    };
    let unit = Text::new(unit.unwrap_or_default());
    Ok(InstalledServer { unit, running, version, socket, configured, data })
}

/// Returns the server that a unit starts, or else the installed one; `None` where others could have put it there.
fn program(unit: Option<&str>, servers: &Servers) -> Result<Option<PathBuf>, FactsError> {
    let property = unit.map(|unit| units::property(unit, "ExecStart")).transpose()?;
    let started = property.as_deref().and_then(started);
    let installed = PROGRAMS.into_iter().filter_map(find);
    let usual = PROGRAMS.into_iter().map(|name| Path::new("/usr/sbin").join(name));
    let trusted = Trusted::new(servers.login(), servers.accounts());
    // A unit may begin with a shell, which is no server.
    let is_server =
        |path: &PathBuf| path.file_name().is_some_and(|name| PROGRAMS.iter().any(|program| name == *program));
    let all = started.into_iter().chain(installed).chain(usual).filter(is_server);
    Ok(all.into_iter().find(|path| is_roots(path, &trusted)))
}

/// Returns the program of the first command in `{ path=PROGRAM ; argv[]=… }`.
fn started(property: &str) -> Option<PathBuf> {
    let rest = property.lines().find_map(|line| line.strip_prefix("{ path="))?;
    let (path, _) = rest.split_once(" ;")?;
    (path.starts_with('/') && !path.contains([' ', ';'])).then(|| PathBuf::from(path))
}

/// Returns whether no account but root decides what a program does.
fn is_roots(path: &Path, trusted: &Trusted<'_>) -> bool {
    path.is_absolute()
        && stat(path).is_ok_and(|stat| stat.st_uid == 0 && stat.st_mode & 0o022 == 0)
        && matches!(shared_component(path, trusted), Ok(None))
}

/// Returns the version of a server program, and what a start would use according to its option files.
fn describe(program: &Path, unit: Option<&str>) -> (Text, BTreeMap<Text, HostBytes>) {
    let run = |tool: Tool| tool.limit(LIMIT).succeed().unwrap_or_default();
    let version = run(Tool::new(program).arg("--version"));
    let version = Text::new(version.split(|&byte| byte == b'\n').next().unwrap_or_default());
    let group = unit.and_then(instance).map(|instance| format!("--defaults-group-suffix=.{instance}"));
    let help = run(Tool::new(program).args(group).args(["--verbose", "--help"]));
    (version, configured(&help))
}

/// Returns the instance in the name of a unit such as `mariadb@one.service`.
fn instance(unit: &str) -> Option<&str> {
    unit.strip_suffix(".service")?.split_once('@').map(|(_, instance)| instance)
}

/// Returns the settings from a server's list of lines `NAME VALUE`. Their names are those of variables.
fn configured(help: &[u8]) -> BTreeMap<Text, HostBytes> {
    let lines = help.split(|&byte| byte == b'\n').filter_map(|line| {
        let end = line.iter().position(u8::is_ascii_whitespace)?;
        let (name, value) = line.split_at(end);
        let name = SETTINGS.into_iter().find(|setting| setting.as_bytes() == name)?;
        Some((Text::new(name.replace('-', "_")), HostBytes::from(value.trim_ascii().to_vec())))
    });
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::accounts::{Accounts, Login};

    #[test]
    fn settings_are_read_from_the_list_of_a_server() {
        let help = b"  --datadir=name      Path to the database root\n\
            Variables (--variable-name=value)\ndatadir                       /var/lib/my sql/\n\
            log-bin                       (No default value)\nserver-id                     17\n\
            port                          3306\nnot-a-setting 5\nsocket\n";
        let configured = configured(help);
        let shown: Vec<_> = configured.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(
            shown,
            ["datadir=/var/lib/my sql/", "log_bin=(No default value)", "port=3306", "server_id=17"]
        );
    }

    #[test]
    fn programs_of_units_are_parsed() {
        let property =
            "{ path=/usr/sbin/mariadbd ; argv[]=/usr/sbin/mariadbd $MYSQLD_OPTS ; ignore_errors=no ; }";
        assert_eq!(started(property), Some("/usr/sbin/mariadbd".into()));
        assert_eq!(started("{ path=relative ; }"), None);
        assert_eq!(started(""), None);
        assert_eq!(instance("mariadb@one.service"), Some("one"));
        assert_eq!(instance("mariadb.service"), None);
    }

    #[test]
    fn programs_of_others_are_not_run() {
        let accounts = Accounts::read();
        let trusted = Trusted::new(Login { uid: 0, caller: None }, &accounts);
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("mariadbd");
        std::fs::write(&program, "").unwrap();
        let mode = |mode| {
            std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        };
        mode(0o777);
        assert!(!is_roots(&program, &trusted));
        mode(0o755);
        assert_eq!(is_roots(&program, &trusted), rustix::process::geteuid().is_root());
        assert!(!is_roots(Path::new("mariadbd"), &trusted));
    }

    #[test]
    fn several_servers_are_all_named() {
        let unit = |name: &str| Some(name.to_owned());
        assert_eq!(distinct([unit("a"), None, unit("a"), None]).len(), 3);
        assert!(distinct([]).is_empty());
    }
}
