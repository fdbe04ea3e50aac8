//! Names of files and owners, patterns of names, and addresses.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use crate::base::endpoint::HostName;

/// Owner of the copy, `USER`, `USER:GROUP` or `:GROUP`: names on the target, or numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner(pub String);

impl FromStr for Owner {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let names: Vec<&str> = word.split(':').collect();
        let good = |name: &str| {
            !name.starts_with(['-', '+'])
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-$".contains(&byte))
        };
        let given = names.iter().any(|name| !name.is_empty());
        // `USER:` would mean the user's login group, which is not visible here.
        if names.len() > 2 || !given || word.ends_with(':') || !names.into_iter().all(good) {
            return Err("expected USER, USER:GROUP or :GROUP".into());
        }
        Ok(Self(word.to_owned()))
    }
}

/// Name in a directory: any bytes except a slash and NUL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName(pub OsString);

impl FileName {
    /// Parses a name of any bytes.
    pub(crate) fn parse(name: &OsStr) -> Result<Self, String> {
        let bytes = name.as_bytes();
        if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') || bytes.contains(&0) {
            return Err("expected a file name: not empty, not . or .., no slash".into());
        }
        Ok(Self(name.to_owned()))
    }
}

/// An absolute path on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPath(pub String);

impl FromStr for HostPath {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if !word.starts_with('/') || word.contains(['\n', '\0']) {
            return Err("expected an absolute path".into());
        }
        Ok(Self(word.to_owned()))
    }
}

/// Name of a systemd service, such as `mariadb@north.service`; `.service` may be omitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitName(pub String);

impl FromStr for UnitName {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        if word.is_empty() || word.starts_with('-') || word.len() > 200 || !word.bytes().all(good) {
            return Err("expected the name of a systemd service".into());
        }
        Ok(Self(if word.ends_with(".service") { word.to_owned() } else { format!("{word}.service") }))
    }
}

/// Pattern of entries to leave out: a shell pattern (`*`, `?`, `[…]`) as tar interprets it. It may match at
/// any name below the source, or, with a leading slash, at the source itself. `*` and `?` also match slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(pub OsString);

impl Pattern {
    /// Parses a pattern of any bytes.
    pub fn parse(pattern: &OsStr) -> Result<Self, String> {
        let bytes = pattern.as_bytes();
        if bytes.iter().all(|byte| *byte == b'/') || bytes.ends_with(b"/") || bytes.contains(&0) {
            return Err("matches nothing: empty, or ends with a slash".into());
        }
        let steps = bytes.strip_prefix(b"/").unwrap_or(bytes).split(|byte| *byte == b'/');
        if steps.into_iter().any(|step| matches!(step, b"" | b"." | b"..")) {
            return Err("matches nothing: a path component is empty, . or ..".into());
        }
        // tar takes a trailing backslash literally, find rejects it.
        if bytes.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1 {
            return Err("ends with a backslash that escapes nothing".into());
        }
        Ok(Self(pattern.to_owned()))
    }

    /// Returns patterns for whole paths `./NAME/…`, which tar (`--anchored`) and find (`-path`) match in the
    /// same way.
    #[must_use]
    pub fn below(&self, name: &OsStr) -> Vec<Vec<u8>> {
        let mut top = b"./".to_vec();
        for &byte in name.as_bytes() {
            if b"*?[\\".contains(&byte) {
                top.push(b'\\');
            }
            top.push(byte);
        }
        self.in_top(&top)
    }

    /// Returns patterns for whole paths `./…` inside the source.
    #[must_use]
    pub(crate) fn within(&self) -> Vec<Vec<u8>> {
        self.in_top(b".")
    }

    fn in_top(&self, top: &[u8]) -> Vec<Vec<u8>> {
        let pattern = self.0.as_bytes();
        match pattern.strip_prefix(b"/") {
            Some(rest) => vec![[top, b"/", rest].concat()],
            None => vec![[top, b"/", pattern].concat(), [top, b"/*/", pattern].concat()],
        }
    }
}

/// Address of a target on the data path: `ADDRESS`, or `HOST=ADDRESS` with several targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetAddress {
    /// Host of the target, if given.
    pub host: Option<HostName>,
    /// The address.
    pub address: IpAddr,
}

impl FromStr for TargetAddress {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (host, address) = match word.split_once('=') {
            Some((host, address)) => (Some(host), address),
            None => (None, word),
        };
        Ok(Self {
            host: host
                .map(|host| HostName::parse(OsStr::new(host)))
                .transpose()
                .map_err(|error| error.to_string())?,
            address: address
                .trim_start_matches('[')
                .trim_end_matches(']')
                .parse()
                .map_err(|_| "expected an IP address, or HOST=ADDRESS")?,
        })
    }
}

impl FromStr for FileName {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::parse(OsStr::new(word))
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::parse(OsStr::new(word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_names_or_numbers() {
        for word in ["mysql:mysql", "mysql", ":mysql", "114:120"] {
            assert!(word.parse::<Owner>().is_ok(), "{word}");
        }
        for word in ["", ":", "mysql:", "a:b:c", "-R:x", "a b", "$(id)", "+0:0"] {
            assert!(word.parse::<Owner>().is_err(), "{word}");
        }
    }

    #[test]
    fn rejects_patterns_and_names_that_match_nothing() {
        for word in ["", "/", "logs/", "a\\", "./tmp", "a//b", "//a", "../x"] {
            assert!(word.parse::<Pattern>().is_err(), "{word}");
        }
        assert!("a\\\\".parse::<Pattern>().is_ok());
        for word in ["", ".", "..", "a/b"] {
            assert!(word.parse::<FileName>().is_err(), "{word}");
        }
        assert!(FileName::parse(OsStr::from_bytes(b"-\xff\n")).is_ok());
    }

    #[test]
    fn source_name_is_escaped_in_patterns() {
        let below = |word: &str| word.parse::<Pattern>().unwrap().below(OsStr::new("a*b"));
        assert_eq!(below("*.log"), [b"./a\\*b/*.log".to_vec(), b"./a\\*b/*/*.log".to_vec()]);
        assert_eq!(below("/tmp"), [b"./a\\*b/tmp".to_vec()]);
    }

    #[test]
    fn target_address_may_name_its_host() {
        let address: TargetAddress = "db2=[fd77::12]".parse().unwrap();
        assert_eq!(address.host.unwrap().to_string(), "db2");
        assert_eq!(address.address.to_string(), "fd77::12");
        assert!("db2".parse::<TargetAddress>().is_err() && "-x=10.0.0.1".parse::<TargetAddress>().is_err());
    }
}
