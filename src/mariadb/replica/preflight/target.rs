//! Checks of the hosts that become replicas.

use std::net::IpAddr;

use super::{has_several, shown};
use crate::host::facts::Installed;
use crate::mariadb::backup::Version;
use crate::mariadb::replica::whom::{Asked, AskedHost, bare};
use crate::preflight::{Finding, Findings, counted};

impl Asked<'_> {
    /// Checks one target. `before`: targets before it.
    pub(super) fn target(&self, target: &AskedHost, before: &[AskedHost]) -> Vec<Finding> {
        let server = target.server();
        let mut findings = Findings::about(&target.name);
        if self.has_another_role(target, before, &mut findings) || has_several(target, &mut findings) {
            return findings.list;
        }
        if target.facts.uid != 0 {
            findings.refuse(
                &format!("uid {} cannot stop and start the server", target.facts.uid),
                "log in as root, or use --sudo",
            );
        }
        if server.unit.is_empty() || server.version.is_empty() {
            self.no_unit(server, &mut findings);
            return findings.list;
        }
        self.series(server, &mut findings);
        self.data(server, &mut findings);
        if server.starts_with("wsrep_on") {
            findings.refuse("the server is a Galera cluster node", "choose a standalone server");
        }
        if let Some((run, _)) = server.stale.first() {
            findings.refuse(
                &format!("the orphaned run {run} has left provisional data on the server"),
                &format!("transfer clean --start-servers {}", target.name),
            );
        }
        if !self.order.allow_clients {
            in_use(server, &mut findings);
        }
        self.ids(target, before, &mut findings);
        self.semi_synchronous(server, &mut findings);
        if !server.starts_with("read_only") {
            findings.warn(
                "read_only is not set in its configuration",
                "the replica will accept writes after its next restart; set read_only=1 below [mysqld]",
            );
        }
        findings.list
    }

    /// Refuses a target that is the donor, the primary or an earlier target. Returns whether it is.
    fn has_another_role(&self, target: &AskedHost, before: &[AskedHost], findings: &mut Findings) -> bool {
        if let Some(other) = [&self.donor, &self.primary].into_iter().find(|other| other.is_same(target)) {
            findings.refuse(&format!("it is the same host as {}", other.name), "choose another host");
            return true;
        }
        let is_twice = before.iter().any(|other| other.is_same(target));
        if is_twice {
            findings.refuse("it is given twice as a target", "give it once");
        }
        is_twice
    }

    /// Refuses a target without a server that can be stopped and started.
    fn no_unit(&self, server: &Installed, findings: &mut Findings) {
        let problem = if server.runs {
            "the server does not run in a systemd unit"
        } else {
            "no MariaDB server is installed"
        };
        let series = Version::find(self.donor().instance.version());
        let version = series.map_or_else(String::new, |series| format!(" (version {series})"));
        findings.refuse(problem, &format!("apt install mariadb-server{version}"));
    }

    /// Refuses a server of another series than the donor's.
    fn series(&self, server: &Installed, findings: &mut Findings) {
        let series = Version::find(self.donor().instance.version());
        let (own, is_mariadb) = (Version::find(&server.version), server.version.contains("MariaDB"));
        if !is_mariadb || own.zip(series).is_none_or(|(own, series)| !own.is_of(series)) {
            let own = own.map_or_else(|| server.version.clone(), |own| own.to_string());
            findings.refuse(
                &format!(
                    "the server is {own}, but that of {} is {}",
                    self.donor.name,
                    self.donor().instance.version()
                ),
                "install the same series: data directories are not compatible across series",
            );
        }
    }

    /// Checks that the data of a server can be replaced, and brought back.
    fn data(&self, server: &Installed, findings: &mut Findings) {
        if server.mounted {
            findings.refuse(
                &format!(
                    "a file system is mounted at or below {}, so the data directory cannot be replaced",
                    shown(server)
                ),
                "set datadir to a directory below the mount point",
            );
        }
        if let Some(error) = server.instance.error.as_ref().filter(|_| server.runs) {
            let fix = "give an option file on the hosts with --defaults-file, or stop the server";
            findings.refuse(&format!("cannot query the server: {}", error.problem), error.fix_or(fix));
        }
        if !server.databases.is_empty() && self.order.typed.options.replace != Some(true) {
            let some: Vec<&str> = server.databases.iter().take(3).map(String::as_str).collect();
            let more = if server.databases.len() > some.len() { ", …" } else { "" };
            findings.refuse(
                &format!("the server has databases: {}{more}", some.join(", ")),
                "use --replace to replace them (with --keep-old to keep the old data directory)",
            );
        }
        let first = self.targets.first().and_then(|first| first.facts.installed.as_ref());
        if first.is_some_and(|first| first.datadir.file_name() != server.datadir.file_name()) {
            findings.refuse(
                &format!(
                    "its data directory {} and that of the first target have different names",
                    shown(server)
                ),
                "make it a replica in a separate run",
            );
        }
        for (option, place) in server.files_elsewhere() {
            findings.refuse(
                &format!("the server keeps files outside its data directory: {option}={place}"),
                "set the option to a name without a directory: outside files could not be rolled back",
            );
        }
    }

    /// Refuses a `server_id` that another server uses.
    fn ids(&self, target: &AskedHost, before: &[AskedHost], findings: &mut Findings) {
        let own = target.server();
        let id = own.next_server_id();
        let primary = self.primary.server();
        let named = [&self.donor, &self.primary].into_iter().chain(before);
        let same =
            named.clone().find(|other| other.server().server_id() == id).map(|other| other.name.to_string());
        // A target that is already a replica of the primary is listed there with its own id.
        let is_there = self.is_replica_of_primary(own);
        // The primary lists a replica by its report_host, or else by the address that it connects from.
        let is_itself = |host: &String| {
            *host == bare(&target.name)
                || host.parse().is_ok_and(|address: IpAddr| target.facts.addresses.contains(&address))
        };
        let is_itself = |id: u32, host: &String| is_itself(host) || is_there && id == own.server_id();
        let other = primary.downstreams.iter().find(|(other, host)| *other == id && !is_itself(*other, host));
        let user = same.or_else(|| {
            other.map(|(_, host)| if host.is_empty() { "another replica".into() } else { host.clone() })
        });
        let highest = named
            .map(|other| other.server().server_id())
            .chain(primary.downstreams.iter().map(|(id, _)| *id))
            .max();
        let fix = format!("set server_id={} below [mysqld]", highest.unwrap_or_default().saturating_add(1));
        match user {
            _ if id == 0 => findings.refuse("server_id is not set", &fix),
            Some(user) => findings.refuse(&format!("server_id {id} is already used by {user}"), &fix),
            None => {}
        }
    }

    fn is_replica_of_primary(&self, server: &Installed) -> bool {
        let primary = self.primary.server().server_id();
        server.upstreams.iter().any(|upstream| upstream.server_id == primary)
    }

    /// Warns if writes to the primary wait for this server, which will be stopped.
    fn semi_synchronous(&self, server: &Installed, findings: &mut Findings) {
        let variable = |name: &str| self.primary.server().instance.variable(name);
        let waits = variable("rpl_semi_sync_master_enabled") == "ON";
        if waits && self.is_replica_of_primary(server) && variable("rpl_semi_sync_master_clients") == "1" {
            let limit = variable("rpl_semi_sync_master_timeout");
            findings.warn(
                &format!("it is the only semi-synchronous replica of {}", self.primary.name),
                &format!("writes there will wait once for up to {limit} ms when it is stopped"),
            );
        }
    }
}

/// Refuses a server that is in use.
fn in_use(server: &Installed, findings: &mut Findings) {
    const OUT_OF_SERVICE: &str = "take it out of service first, or use --allow-clients";
    if !server.clients.is_empty() {
        let some: Vec<&str> = server.clients.iter().take(3).map(String::as_str).collect();
        findings.refuse(
            &format!(
                "the server has {}: {}",
                counted(server.clients.len() as u64, "connected client"),
                some.join(", ")
            ),
            OUT_OF_SERVICE,
        );
    }
    if server.written {
        findings.refuse("the server receives writes", OUT_OF_SERVICE);
    }
    if !server.downstreams.is_empty() {
        findings.refuse(
            &format!("the server has {}", counted(server.downstreams.len() as u64, "replica")),
            "move its replicas to another server first, or use --allow-clients",
        );
    }
}
