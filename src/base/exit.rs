//! Exit codes by name. They are part of the command line, see `docs/exit-codes.md`.

use std::process::ExitCode;

/// Result of a run for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: every target has its copy, verified.
    Done,
    /// 1: the transfer failed for at least one target.
    Failed,
    /// 2: the command line or the configuration is wrong.
    Usage,
    /// 3: source and target differ.
    Verification,
    /// 4: refused before anything was changed.
    Refused,
    /// 5: another run or program uses the port or the final name.
    Busy,
    /// 6: not everything was rolled back, whatever else happened.
    Leftovers,
    /// 128 + signal: interrupted, and everything was rolled back.
    Interrupted(i32),
}

impl Exit {
    /// Returns the number that the shell sees.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Verification => 3,
            Self::Refused => 4,
            Self::Busy => 5,
            Self::Leftovers => 6,
            Self::Interrupted(signal) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        }
    }

    /// Returns the worse of two: 6 before an interruption before 3 before 1 before 5 before 2 before 4 before
    /// 0.
    #[must_use]
    pub fn worse(self, other: Self) -> Self {
        if self.weight() >= other.weight() { self } else { other }
    }

    fn weight(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Busy => 3,
            Self::Failed => 4,
            Self::Verification => 5,
            Self::Interrupted(_) => 6,
            Self::Leftovers => 7,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_outweigh_mismatch_outweighs_failure() {
        assert_eq!(Exit::Failed.worse(Exit::Verification), Exit::Verification);
        assert_eq!(Exit::Verification.worse(Exit::Leftovers), Exit::Leftovers);
        assert_eq!(Exit::Leftovers.worse(Exit::Interrupted(2)).code(), 6);
        assert_eq!(Exit::Done.worse(Exit::Done).code(), 0);
        assert_eq!(Exit::Interrupted(15).code(), 143);
    }
}
