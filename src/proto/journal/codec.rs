//! Encoding of records: length (32 bits, little-endian), the first 8 bytes of the BLAKE3 of the body, and the
//! body, a [`Record`] in postcard encoding.

use super::{Record, VERSION, shell};
use crate::proto::Text;
use crate::proto::frame::MAX_FRAME;

/// Length in bytes of the checksum of a record.
const CHECKSUM: usize = 8;
/// Length in bytes of the length of a record.
const LENGTH: usize = 4;
/// Length in bytes of what precedes the body of a record.
pub const PREFIX: usize = LENGTH + CHECKSUM;
/// Records of a journal, up to the first one that is torn or damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Whole records.
    pub records: Vec<Record>,
    /// Number of bytes behind them, which no agent has acted upon.
    pub torn: usize,
}

/// Error of a journal that this version must not touch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The journal was written by the shell version.
    #[error("the journal was written by a version of transfer that worked with shell scripts")]
    Shell {
        /// Leases that are still held, in words.
        leases: Vec<Text>,
    },
    /// The format has another version, or records that are unknown here.
    #[error("the journal has format {format}, written by transfer {program}")]
    Version {
        /// Version of the format.
        format: u16,
        /// Version of the program.
        program: Text,
    },
    /// The first record is no header, although it was synced before the journal got its name.
    #[error("the journal is damaged: its first record cannot be read")]
    NoHeader,
}

/// Encodes a record.
///
/// # Errors
/// When it is longer than a message may be.
pub fn encode(record: &Record) -> Result<Vec<u8>, postcard::Error> {
    let mut bytes = postcard::to_extend(record, vec![0; PREFIX])?;
    let (prefix, body) = bytes.split_at_mut(PREFIX);
    let length = u32::try_from(body.len()).ok().filter(|&length| length as usize <= MAX_FRAME);
    prefix[..LENGTH].copy_from_slice(&length.ok_or(postcard::Error::SerializeBufferFull)?.to_le_bytes());
    prefix[LENGTH..].copy_from_slice(&checksum(body));
    Ok(bytes)
}

/// Decodes a journal. A record that is torn or damaged ends it.
///
/// # Errors
/// When this version must not touch the journal.
pub fn decode(bytes: &[u8]) -> Result<Decoded, DecodeError> {
    if bytes.starts_with(shell::BEGINNING) {
        return Err(DecodeError::Shell { leases: shell::leases(bytes) });
    }
    let (first, _) = split(bytes).ok_or(DecodeError::NoHeader)?;
    // Fields may follow that this version does not know.
    let ((variant, format, program), _): ((u32, u16, Text), _) =
        postcard::take_from_bytes(first).map_err(|_| DecodeError::NoHeader)?;
    if variant != 0 {
        return Err(DecodeError::NoHeader);
    }
    let unknown = || DecodeError::Version { format, program: program.clone() };
    if format != VERSION {
        return Err(unknown());
    }
    let (mut records, mut rest) = (Vec::new(), bytes);
    while let Some((body, behind)) = split(rest) {
        match postcard::take_from_bytes(body) {
            Ok((record, [])) => records.push(record),
            _ => return Err(unknown()),
        }
        rest = behind;
    }
    Ok(Decoded { records, torn: rest.len() })
}

/// Splits the body of a whole record from the bytes behind it.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH>()?;
    let (expected, rest) = rest.split_first_chunk::<CHECKSUM>()?;
    let length = u32::from_le_bytes(*length) as usize;
    // No record is empty, but the end of a file may be zeros after a power cut.
    let (body, rest) = rest.split_at_checked(length).filter(|_| (1..=MAX_FRAME).contains(&length))?;
    (checksum(body) == *expected).then_some((body, rest))
}

