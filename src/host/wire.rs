//! The lines that go to and from a host: fields between tabs, with `\\`, `\n` and `\t` inside of them.
//!
//! A host may be hostile: a line longer than [`MAX_LINE`] ends the conversation, and what is shown to a user goes
//! through [`printable`].

use std::io;

use bstr::ByteSlice;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

pub use crate::printable::{LONGEST_PATH, LONGEST_TEXT, printable, short};

/// The longest line, in bytes, that a host may send.
pub const MAX_LINE: usize = 64 * 1024;

/// One field, raw bytes: paths need not be UTF-8.
pub type Field = Vec<u8>;

/// The fields as one line, without its newline.
#[must_use]
pub fn encode<F: AsRef<[u8]>>(fields: &[F]) -> Vec<u8> {
    let mut line = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            line.push(b'\t');
        }
        for &byte in field.as_ref() {
            match byte {
                b'\\' => line.extend(br"\\"),
                b'\n' => line.extend(br"\n"),
                b'\t' => line.extend(br"\t"),
                byte => line.push(byte),
            }
        }
    }
    line
}

/// The fields of a line. An escape that does not exist stands for itself.
#[must_use]
pub fn decode(line: &[u8]) -> Vec<Field> {
    line.split(|&byte| byte == b'\t')
        .map(|field| {
            let mut bytes = field.iter().copied();
            let mut plain = Vec::with_capacity(field.len());
            while let Some(byte) = bytes.next() {
                if byte != b'\\' {
                    plain.push(byte);
                    continue;
                }
                match bytes.next() {
                    Some(b'n') => plain.push(b'\n'),
                    Some(b't') => plain.push(b'\t'),
                    Some(other) => plain.push(other),
                    None => plain.push(b'\\'),
                }
            }
            plain
        })
        .collect()
}

/// The next record up to `end`, without it; `None` at the end of input. A last record without `end` counts.
pub async fn read_record(reader: &mut (impl AsyncBufRead + Unpin), end: u8) -> io::Result<Option<Vec<u8>>> {
    let mut record = Vec::new();
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return Ok((!record.is_empty()).then_some(record));
        }
        let found = chunk.find_byte(end);
        record.extend_from_slice(&chunk[..found.unwrap_or(chunk.len())]);
        let used = found.map_or(chunk.len(), |at| at + 1);
        reader.consume(used);
        if record.len() > MAX_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the host sends a line of over 64 KiB"));
        }
        if found.is_some() {
            return Ok(Some(record));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_field_survives_the_wire(fields in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5)) {
            let line = encode(&fields);
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(decode(&line), fields);
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_line_without_end_does_not_fill_the_memory() {
        let endless = vec![b'x'; 10 * MAX_LINE];
        assert!(read_record(&mut endless.as_slice(), b'\n').await.is_err());
        assert_eq!(read_record(&mut &b"a\nb"[..], b'\n').await.unwrap().unwrap(), b"a");
    }
}
