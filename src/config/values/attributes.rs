//! Kinds of extended attributes, as `--drop-attributes` names them.

use std::collections::BTreeSet;
use std::str::FromStr;

pub(crate) use crate::proto::files::AttributeKind;

/// Kinds of extended attributes, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub BTreeSet<AttributeKind>);

impl FromStr for Attributes {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let kind = |name: &str| {
            AttributeKind::of_name(name)
                .ok_or_else(|| "expected xattrs, acls or capabilities, separated by commas".to_owned())
        };
        word.split(',').map(kind).collect::<Result<_, _>>().map(Self)
    }
}

/// Formats a number of files.
#[must_use]
pub(crate) fn files(number: u64) -> String {
    if number == 1 { "1 file".into() } else { format!("{number} files") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_comma_separated_known_kinds() {
        let kinds = "acls,xattrs,acls".parse::<Attributes>().unwrap();
        assert_eq!(kinds.0.into_iter().collect::<Vec<_>>(), [AttributeKind::Xattrs, AttributeKind::Acls]);
        for word in ["", "acls,", "ACLs", "acls xattrs", "all"] {
            assert!(word.parse::<Attributes>().is_err(), "{word}");
        }
    }
}
