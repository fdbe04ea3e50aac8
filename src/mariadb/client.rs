//! Errors of a database client on a host, and of the agent's checks before a login.

use crate::proto::server::SqlFailure;

/// Numbers of the errors by which a server refuses an account, its host or its privileges.
const DENIED: [u32; 7] = [1044, 1045, 1130, 1227, 1698, 3118, 4151];
/// Number of the error of a client that lacks a plugin: the agent's message names the fix.
const NO_PLUGIN: u32 = 2059;

/// Error of a login, or of a query after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginError {
    /// Problem.
    pub problem: String,
    /// Fix, if the error has one of its own.
    pub fix: Option<String>,
    /// The server refuses the account; otherwise it cannot be reached.
    pub is_denied: bool,
}

impl LoginError {
    /// Interprets what an agent reported. An error without a number comes from the agent's own checks.
    #[must_use]
    pub(crate) fn of(failure: &SqlFailure) -> Self {
        let has_fix = matches!(failure.number, None | Some(NO_PLUGIN));
        let is_denied = failure.number.is_some_and(|number| DENIED.contains(&number));
        let text = failure.message.as_str();
        let (problem, fix) = match text.split_once("; ").filter(|_| has_fix) {
            Some((problem, fix)) => (problem, Some(fix.to_owned())),
            None => (text, None),
        };
        Self { problem: problem.to_owned(), fix, is_denied }
    }

    /// Returns the error's own fix, or else the given one.
    #[must_use]
    pub(crate) fn fix_or<'a>(&'a self, fix: &'a str) -> &'a str {
        self.fix.as_deref().unwrap_or(fix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::Text;

    fn error(number: Option<u32>, text: &str) -> LoginError {
        LoginError::of(&SqlFailure { number, message: Text::new(text) })
    }

    #[test]
    fn errors_of_the_agents_checks_have_a_fix() {
        let found =
            error(None, "no login to /run/s: eve listens there; end that process, or use --unit; really");
        assert_eq!(found.problem, "no login to /run/s: eve listens there");
        assert_eq!(found.fix_or("no"), "end that process, or use --unit; really");
        let found = error(Some(2059), "the client's plugin parsec.so is not permitted; to permit it: ln -s");
        assert_eq!(found.fix.as_deref(), Some("to permit it: ln -s"));
        let found = error(Some(2002), "ERROR 2002 (HY000): cannot connect; no such file");
        assert_eq!((found.fix_or("start it"), found.is_denied), ("start it", false));
        assert_eq!(error(None, "the server has not answered within 60 s").fix, None);
    }

    #[test]
    fn refused_accounts_are_told_from_unreachable_servers() {
        for (number, is_denied) in [
            (Some(1045), true),
            (Some(1130), true),
            (Some(1227), true),
            (Some(1698), true),
            (Some(4151), true),
            (Some(1129), false),
            (Some(2002), false),
            (None, false),
        ] {
            // A server chooses the words, and the number alone counts.
            let found = error(number, "ERROR 1045 (28000): Access denied; you need the SUPER privilege");
            assert_eq!(found.is_denied, is_denied, "{number:?}");
            assert_eq!(found.fix.is_some(), number.is_none());
        }
    }
}
