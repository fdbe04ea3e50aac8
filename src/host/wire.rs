//! Lines exchanged with a host: fields separated by tabs, with the escapes `\\`, `\n` and `\t` in them.
//!
//! A host may be hostile: a line longer than [`MAX_LINE`] ends the conversation. Text of a host is shown to
//! users only through [`printable`], [`short`] or [`message`].

use std::io;

use bstr::ByteSlice;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

pub use crate::base::printable::{LONGEST_PATH, LONGEST_TEXT, message, printable, short};

/// Maximum length in bytes of a line from a host.
pub const MAX_LINE: usize = 64 * 1024;

/// One field as raw bytes: paths are not always UTF-8.
pub type Field = Vec<u8>;

/// Encodes fields as one line without its newline.
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

/// Decodes a line into its fields. An unknown escape yields the character after the backslash.
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

/// Reads the next record up to the delimiter `end`, without it. A last record without the delimiter counts;
/// `None` at the end of input.
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
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the host sent a line of more than 64 KiB",
            ));
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
        fn fields_survive_encoding_and_decoding(fields in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..5)) {
            let line = encode(&fields);
            prop_assert!(!line.contains(&b'\n'));
            prop_assert_eq!(decode(&line), fields);
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn endless_line_does_not_fill_the_memory() {
        let endless = vec![b'x'; 10 * MAX_LINE];
        assert!(read_record(&mut endless.as_slice(), b'\n').await.is_err());
        assert_eq!(read_record(&mut &b"a\nb"[..], b'\n').await.unwrap().unwrap(), b"a");
    }
}
