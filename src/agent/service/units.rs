//! Units of systemd.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::agent::tool::{Tool, ToolError};
use crate::proto::Text;
use crate::proto::server::StartState;

use super::Service;

/// Maximum time for systemd to start a server. Its unit has a shorter one, which recovery of a server
/// extends.
const START_LIMIT: Duration = Duration::from_secs(3600);
/// Name of our drop-in.
const DROP_IN: &str = "transfer.conf";

/// Error of a unit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnitError {
    /// The name is none of a unit.
    #[error("{0:?} is not the name of a unit")]
    Name(String),
    /// The unit has not stopped in time.
    #[error("{unit} has not stopped within {seconds} s")]
    Slow {
        /// Unit.
        unit: String,
        /// Time limit.
        seconds: u64,
    },
    /// systemd refused.
    #[error("{unit}: {said}")]
    Refused {
        /// Unit.
        unit: String,
        /// Words of systemctl.
        said: Text,
    },
    /// systemctl cannot be run.
    #[error("{unit}: {source}")]
    Systemctl {
        /// Unit.
        unit: String,
        /// Cause.
        source: ToolError,
    },
    /// The server has not ended as requested.
    #[error("{unit} did not shut down cleanly: {result}")]
    Result {
        /// Unit.
        unit: String,
        /// Result in the words of systemd.
        result: Text,
    },
    /// The drop-in cannot be removed.
    #[error("cannot remove {}: {source}", path.display())]
    DropIn {
        /// Path.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

impl Service<'_> {
    fn systemctl(&self, verb: &str) -> Tool {
        self.programs.tool("systemctl").arg(verb)
    }

    fn is(&self, state: &str, unit: &str) -> bool {
        let output = self.systemctl(state).args(["--quiet", "--", unit]).run();
        output.is_ok_and(|output| output.status.success())
    }

    /// Returns whether a unit runs.
    pub(crate) fn is_active(&self, unit: &str) -> bool {
        self.is("is-active", unit)
    }

    /// Returns whether a unit has failed.
    pub(crate) fn has_failed(&self, unit: &str) -> bool {
        self.is("is-failed", unit)
    }

    fn property(&self, unit: &str, name: &str) -> Option<Text> {
        let value = self.systemctl("show").args(["-p", name, "--value", "--", unit]).succeed().ok()?;
        Some(Text::new(value))
    }

    /// Stops a unit and waits for its end.
    pub(crate) fn stop_unit(&self, unit: &str, seconds: u64) -> Result<(), UnitError> {
        change(unit, self.systemctl("stop").args(["--", unit]).limit(Duration::from_secs(seconds)))
    }

    /// Checks that a stopped unit has shut down as requested, so that its files need no recovery.
    pub(crate) fn check_result(&self, unit: &str) -> Result<(), UnitError> {
        match self.property(unit, "Result") {
            Some(result) if result.as_str() != "success" => {
                Err(UnitError::Result { unit: unit.to_owned(), result })
            }
            _ => Ok(()),
        }
    }

    /// Starts a unit that does not run and waits until systemd takes it for running. Its server begins in the
    /// given state, as far as the unit lets us choose.
    pub(crate) fn start_unit(&self, unit: &str, state: StartState) -> Result<(), UnitError> {
        // An agent that was killed here may have left it. The server is started in any case.
        self.drop_in_directory(unit)?;
        let _ = self.remove_drop_in(unit);
        if self.is_active(unit) {
            return Ok(());
        }
        if self.takes_options(unit) {
            self.add_drop_in(unit, state)?;
        }
        // systemd does not start a unit again that has failed several times in a row.
        let _ = self.systemctl("reset-failed").args(["--", unit]).run();
        let started = change(unit, self.systemctl("start").args(["--", unit]).limit(START_LIMIT));
        let removed = self.remove_drop_in(unit);
        started.and(removed)
    }

    /// Returns whether options of the server can be added to its unit.
    fn takes_options(&self, unit: &str) -> bool {
        let file = self.systemctl("cat").args(["--", unit]).run().map(|output| output.stdout);
        let file = file.unwrap_or_default();
        let environment = self.property(unit, "Environment").unwrap_or_default();
        String::from_utf8_lossy(&file).contains("$MYSQLD_OPTS")
            && !environment.as_str().contains("MYSQLD_OPTS=")
    }

    fn drop_in_directory(&self, unit: &str) -> Result<PathBuf, UnitError> {
        if unit.is_empty() || unit.starts_with('-') || unit.contains(['/', '\0']) {
            return Err(UnitError::Name(unit.to_owned()));
        }
        Ok(self.units.join(format!("{unit}.d")))
    }

    /// Adds options of the server to its unit. Without them it is started, too: replication is stopped
    /// afterwards.
    fn add_drop_in(&self, unit: &str, state: StartState) -> Result<(), UnitError> {
        let options = match state {
            StartState::Configured => return Ok(()),
            StartState::NoReplication => "--skip-slave-start",
            // Events are those of the copied server; a replica must not execute them.
            StartState::Isolated => "--skip-slave-start --read-only --event-scheduler=OFF",
        };
        let directory = self.drop_in_directory(unit)?;
        let text = format!("[Service]\nEnvironment=\"MYSQLD_OPTS={options}\"\n");
        let added = fs::create_dir_all(&directory).and_then(|()| fs::write(directory.join(DROP_IN), text));
        if added.is_ok() {
            let _ = self.systemctl("daemon-reload").run();
        }
        Ok(())
    }

    /// Removes the options of the server from its unit, if they were added.
    pub(crate) fn remove_drop_in(&self, unit: &str) -> Result<(), UnitError> {
        let directory = self.drop_in_directory(unit)?;
        let path = directory.join(DROP_IN);
        match fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(());
            }
            Err(source) => return Err(UnitError::DropIn { path, source }),
        }
        // Others may have drop-ins there.
        let _ = fs::remove_dir(&directory);
        let _ = self.systemctl("daemon-reload").run();
        Ok(())
    }
}

