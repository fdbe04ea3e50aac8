//! Name of a run: part of every file, rule and process name that it creates on a host.

use std::fmt;

use zeroize::Zeroizing;

/// Run ID, `20261120-231502-9f3c1a`: start time (UTC) and 24 random bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunId(String);

impl RunId {
    /// Creates a unique name.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new() -> Result<Self, getrandom::Error> {
        let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
        Ok(Self(format!("{now}-{}", random_hex::<3>()?)))
    }

    /// Returns whether a word has the form of a run ID.
    #[must_use]
    pub fn is_name(word: &str) -> bool {
        let is_digits = |part: &str, most: usize, digit: fn(&u8) -> bool| {
            part.len() == most && part.bytes().all(|b| digit(&b))
        };
        match word.split('-').collect::<Vec<_>>()[..] {
            [day, time, random] => {
                is_digits(day, 8, u8::is_ascii_digit)
                    && is_digits(time, 6, u8::is_ascii_digit)
                    && is_digits(random, 6, u8::is_ascii_hexdigit)
            }
            _ => false,
        }
    }

    /// Returns the name of the run's agent on the source.
    #[must_use]
    pub fn source_agent(&self) -> AgentId {
        AgentId(format!("{self}-source"))
    }

    /// Returns the name of the run's agent on the controller.
    #[must_use]
    pub fn controller_agent(&self) -> AgentId {
        AgentId(format!("{self}-controller"))
    }

    /// Returns the name of the run's agent on the upstream of its replicas.
    #[must_use]
    pub fn primary_agent(&self) -> AgentId {
        AgentId(format!("{self}-primary"))
    }

    /// Returns the name of the run's agent on the target with this number, from 1.
    #[must_use]
    pub fn target_agent(&self, number: usize) -> AgentId {
        AgentId(format!("{self}-target{number}"))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of an agent: the run and the end that the agent works on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentId(String);

impl AgentId {
    /// Returns the name, which is safe as a file name and as a comment of a firewall rule.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns `N` random bytes of the system's generator as `2 * N` hexadecimal digits.
///
/// # Errors
/// When the system has no random numbers.
pub fn random_hex<const N: usize>() -> Result<String, getrandom::Error> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut *bytes)?;
    Ok(hex(&*bytes))
}

/// Formats bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
