//! Failures of commands, from the errors of the parts of the agent.

use std::error::Error;
use std::fmt::Display;

use crate::agent::files::publish::PublishError;
use crate::proto::Text;
use crate::proto::command::{Code, Failure};

/// Result whose error becomes the failure of a command.
pub(super) trait Fallible<T> {
    /// Turns the error into a failure without a code.
    fn or_failed(self) -> Result<T, Failure>;
}

impl<T, E: Error> Fallible<T> for Result<T, E> {
    fn or_failed(self) -> Result<T, Failure> {
        self.map_err(|error| failed(&error))
    }
}

/// Returns a failure that only its text explains.
pub(super) fn failed(text: &(impl Display + ?Sized)) -> Failure {
    Failure { code: Code::Other, text: Text::from(text) }
}

/// Returns the failure for a resource that another run or program uses.
pub(super) fn busy(holder: &(impl Display + ?Sized)) -> Failure {
    Failure { code: Code::Busy, text: Text::from(holder) }
}

/// Returns the failure of a publication.
pub(super) fn of_publication(error: &PublishError) -> Failure {
    let code = match error {
        PublishError::Exists(_) => Code::Exists,
        PublishError::Sync { .. } => Code::Sync,
        _ => Code::Other,
    };
    Failure { code, text: Text::from(error) }
}
