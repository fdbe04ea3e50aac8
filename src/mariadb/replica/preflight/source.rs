//! Checks of the servers that are copied and replicated from.

use std::net::IpAddr;

use super::has_several;
use crate::host::facts::Upstream;
use crate::mariadb::backup::Vendor;
use crate::mariadb::replica::whom::{Asked, AskedHost};
use crate::preflight::{Finding, Findings, counted};

/// Binary log retention in seconds below which the log may expire before the copy is complete.
const SHORT_LOG: u64 = 24 * 3600;

impl Asked<'_> {
    /// Checks that a donor or primary runs and can be queried.
    pub(super) fn source_server(&self, host: &AskedHost) -> Vec<Finding> {
        let server = host.server();
        let mut findings = Findings::about(&host.name);
        if has_several(host, &mut findings) {
            return findings.list;
        }
        if !server.runs {
            findings.refuse("no MariaDB server is running", "start it, or give its unit with --unit");
            return findings.list;
        }
        if let Some(error) = &server.instance.error {
            let fix = "log in as root, or give an option file on the hosts with --defaults-file";
            findings.refuse(&format!("cannot query the server: {}", error.problem), error.fix_or(fix));
            return findings.list;
        }
        if Vendor::of(&server.instance) != Vendor::MariaDb {
            let problem = format!("the server is {}", server.instance.version());
            findings.refuse(&problem, "only MariaDB is supported");
            return findings.list;
        }
        let is_copied = host.name == self.donor.name;
        if (is_copied || self.order.create_account) && server.socket.is_empty() {
            findings.refuse("cannot find the server's socket", "set socket below [mysqld]");
        }
        if server.instance.variable("wsrep_on") == "ON" {
            findings.warn(
                "the server is a Galera cluster node",
                "the new replicas will replicate from this node only",
            );
        }
        findings.list
    }

    /// Checks that replicas can read the binary log of the primary.
    pub(super) fn binary_log(&self) -> Vec<Finding> {
        let server = self.primary.server();
        let mut findings = Findings::about(&self.primary.name);
        let variable = |name: &str| server.instance.variable(name);
        if variable("log_bin") != "ON" {
            findings.refuse(
                "binary logging is off",
                "set log_bin=mysql-bin below [mysqld], and restart the server",
            );
        } else if self.order.replicate_from_primary && variable("log_slave_updates") != "ON" {
            findings.refuse(
                "log_slave_updates is off, so replicated changes are not in the binary log",
                "set log_slave_updates=1 below [mysqld] and restart the server, or omit --replicate-from-primary",
            );
        }
        let address = variable("bind_address");
        let local =
            address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()) || address == "localhost";
        if variable("skip_networking") == "ON" {
            let bind = if local { " and bind_address=0.0.0.0" } else { "" };
            findings.refuse(
                "the server has networking off (skip_networking)",
                &format!("set skip_networking=0{bind} below [mysqld], and restart the server"),
            );
        } else if local {
            findings.refuse(
                &format!("the server listens on {address} only"),
                "set bind_address=0.0.0.0 below [mysqld], and restart the server",
            );
        }
        if server.server_id() == 0 {
            findings.refuse("server_id is not set", "set server_id below [mysqld]");
        }
        let kept = variable("binlog_expire_logs_seconds").parse::<u64>().unwrap_or_default();
        if (1..SHORT_LOG).contains(&kept) {
            findings.warn(
                &format!("binary logs expire after {kept} s"),
                "replication cannot start if the copy takes longer: SET GLOBAL binlog_expire_logs_seconds = \
                 86400",
            );
        }
        findings.list
    }

    /// Checks the replication of a donor whose upstream becomes that of its copies.
    pub(super) fn replication_of_donor(&self, upstream: &Upstream) -> Vec<Finding> {
        let mut findings = Findings::about(&self.donor.name);
        let others = self.donor().upstreams.len() - 1;
        if self.order.verify_tables.is_some() {
            comparable(upstream, others, &mut findings);
        }
        if others > 0 && upstream.by_gtid {
            findings.warn(
                &format!(
                    "it also replicates from {}, but the new replicas will not",
                    counted(others as u64, "other server")
                ),
                "the data from there will not be updated on the new replicas",
            );
        } else if others > 0 {
            findings.refuse(
                "it replicates from several servers by file and position, and a backup does not record which \
                 position belongs to which server",
                "CHANGE MASTER TO MASTER_USE_GTID = slave_pos there, or choose another donor",
            );
        }
        if !upstream.runs && !self.order.sibling && self.order.from.is_none() {
            findings.warn(
                &format!("it is a stopped replica of {}", upstream.place()),
                "the new replicas will replicate from there; use --replicate-from-primary to replicate from \
                 this server",
            );
        }
        if upstream.filtered {
            findings.warn(
                &format!("its replication from {} is filtered", upstream.place()),
                "the new replicas will replicate everything that is written after the copy",
            );
        }
        findings.list
    }
}

/// Checks that the donor's tables can be compared with those of its copies. `others`: number of its other upstreams.
fn comparable(upstream: &Upstream, others: usize, findings: &mut Findings) {
    if !upstream.runs {
        findings.refuse(
            "replication is stopped, so its tables cannot be compared with the new replicas'",
            "START SLAVE there, or omit --verify-tables",
        );
    }
    if upstream.filtered || others > 0 {
        findings.refuse(
            "replication is filtered or has several sources, so its tables cannot be compared",
            "omit --verify-tables",
        );
    }
    if !upstream.by_gtid {
        findings.refuse(
            "it replicates by file and position, so there is no GTID to compare tables at",
            "CHANGE MASTER TO MASTER_USE_GTID = slave_pos there, or omit --verify-tables",
        );
    }
}
