//! Errors that can end a run or one of its targets, with the action and the host. Mapped to exit codes only
//! here.

pub(crate) mod busy;

use crate::base::exit::Exit;
use crate::config::settings::SettingsError;
use crate::error::busy::Busy;
use crate::host::HostError;
use crate::host::conversation::AgentError;

/// Error of a run or a target.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Invalid configuration.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// Host that is unreachable or does not answer.
    #[error(transparent)]
    Host(#[from] HostError),
    /// Agent that failed to carry out a command.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Refusal before anything was changed.
    #[error("{0}")]
    Refused(String),
    /// Failed copy, or failed preparation of one.
    #[error("{0}")]
    Failed(String),
    /// Mismatch between source and target.
    #[error("{0}")]
    Verification(String),
    /// Resources that other runs or programs use; the error has no other reason.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Busy(Vec<Busy>),
    /// Signal that ended the run.
    #[error("interrupted by {}", signal_name(*.0))]
    Interrupted(i32),
}

impl From<Busy> for Error {
    fn from(busy: Busy) -> Self {
        Self::Busy(vec![busy])
    }
}

impl Error {
    /// Returns the exit code of a run that ended with this error.
    #[must_use]
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Settings(_) => Exit::Usage,
            Self::Host(_) | Self::Agent(_) | Self::Failed(_) => Exit::Failed,
            Self::Refused(_) => Exit::Refused,
            Self::Verification(_) => Exit::Verification,
            Self::Busy(_) => Exit::Busy,
            Self::Interrupted(signal) => Exit::Interrupted(*signal),
        }
    }

    /// Formats the error and all its causes in one line.
    #[must_use]
    pub(crate) fn chain(&self) -> String {
        chain(self)
    }
}

/// Formats an error and all its causes in one line.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |s| s.as_str().to_owned())
}
