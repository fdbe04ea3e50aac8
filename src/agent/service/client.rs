//! Clients of servers: `mariadb` or `mysql`, with a command line that no file of options and no server can
//! turn against us. Statements go to their standard input: everyone on the host can read arguments.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::agent::tool::{Tool, ToolError};
use crate::proto::server::{ANSWER_LIMIT, Login, SqlFailure};
use crate::proto::{HostBytes, Text};

use super::Service;
use super::login::LoginError;
use super::plugins::{Plugins, explain, plugin_option};
use super::xml::XmlError;

/// Options of all clients. Binary mode has no commands of the client in statements, such as one for a shell.
/// The others are those that a user's own file of options may have changed.
pub(super) const OPTIONS: [&str; 9] = [
    "--batch",
    "--xml",
    "--skip-html",
    "--delimiter=;",
    "--binary-mode",
    "--skip-force",
    "--skip-reconnect",
    "--local-infile=0",
    "--connect-timeout=10",
];

/// Error of statements.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SqlError {
    /// The login was refused.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The server or its client reported an error.
    #[error("{}", .0.message)]
    Reported(SqlFailure),
    /// The client failed.
    #[error(transparent)]
    Client(#[from] ToolError),
    /// The server took too long.
    #[error("the server has not answered within {} s", .0.as_secs())]
    Slow(Duration),
    /// The result is too long.
    #[error("the result exceeds the limit of {ANSWER_LIMIT} bytes")]
    TooLong,
    /// The output of the client is no result.
    #[error("cannot read the output of the client; is verbose or tee set in its files of options? ({0})")]
    Unreadable(#[from] XmlError),
    /// The session is of no more use.
    #[error("the session with the server has ended")]
    Ended,
    /// The statement was cancelled.
    #[error("the statement was cancelled")]
    Cancelled,
    /// The rest of another result must be fetched first.
    #[error("the previous result was not read to its end")]
    Unread,
}

impl SqlError {
    /// Returns the error as it is reported to the controller.
    pub(crate) fn failure(&self) -> SqlFailure {
        match self {
            Self::Reported(failure) => failure.clone(),
            other => SqlFailure { number: None, message: Text::from(other) },
        }
    }

    /// Returns whether a server answered, with an error.
    pub(crate) fn is_of_server(&self) -> bool {
        matches!(self, Self::Reported(failure) if failure.is_of_server())
    }
}

/// Client of one server, for a login that was checked.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    program: PathBuf,
    args: Vec<OsString>,
    /// Directory of permitted plugins, for messages.
    plugins: PathBuf,
}

/// Installed program.
pub(super) struct Program {
    /// Path.
    pub(super) path: PathBuf,
    /// The program is that of MariaDB.
    pub(super) is_mariadb: bool,
}

impl Service<'_> {
    /// Returns a client for a login, after having checked that this may be made. The account of `unit` may
    /// listen on the socket, too. The check counts until the server is started again.
    pub(crate) fn client(&self, login: &Login, unit: Option<&str>) -> Result<Client, LoginError> {
        let program = self.client_program()?;
        self.vouch(login, unit)?;
        let mut args = Vec::new();
        if !login.defaults_file.is_empty() {
            args.push(option("--defaults-file=", &login.defaults_file));
        }
        // A user's own file may name another host.
        args.extend(["--protocol=socket".into(), "--host=localhost".into()]);
        args.push(option("--socket=", &login.socket));
        args.extend(OPTIONS.map(OsString::from));
        // Names are UTF-8 in servers.
        args.push("--default-character-set=utf8mb4".into());
        args.push(plugin_option(&self.plugin_directory(Plugins::Any)));
        if !program.is_mariadb {
            // That of MySQL has clear text built in.
            args.push("--loose-skip-enable-cleartext-plugin".into());
        }
        Ok(Client { program: program.path, args, plugins: self.plugins.clone() })
    }

    /// Returns the client program of the host.
    pub(super) fn client_program(&self) -> Result<Program, LoginError> {
        if let Some(path) = self.programs.find("mariadb") {
            return Ok(Program { path, is_mariadb: true });
        }
        let path = self.programs.find("mysql").ok_or(LoginError::NoClient)?;
        let version = Tool::new(&path).args(["--no-defaults", "--version"]).run();
        let is_mariadb =
            version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("MariaDB"));
        Ok(Program { path, is_mariadb })
    }
}