/// Runs a change of a unit, which has to succeed.
fn change(unit: &str, systemctl: Tool) -> Result<(), UnitError> {
    match systemctl.run() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = Text::new(&output.stderr);
            let said = if said.is_empty() { Text::from(&output.status) } else { said };
            Err(UnitError::Refused { unit: unit.to_owned(), said })
        }
        Err(ToolError::Slow { limit, .. }) => {
            Err(UnitError::Slow { unit: unit.to_owned(), seconds: limit.as_secs() })
        }
        Err(source) => Err(UnitError::Systemctl { unit: unit.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::service::tests::Fake;

    const UNIT: &str = "mariadb.service";

    #[test]
    fn drop_in_exists_only_while_the_unit_starts() {
        let fake = Fake::new();
        let service = fake.service();
        service.start_unit(UNIT, StartState::Isolated).unwrap();
        assert!(service.is_active(UNIT) && !service.has_failed(UNIT));
        let options = "--skip-slave-start --read-only --event-scheduler=OFF";
        let text = format!("[Service]\nEnvironment=\"MYSQLD_OPTS={options}\"\n");
        assert_eq!(fs::read_to_string(fake.path("started-with")).unwrap(), text);
        assert!(!fake.path("units/mariadb.service.d").exists());
        assert_eq!(fake.systemctl(), ["daemon-reload", "reset-failed", "start", "daemon-reload"]);
    }

    #[test]
    fn running_unit_is_not_touched() {
        let fake = Fake::new();
        fs::write(fake.path("active"), "").unwrap();
        fake.service().start_unit(UNIT, StartState::NoReplication).unwrap();
        assert!(fake.systemctl().is_empty());
    }

    #[test]
    fn unit_with_options_of_its_own_keeps_them() {
        let fake = Fake::new();
        fs::write(fake.path("environment"), "MYSQLD_OPTS=--x").unwrap();
        fake.service().start_unit(UNIT, StartState::NoReplication).unwrap();
        assert!(!fake.path("started-with").exists());
        assert_eq!(fake.systemctl(), ["reset-failed", "start"]);
    }

    #[test]
    fn other_drop_ins_stay() {
        let fake = Fake::new();
        let directory = fake.path("units/mariadb.service.d");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("own.conf"), "").unwrap();
        fs::write(directory.join(DROP_IN), "").unwrap();
        fake.service().remove_drop_in(UNIT).unwrap();
        assert!(directory.join("own.conf").exists() && !directory.join(DROP_IN).exists());
        fake.service().remove_drop_in(UNIT).unwrap();
        assert_eq!(fake.systemctl(), ["daemon-reload"]);
    }

    #[test]
    fn stop_is_limited_and_its_result_checked() {
        let fake = Fake::new();
        let service = fake.service();
        fs::write(fake.path("active"), "").unwrap();
        service.stop_unit(UNIT, 5).unwrap();
        assert!(!service.is_active(UNIT));
        service.check_result(UNIT).unwrap();
        fs::write(fake.path("result"), "core-dump\n").unwrap();
        let error = service.check_result(UNIT).unwrap_err().to_string();
        assert_eq!(error, "mariadb.service did not shut down cleanly: core-dump");
        fs::write(fake.path("hangs"), "").unwrap();
        let error = service.stop_unit(UNIT, 0).unwrap_err().to_string();
        assert_eq!(error, "mariadb.service has not stopped within 0 s");
        fs::rename(fake.path("hangs"), fake.path("fails")).unwrap();
        let error = service.stop_unit(UNIT, 5).unwrap_err().to_string();
        assert_eq!(error, "mariadb.service: Job failed. | See the journal.");
    }

    #[test]
    fn names_with_slashes_are_no_units() {
        let fake = Fake::new();
        let error = fake.service().start_unit("../../x", StartState::Configured).unwrap_err();
        assert!(matches!(error, UnitError::Name(_)));
        assert!(fake.systemctl().is_empty());
    }
}
