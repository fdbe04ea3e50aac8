//! Names of agents.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// Maximum length of a name in bytes.
const LONGEST: usize = 64;

/// Name of an agent, `RUN-END`: also that of its directory and part of every name that it creates on its host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct AgentName(String);

impl AgentName {
    /// Returns the name, unless it is too long or has other characters than letters, digits and hyphens.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        let fits = (1..=LONGEST).contains(&name.len())
            && !name.starts_with('-')
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        fits.then(|| Self(name.to_owned()))
    }

    /// Returns the name, which is safe as a file name and as a comment of a firewall rule.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of the run: the part before the last hyphen.
    #[must_use]
    pub fn run(&self) -> &str {
        self.0.rsplit_once('-').map_or(self.0.as_str(), |(run, _)| run)
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AgentName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::new(&name).ok_or_else(|| D::Error::custom("no name of an agent"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_safe_names_are_accepted() {
        let name = AgentName::new("20261120-231502-9f3c1a-target1").unwrap();
        assert_eq!((name.run(), name.as_str()), ("20261120-231502-9f3c1a", "20261120-231502-9f3c1a-target1"));
        let long = "a".repeat(LONGEST + 1);
        for bad in ["", ".", "..", "a/b", ".new-a", "-rf", "a b", "ä", "a\n", &long] {
            assert_eq!(AgentName::new(bad), None, "{bad}");
            assert!(postcard::from_bytes::<AgentName>(&postcard::to_stdvec(bad).unwrap()).is_err());
        }
    }
}
