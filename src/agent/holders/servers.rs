//! Servers of the host: holders of data directories that a run must heed, and their units and sockets.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::listeners::socket_of;
use super::{Holder, HoldersError, data_holders};
use crate::agent::accounts::{Accounts, Login, first_account};
use crate::agent::proc::{Process, id};
use crate::agent::tool::ToolError;
use crate::agent::units;
use crate::proto::facts::server::{OtherServer, Relation, Server};
use crate::proto::{HostBytes, Text};

/// User IDs that systemd gives to services.
const DYNAMIC_USERS: std::ops::RangeInclusive<u32> = 61184..=65519;
/// Maximum number of holders of ordinary accounts that are reported.
const MOST_OTHERS: usize = 20;

/// Servers of the host. What systemd and the name services have answered is kept as long as this value.
#[derive(Debug)]
pub(crate) struct Servers {
    login: Login,
    accounts: Accounts,
    first_account: u32,
    units: HashMap<String, Option<String>>,
    users: HashMap<String, Option<u32>>,
}

/// Servers whose data a path concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Near {
    /// Servers that a run must heed.
    pub(crate) servers: Vec<Server>,
    /// Servers of ordinary accounts.
    pub(crate) others: Vec<OtherServer>,
}

/// Process of a server that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Serving {
    /// Process.
    pub(crate) pid: u32,
    /// Unit of systemd.
    pub(crate) unit: Option<String>,
}

impl Servers {
    /// Creates a view of the host for a login.
    pub(crate) fn new(login: Login) -> Self {
        Self {
            login,
            accounts: Accounts::read(),
            first_account: first_account(),
            units: HashMap::new(),
            users: HashMap::new(),
        }
    }

    /// Returns the accounts of the host.
    pub(crate) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Returns the login of the agent.
    pub(crate) fn login(&self) -> Login {
        self.login
    }

    /// Returns whether a server works in a directory; with a unit, whether the server of that unit does. Files
    /// that an ordinary account has put into a directory of another one do not make a server.
    pub(crate) fn is_served(&mut self, directory: &Path, unit: Option<&str>) -> Result<bool, HoldersError> {
        let Some(real) = real(directory)?.filter(|real| real.is_dir()) else { return Ok(false) };
        let Ok(stat) = rustix::fs::stat(&real) else { return Ok(false) };
        for holder in data_holders(Some(&real))? {
            if holder.relation != Some(Relation::Within) || holder.id != id(&stat) {
                continue;
            }
            let its_unit = self.unit_of(holder.pid)?;
            if self.counts(&holder, its_unit.as_deref())?
                && unit.is_none_or(|unit| its_unit.as_deref() == Some(unit))
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns the servers to whose data a path has one of these relations; none where the path is missing.
    pub(crate) fn near(&mut self, path: &Path, relations: &[Relation]) -> Result<Near, HoldersError> {
        let Some(real) = real(path)? else { return Ok(Near::default()) };
        let (mut near, mut seen, mut others) = (Near::default(), HashSet::new(), Vec::new());
        for holder in data_holders(Some(&real))? {
            let is_wanted = |relation: &Relation| relations.contains(relation) && !seen.contains(&holder.id);
            let Some(relation) = holder.relation.filter(is_wanted) else { continue };
            let unit = self.unit_of(holder.pid)?;
            if !self.counts(&holder, unit.as_deref())? {
                others.push(holder);
                continue;
            }
            seen.insert(holder.id);
            let socket = holder.pid.and_then(|pid| socket_of(Path::new(""), &[pid]));
            near.servers.push(Server {
                relation,
                datadir: HostBytes::from(&holder.datadir),
                unit: Text::new(unit.unwrap_or_default()),
                socket: socket.as_ref().map(HostBytes::from).unwrap_or_default(),
            });
        }
        for holder in others.into_iter().take(MOST_OTHERS).filter(|holder| seen.insert(holder.id)) {
            near.others.push(OtherServer {
                datadir: HostBytes::from(&holder.datadir),
                account: self.accounts.user_name(holder.uid),
            });
        }
        Ok(near)
    }

    /// Returns the processes that serve data directories. They have locked its files, and listen: a process that
    /// prepares a backup only does the former. The own server of an ordinary account, and those of containers,
    /// are not the host's.
    pub(crate) fn serving(&mut self) -> Result<Vec<Serving>, HoldersError> {
        let mut serving: Vec<Serving> = Vec::new();
        for holder in data_holders(None)?.into_iter().filter(|holder| holder.is_locked) {
            let Some(pid) = holder.pid else { continue };
            let unit = self.unit_of(Some(pid))?;
            if unit.is_none() && !holder.is_here
                || !self.counts(&holder, unit.as_deref())?
                || serving.iter().any(|known| known.pid == pid)
                || socket_of(Path::new(""), &[pid]).is_none()
            {
                continue;
            }
            serving.push(Serving { pid, unit });
        }
        Ok(serving)
    }

    /// Returns the accounts that may listen on a server's socket: root, the login, those that units of servers
    /// name, and `mysql`. The unit in question may be empty.
    pub(crate) fn server_uids(&self, unit: &str) -> Result<BTreeSet<u32>, ToolError> {
        let mut uids = BTreeSet::from([0, self.login.uid]);
        for name in units::server_users(unit)?.iter().map(String::as_str).chain(["mysql"]) {
            uids.extend(self.uid_of(name)?);
        }
        Ok(uids)
    }

    /// Returns the unit of this host's systemd that a process is in; `None` where it is in none, or in one of a
    /// container's.
    pub(crate) fn unit_of(&mut self, pid: Option<u32>) -> Result<Option<String>, ToolError> {
        let Some(process) = pid.and_then(Process::open) else { return Ok(None) };
        let Some(group) = group_of_unit(&process.read("cgroup")) else { return Ok(None) };
        if let Some(known) = self.units.get(&group) {
            return Ok(known.clone());
        }
        let name = group.rsplit('/').next().unwrap_or_default();
        let is_its = units::property(name, "ControlGroup")? == group;
        let unit = is_its.then(|| name.to_owned());
        self.units.insert(group, unit.clone());
        Ok(unit)
    }

    /// Returns whether a run must heed a holder. Ordinary accounts can hold files of their own anywhere below a
    /// directory, and put them beside others' where anyone can write; a data directory is its server's.
    fn counts(&mut self, holder: &Holder, unit: Option<&str>) -> Result<bool, ToolError> {
        if holder.relation == Some(Relation::Within) {
            Ok(holder.owner == holder.directory_owner || !self.is_ordinary(holder.owner, unit)?)
        } else {
            Ok(!self.is_ordinary(holder.uid, unit)? && !self.is_ordinary(holder.owner, unit)?)
        }
    }

    /// Returns whether an account is neither the system's, nor the login's, nor the one that the unit names.
    fn is_ordinary(&mut self, uid: u32, unit: Option<&str>) -> Result<bool, ToolError> {
        if self.login.uids().any(|own| own == uid) || uid < self.first_account || DYNAMIC_USERS.contains(&uid)
        {
            return Ok(false);
        }
        let Some(unit) = unit else { return Ok(true) };
        if let Some(known) = self.users.get(unit) {
            return Ok(*known != Some(uid));
        }
        let user = self.uid_of(&units::property(unit, "User")?)?;
        self.users.insert(unit.to_owned(), user);
        Ok(user != Some(uid))
    }

    fn uid_of(&self, name: &str) -> Result<Option<u32>, ToolError> {
        match name.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Ok(self.accounts.user(OsStr::new(name))?.map(|user| user.uid)),
        }
    }
}

/// Returns a path without symbolic links; `None` where it is missing.
fn real(path: &Path) -> Result<Option<PathBuf>, HoldersError> {
    match path.canonicalize() {
        Ok(real) => Ok(Some(real)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(HoldersError::Examine { path: path.to_owned(), source }),
    }
}

/// Returns the control group of a service from lines `NUMBER:CONTROLLERS:PATH`.
fn group_of_unit(cgroup: &[u8]) -> Option<String> {
    let groups = std::str::from_utf8(cgroup).ok()?.lines().filter_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        (matches!(controllers, "" | "name=systemd") && path.starts_with('/') && path.ends_with(".service"))
            .then(|| path.to_owned())
    });
    groups.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::files::FileId;

