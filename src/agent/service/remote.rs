//! Statements on a server of another host, by the account of its replicas. It is unknown who answers there:
//! the password is proved, and never sent.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::agent::tool::Tool;
use crate::proto::server::{Remote, ResultSet, SqlFailure};

use super::Service;
use super::client::{OPTIONS, SqlError, reported};
use super::plugins::{Plugins, explain, plugin_option};
use super::sql;

/// Time limit of an answer.
const LIMIT: Duration = Duration::from_secs(30);

/// Error of a question to a remote server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    /// The client is not that of MariaDB, which alone keeps a password to itself.
    #[error("MariaDB's client is not installed; apt install mariadb-client")]
    NoClient,
    /// A value cannot be passed to a client.
    #[error("the {0} contains a line break or a zero byte")]
    Unfit(&'static str),
    /// The statements failed.
    #[error(transparent)]
    Sql(#[from] SqlError),
}

impl Service<'_> {
    /// Executes statements, which are not secret, on a remote server. Account and password go to the client
    /// on a pipe only, and no message contains the password.
    pub(crate) fn query_remote(
        &self,
        remote: &Remote,
        user: &str,
        password: &str,
        statements: &str,
    ) -> Result<Vec<ResultSet>, RemoteError> {
        let program = self.client_program().map_err(|_| RemoteError::NoClient)?;
        // That of MySQL sends the password to anyone who has any certificate.
        if !program.is_mariadb {
            return Err(RemoteError::NoClient);
        }
        for (value, name) in [(user, "account"), (password, "password"), (&remote.host, "name of the host")] {
            if value.contains(['\n', '\r', '\0']) {
                return Err(RemoteError::Unfit(name));
            }
        }
        if statements.contains('\0') {
            return Err(RemoteError::Unfit("statement"));
        }
        let login = format!("[client]\nuser={}\npassword={}\n", *option(user), *option(password));
        let login = Zeroizing::new(login);
        // As replication does: encrypted, without a look at whose certificate it is.
        let tls: &[&str] =
            if remote.tls { &["--ssl", "--skip-ssl-verify-server-cert"] } else { &["--skip-ssl"] };
        let client = Tool::new(&program.path)
            .args(["--defaults-file=/proc/self/fd/0", "--protocol=tcp"])
            .args(tls)
            .args([format!("--host={}", remote.host), format!("--port={}", remote.port)])
            .args(OPTIONS)
            .arg(plugin_option(&self.plugin_directory(Plugins::Challenge)))
            .arg(format!("--execute={statements}"))
            .input(login.as_bytes())
            .limit(LIMIT);
        let failure = |stderr: &[u8], status| {
            SqlError::Reported(match reported(stderr) {
                None => SqlFailure { number: None, message: status },
                Some((number, text)) => {
                    let text = if password.is_empty() { text } else { text.replace(password, "(password)") };
                    SqlFailure { number, message: explain(&self.plugins, Plugins::Challenge, &text) }
                }
            })
        };
        Ok(sql::run(client, failure)?)
    }
}

/// Returns a text as the value of an option in a file of options.
fn option(value: &str) -> Zeroizing<String> {
    let mut quoted = Zeroizing::new(String::with_capacity(2 * value.len() + 2));
    quoted.push('"');
    for c in value.chars() {
        if matches!(c, '\\' | '"') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::service::tests::Fake;

    const PASSWORD: &str = "a\"b'c#d\\n e";

    fn remote() -> Remote {
        Remote { host: "db1".into(), port: 3307, tls: true }
    }

    fn ask(fake: &Fake, statements: &str) -> Result<Vec<ResultSet>, RemoteError> {
        fake.service().query_remote(&remote(), "repl", PASSWORD, statements)
    }

    #[test]
    fn login_goes_on_a_pipe_only() {
        let fake = Fake::new();
        let log = fake.path("log").display().to_string();
        let script =
            format!("#!/bin/sh\n{{ printf '%s\\n' \"$@\"; env; echo ==; cat /proc/self/fd/0; }} >{log}");
        fake.program("mariadb", &script);
        assert!(ask(&fake, "SELECT 1").unwrap().is_empty());
        let log = std::fs::read_to_string(fake.path("log")).unwrap();
        let (public, pipe) = log.split_once("==\n").unwrap();
        assert_eq!(pipe, "[client]\nuser=\"repl\"\npassword=\"a\\\"b'c#d\\\\n e\"\n");
        assert!(!public.contains("c#d") && public.contains("--host=db1\n--port=3307\n"), "{public}");
        assert!(public.contains("--ssl\n--skip-ssl-verify-server-cert\n"), "{public}");
    }

    #[test]
    fn messages_have_no_password() {
        let fake = Fake::new();
        fake.program(
            "mariadb",
            &format!("#!/bin/sh\ncat >&2 <<'X'\nERROR 1045 (28000): no {PASSWORD}!\nX\nexit 1"),
        );
        let error = ask(&fake, "SELECT 1").unwrap_err();
        assert_eq!(error.to_string(), "ERROR 1045 (28000): no (password)!");
        let RemoteError::Sql(error) = error else { panic!("{error}") };
        assert_eq!(error.failure().number, Some(1045));
    }

    #[test]
    fn client_of_mysql_is_refused() {
        let fake = Fake::new();
        assert!(matches!(ask(&fake, "SELECT 1"), Err(RemoteError::NoClient)));
        fake.program("mysql", "#!/bin/sh\necho mysql Ver 8.0.36");
        assert!(matches!(ask(&fake, "SELECT 1"), Err(RemoteError::NoClient)));
    }

    #[test]
    fn values_that_end_a_line_are_refused() {
        let fake = Fake::new();
        fake.program("mariadb", "#!/bin/sh\n");
        let ask = |user, password| fake.service().query_remote(&remote(), user, password, "SELECT 1");
        assert!(matches!(ask("a\nhost=x", "b"), Err(RemoteError::Unfit("account"))));
        assert!(matches!(ask("a", "b\0"), Err(RemoteError::Unfit("password"))));
        assert!(ask("a", "").is_ok());
    }
}
