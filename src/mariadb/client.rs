//! Errors of a database client on a host, and of our own checks before a login. The only place that interprets
//! their text.

/// Beginnings of the errors of our own checks, which end with a fix.
const OURS: [&str; 3] = ["no login to ", "--defaults-file ", "ERROR 2059 "];
/// Words of the client when the account, its host or its privileges are refused: errors 1045, 1130, 1227 and 1698
/// of the server.
const DENIED: [&str; 6] = ["1045", "1130", "1698", "ERROR 1227", "Access denied", "not allowed"];

/// Error of a login, or of a query after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoginError<'a> {
    /// Problem.
    pub problem: &'a str,
    /// Fix, if the error has one of its own.
    pub fix: Option<&'a str>,
    /// The server refuses the account; otherwise it cannot be reached.
    pub is_denied: bool,
}

impl<'a> LoginError<'a> {
    /// Interprets the text that a host reported.
    #[must_use]
    pub(crate) fn parse(text: &'a str) -> Self {
        let is_ours = OURS.iter().any(|beginning| text.starts_with(beginning));
        let (problem, fix) = match text.split_once("; ").filter(|_| is_ours) {
            Some((problem, fix)) => (problem, Some(fix)),
            None => (text, None),
        };
        Self { problem, fix, is_denied: DENIED.iter().any(|words| text.contains(words)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_our_own_checks_have_a_fix() {
        let error = LoginError::parse("no login to /run/s: it belongs to eve; give --unit");
        assert_eq!(
            (error.problem, error.fix),
            ("no login to /run/s: it belongs to eve", Some("give --unit"))
        );
        let error = LoginError::parse("ERROR 2002 (HY000): cannot connect; no such file");
        assert_eq!((error.fix, error.is_denied), (None, false));
    }

    #[test]
    fn refused_accounts_are_told_from_unreachable_servers() {
        for (text, is_denied) in [
            ("ERROR 1045 (28000): Access denied for user 'root'@'localhost'", true),
            ("ERROR 1227 (42000): Access denied; you need the SUPER privilege", true),
            ("ERROR 1130 (HY000): Host '10.0.0.2' is not allowed to connect to this MariaDB server", true),
            ("ERROR 2002 (HY000): Can't connect to local server through socket '/run/s' (2)", false),
        ] {
            assert_eq!(LoginError::parse(text).is_denied, is_denied, "{text}");
        }
    }
}
