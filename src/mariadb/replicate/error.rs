//! Reasons why a replica does not replicate, or tables cannot be compared.

use std::time::Duration;

use super::watch::GaveUp;
use crate::base::statement::literal;
use crate::error::Error;
use crate::mariadb::plan::Position;
use crate::mariadb::sql::SqlError;

/// Reason why a step of the replication or of the comparison failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    /// Statements of a named step failed.
    #[error("{action}: {source}")]
    Step {
        /// Failed action.
        action: String,
        /// Cause.
        source: SqlError,
    },
    /// Statements failed.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// The replica will not catch up.
    #[error(transparent)]
    GaveUp(#[from] GaveUp),
    /// The donor stays behind its copies.
    #[error("it is at {at} and does not reach {gtid}, the position of its copies")]
    Behind {
        /// Position of the donor.
        at: String,
        /// Position of the copies.
        gtid: String,
    },
    /// Replication does not stop.
    #[error("its replication does not stop")]
    NotStopping,
    /// The replica cannot apply a change.
    #[error("its SQL thread has stopped: {0}")]
    Stopped(String),
    /// The replica does not reach a position.
    #[error("it has made no progress towards {position} for {} s", idle.as_secs())]
    NoProgress {
        /// Position.
        position: Position,
        /// Time limit.
        idle: Duration,
    },
    /// The donor reports no position.
    #[error("it reported no position for the comparison")]
    NoPosition,
    /// The list of tables would fill the memory.
    #[error("it has too many tables for a comparison")]
    TooManyTables,
    /// A table has no name that a statement can contain.
    #[error("a table has an unexpected name: {0}")]
    Name(String),
    /// A table cannot be read.
    #[error("{table} has no checksum: {why}")]
    NoChecksum {
        /// Table.
        table: String,
        /// Reason.
        why: String,
    },
    /// A statement has another answer than expected.
    #[error("expected a number for {table}, found '{found}'")]
    NoNumber {
        /// Table.
        table: String,
        /// Answer.
        found: String,
    },
}

impl Trouble {
    /// Returns the error of a host. `what` names the action that failed.
    pub(super) fn of(self, host: &str, what: &str) -> Error {
        self.of_account(host, what, "")
    }

    /// Returns the error of a host without a password that servers may have repeated.
    pub(super) fn of_account(self, host: &str, what: &str, password: &str) -> Error {
        match self {
            // Names the host itself.
            Self::Sql(SqlError::Agent(error)) | Self::Step { source: SqlError::Agent(error), .. } => {
                Error::Failed(error.to_string())
            }
            other => {
                let text = without_password(&other.to_string(), password);
                Error::Failed(format!("{host}: {what}: {text}"))
            }
        }
    }
}

/// Names the step that failed.
pub(super) trait Named<T> {
    /// Returns the error of this step.
    fn or_trouble(self, action: impl Into<String>) -> Result<T, Trouble>;
}

impl<T> Named<T> for Result<T, SqlError> {
    fn or_trouble(self, action: impl Into<String>) -> Result<T, Trouble> {
        self.map_err(|source| Trouble::Step { action: action.into(), source })
    }
}

/// Returns a message without the password: servers repeat statements in some errors. A message that is too
/// long was cut, maybe in the middle of the password.
fn without_password(text: &str, password: &str) -> String {
    if password.is_empty() {
        return text.to_owned();
    }
    let literal = literal(password);
    let forms = [&literal[1..literal.len() - 1], password];
    let whole = forms.iter().fold(text.to_owned(), |text, form| text.replace(form, "(password)"));
    let Some((head, tail)) = whole.split_once('…') else { return whole };
    let cuts = || forms.iter().flat_map(|form| form.char_indices().skip(1).map(|(at, _)| form.split_at(at)));
    let begin = cuts().map(|(begin, _)| begin).filter(|begin| head.ends_with(begin)).map(str::len).max();
    let end = cuts().map(|(_, end)| end).filter(|end| tail.starts_with(end)).map(str::len).max();
    format!("{}…{}", &head[..head.len() - begin.unwrap_or(0)], &tail[end.unwrap_or(0)..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_no_password() {
        let shown = |text: &str| without_password(text, r"it's a\secret");
        assert_eq!(shown(r"near it's a\secret!"), "near (password)!");
        assert_eq!(shown(r"near 'it''s a\\secret'"), "near '(password)'");
        assert_eq!(shown("no…more"), "no…more");
        assert_eq!(without_password("a…b", ""), "a…b");
        assert_eq!(without_password("no quote", "'"), "no quote");
    }

    #[test]
    fn cut_messages_have_no_part_of_the_password() {
        let shown = |text: &str| without_password(text, "swordfish");
        assert_eq!(shown("with 'swordf… at line 1"), "with '… at line 1");
        assert_eq!(shown("with…fish' at line 1"), "with…' at line 1");
        assert_eq!(shown("with 'swo…fish' or swordfish"), "with '…' or (password)");
    }
}
