//! Connection of a target to the server that it will replicate from.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use super::fact;
use super::fields::{bytes, rows, shown, text};
use crate::host::conversation::{AgentError, Conversation};
use crate::mariadb::client::LoginError;
use crate::mariadb::plan::Account;
use crate::mariadb::sql::SqlError;
use crate::proto::command::{Answer, Command};
use crate::proto::server::{Remote, ResultSet, SqlFailure, Statements};

/// Time limit of a connection test, beyond the agent's own.
const LIMIT: Duration = Duration::from_secs(90);
/// Account of a login that is expected to be refused.
const NO_ACCOUNT: &str = "transfer";
/// Errors of a server that can be reached and refuses the login: access, host, plugin, locked account.
const REFUSED: [u32; 4] = [1045, 1130, 1698, 4151];
/// Variables of the server that a replica must know.
const VARIABLES: [&str; 3] = ["log_bin", "server_id", "version"];
/// Statements of the connection test.
const QUESTIONS: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('log_bin', 'server_id', 'version'); \
                         SELECT CURRENT_USER(); SHOW GRANTS";

/// Server to replicate from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Primary<'a> {
    /// Name of its host.
    pub(crate) name: &'a str,
    /// Address to which the name must lead, if it is known. Where it does not, the address is used instead.
    pub(crate) address: Option<IpAddr>,
    /// Port.
    pub(crate) port: u16,
    /// Encrypt the connection.
    pub(crate) tls: bool,
}

/// Result of a connection test.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reached {
    /// Name or address of the server's host, as the target reaches it.
    pub(crate) host: String,
    /// Host of the target as the server sees it; empty if unknown.
    pub(crate) own: String,
    /// Account that the server has logged in, `USER@HOST`.
    pub(crate) current: String,
    /// Global variables of the server.
    pub(crate) variables: BTreeMap<String, String>,
    /// The account may replicate.
    pub(crate) may_replicate: bool,
    /// Error of the login.
    pub(crate) error: Option<LoginError>,
}

impl Reached {
    /// Returns a global variable of the server, or an empty string if it is unknown.
    pub(crate) fn variable(&self, name: &str) -> &str {
        self.variables.get(name).map_or("", String::as_str)
    }

    /// Reads the answers to the questions of the test.
    fn take(&mut self, sets: &[ResultSet]) {
        for row in rows(sets.get(..1).unwrap_or_default()) {
            if let Some(name) = VARIABLES.into_iter().find(|name| name.as_bytes() == bytes(row, 0)) {
                self.variables.insert(name.to_owned(), text(row, 1));
            }
        }
        let mut rest = sets.iter().skip(1);
        self.current =
            rest.next().and_then(|set| set.rows.first()).map(|row| text(row, 0)).unwrap_or_default();
        self.may_replicate = rest.flat_map(|set| &set.rows).any(|row| allows_replication(bytes(row, 0)));
    }

    /// Evaluates a login that was expected to be refused.
    fn take_refusal(&mut self, failure: &SqlFailure) {
        if !failure.number.is_some_and(|number| REFUSED.contains(&number)) {
            self.error = Some(LoginError::of(failure));
        } else if let Some(seen) = seen_host(failure.message.as_str()) {
            self.own = shown(seen.as_bytes());
        }
    }
}

/// Tests the connection of a target to a server, with the account of the replicas. Without one, the host by
/// which the server sees the target is found.
pub(crate) async fn reach(
    agent: &Conversation,
    primary: &Primary<'_>,
    account: Option<&Account>,
) -> Result<Reached, AgentError> {
    let (host, own) = way(agent, primary).await?;
    let remote = Remote { host: host.clone(), port: primary.port, tls: primary.tls };
    let mut reached = Reached { host, own, ..Reached::default() };
    match account {
        Some(account) => {
            let answer = query(agent, remote, (&account.user, account.password()), QUESTIONS).await;
            match fact(answer)? {
                Ok(sets) => reached.take(&sets),
                Err(error) => reached.error = Some(error),
            }
        }
        None => match query(agent, remote, (NO_ACCOUNT, ""), "SELECT 1").await {
            Err(SqlError::Sql(failure)) => reached.take_refusal(&failure),
            other => reached.error = fact(other)?.err(),
        },
    }
    Ok(reached)
}

