//! State of a run by its journal: leases that are still in place, and the result of the run.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use crate::proto::Text;
use crate::proto::journal::{DecodeError, Header, Record, Undo, decode};
use crate::proto::status::Foreign;

/// Bytes per read.
const BLOCK: usize = 64 << 10;

/// Result of a run, for its hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conclusion {
    /// Every copy was published.
    Done,
    /// The run failed.
    Failed,
    /// The controller has not given the result.
    Lost,
}

impl Conclusion {
    /// Returns the word that hooks get.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }
}

/// Error of a journal that cannot be rolled back by this version.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The journal cannot be read.
    #[error("cannot read the journal: {0}")]
    Read(#[from] io::Error),
    /// The journal is damaged or has another version.
    #[error(transparent)]
    Foreign(#[from] DecodeError),
}

impl From<&ReadError> for Foreign {
    fn from(error: &ReadError) -> Self {
        match error {
            ReadError::Foreign(DecodeError::Shell { leases }) => Self::Shell { leases: leases.clone() },
            ReadError::Foreign(DecodeError::Version { format, program }) => {
                Self::Version { format: *format, program: program.clone() }
            }
            ReadError::Read(_) | ReadError::Foreign(DecodeError::NoHeader) => {
                Self::Damaged(Text::from(error))
            }
        }
    }
}

/// Contents of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    /// First record.
    pub(crate) header: Header,
    /// Undos of changes that are still in place, oldest first.
    pub(crate) undos: Vec<Undo>,
    /// Result of the run.
    pub(crate) conclusion: Conclusion,
    /// Number of bytes behind the last whole record.
    pub(crate) torn: usize,
}

impl Contents {
    /// Reads a journal.
    pub(crate) fn read(journal: &File) -> Result<Self, ReadError> {
        let mut bytes = Vec::new();
        loop {
            let end = bytes.len();
            bytes.resize(end + BLOCK, 0);
            // Independent of the descriptor's offset, which other processes may share.
            let read = journal.read_at(&mut bytes[end..], end as u64)?;
            bytes.truncate(end + read);
            if read == 0 {
                break;
            }
        }
        let decoded = decode(&bytes)?;
        let mut records = decoded.records.into_iter();
        let Some(Record::Header(header)) = records.next() else { return Err(DecodeError::NoHeader.into()) };
        let (undos, conclusion) = replayed(records);
        Ok(Self { header, undos, conclusion, torn: decoded.torn })
    }
}

/// Applies records in their order.
fn replayed(records: impl Iterator<Item = Record>) -> (Vec<Undo>, Conclusion) {
    let (mut undos, mut conclusion) = (Vec::new(), Conclusion::Lost);
    for record in records {
        match record {
            Record::Header(_) => {}
            Record::Lease(undo) => undos.push(undo),
            Record::Closed(closed) => {
                if let Some(at) = undos.iter().rposition(|undo| *undo == closed) {
                    undos.remove(at);
                }
            }
            Record::Committed => undos.retain(|undo| !undo.ends_with_commit()),
            Record::Concluded { done: true } => conclusion = Conclusion::Done,
            Record::Concluded { done: false } => conclusion = Conclusion::Failed,
        }
    }
    (undos, conclusion)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::journal::samples::login;
    use crate::proto::server::{DataDirectory, StartState};

    fn server() -> Undo {
        Undo::Server {
            unit: "mariadb.service".into(),
            server: login("/run/s"),
            start: StartState::Configured,
            data: DataDirectory { path: "/d".into(), inode: 3 },
        }
    }

    #[test]
    fn newest_equal_lease_is_closed() {
        let records = [
            Record::Lease(Undo::Port(1)),
            Record::Lease(Undo::Port(2)),
            Record::Lease(Undo::Port(1)),
            Record::Closed(Undo::Port(1)),
            Record::Closed(Undo::Port(9)),
        ];
        assert_eq!(replayed(records.into_iter()), (vec![Undo::Port(1), Undo::Port(2)], Conclusion::Lost));
    }

    #[test]
    fn commit_ends_the_leases_of_the_old_server_only() {
        let later = Record::Lease(server());
        let records = [
            Record::Lease(server()),
            Record::Lease(Undo::Port(1)),
            Record::Committed,
            later,
            Record::Concluded { done: true },
        ];
        assert_eq!(replayed(records.into_iter()), (vec![Undo::Port(1), server()], Conclusion::Done));
    }
}
