//! Source or target of a copy: `[user@]host:/path`, or an absolute path on this machine.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::base::printable::printable;

/// Maximum number of targets of one run.
pub const MOST_TARGETS: usize = 1000;

/// Host as the user named it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostName {
    /// Local machine, without SSH: `localhost:`, or no host.
    Local,
    /// Argument for `ssh`, `[user@]host`; an IPv6 address without brackets.
    Ssh(String),
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("localhost"),
            Self::Ssh(name) => f.write_str(name),
        }
    }
}

/// Path on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host of the path.
    pub host: HostName,
    /// Absolute path without trailing slashes; any bytes except NUL.
    pub path: PathBuf,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.path.as_os_str().as_bytes().escape_ascii())
    }
}

/// Error in an endpoint or a host on the command line.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum EndpointError {
    /// Path where a host is expected.
    #[error("expected a host without a path: HOST, not HOST:/PATH")]
    HostWithPath,
    /// Neither `host:/path` nor an absolute path.
    #[error("no path; write HOST:/PATH, or /PATH for this machine")]
    NoPath,
    /// Relative path.
    #[error("the path is not absolute; it must begin with /")]
    Relative,
    /// Host name that ssh would misread, or an unclosed bracket.
    #[error(
        "the host name is empty, begins with a dash, or contains blanks, control characters, commas, slashes or \
         brackets"
    )]
    Host,
}

impl Endpoint {
    /// Parses one word of the command line.
    pub fn parse(word: &OsStr) -> Result<Self, EndpointError> {
        let bytes = word.as_bytes();
        if bytes.first() == Some(&b'/') {
            return Ok(Self { host: HostName::Local, path: trimmed(bytes) });
        }
        let colon =
            if bytes.starts_with(b"[") || bytes.contains(&b'@') && bytes.windows(2).any(|two| two == b"@[") {
                bytes.windows(2).position(|two| two == b"]:").map(|at| at + 1)
            } else {
                bytes.iter().position(|&byte| byte == b':')
            };
        let colon = colon.ok_or(EndpointError::NoPath)?;
        let host = HostName::parse(OsStr::from_bytes(&bytes[..colon]))?;
        let path = &bytes[colon + 1..];
        match path.first() {
            None => Err(EndpointError::NoPath),
            Some(b'/') => Ok(Self { host, path: trimmed(path) }),
            Some(_) => Err(EndpointError::Relative),
        }
    }

    /// Returns the last component of the path; `None` for the root directory.
    #[must_use]
    pub fn name(&self) -> Option<&OsStr> {
        self.path.file_name()
    }

    /// Returns the parent directory; the root directory is its own.
    #[must_use]
    pub fn parent(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }
}

impl HostName {
    /// Compares the hosts without the user.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let host = |name: &Self| match name {
            Self::Local => "localhost".to_owned(),
            Self::Ssh(name) => name.rsplit('@').next().unwrap_or_default().to_owned(),
        };
        host(self) == host(other)
    }

    /// Parses `[user@]host`, with an IPv6 address in brackets.
    pub fn parse(word: &OsStr) -> Result<Self, EndpointError> {
        let bytes = word.as_bytes();
        if bytes.starts_with(b"/") || bytes.windows(2).any(|two| two == b":/") {
            return Err(EndpointError::HostWithPath);
        }
        let name = word.to_str().ok_or(EndpointError::Host)?;
        let (user, host) = match name.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, name),
        };
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or(EndpointError::Host)?,
            None => host,
        };
        let bad = |part: &str| {
            part.is_empty()
                || part.starts_with('-')
                // Names are printed without escapes.
                || printable(part.as_bytes()) != part
                || part.chars().any(|c| c.is_whitespace() || "/,'\"$`\\;|&<>()[]{}".contains(c))
        };
        if bad(host) || user.is_some_and(bad) {
            return Err(EndpointError::Host);
        }
        Ok(match (user, host) {
            (None, "localhost") => Self::Local,
            (None, host) => Self::Ssh(host.to_owned()),
            (Some(user), host) => Self::Ssh(format!("{user}@{host}")),
        })
    }
}

/// Removes trailing and repeated slashes.
fn trimmed(path: &[u8]) -> PathBuf {
    let path: PathBuf = PathBuf::from(OsString::from_vec(path.to_vec()));
    path.components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(word: &str) -> Result<Endpoint, EndpointError> {
        Endpoint::parse(OsStr::new(word))
    }

    #[test]
    fn parses_host_and_path() {
        let endpoint = parse("db1:/srv//sqldata/").unwrap();
        assert_eq!(endpoint.host, HostName::Ssh("db1".into()));
        assert_eq!(endpoint.path, Path::new("/srv/sqldata"));
        assert_eq!(endpoint.name().unwrap(), "sqldata");
        assert_eq!(endpoint.parent(), Path::new("/srv"));
    }

    #[test]
    fn rejects_path_where_a_host_is_expected() {
        for word in ["t2:/var/lib/mysql", "root@t2:/srv", "[fd77::11]:/srv", "/srv"] {
            assert_eq!(HostName::parse(OsStr::new(word)), Err(EndpointError::HostWithPath), "{word:?}");
        }
        assert_eq!(HostName::parse(OsStr::new("t2")), Ok(HostName::Ssh("t2".into())));
    }

    #[test]
    fn path_without_host_is_local() {
        assert_eq!(parse("/srv").unwrap().host, HostName::Local);
        assert_eq!(parse("localhost:/srv").unwrap().host, HostName::Local);
        assert_eq!(parse("root@localhost:/srv").unwrap().host, HostName::Ssh("root@localhost".into()));
    }

    #[test]
    fn paths_may_contain_colons_brackets_and_any_byte() {
        assert_eq!(parse("db1:/a:b]:c").unwrap().path, Path::new("/a:b]:c"));
        let raw = OsStr::from_bytes(b"db1:/a\xff\n$(x)");
        assert_eq!(Endpoint::parse(raw).unwrap().path.as_os_str().as_bytes(), b"/a\xff\n$(x)");
    }

    #[test]
    fn ipv6_addresses_are_in_brackets() {
        assert_eq!(parse("[fd77::11]:/srv").unwrap().host, HostName::Ssh("fd77::11".into()));
        assert_eq!(parse("root@[fd77::11]:/srv").unwrap().host, HostName::Ssh("root@fd77::11".into()));
        assert_eq!(parse("[fd77::11:/srv"), Err(EndpointError::NoPath));
    }

    #[test]
    fn rejects_names_that_ssh_would_misread() {
        for word in [
            "-oProxyCommand=x:/srv",
            ":/srv",
            "a b:/srv",
            "a\n:/srv",
            "a\u{202e}b:/srv",
            "-l@db1:/srv",
            "@db1:/srv",
            "a;b:/x",
        ] {
            assert_eq!(parse(word), Err(EndpointError::Host), "{word:?}");
        }
    }

    #[test]
    fn rejects_missing_and_relative_paths() {
        assert_eq!(parse("db1"), Err(EndpointError::NoPath));
        assert_eq!(parse("db1:"), Err(EndpointError::NoPath));
        assert_eq!(parse("db1:srv"), Err(EndpointError::Relative));
    }
}
