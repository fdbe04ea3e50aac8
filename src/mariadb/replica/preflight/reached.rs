//! Checks of a target's connection test to the server that it will replicate from.

use crate::base::printable::printable;
use crate::mariadb::backup::Version;
use crate::mariadb::client::LoginError;
use crate::mariadb::plan::Account;
use crate::mariadb::replica::refusal;
use crate::mariadb::replica::whom::{Asked, AskedHost, Whom};
use crate::mariadb::survey::Reached;
use crate::preflight::{Finding, Findings};

impl Asked<'_> {
    /// Checks the connection test of one target. `account`: `None` if one will be created.
    pub(in crate::mariadb::replica) fn reached(
        &self,
        whom: &Whom,
        target: &AskedHost,
        account: Option<&Account>,
        reached: &Reached,
    ) -> Vec<Finding> {
        let mut findings = Findings::about(&target.name);
        let place = format!("{}:{}", reached.host, whom.port);
        let from = &reached.own;
        if let Some(error) = &reached.error {
            let fix = fix_of_login(whom, account, from, error);
            let problem = format!("cannot log in to {place}: {}", error.problem);
            findings.refuse(&problem, error.fix_or(&fix));
            return findings.list;
        }
        let Some(account) = account else {
            let is_host = |c: char| c.is_ascii_alphanumeric() || ".:-_".contains(c);
            if from.is_empty() || !from.chars().all(is_host) {
                findings.refuse(
                    &format!("cannot determine at which address {place} sees this host"),
                    "create an account yourself, and give it with --account FILE",
                );
            }
            return findings.list;
        };
        if !reached.may_replicate {
            let user = printable(account.user.as_bytes());
            let (user, host) = reached.current.rsplit_once('@').unwrap_or((&user, from));
            findings.refuse(
                &format!("account {user} lacks REPLICATION SLAVE on {place}"),
                &format!("on {}: GRANT REPLICATION SLAVE ON *.* TO '{user}'@'{host}'", whom.name),
            );
        }
        self.identity(whom, target, reached, &mut findings);
        let version = reached.variable("version");
        let (there, here) = (Version::find(version), Version::find(&target.server().version));
        if there.zip(here).is_some_and(|(there, here)| here < there && !here.is_of(there)) {
            findings
                .refuse(&format!("the server is older than {place} ({version})"), "install the same series");
        }
        findings.list
    }

    /// Checks that the server is the expected one; of one that was not probed, what a replica requires.
    fn identity(&self, whom: &Whom, target: &AskedHost, reached: &Reached, findings: &mut Findings) {
        let place = format!("{}:{}", reached.host, whom.port);
        let server_id = reached.variable("server_id");
        if whom.is_asked {
            if server_id != self.primary.server().server_id().to_string() {
                findings.refuse(
                    &format!("{place} is not the server of {}: its server_id is {server_id}", whom.name),
                    "give its name or address with --primary-address",
                );
            }
            return;
        }
        if reached.variable("log_bin") == "OFF" {
            let fix = "choose another server to replicate from";
            findings.list.push(refusal(&whom.name, "binary logging is off", fix));
        }
        let id = target.server().next_server_id();
        if server_id == id.to_string() {
            findings.refuse(
                &format!("server_id {id} is already used by {place}"),
                "set another server_id below [mysqld]",
            );
        }
    }
}

/// Returns the fix for a failed login from the address `from`.
fn fix_of_login(whom: &Whom, account: Option<&Account>, from: &str, error: &LoginError) -> String {
    if error.is_denied {
        let user = account.map_or_else(String::new, |account| printable(account.user.as_bytes()));
        return format!(
            "allow {user} to log in there from {from} (CREATE USER), or use --create-account or --account FILE"
        );
    }
    format!(
        "open port {} of {} for {from}, check its bind_address, or give --primary-address",
        whom.port, whom.name
    )
}
