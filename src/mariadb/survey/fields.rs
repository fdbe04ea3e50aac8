//! Fields of rows in a form that can be shown.

use crate::base::printable::{LONGEST_PATH, LONGEST_TEXT, short};
use crate::proto::HostBytes;
use crate::proto::server::{ResultSet, Row};

/// Returns a field; nothing if it is NULL or missing.
pub(super) fn bytes(row: &Row, index: usize) -> &[u8] {
    row.get(index).and_then(Option::as_ref).map(HostBytes::as_bytes).unwrap_or_default()
}

/// Returns a field, printable and short; empty if it is NULL or missing.
pub(super) fn text(row: &Row, index: usize) -> String {
    shown(bytes(row, index))
}

/// Returns a value, printable and short. Absolute paths may be longer.
pub(super) fn shown(bytes: &[u8]) -> String {
    short(bytes, if bytes.starts_with(b"/") { LONGEST_PATH } else { LONGEST_TEXT })
}

/// Returns the rows of all result sets.
pub(super) fn rows(sets: &[ResultSet]) -> impl Iterator<Item = &Row> {
    sets.iter().flat_map(|set| &set.rows)
}

/// Values for the tests of this folder.
#[cfg(test)]
pub(super) mod samples {
    use super::{HostBytes, ResultSet, Row};

    /// Row of texts.
    pub(in crate::mariadb::survey) fn row<const N: usize>(fields: [&str; N]) -> Row {
        fields.map(|field| Some(HostBytes::from(field))).into()
    }

    /// Result set without names of columns.
    pub(in crate::mariadb::survey) fn set(rows: Vec<Row>) -> ResultSet {
        ResultSet { rows, ..ResultSet::default() }
    }

    /// Text that must be neither shown nor kept as a whole.
    pub(in crate::mariadb::survey) fn hostile() -> String {
        format!("\u{1b}[2J\u{202e}{}", "x".repeat(9000))
    }

    /// Panics if a text could be misread on a terminal or fill it.
    #[track_caller]
    pub(in crate::mariadb::survey) fn assert_harmless(text: &str) {
        assert!(text.len() < 600 && !text.contains(['\u{1b}', '\u{202e}', '\n']), "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_missing_fields_are_empty() {
        let row = vec![None, Some(HostBytes::from("a\tb"))];
        assert_eq!([text(&row, 0), text(&row, 1), text(&row, 2)], ["", "a\\tb", ""]);
    }

    #[test]
    fn hostile_values_are_short_and_printable() {
        samples::assert_harmless(&shown(samples::hostile().as_bytes()));
        let path = format!("/srv/{}", "d/".repeat(1000));
        assert_eq!(shown(path.as_bytes()), path);
        assert!(shown(path.repeat(9).as_bytes()).len() <= LONGEST_PATH + '…'.len_utf8());
    }
}
