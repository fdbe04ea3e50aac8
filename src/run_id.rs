//! The name of a run: in every file, rule and process name that it leaves on a host for a while.

use std::fmt;

use zeroize::Zeroizing;

/// `20261120-231502-9f3c1a`: when it began (UTC) and 24 random bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunId(String);

impl RunId {
    /// A name that no other run has.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn new() -> Result<Self, getrandom::Error> {
        let now = jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S");
        Ok(Self(format!("{now}-{}", random_hex::<3>()?)))
    }

    /// Whether a word has the shape of one.
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

    /// The name of the run's agent at its source.
    #[must_use]
    pub fn source_agent(&self) -> AgentId {
        AgentId(format!("{self}-source"))
    }

    /// The name of the run's agent at its controller.
    #[must_use]
    pub fn controller_agent(&self) -> AgentId {
        AgentId(format!("{self}-controller"))
    }

    /// The name of the run's agent at the server that its replicas follow.
    #[must_use]
    pub fn primary_agent(&self) -> AgentId {
        AgentId(format!("{self}-primary"))
    }

    /// The name of the run's agent at its target of that number, from 1.
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

/// The name of one agent: that of its run and the end that it agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentId(String);

impl AgentId {
    /// As text; safe as a file name and as a firewall rule's comment.
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

/// `N` random bytes of the system's generator as `2 * N` hexadecimal digits.
///
/// # Errors
/// When the system has no random numbers.
pub fn random_hex<const N: usize>() -> Result<String, getrandom::Error> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut *bytes)?;
    Ok(hex(&*bytes))
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