fn checksum(body: &[u8]) -> [u8; CHECKSUM] {
    let digest = blake3::hash(body);
    std::array::from_fn(|at| digest.as_bytes()[at])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::samples::{header, record};
    use super::*;

    /// Encodes a header and records, and returns the bytes and the end of each record.
    fn journal(records: &[Record]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for record in std::iter::once(&Record::Header(header())).chain(records) {
            bytes.extend(encode(record).unwrap());
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn records() -> impl Strategy<Value = Vec<Record>> {
        prop::collection::vec(record(), 0..4)
    }

    /// Appends a record with a correct checksum and any body.
    fn forge(bytes: &mut Vec<u8>, body: &[u8]) {
        bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        bytes.extend(checksum(body));
        bytes.extend(body);
    }

    proptest! {
        #[test]
        fn records_survive_the_encoding(records in records()) {
            let decoded = decode(&journal(&records).0).unwrap();
            prop_assert_eq!((&decoded.records[1..], decoded.torn), (&records[..], 0));
        }

        #[test]
        fn truncation_yields_the_whole_records_before_it(records in records()) {
            let (bytes, ends) = journal(&records);
            for cut in 0..bytes.len() {
                let whole = ends.iter().filter(|&&end| end <= cut).count();
                match decode(&bytes[..cut]) {
                    Err(error) => prop_assert_eq!((error, whole), (DecodeError::NoHeader, 0)),
                    Ok(decoded) => {
                        prop_assert_eq!(&decoded.records[1..], &records[..whole - 1]);
                        prop_assert_eq!(decoded.torn, cut - ends[whole - 1]);
                    }
                }
            }
        }

        #[test]
        fn flipped_byte_ends_the_reading(records in records(), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let (mut bytes, ends) = journal(&records);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let whole = ends.iter().filter(|&&end| end <= at).count();
            match decode(&bytes) {
                Err(error) => prop_assert_eq!((error, whole), (DecodeError::NoHeader, 0)),
                Ok(decoded) => prop_assert_eq!(&decoded.records[1..], &records[..whole - 1]),
            }
        }

        #[test]
        fn hostile_bytes_yield_no_record(tail in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&tail).is_err());
            let (mut bytes, _) = journal(&[]);
            bytes.extend(&tail);
            prop_assert_eq!(decode(&bytes).unwrap(), Decoded { records: vec![Record::Header(header())], torn: tail.len() });
        }

        #[test]
        fn forged_bodies_are_records_or_unknown(body in prop::collection::vec(any::<u8>(), 1..100)) {
            let (mut bytes, _) = journal(&[]);
            forge(&mut bytes, &body);
            match decode(&bytes) {
                Ok(decoded) => prop_assert_eq!(decoded.records.len(), 2),
                Err(error) => {
                    let is_unknown = matches!(error, DecodeError::Version { format: VERSION, .. });
                    prop_assert!(is_unknown, "{}", error);
                }
            }
        }
    }

    #[test]
    fn other_versions_are_named() {
        assert_eq!(decode(b"transfer-journal 1\tboot"), Err(DecodeError::Shell { leases: Vec::new() }));
        let mut newer = Vec::new();
        let first = postcard::to_stdvec(&(0u32, VERSION + 1, "9.1", [7u8; 20])).unwrap();
        forge(&mut newer, &first);
        let program = Text::from("9.1");
        assert_eq!(decode(&newer), Err(DecodeError::Version { format: VERSION + 1, program }));
        let (mut unknown, _) = journal(&[Record::Committed]);
        forge(&mut unknown, &[99, 1, 2]);
        let program = header().program;
        assert_eq!(decode(&unknown), Err(DecodeError::Version { format: VERSION, program }));
    }

    #[test]
    fn trailing_bytes_in_a_record_are_unknown() {
        let (mut bytes, _) = journal(&[]);
        let mut body = postcard::to_stdvec(&Record::Committed).unwrap();
        body.push(0);
        forge(&mut bytes, &body);
        assert!(matches!(decode(&bytes), Err(DecodeError::Version { .. })));
    }

    #[test]
    fn zeros_and_long_records_end_the_reading() {
        let (mut bytes, _) = journal(&[Record::Committed]);
        bytes.extend([0; 64]);
        assert_eq!(decode(&bytes).unwrap().torn, 64);
        assert_eq!(decode(&[0; 64]), Err(DecodeError::NoHeader));
        let long = Record::Header(super::super::Header { path: vec![b'a'; MAX_FRAME].into(), ..header() });
        assert!(encode(&long).is_err());
    }
}