/// Returns the name or the address by which the target reaches a server, and its own address on the way
/// there.
async fn way(agent: &Conversation, primary: &Primary<'_>) -> Result<(String, String), AgentError> {
    let resolved = match agent.call(Command::Resolve(primary.name.to_owned())).await {
        Ok(Answer::Addresses(addresses)) => addresses,
        Ok(_) => return Err(agent.unexpected()),
        // The login fails, too, and its error names the problem.
        Err(AgentError::Failed { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    let (host, address) = choose(primary, &resolved);
    let Some(address) = address else { return Ok((host, String::new())) };
    let Answer::Routes(routes) = agent.call(Command::Routes(vec![address])).await? else {
        return Err(agent.unexpected());
    };
    let own = routes.first().and_then(|route| route.source);
    Ok((host, own.map_or_else(String::new, |own| own.to_string())))
}

/// Returns the name of a server if it leads to the right address, or else the address, and the address that a
/// connection would use.
fn choose(primary: &Primary<'_>, resolved: &[IpAddr]) -> (String, Option<IpAddr>) {
    match primary.address.map(|address| address.to_canonical()) {
        Some(address) if !resolved.contains(&address) => (address.to_string(), Some(address)),
        _ => (primary.name.to_owned(), resolved.first().copied()),
    }
}

/// Executes statements, which are not secret, on a remote server.
async fn query(
    agent: &Conversation,
    server: Remote,
    (user, password): (&str, &str),
    statements: &str,
) -> Result<Vec<ResultSet>, SqlError> {
    let password = agent.seal(password.as_bytes())?;
    let statements = Statements { text: agent.seal(statements.as_bytes())?, seconds: LIMIT.as_secs() };
    let command = Command::RemoteQuery { server, user: user.to_owned(), password, statements };
    match agent.call_within(LIMIT, command).await? {
        Answer::Sql(reply) => Ok(reply.map_err(SqlError::Sql)?.sets),
        _ => Err(agent.unexpected().into()),
    }
}

/// Returns the host in the error of a refused login: `'transfer'@'HOST'` or `Host 'HOST'`.
fn seen_host(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("'transfer'@'").or_else(|| message.split_once("Host '"))?;
    rest.split_once('\'').map(|(host, _)| host).filter(|host| !host.is_empty())
}

/// Returns whether a grant, as a server shows it, lets an account replicate.
fn allows_replication(grant: &[u8]) -> bool {
    const PRIVILEGES: [&str; 3] = ["REPLICATION SLAVE", "REPLICATION REPLICA", "ALL PRIVILEGES"];
    let grant = String::from_utf8_lossy(grant);
    let privileges = grant.strip_prefix("GRANT ").and_then(|rest| rest.split_once(" ON *.*"));
    privileges.is_some_and(|(all, _)| all.split(',').any(|one| PRIVILEGES.contains(&one.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mariadb::survey::fields::samples::{assert_harmless, hostile, row, set};
    use crate::proto::Text;

    fn refusal(number: u32, text: &str) -> Reached {
        let mut reached = Reached { own: "10.0.0.2".into(), ..Reached::default() };
        reached.take_refusal(&SqlFailure { number: Some(number), message: Text::new(text) });
        reached
    }

    #[test]
    fn refusal_shows_by_which_host_the_target_is_seen() {
        for (number, text, own) in [
            (
                1045,
                "ERROR 1045 (28000): Access denied for user 'transfer'@'db2.lan' (using password: NO)",
                "db2.lan",
            ),
            (
                1130,
                "ERROR 1130 (HY000): Host '10.0.0.9' is not allowed to connect to this MariaDB server",
                "10.0.0.9",
            ),
            (1698, "ERROR 1698 (28000): Access denied for user 'transfer'@'fd77::2'", "fd77::2"),
            (4151, "ERROR 4151 (HY000): Access denied, this account is locked", "10.0.0.2"),
            (1045, "ERROR 1045 (28000): Access denied for user 'transfer'@'", "10.0.0.2"),
        ] {
            let reached = refusal(number, text);
            assert_eq!((reached.own.as_str(), reached.error), (own, None), "{text}");
        }
        for (number, text) in [
            (2002, "ERROR 2002 (HY000): Can't connect to server on 'db1' (111)"),
            (1129, "ERROR 1129 (HY000): Host '10.0.0.9' is blocked because of many connection errors"),
            (2026, "ERROR 2026 (HY000): SSL connection error"),
        ] {
            let reached = refusal(number, text);
            assert_eq!((reached.own.as_str(), reached.error.unwrap().problem.as_str()), ("10.0.0.2", text));
        }
        assert_harmless(&refusal(1045, &format!("'transfer'@'{}'", hostile())).own);
    }

    #[test]
    fn name_is_used_where_it_leads_to_the_address() {
        let [one, two, mapped] =
            ["10.0.0.1", "10.0.0.2", "::ffff:10.0.0.1"].map(|text| text.parse::<IpAddr>().unwrap());
        let choose = |address, resolved: &[IpAddr]| {
            choose(&Primary { name: "db1", address, port: 3306, tls: false }, resolved)
        };
        assert_eq!(choose(None, &[]), ("db1".into(), None));
        assert_eq!(choose(None, &[two, one]), ("db1".into(), Some(two)));
        assert_eq!(choose(Some(one), &[two, one]), ("db1".into(), Some(two)));
        assert_eq!(choose(Some(mapped), &[one]), ("db1".into(), Some(one)));
        assert_eq!(choose(Some(one), &[two]), ("10.0.0.1".into(), Some(one)));
        assert_eq!(choose(Some(one), &[]), ("10.0.0.1".into(), Some(one)));
    }

    #[test]
    fn grants_are_read() {
        for (grant, allows) in [
            ("GRANT REPLICATION SLAVE ON *.* TO `repl`@`%` IDENTIFIED BY PASSWORD '*X'", true),
            ("GRANT SELECT, REPLICATION SLAVE, RELOAD ON *.* TO `repl`@`%`", true),
            ("GRANT REPLICATION REPLICA ON *.* TO `repl`@`%`", true),
            ("GRANT ALL PRIVILEGES ON *.* TO `root`@`localhost` WITH GRANT OPTION", true),
            ("GRANT ALL PRIVILEGES ON `a`.* TO `a`@`%`", false),
            ("GRANT REPLICATION SLAVE ADMIN, REPLICATION MASTER ADMIN ON *.* TO `a`@`%`", false),
            ("GRANT USAGE ON *.* TO `REPLICATION SLAVE ON *.*`@`%`", false),
            ("GRANT `role` TO `a`@`%`", false),
        ] {
            assert_eq!(allows_replication(grant.as_bytes()), allows, "{grant}");
        }
    }

    #[test]
    fn answers_of_the_test_are_read_and_bounded() {
        let long = hostile();
        let mut variables = vec![row(["log_bin", "ON"]), row(["server_id", "1"]), row(["version", &long])];
        variables.extend((0..5000).map(|n| row([&format!("v{n}"), "x"])));
        let grants = vec![row(["GRANT USAGE ON *.* TO x"]), row(["GRANT REPLICATION SLAVE ON *.* TO x"])];
        let mut reached = Reached::default();
        reached.take(&[set(variables), set(vec![row(["repl@%"])]), set(grants)]);
        assert_eq!((reached.variables.len(), reached.variable("server_id")), (3, "1"));
        assert_harmless(reached.variable("version"));
        assert!(reached.may_replicate && reached.current == "repl@%");
        let mut nothing = Reached::default();
        nothing.take(&[]);
        assert!(nothing.variables.is_empty() && nothing.current.is_empty() && !nothing.may_replicate);
    }
}
