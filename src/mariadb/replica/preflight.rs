//! Preflight checks of `transfer replica`. Pure.

use std::net::IpAddr;

use super::refusal;
use super::whom::{Asked, Reached, Whom, bare, server};
use crate::base::endpoint::HostName;
use crate::host::facts::{Facts, Installed};
use crate::host::wire::printable;
use crate::mariadb::backup::{Vendor, Version};
use crate::mariadb::client::LoginError;
use crate::mariadb::plan::Account;
use crate::preflight::{Finding, Weight, counted};

/// Binary log retention in seconds below which the log may expire before the copy is complete.
const SHORT_LOG: u64 = 24 * 3600;

fn warning(host: &HostName, problem: &str, fix: &str) -> Finding {
    Finding { weight: Weight::Warning, ..refusal(host, problem, fix) }
}

impl Asked<'_> {
    /// Checks the servers of all hosts.
    pub(super) fn servers(&self) -> Vec<Finding> {
        let mut found = Vec::new();
        let one = self.donor.0 == self.primary.0;
        self.source_server(&self.donor, true, &mut found);
        if !one {
            self.source_server(&self.primary, false, &mut found);
        }
        if found.iter().any(|finding| finding.weight == Weight::Refusal) {
            return found;
        }
        // Otherwise they read the binary log of an upstream that was not probed.
        if !self.beside() || self.order.from.is_some() {
            Self::binary_log(&self.primary, self.order.replicate_from_primary, &mut found);
        }
        if self.beside() {
            if let Some(upstream) = self.upstream() {
                if self.order.verify_tables.is_some() && !upstream.runs {
                    found.push(refusal(
                        &self.donor.0,
                        "replication is stopped, so its tables cannot be compared with the new replicas'",
                        "START SLAVE there, or omit --verify-tables",
                    ));
                }
                if self.order.verify_tables.is_some()
                    && (upstream.filtered || self.donor().upstreams.len() > 1)
                {
                    found.push(refusal(
                        &self.donor.0,
                        "replication is filtered or has several sources, so its tables cannot be compared",
                        "omit --verify-tables",
                    ));
                }
                if self.order.verify_tables.is_some() && !upstream.by_gtid {
                    found.push(refusal(
                        &self.donor.0,
                        "it replicates by file and position, so there is no GTID to compare tables at",
                        "CHANGE MASTER TO MASTER_USE_GTID = slave_pos there, or omit --verify-tables",
                    ));
                }
                let others = self.donor().upstreams.len() - 1;
                if others > 0 && upstream.by_gtid {
                    let problem = format!(
                        "it also replicates from {}, but the new replicas will not",
                        counted(others as u64, "other server")
                    );
                    let fix = "the data from there will not be updated on the new replicas";
                    found.push(warning(&self.donor.0, &problem, fix));
                } else if others > 0 {
                    found.push(refusal(
                        &self.donor.0,
                        "it replicates from several servers by file and position, and a backup does not \
                         record which position belongs to which server",
                        "CHANGE MASTER TO MASTER_USE_GTID = slave_pos there, or choose another donor",
                    ));
                }
                if !upstream.runs && !self.order.sibling && self.order.from.is_none() {
                    let problem = format!("it is a stopped replica of {}", upstream.place());
                    let fix = "the new replicas will replicate from there; use --replicate-from-primary to replicate from \
                               this server";
                    found.push(warning(&self.donor.0, &problem, fix));
                }
                if upstream.filtered {
                    let problem = format!("its replication from {} is filtered", upstream.place());
                    let fix = "the new replicas will replicate everything that is written after the copy";
                    found.push(warning(&self.donor.0, &problem, fix));
                }
            }
        }
        for (index, target) in self.targets.iter().enumerate() {
            self.target(target, &self.targets[..index], &mut found);
        }
        found
    }

    /// Checks that a donor or primary runs and can be queried.
    fn source_server(&self, (name, facts): &(HostName, Facts), copied: bool, found: &mut Vec<Finding>) {
        let server = server(facts);
        if server.unit.is_empty() && server.running.len() > 1 {
            return found.push(several(name, server));
        }
        if !server.runs {
            let fix = "start it, or give its unit with --unit";
            return found.push(refusal(name, "no MariaDB server is running", fix));
        }
        if let Some(error) = &server.instance.error {
            let fix = "log in as root, or give an option file on the hosts with --defaults-file";
            let error = LoginError::parse(error);
            let problem = format!("cannot query the server: {}", error.problem);
            return found.push(refusal(name, &problem, error.fix.unwrap_or(fix)));
        }
        if Vendor::of(&server.instance) != Vendor::MariaDb {
            let problem = format!("the server is {}", server.instance.version());
            return found.push(refusal(name, &problem, "only MariaDB is supported"));
        }
        if (copied || self.order.create_account) && server.socket.is_empty() {
            found.push(refusal(name, "cannot find the server's socket", "set socket below [mysqld]"));
        }
        if server.instance.variable("wsrep_on") == "ON" {
            found.push(warning(
                name,
                "the server is a Galera cluster node",
                "the new replicas will replicate from this node only",
            ));
        }
    }

    fn binary_log((name, facts): &(HostName, Facts), chain: bool, found: &mut Vec<Finding>) {
        let server = server(facts);
        let variable = |name: &str| server.instance.variable(name);
        if variable("log_bin") != "ON" {
            found.push(refusal(
                name,
                "binary logging is off",
                "set log_bin=mysql-bin below [mysqld], and restart the server",
            ));
        } else if chain && variable("log_slave_updates") != "ON" {
            found.push(refusal(
                name,
                "log_slave_updates is off, so replicated changes are not in the binary log",
                "set log_slave_updates=1 below [mysqld] and restart the server, or omit --replicate-from-primary",
            ));
        }
        let address = variable("bind_address");
        let local =
            address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) || address == "localhost";
        if variable("skip_networking") == "ON" {
            let bind = if local { " and bind_address=0.0.0.0" } else { "" };
            found.push(refusal(
                name,
                "the server has networking off (skip_networking)",
                &format!("set skip_networking=0{bind} below [mysqld], and restart the server"),
            ));
        } else if local {
            found.push(refusal(
                name,
                &format!("the server listens on {address} only"),
                "set bind_address=0.0.0.0 below [mysqld], and restart the server",
            ));
        }
        if server.server_id() == 0 {
            found.push(refusal(name, "server_id is not set", "set server_id below [mysqld]"));
        }
        let kept = variable("binlog_expire_logs_seconds").parse::<u64>().unwrap_or_default();
        if (1..SHORT_LOG).contains(&kept) {
            found.push(warning(
                name,
                &format!("binary logs expire after {kept} s"),
                "replication cannot start if the copy takes longer: SET GLOBAL binlog_expire_logs_seconds = \
                 86400",
            ));
        }
    }

    fn target(
        &self,
        (name, facts): &(HostName, Facts),
        before: &[(HostName, Facts)],
        found: &mut Vec<Finding>,
    ) {
        let server = server(facts);
        let mut refuse = |problem: &str, fix: &str| found.push(refusal(name, problem, fix));
        let others = [&self.donor, &self.primary];
        if let Some((other, _)) = others.iter().find(|(other, of)| other == name || of.same_machine(facts)) {
            return refuse(&format!("it is the same host as {other}"), "choose another host");
        }
        if before.iter().any(|(other, of)| other == name || of.same_machine(facts)) {
            return refuse("it is given twice as a target", "give it once");
        }
        if server.unit.is_empty() && server.running.len() > 1 {
            return found.push(several(name, server));
        }
        if facts.uid != 0 {
            refuse(
                &format!("uid {} cannot stop and start the server", facts.uid),
                "log in as root, or use --sudo",
            );
        }
        let series = Version::find(self.donor().instance.version());
        if server.unit.is_empty() || server.version.is_empty() {
            let problem = if server.runs {
                "the server does not run in a systemd unit"
            } else {
                "no MariaDB server is installed"
            };
            let version = series.map_or_else(String::new, |series| format!(" (version {series})"));
            return refuse(problem, &format!("apt install mariadb-server{version}"));
        }
        let (own, is_mariadb) = (Version::find(&server.version), server.version.contains("MariaDB"));
        if !is_mariadb || own.zip(series).is_none_or(|(own, series)| !own.is_of(series)) {
            let own = own.map_or_else(|| server.version.clone(), |own| own.to_string());
            refuse(
                &format!(
                    "the server is {own}, but that of {} is {}",
                    self.donor.0,
                    self.donor().instance.version()
                ),
                "install the same series: data directories are not compatible across series",
            );
        }
        if server.mounted {
            refuse(
                &format!(
                    "a file system is mounted at or below {}, so the data directory cannot be replaced",
                    shown(server)
                ),
                "set datadir to a directory below the mount point",
            );
        }
        if let Some(error) = server.instance.error.as_ref().filter(|_| server.runs) {
            let fix = "give an option file on the hosts with --defaults-file, or stop the server";
            let error = LoginError::parse(error);
            refuse(&format!("cannot query the server: {}", error.problem), error.fix.unwrap_or(fix));
        }
        if !server.databases.is_empty() && self.order.typed.options.replace != Some(true) {
            let some: Vec<&str> = server.databases.iter().take(3).map(String::as_str).collect();
            let more = if server.databases.len() > some.len() { ", …" } else { "" };
            refuse(
                &format!("the server has databases: {}{more}", some.join(", ")),
                "use --replace to replace them (with --keep-old to keep the old data directory)",
            );
        }
        let first = self.targets.first().map(|(_, facts)| facts).and_then(|facts| facts.installed.as_ref());
        if first.is_some_and(|first| first.datadir.file_name() != server.datadir.file_name()) {
            refuse(
                &format!(
                    "its data directory {} and that of the first target have different names",
                    shown(server)
                ),
                "make it a replica in a separate run",
            );
        }
        for (option, place) in server.files_elsewhere() {
            refuse(
                &format!("the server keeps files outside its data directory: {option}={place}"),
                "set the option to a name without a directory: outside files could not be rolled back",
            );
        }
        if server.starts_with("wsrep_on") {
            refuse("the server is a Galera cluster node", "choose a standalone server");
        }
        if let Some((run, _)) = server.stale.first() {
            refuse(
                &format!("the orphaned run {run} has left provisional data on the server"),
                &format!("transfer clean --start-servers {name}"),
            );
        }
        self.use_of(name, server, found);
        self.ids((name, facts), server, before, found);
        if !server.starts_with("read_only") {
            found.push(warning(
                name,
                "read_only is not set in its configuration",
                "the replica will accept writes after its next restart; set read_only=1 below [mysqld]",
            ));
        }
    }

    /// Refuses a server that is in use.
    fn use_of(&self, name: &HostName, server: &Installed, found: &mut Vec<Finding>) {
        const OUT_OF_SERVICE: &str = "take it out of service first, or use --allow-clients";
        if self.order.allow_clients {
            return;
        }
        let mut refuse = |problem: &str, fix: &str| found.push(refusal(name, problem, fix));
        if !server.clients.is_empty() {
            let some: Vec<&str> = server.clients.iter().take(3).map(String::as_str).collect();
            refuse(
                &format!(
                    "the server has {}: {}",
                    counted(server.clients.len() as u64, "connected client"),
                    some.join(", ")
                ),
                OUT_OF_SERVICE,
            );
        }
        if server.written {
            refuse("the server receives writes", OUT_OF_SERVICE);
        }
        if !server.downstreams.is_empty() {
            refuse(
                &format!("the server has {}", counted(server.downstreams.len() as u64, "replica")),
                "move its replicas to another server first, or use --allow-clients",
            );
        }
    }

    /// Refuses a `server_id` that another server uses.
    fn ids(
        &self,
        (name, facts): (&HostName, &Facts),
        own: &Installed,
        before: &[(HostName, Facts)],
        found: &mut Vec<Finding>,
    ) {
        let id = own.next_server_id();
        let primary = server(&self.primary.1);
        let named = [&self.donor, &self.primary].into_iter().chain(before);
        let same = named
            .clone()
            .find(|(_, facts)| server(facts).server_id() == id)
            .map(|(name, _)| name.to_string());
        // A target that is already a replica of the primary is listed there with its own id.
        let is_there = own.upstreams.iter().any(|upstream| upstream.server_id == primary.server_id());
        // The primary lists a replica by its report_host, or else by the address that it connects from.
        let is_itself = |host: &String| {
            *host == bare(name)
                || host.parse().is_ok_and(|address: IpAddr| facts.addresses.contains(&address))
        };
        let is_itself = |id: u32, host: &String| is_itself(host) || is_there && id == own.server_id();
        let other = primary.downstreams.iter().find(|(other, host)| *other == id && !is_itself(*other, host));
        let user = same.or_else(|| {
            other.map(|(_, host)| if host.is_empty() { "another replica".into() } else { host.clone() })
        });
        let highest = named
            .map(|(_, facts)| server(facts).server_id())
            .chain(primary.downstreams.iter().map(|(id, _)| *id))
            .max();
        let fix = format!("set server_id={} below [mysqld]", highest.unwrap_or_default().saturating_add(1));
        match user {
            _ if id == 0 => found.push(refusal(name, "server_id is not set", &fix)),
            Some(user) => {
                found.push(refusal(name, &format!("server_id {id} is already used by {user}"), &fix));
            }
            None => {}
        }
        let waits = primary.instance.variable("rpl_semi_sync_master_enabled") == "ON";
        if waits && is_there && primary.instance.variable("rpl_semi_sync_master_clients") == "1" {
            let limit = primary.instance.variable("rpl_semi_sync_master_timeout");
            found.push(warning(
                name,
                &format!("it is the only semi-synchronous replica of {}", self.primary.0),
                &format!("writes there will wait once for up to {limit} ms when it is stopped"),
            ));
        }
    }

    /// Checks a target's connection test to the server that it will replicate from.
    pub(super) fn reached(
        &self,
        whom: &Whom,
        name: &HostName,
        target: &Facts,
        account: Option<&Account>,
        reached: &Reached,
    ) -> Vec<Finding> {
        let mut found = Vec::new();
        let place = format!("{}:{}", reached.host, whom.port);
        let user = account.map_or_else(String::new, |account| printable(account.user.as_bytes()));
        let from = &reached.own;
        if let Some(error) = &reached.error {
            let error = LoginError::parse(error);
            let fix = if error.is_denied {
                format!(
                    "allow {user} to log in there from {from} (CREATE USER), or use --create-account or \
                     --account FILE"
                )
            } else {
                format!(
                    "open port {} of {} for {from}, check its bind_address, or give --primary-address",
                    whom.port, whom.name
                )
            };
            let problem = format!("cannot log in to {place}: {}", error.problem);
            found.push(refusal(name, &problem, error.fix.unwrap_or(&fix)));
            return found;
        }
        let is_host = |c: char| c.is_ascii_alphanumeric() || ".:-_".contains(c);
        if account.is_none() {
            if from.is_empty() || !from.chars().all(is_host) {
                let problem = format!("cannot determine at which address {place} sees this host");
                let fix = "create an account yourself, and give it with --account FILE";
                found.push(refusal(name, &problem, fix));
            }
            return found;
        }
        if !reached.may_replicate {
            let (user, host) = reached.current.rsplit_once('@').unwrap_or((&user, from));
            let fix = format!("on {}: GRANT REPLICATION SLAVE ON *.* TO '{user}'@'{host}'", whom.name);
            found.push(refusal(name, &format!("account {user} lacks REPLICATION SLAVE on {place}"), &fix));
        }
        let variable = |name: &str| reached.variables.get(name).map_or("", String::as_str);
        if !whom.is_asked {
            if variable("log_bin") == "OFF" {
                let fix = "choose another server to replicate from";
                found.push(refusal(&whom.name, "binary logging is off", fix));
            }
            let id = server(target).next_server_id();
            if variable("server_id") == id.to_string() {
                let fix = "set another server_id below [mysqld]";
                found.push(refusal(name, &format!("server_id {id} is already used by {place}"), fix));
            }
        } else if variable("server_id") != server(&self.primary.1).server_id().to_string() {
            let problem = format!(
                "{place} is not the server of {}: its server_id is {}",
                whom.name,
                variable("server_id")
            );
            found.push(refusal(name, &problem, "give its name or address with --primary-address"));
        }
        let (there, here) = (Version::find(variable("version")), Version::find(&server(target).version));
        if there.zip(here).is_some_and(|(there, here)| here < there && !here.is_of(there)) {
            found.push(refusal(
                name,
                &format!("the server is older than {place} ({})", variable("version")),
                "install the same series",
            ));
        }
        found
    }

    /// Refuses `--create-account` on an upstream that is not a host of the command.
    pub(super) fn cannot_create(&self, whom: &Whom) -> Finding {
        refusal(
            &self.donor.0,
            &format!("it replicates from {}, which was not given: cannot create an account there", whom.name),
            &format!("run: transfer replica PRIMARY TARGET --from {} --create-account", self.donor.0),
        )
    }

    /// Refuses to send the credentials of `--account` to a host that only the donor named.
    pub(super) fn account_for_unnamed(&self, whom: &Whom) -> Finding {
        refusal(
            &self.donor.0,
            &format!(
                "it replicates from {}, which was not given: --account is used only for hosts that are",
                printable(whom.name.as_bytes())
            ),
            &format!("give the primary: transfer replica PRIMARY TARGET --from {}", self.donor.0),
        )
    }

    /// Reports that no replication account is known.
    pub(super) fn no_account(&self) -> Finding {
        refusal(
            &self.primary.0,
            "no replication account is known for the new replicas",
            "use --create-account or --account FILE",
        )
    }
}

fn several(name: &HostName, server: &Installed) -> Finding {
    refusal(
        name,
        &format!("{} servers are running: {}", server.running.len(), server.running.join(", ")),
        "choose one with --unit",
    )
}

fn shown(server: &Installed) -> String {
    printable(server.datadir.as_os_str().as_encoded_bytes())
}