    fn servers() -> Servers {
        Servers {
            login: Login { uid: 0, caller: Some(1500) },
            accounts: Accounts::parse(b"mysql:x:111:117::/:/\nadam:x:1001:1001::/:/\n", b""),
            first_account: 1000,
            units: HashMap::new(),
            users: HashMap::from([("adam.service".to_owned(), Some(1001))]),
        }
    }

    fn holder(relation: Option<Relation>, uid: u32, owner: u32, directory_owner: u32) -> Holder {
        let id = FileId { device: 1, inode: 2 };
        let datadir = PathBuf::from("/d");
        Holder {
            relation,
            datadir,
            id,
            pid: None,
            uid,
            owner,
            directory_owner,
            is_locked: false,
            is_here: true,
        }
    }

    #[test]
    fn control_group_of_a_service_is_found() {
        let group =
            group_of_unit(b"12:pids:/a.service\n1:name=systemd:/system.slice/mariadb.service\n0::/x\n");
        assert_eq!(group.as_deref(), Some("/system.slice/mariadb.service"));
        assert_eq!(group_of_unit(b"0::/user.slice/session-1.scope\n"), None);
        assert_eq!(group_of_unit(b"0::/a.service (deleted)\n\xff"), None);
    }

    #[test]
    fn ordinary_accounts_hold_only_directories_of_their_own() {
        let mut servers = servers();
        for (relation, uid, owner, directory_owner, unit, counts) in [
            (Some(Relation::Within), 1001, 1001, 111, None, false),
            (Some(Relation::Within), 1001, 1001, 1001, None, true),
            (Some(Relation::Within), 111, 111, 0, None, true),
            (Some(Relation::Within), 1001, 1001, 111, Some("adam.service"), true),
            (Some(Relation::Around), 1001, 1001, 1001, None, false),
            (Some(Relation::Around), 111, 111, 111, None, true),
            (Some(Relation::Around), 111, 1001, 111, None, false),
            (Some(Relation::Around), 1500, 1500, 1500, None, true),
            (None, 1001, 1001, 1001, Some("adam.service"), true),
            (None, 61184, 61184, 61184, None, true),
        ] {
            let holder = holder(relation, uid, owner, directory_owner);
            assert_eq!(servers.counts(&holder, unit).unwrap(), counts, "{holder:?} {unit:?}");
        }
    }

    #[test]
    fn accounts_of_servers_are_those_of_units_and_mysql() {
        assert!(servers().server_uids("").unwrap().is_superset(&BTreeSet::from([0, 111])));
    }
}