impl Client {
    /// Returns the program with its arguments.
    pub(super) fn tool(&self) -> Tool {
        Tool::new(&self.program).args(&self.args)
    }

    /// Returns the error of a client that cannot be started or talked to.
    pub(super) fn start_error(&self, source: io::Error) -> SqlError {
        let program = self.program.to_string_lossy().into_owned();
        SqlError::Client(ToolError::Channel { program, source })
    }

    /// Returns the error that a client reported.
    pub(super) fn error(&self, stderr: &[u8], otherwise: Text) -> SqlError {
        SqlError::Reported(match reported(stderr) {
            Some((number, text)) => {
                SqlFailure { number, message: explain(&self.plugins, Plugins::Any, &text) }
            }
            None => SqlFailure { number: None, message: otherwise },
        })
    }
}

fn option(name: &str, value: &HostBytes) -> OsString {
    let mut option = OsString::from(name);
    option.push(value.as_os_str());
    option
}

/// Returns number and text of the last error in the output of a client: without the number of its line, and
/// without the words of a statement, which may be secret. Some clients also print the statement in front of
/// it.
pub(super) fn reported(stderr: &[u8]) -> Option<(Option<u32>, String)> {
    let text = String::from_utf8_lossy(stderr);
    let lines = || text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let line = lines().find(|line| line.contains("ERROR ")).or_else(|| lines().next())?;
    let line = line.split(" near '").next().unwrap_or_default();
    let Some((_, rest)) = line.split_once("ERROR ") else { return Some((None, line.to_owned())) };
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let number = rest[..digits].parse().ok();
    let line = match line.split_once(" at line ") {
        Some((head, tail)) if tail.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(": ") => {
            format!("{head}{}", tail.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        _ => line.to_owned(),
    };
    Some((number, line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::service::tests::{Fake, login};
    use std::os::unix::net::UnixListener;

    #[test]
    fn errors_are_read_without_statements() {
        let stderr = b"--------------\nCREATE USER x IDENTIFIED BY 'secret'\n--------------\n\n\
            ERROR 1064 (42000) at line 2: You have an error; use near 'secret' at line 1\n";
        let (number, text) = reported(stderr).unwrap();
        assert_eq!((number, text.as_str()), (Some(1064), "ERROR 1064 (42000): You have an error; use"));
        let denied = reported(b"ERROR 1045 (28000): Access denied for user 'a'@'b'\n").unwrap();
        assert_eq!(denied, (Some(1045), "ERROR 1045 (28000): Access denied for user 'a'@'b'".into()));
        let option = reported(b"mysql: unknown variable 'x=y'\n").unwrap();
        assert_eq!(option, (None, "mysql: unknown variable 'x=y'".into()));
        assert_eq!(reported(b" \n"), None);
    }

    #[test]
    fn command_line_has_no_secret_and_no_choice() {
        let fake = Fake::new();
        let path = fake.path("s.sock");
        let _listener = UnixListener::bind(&path).unwrap();
        let file = HostBytes::from(&fake.path("my.cnf"));
        let with_file = Login { defaults_file: file.clone(), ..login(&path) };
        assert!(matches!(fake.service().client(&with_file, None), Err(LoginError::NoClient)));
        fake.program("mysql", "#!/bin/sh\necho mysql Ver 8.0.36 for Linux");
        let client = fake.service().client(&with_file, None).unwrap();
        assert!(client.args[0].to_string_lossy().starts_with("--defaults-file=/"));
        assert_eq!(client.args.last().unwrap(), "--loose-skip-enable-cleartext-plugin");
        fake.program("mysql", "#!/bin/sh\necho mysql Ver 15.1 Distrib 10.11.6-MariaDB");
        let client = fake.service().client(&login(&path), None).unwrap();
        assert_eq!(client.args[0], "--protocol=socket");
        assert_eq!(client.args.last().unwrap(), "--plugin-dir=/dev/null/none");
        fake.program("mariadb", "#!/bin/sh\n");
        assert!(fake.service().client(&login(&path), None).unwrap().program.ends_with("mariadb"));
    }
}
