//! Kinds of extended attributes, as `--drop-attributes` names them.

use std::collections::BTreeSet;
use std::str::FromStr;

/// Kind of extended attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttributeKind {
    /// Extended attributes that are not of another kind
    Xattrs,
    /// POSIX ACLs
    Acls,
    /// File capabilities
    Capabilities,
}

impl AttributeKind {
    /// All kinds.
    pub(crate) const ALL: [Self; 3] = [Self::Xattrs, Self::Acls, Self::Capabilities];

    /// Word for the option, the hosts and the report.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Xattrs => "xattrs",
            Self::Acls => "acls",
            Self::Capabilities => "capabilities",
        }
    }

    /// Plural noun for messages.
    #[must_use]
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Xattrs => "extended attributes",
            Self::Acls => "ACLs",
            Self::Capabilities => "capabilities",
        }
    }

    /// Returns the kind with this name.
    #[must_use]
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

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
