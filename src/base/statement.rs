//! Statements with values in them.

/// Returns a text as a literal of SQL. Where a backslash is no escape, it is doubled, and never ends the
/// literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// Returns the name of an account.
pub(crate) fn account(user: &str, host: &str) -> String {
    format!("{}@{}", literal(user), literal(host))
}

/// Returns a name as an identifier.
pub(crate) fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_cannot_end_their_literal() {
        assert_eq!(literal(r"a'b\"), r"'a''b\\'");
        assert_eq!(account("x' OR ''='", "%"), "'x'' OR ''''='''@'%'");
    }
}
