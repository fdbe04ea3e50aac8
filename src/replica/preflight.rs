//! What can stand against replicas. Pure.

use std::net::IpAddr;

use super::refusal;
use super::whom::{Asked, Reached, Whom, bare, server};
use crate::backup::{Vendor, Version};
use crate::endpoint::HostName;
use crate::host::facts::{Facts, Installed};
use crate::host::wire::printable;
use crate::plan::replica::Account;
use crate::preflight::{Finding, Weight, own_remedy};

/// Binary logs that are kept for less than this many seconds may be gone before the copy is there.
const SHORT_LOG: u64 = 24 * 3600;

fn warning(host: &HostName, problem: &str, fix: &str) -> Finding {
    Finding { weight: Weight::Warning, ..refusal(host, problem, fix) }
}

impl Asked<'_> {
    /// Findings against the servers of all hosts.
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
        // Whose binary log they read, as far as it is a host of the order.
        if !self.beside() || self.order.from.is_some() {
            Self::binary_log(&self.primary, self.order.replicate_from_primary, &mut found);
        }
        if self.beside() {
            if let Some(upstream) = self.upstream() {
                if self.order.verify_tables.is_some() && !upstream.runs {
                    found.push(refusal(
                        &self.donor.0,
                        "its replication rests, and its tables cannot be compared with what goes on",
                        "START SLAVE there, or leave out --verify-tables",
                    ));
                }
                if self.order.verify_tables.is_some()
                    && (upstream.filtered || self.donor().upstreams.len() > 1)
                {
                    found.push(refusal(
                        &self.donor.0,
                        "it has not just what it gets from there, so that its tables cannot be compared",
                        "leave out --verify-tables",
                    ));
                }
                if self.order.verify_tables.is_some() && !upstream.by_gtid {
                    found.push(refusal(
                        &self.donor.0,
                        "it replicates by file and position, so that there is no GTID at which tables could be compared",
                        "CHANGE MASTER TO MASTER_USE_GTID = slave_pos there, or leave out --verify-tables",
                    ));
                }
                let others = self.donor().upstreams.len() - 1;
                if others > 0 && upstream.by_gtid {
                    let problem = format!("it replicates from {others} more, which the new ones do not");
                    found.push(warning(
                        &self.donor.0,
                        &problem,
                        "their data stands still there, as it is in the copy",
                    ));
                } else if others > 0 {
                    found.push(refusal(
                        &self.donor.0,
                        "it replicates from several servers by file and position, which its backup does not tell apart",
                        "CHANGE MASTER TO MASTER_USE_GTID = slave_pos there, or copy another one",
                    ));
                }
                if !upstream.runs && !self.order.sibling && self.order.from.is_none() {
                    let problem = format!("it is a replica of {}, though stopped", upstream.place());
                    let fix = "the new ones replicate from there; say --replicate-from-primary if they are to replicate from it";
                    found.push(warning(&self.donor.0, &problem, fix));
                }
                if upstream.filtered {
                    let problem = format!("it does not replicate all of {}", upstream.place());
                    found.push(warning(&self.donor.0, &problem, "the new ones will, from now on"));
                }
            }
        }
        for (index, target) in self.targets.iter().enumerate() {
            self.target(target, &self.targets[..index], &mut found);
        }
        found
    }

    /// One that runs and can be asked.
    fn source_server(&self, (name, facts): &(HostName, Facts), copied: bool, found: &mut Vec<Finding>) {
        let server = server(facts);
        if server.unit.is_empty() && server.running.len() > 1 {
            return found.push(several(name, server));
        }
        if !server.runs {
            let fix = "start it, or say which one it is with --unit";
            return found.push(refusal(name, "no MariaDB server runs there", fix));
        }
        if let Some(error) = &server.instance.error {
            let fix = "log in as root, or name a file of options on the hosts with --defaults-file";
            let (error, fix) = own_remedy(error, fix);
            return found.push(refusal(name, &format!("its server cannot be asked: {error}"), fix));
        }
        if Vendor::of(&server.instance) != Vendor::MariaDb {
            let problem = format!("its server is {}", server.instance.version());
            return found.push(refusal(name, &problem, "replicas are made of MariaDB only"));
        }
        if (copied || self.order.create_account) && server.socket.is_empty() {
            found.push(refusal(
                name,
                "its server has no socket that can be seen",
                "set socket below [mysqld]",
            ));
        }
        if server.instance.variable("wsrep_on") == "ON" {
            found.push(warning(
                name,
                "its server is a node of a Galera cluster",
                "the new ones replicate from this node alone",
            ));
        }
    }

    fn binary_log((name, facts): &(HostName, Facts), chain: bool, found: &mut Vec<Finding>) {
        let server = server(facts);
        let variable = |name: &str| server.instance.variable(name);
        if variable("log_bin") != "ON" {
            found.push(refusal(
                name,
                "its server writes no binary log, so nobody can replicate from it",
                "set log_bin=mysql-bin below [mysqld], and restart it",
            ));
        } else if chain && variable("log_slave_updates") != "ON" {
            found.push(refusal(
                name,
                "what its server replicates is not in its binary log",
                "set log_slave_updates=1 below [mysqld] and restart it, or leave out --replicate-from-primary",
            ));
        }
        let address = variable("bind_address");
        let local =
            address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) || address == "localhost";
        if variable("skip_networking") == "ON" || local {
            found.push(refusal(
                name,
                &format!("its server listens on {} only", if local { address } else { "its socket" }),
                "set bind_address=0.0.0.0 below [mysqld], and restart it",
            ));
        }
        if server.server_id() == 0 {
            found.push(refusal(name, "its server has no server id", "set server_id below [mysqld]"));
        }
        let kept = variable("binlog_expire_logs_seconds").parse::<u64>().unwrap_or_default();
        if (1..SHORT_LOG).contains(&kept) {
            found.push(warning(
                name,
                &format!("its server keeps its binary log for {kept} s only"),
                "a replica whose copy takes longer cannot begin: SET GLOBAL binlog_expire_logs_seconds = 86400",
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
            return refuse(&format!("it is the host of {other}"), "name another host");
        }
        if before.iter().any(|(other, of)| other == name || of.same_machine(facts)) {
            return refuse("it is named twice", "name it once");
        }
        if server.unit.is_empty() && server.running.len() > 1 {
            return found.push(several(name, server));
        }
        if facts.uid != 0 {
            refuse(
                &format!("user id {} cannot stop and start its server", facts.uid),
                "log in as root, or with --sudo",
            );
        }
        let series = Version::find(self.donor().instance.version());
        if server.unit.is_empty() || server.version.is_empty() {
            let problem = if server.runs {
                "its server runs in no unit of systemd"
            } else {
                "no MariaDB server is installed"
            };
            let version = series.map_or_else(String::new, |series| format!(" of the version {series}"));
            return refuse(problem, &format!("apt install mariadb-server{version}"));
        }
        let (own, is_mariadb) = (Version::find(&server.version), server.version.contains("MariaDB"));
        if !is_mariadb || own.zip(series).is_none_or(|(own, series)| !own.is_of(series)) {
            let own = own.map_or_else(|| server.version.clone(), |own| own.to_string());
            refuse(
                &format!(
                    "its server is {own}, that of {} is {}",
                    self.donor.0,
                    self.donor().instance.version()
                ),
                "install the same series: data directories are not for another one",
            );
        }
        if server.mounted {
            refuse(
                &format!(
                    "something is mounted at {}, which another directory cannot take the place of",
                    shown(server)
                ),
                "let datadir be a directory below the mount point",
            );
        }
        if let Some(error) = server.instance.error.as_ref().filter(|_| server.runs) {
            let fix = "name a file of options on the hosts with --defaults-file, or stop it";
            let (error, fix) = own_remedy(error, fix);
            refuse(&format!("its server cannot be asked: {error}"), fix);
        }
        if !server.databases.is_empty() && self.order.typed.options.replace != Some(true) {
            let some: Vec<&str> = server.databases.iter().take(3).map(String::as_str).collect();
            let more = if server.databases.len() > some.len() { ", …" } else { "" };
            refuse(
                &format!("its server holds databases: {}{more}", some.join(", ")),
                "if they may go, say --replace (and --keep-old to keep them)",
            );
        }
        let first = self.targets.first().map(|(_, facts)| facts).and_then(|facts| facts.installed.as_ref());
        if first.is_some_and(|first| first.datadir.file_name() != server.datadir.file_name()) {
            refuse(
                &format!(
                    "its data directory {} has another name than that of the first target",
                    shown(server)
                ),
                "make it a replica with a command of its own",
            );
        }
        for (option, place) in server.files_elsewhere() {
            refuse(
                &format!("its server keeps files outside its data directory: {option}={place}"),
                "let them be in it (a name without a directory): they could not come back with the old data",
            );
        }
        if server.starts_with("wsrep_on") {
            refuse("its server is a node of a Galera cluster", "choose a server that stands alone");
        }
        if let Some((run, _)) = server.stale.first() {
            refuse(
                &format!("its data is on trial, by the run {run}, which died there"),
                &format!("transfer clean --start-servers {name}"),
            );
        }
        self.use_of(name, server, found);
        self.ids((name, facts), server, before, found);
        if !server.starts_with("read_only") {
            found.push(warning(
                name,
                "its configuration does not say read_only",
                "it will take writes after its next start, unless you set read_only=1 below [mysqld]",
            ));
        }
    }

    /// Who would miss it.
    fn use_of(&self, name: &HostName, server: &Installed, found: &mut Vec<Finding>) {
        if self.order.allow_clients {
            return;
        }
        let mut refuse = |problem: &str, fix: &str| found.push(refusal(name, problem, fix));
        if !server.clients.is_empty() {
            let some: Vec<&str> = server.clients.iter().take(3).map(String::as_str).collect();
            refuse(
                &format!("{} clients are connected to its server: {}", server.clients.len(), some.join(", ")),
                "take it out of use first, or say --allow-clients",
            );
        }
        if server.written {
            refuse("somebody writes to its server", "take it out of use first, or say --allow-clients");
        }
        if !server.downstreams.is_empty() {
            refuse(
                &format!("{} servers replicate from its server", server.downstreams.len()),
                "let them replicate from another one first, or say --allow-clients",
            );
        }
    }

    /// No two servers of one id.
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
        // One that replicates from there already is there under its own id.
        let is_there = own.upstreams.iter().any(|upstream| upstream.server_id == primary.server_id());
        // It tells the address that one has connected from, where that has said no other name for itself.
        let is_itself = |host: &String| {
            *host == bare(name)
                || host.parse().is_ok_and(|address: IpAddr| facts.addresses.contains(&address))
        };
        let is_itself = |id: u32, host: &String| is_itself(host) || is_there && id == own.server_id();
        let other = primary.downstreams.iter().find(|(other, host)| *other == id && !is_itself(*other, host));
        let whose = same.or_else(|| {
            other.map(|(_, host)| if host.is_empty() { "another replica".into() } else { host.clone() })
        });
        let highest = named
            .map(|(_, facts)| server(facts).server_id())
            .chain(primary.downstreams.iter().map(|(id, _)| *id))
            .max();
        let fix = format!("set server_id={} below [mysqld]", highest.unwrap_or_default().saturating_add(1));
        match whose {
            _ if id == 0 => found.push(refusal(name, "its server has no server id", &fix)),
            Some(whose) => {
                found.push(refusal(
                    name,
                    &format!("its server has the server id {id}, as {whose} has"),
                    &fix,
                ));
            }
            None => {}
        }
        let waits = primary.instance.variable("rpl_semi_sync_master_enabled") == "ON";
        if waits && is_there && primary.instance.variable("rpl_semi_sync_master_clients") == "1" {
            let limit = primary.instance.variable("rpl_semi_sync_master_timeout");
            found.push(warning(
                name,
                &format!(
                    "{} waits for replicas (semi-synchronous), of which this is the only one",
                    self.primary.0
                ),
                &format!("its writes wait once for up to {limit} ms when this one stops"),
            ));
        }
    }

    /// Findings against how a target reaches the one that it is to replicate from.
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
            let denied = ["1045", "1130", "1698", "Access denied", "not allowed"]
                .iter()
                .any(|word| error.contains(word));
            let fix = if denied {
                format!(
                    "let {user} log in there from {from} (CREATE USER), or say --create-account or --account FILE"
                )
            } else {
                format!(
                    "open port {} of {} for {from}, check its bind_address, or say --primary-address",
                    whom.port, whom.name
                )
            };
            let (error, fix) = own_remedy(error, &fix);
            let problem = format!("its server to be cannot log in on {place}: {error}");
            found.push(refusal(name, &problem, fix));
            return found;
        }
        let is_host = |c: char| c.is_ascii_alphanumeric() || ".:-_".contains(c);
        if account.is_none() {
            if from.is_empty() || !from.chars().all(is_host) {
                let problem = format!("it is not known as whom {place} sees it");
                found.push(refusal(
                    name,
                    &problem,
                    "make an account yourself, and name it with --account FILE",
                ));
            }
            return found;
        }
        if !reached.may_replicate {
            let (user, host) = reached.current.rsplit_once('@').unwrap_or((&user, from));
            let fix = format!("on {}: GRANT REPLICATION SLAVE ON *.* TO '{user}'@'{host}'", whom.name);
            found.push(refusal(name, &format!("the account {user} may not replicate from {place}"), &fix));
        }
        let variable = |name: &str| reached.variables.get(name).map_or("", String::as_str);
        if !whom.is_asked {
            if variable("log_bin") == "OFF" {
                let fix = "name another server to replicate from";
                found.push(refusal(
                    &whom.name,
                    "it writes no binary log, so nobody can replicate from it",
                    fix,
                ));
            }
            let id = server(target).next_server_id();
            if variable("server_id") == id.to_string() {
                let fix = "set another server_id below [mysqld]";
                found.push(refusal(name, &format!("its server has the server id {id}, as {place} has"), fix));
            }
        } else if variable("server_id") != server(&self.primary.1).server_id().to_string() {
            let problem = format!(
                "{place} is not the server of {}: it has the server id {}",
                whom.name,
                variable("server_id")
            );
            found.push(refusal(name, &problem, "say its name or address with --primary-address"));
        }
        let (there, here) = (Version::find(variable("version")), Version::find(&server(target).version));
        if there.zip(here).is_some_and(|(there, here)| here < there && !here.is_of(there)) {
            found.push(refusal(
                name,
                &format!("its server is older than that of {place}, {}", variable("version")),
                "install the same series",
            ));
        }
        found
    }

    pub(super) fn cannot_create(&self, whom: &Whom) -> Finding {
        refusal(
            &self.donor.0,
            &format!("it replicates from {}, which was not named: no account can be made there", whom.name),
            &format!("say: transfer replica PRIMARY TARGET --from {} --create-account", self.donor.0),
        )
    }

    /// Refuses to log in with an account of the user's at a host that only the donor named.
    pub(super) fn account_for_unnamed(&self, whom: &Whom) -> Finding {
        refusal(
            &self.donor.0,
            &format!(
                "it replicates from {}, which was not named: --account is tried only at hosts that are",
                printable(whom.name.as_bytes())
            ),
            &format!("name the primary: transfer replica PRIMARY TARGET --from {}", self.donor.0),
        )
    }

    pub(super) fn no_account(&self) -> Finding {
        refusal(
            &self.primary.0,
            "no account is known by which the replicas could log in",
            "say --create-account, or --account FILE",
        )
    }
}

fn several(name: &HostName, server: &Installed) -> Finding {
    refusal(
        name,
        &format!("{} servers run there: {}", server.running.len(), server.running.join(", ")),
        "say which one with --unit",
    )
}

fn shown(server: &Installed) -> String {
    printable(server.datadir.as_os_str().as_encoded_bytes())
}
