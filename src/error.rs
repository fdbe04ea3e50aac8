//! Everything that can end a run or one of its targets, with what was tried and the host; mapped to exit codes here and
//! nowhere else.

use crate::exit::Exit;
use crate::host::HostError;
use crate::host::agent::AgentError;
use crate::settings::SettingsError;

/// Why something did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A host cannot be reached or does not answer.
    #[error(transparent)]
    Host(#[from] HostError),
    /// An agent did not do what it was told.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Refused before anything was changed.
    #[error("{0}")]
    Refused(String),
    /// The copy or its preparation failed.
    #[error("{0}")]
    Failed(String),
    /// What arrived is not what was sent.
    #[error("{0}")]
    Verification(String),
    /// Somebody else has what the run needs.
    #[error("{0}")]
    Busy(String),
    /// A signal told the run to end.
    #[error("interrupted by {}", signal_name(*.0))]
    Interrupted(i32),
}

impl Error {
    /// The exit code of a run that ended with this.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Settings(_) => Exit::Usage,
            Self::Host(_) | Self::Agent(_) | Self::Failed(_) => Exit::Failed,
            Self::Refused(_) => Exit::Refused,
            Self::Verification(_) => Exit::Verification,
            Self::Busy(_) => Exit::Busy,
            Self::Interrupted(signal) => Exit::Interrupted(*signal),
        }
    }

    /// The whole chain of causes, in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        chain(self)
    }
}

/// An error with the whole chain of its causes, in one line.
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
