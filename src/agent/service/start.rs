//! Starting of servers.

use std::time::{Duration, Instant};

use crate::proto::Text;
use crate::proto::server::{Login, StartState};

use super::Service;
use super::units::UnitError;

/// Time for a server to answer after systemd has started it.
const LIMIT: Duration = Duration::from_secs(60);
/// Interval of the attempts to log in.
const INTERVAL: Duration = Duration::from_millis(250);

/// Error of the start of a server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// The unit cannot be started.
    #[error(transparent)]
    Unit(#[from] UnitError),
    /// The server does not answer.
    #[error("{unit} does not answer{said}")]
    Silent {
        /// Unit.
        unit: String,
        /// Last error, behind a colon.
        said: Text,
    },
}

impl Service<'_> {
    /// Starts a server in a state, and waits until it answers.
    pub(crate) fn start(&self, unit: &str, server: &Login, state: StartState) -> Result<(), StartError> {
        self.start_within(unit, server, state, LIMIT)
    }

    fn start_within(
        &self,
        unit: &str,
        server: &Login,
        state: StartState,
        limit: Duration,
    ) -> Result<(), StartError> {
        let started = self.start_unit(unit, state);
        if let Err(error @ UnitError::Name(_)) = started {
            return Err(error.into());
        }
        let deadline = Instant::now() + limit;
        let mut said = Text::default();
        loop {
            if self.is_active(unit) {
                if server.socket.is_empty() {
                    return settings_removed(started);
                }
                // Checked again each time: what was found of its socket was of the server before.
                match self.client(server, Some(unit)).map_err(Into::into).and_then(|client| client.answers())
                {
                    Ok(()) => return settings_removed(started),
                    Err(error) => said = Text::from(&format!(": {error}")),
                }
            }
            if self.has_failed(unit) || Instant::now() >= deadline {
                started?;
                return Err(StartError::Silent { unit: unit.to_owned(), said });
            }
            std::thread::sleep(INTERVAL);
        }
    }
}

/// Returns the error of a server that runs with settings that should not be in its unit any more.
fn settings_removed(started: Result<(), UnitError>) -> Result<(), StartError> {
    match started {
        Err(error @ UnitError::DropIn { .. }) => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::service::tests::{Fake, login};
    use std::fs;

    const UNIT: &str = "mariadb.service";

    fn start(fake: &Fake, state: StartState) -> Result<(), StartError> {
        let socket = login(&fake.path("s.sock"));
        fake.service().start_within(UNIT, &socket, state, Duration::from_millis(100))
    }

    #[test]
    fn server_is_started_when_it_answers() {
        let fake = Fake::new();
        fake.login();
        fake.program("mariadb", "#!/bin/sh\n");
        start(&fake, StartState::Configured).unwrap();
        assert!(!fake.path("started-with").exists());
        // One that refuses the login answers.
        fake.program("mariadb", "#!/bin/sh\necho 'ERROR 1045 (28000): Access denied' >&2; exit 1");
        start(&fake, StartState::Configured).unwrap();
    }

    #[test]
    fn silent_server_is_an_error_with_its_reason() {
        let fake = Fake::new();
        fake.program("mariadb", "#!/bin/sh\n");
        let error = start(&fake, StartState::NoReplication).unwrap_err().to_string();
        assert!(
            error.starts_with("mariadb.service does not answer: cannot connect to the server through"),
            "{error}"
        );
    }

    #[test]
    fn unit_that_fails_is_an_error_at_once() {
        let fake = Fake::new();
        fs::write(fake.path("fails"), "").unwrap();
        let error = start(&fake, StartState::Configured).unwrap_err().to_string();
        assert_eq!(error, "mariadb.service: Job failed. | See the journal.");
    }
}
