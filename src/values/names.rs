//! Names of files and of those who own them, patterns of names, and addresses.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;

use crate::endpoint::HostName;

/// Whom the copy is given to, `USER`, `USER:GROUP` or `:GROUP`: names of the target, or numbers.
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
        let said = names.iter().any(|name| !name.is_empty());
        // `USER:` would mean the user's login group, which nobody sees here.
        if names.len() > 2 || !said || word.ends_with(':') || !names.into_iter().all(good) {
            return Err("it is none of USER, USER:GROUP and :GROUP".into());
        }
        Ok(Self(word.to_owned()))
    }
}

/// The name of something in a directory: any bytes but a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName(pub OsString);

impl FileName {
    /// Reads a name of any bytes.
    pub fn parse(name: &OsStr) -> Result<Self, String> {
        let bytes = name.as_bytes();
        if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') || bytes.contains(&0) {
            return Err("it is no name of a file: not empty, neither . nor .., and without a slash".into());
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
            return Err("it is no absolute path".into());
        }
        Ok(Self(word.to_owned()))
    }
}

/// A service of systemd, such as `mariadb@north.service`; `.service` may be left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitName(pub String);

impl FromStr for UnitName {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let good = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte);
        if word.is_empty() || word.starts_with('-') || word.len() > 200 || !word.bytes().all(good) {
            return Err("it is no name of a unit".into());
        }
        Ok(Self(if word.ends_with(".service") { word.to_owned() } else { format!("{word}.service") }))
    }
}

/// Which entries are left out: a pattern of the shell (`*`, `?`, `[…]`) as tar takes it, which begins at any name below the
/// source, or, behind a slash, at the source itself. `*` and `?` match slashes, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(pub OsString);

impl Pattern {
    /// Reads a pattern of any bytes.
    pub fn parse(pattern: &OsStr) -> Result<Self, String> {
        let bytes = pattern.as_bytes();
        if bytes.iter().all(|byte| *byte == b'/') || bytes.ends_with(b"/") || bytes.contains(&0) {
            return Err("it matches nothing: it is empty or ends with a slash".into());
        }
        let steps = bytes.strip_prefix(b"/").unwrap_or(bytes).split(|byte| *byte == b'/');
        if steps.into_iter().any(|step| matches!(step, b"" | b"." | b"..")) {
            return Err("it matches nothing: a step of it is empty, . or ..".into());
        }
        // tar takes it for a backslash, find refuses it.
        if bytes.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1 {
            return Err("it ends with a backslash that escapes nothing".into());
        }
        Ok(Self(pattern.to_owned()))
    }

    /// As patterns of whole paths `./NAME/…`, which tar (`--anchored`) and find (`-path`) match alike.
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

    /// As patterns of whole paths `./…`, from within the source.
    #[must_use]
    pub fn within(&self) -> Vec<Vec<u8>> {
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

/// The address of a target on the data path: `ADDRESS`, or `HOST=ADDRESS` where there are several targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetAddress {
    /// Whose it is, where it is said.
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
                .map_err(|_| "it is no IP address, and no HOST=ADDRESS")?,
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
    fn patterns_and_names_that_match_nothing_are_refused() {
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
    fn a_pattern_stands_below_the_source_whose_own_name_is_no_pattern() {
        let below = |word: &str| word.parse::<Pattern>().unwrap().below(OsStr::new("a*b"));
        assert_eq!(below("*.log"), [b"./a\\*b/*.log".to_vec(), b"./a\\*b/*/*.log".to_vec()]);
        assert_eq!(below("/tmp"), [b"./a\\*b/tmp".to_vec()]);
    }

    #[test]
    fn a_target_address_may_name_its_host() {
        let address: TargetAddress = "db2=[fd77::12]".parse().unwrap();
        assert_eq!(address.host.unwrap().to_string(), "db2");
        assert_eq!(address.address.to_string(), "fd77::12");
        assert!("db2".parse::<TargetAddress>().is_err() && "-x=10.0.0.1".parse::<TargetAddress>().is_err());
    }
}
