//! Effects of a run that are still on a host.

use std::fmt;
use std::time::Duration;

use crate::host::agent::Held;
use crate::proto::status::ForeignJournal;

/// Effect of a run that is still on a host, or may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// The host.
    pub host: String,
    /// Lease that is left there, or the reason why that is not known.
    pub what: Remains,
}

/// Lease that is left on a host, or the reason why that is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remains {
    /// A lease that is still held.
    Lease(Held),
    /// A rollback that the agent or its watchdog had not completed.
    InProgress {
        /// Time for which it has been waited for.
        waited: Duration,
        /// Command that shows more.
        status: String,
    },
    /// A journal that this version cannot roll back.
    Foreign(ForeignJournal),
    /// Unknown, since the host could not be asked, for this reason.
    Unconfirmed(String),
}

impl fmt::Display for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lease(held) => held.fmt(f),
            Self::InProgress { waited, status } => write!(
                f,
                "rollback still in progress after {} s (by the run's agent or watchdog); see: {status}",
                waited.as_secs()
            ),
            Self::Foreign(journal) => journal.fmt(f),
            Self::Unconfirmed(reason) => write!(f, "rollback not confirmed ({reason})"),
        }
    }
}

impl Leftover {
    /// Returns whether its rollback starts a server or runs a command of the user.
    #[must_use]
    pub(crate) fn restarts(&self) -> bool {
        matches!(&self.what, Remains::Lease(held) if held.lease.restarts())
    }

    /// Returns whether the host could not be asked.
    #[must_use]
    pub(crate) fn is_unconfirmed(&self) -> bool {
        matches!(self.what, Remains::Unconfirmed(_))
    }
}
