//! Reader of the result sets of a client that was started with `--xml`. That is its only format in which NULL
//! is not the word NULL.

use bstr::ByteSlice as _;

use crate::proto::HostBytes;

/// Maximum size in bytes of one item as the client writes it: a statement or a row of escapes.
const ITEM_LIMIT: usize = 8 << 20;

/// Beginning of the declaration in front of a result set.
const HEAD: &[u8] = b"<?xml";
/// End of a result set.
const END: &[u8] = b"</resultset>";

/// Error of output that is not what a client writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum XmlError {
    /// Something else was found.
    #[error("expected {expected}, found {found}")]
    Unexpected {
        /// Part of a result set.
        expected: &'static str,
        /// Beginning of what was found.
        found: HostBytes,
    },
    /// A row or a statement is too long.
    #[error("a row exceeds the limit of {ITEM_LIMIT} bytes")]
    TooLong,
}

/// Part of the output of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A result set begins.
    Begin,
    /// Names and values of a row.
    Row(Vec<(HostBytes, Option<HostBytes>)>),
    /// The result set ends.
    End,
}

/// Reader that is fed with the output as it arrives.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    buffer: Vec<u8>,
    /// Beginning of what was not returned yet.
    at: usize,
    /// End of what was searched in vain.
    searched: usize,
    is_inside: bool,
}

impl Reader {
    /// Adds output of the client.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.searched = self.searched.saturating_sub(self.at);
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next part that has arrived whole.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, XmlError> {
        self.skip_blanks();
        if self.is_inside {
            if self.rest().starts_with(END) {
                self.at += END.len();
                self.is_inside = false;
                return Ok(Some(Item::End));
            }
            if END.starts_with(self.rest()) {
                return Ok(None);
            }
            let row = self.take_through(b"<row>", b"</row>", "<row>")?;
            return row.map(|row| fields(&row).map(Item::Row)).transpose();
        }
        if HEAD.starts_with(self.rest())
            || self.rest().starts_with(HEAD) && self.take_through(HEAD, b"?>", "<?xml")?.is_none()
        {
            return Ok(None);
        }
        self.skip_blanks();
        let begin = self.take_through(b"<resultset", b">", "<resultset>")?;
        self.is_inside = begin.is_some();
        Ok(begin.map(|_| Item::Begin))
    }

    /// Returns whether everything was returned.
    #[cfg(test)]
    pub(crate) fn is_at_end(&self) -> bool {
        !self.is_inside && self.rest().iter().all(u8::is_ascii_whitespace)
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    fn skip_blanks(&mut self) {
        self.at += self.rest().iter().take_while(|byte| byte.is_ascii_whitespace()).count();
    }

    /// Returns what is between `begin`, which must be next, and the first `end`. Values contain neither of
    /// them.
    fn take_through(
        &mut self,
        begin: &[u8],
        end: &[u8],
        expected: &'static str,
    ) -> Result<Option<Vec<u8>>, XmlError> {
        let rest = self.rest();
        let common = rest.len().min(begin.len());
        if rest[..common] != begin[..common] {
            return Err(unexpected(expected, rest));
        }
        let from = self.searched.max(self.at + begin.len());
        let Some(found) = self.buffer.get(from..).and_then(|part| part.find(end)) else {
            if rest.len() > ITEM_LIMIT {
                return Err(XmlError::TooLong);
            }
            self.searched = self.buffer.len().saturating_sub(end.len() - 1);
            return Ok(None);
        };
        let content = self.buffer[self.at + begin.len()..from + found].to_vec();
        self.at = from + found + end.len();
        Ok(Some(content))
    }
}

fn unexpected(expected: &'static str, found: &[u8]) -> XmlError {
    XmlError::Unexpected { expected, found: HostBytes::from(found[..found.len().min(80)].to_vec()) }
}

/// Returns the fields of a row.
fn fields(row: &[u8]) -> Result<Vec<(HostBytes, Option<HostBytes>)>, XmlError> {
    let mut fields = Vec::new();
    let mut rest = row.trim_ascii();
    while !rest.is_empty() {
        let wrong = |expected| unexpected(expected, rest);
        let behind = rest.strip_prefix(b"<field name=\"").ok_or_else(|| wrong("<field>"))?;
        let (name, behind) = behind.split_once_str("\"").ok_or_else(|| wrong("\""))?;
        let (value, behind) = if let Some(behind) = behind.strip_prefix(b" xsi:nil=\"true\" />") {
            (None, behind)
        } else {
            let value = behind.strip_prefix(b">").ok_or_else(|| wrong(">"))?;
            let (value, behind) = value.split_once_str("</field>").ok_or_else(|| wrong("</field>"))?;
            (Some(HostBytes::from(unescaped(value))), behind)
        };
        fields.push((HostBytes::from(unescaped(name)), value));
        rest = behind.trim_ascii_start();
    }
    Ok(fields)
}

/// Returns the bytes without the escapes that the client writes.
fn unescaped(text: &[u8]) -> Vec<u8> {
    const ESCAPES: [(&[u8], u8); 4] = [(b"&amp;", b'&'), (b"&lt;", b'<'), (b"&gt;", b'>'), (b"&quot;", b'"')];
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find_byte(b'&') {
        bytes.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        let (length, byte) = ESCAPES
            .into_iter()
            .find(|(escape, _)| rest.starts_with(escape))
            .map_or((1, b'&'), |(escape, byte)| (escape.len(), byte));
        bytes.push(byte);
        rest = &rest[length..];
    }
    bytes.extend_from_slice(rest);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Fields = Vec<(Vec<u8>, Option<Vec<u8>>)>;

    /// Writes a result set as a client does.
    fn written(rows: &[Fields]) -> Vec<u8> {
        let escaped = |bytes: &[u8]| {
            bytes.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\"", "&quot;")
        };
        let mut out =
            b"<?xml version=\"1.0\"?>\n\n<resultset statement=\"select &lt;row&gt;\" xmlns:xsi=\"x\">"
                .to_vec();
        for row in rows {
            out.extend_from_slice(b"\n  <row>\n");
            for (name, value) in row {
                out.extend_from_slice(b"\t<field name=\"");
                out.extend_from_slice(&escaped(name));
                match value {
                    None => out.extend_from_slice(b"\" xsi:nil=\"true\" />\n"),
                    Some(value) => {
                        out.extend_from_slice(b"\">");
                        out.extend_from_slice(&escaped(value));
                        out.extend_from_slice(b"</field>\n");
                    }
                }
            }
            out.extend_from_slice(b"  </row>\n");
        }
        out.extend_from_slice(b"</resultset>\n");
        out
    }

    fn read(output: &[u8], step: usize) -> Result<Vec<Item>, XmlError> {
        let mut reader = Reader::default();
        let mut items = Vec::new();
        for chunk in output.chunks(step) {
            reader.feed(chunk);
            while let Some(item) = reader.next()? {
                items.push(item);
            }
        }
        assert!(reader.is_at_end());
        Ok(items)
    }

    proptest! {
        #[test]
        fn any_bytes_survive_in_any_chunks(
            rows in prop::collection::vec(
                prop::collection::vec((any::<Vec<u8>>(), any::<Option<Vec<u8>>>()), 0..3), 0..3),
            step in 1usize..40,
        ) {
            let items = read(&[written(&rows), written(&rows)].concat(), step).unwrap();
            let rows = rows.into_iter().map(|row| {
                let field = |(name, value): (Vec<u8>, Option<Vec<u8>>)| {
                    (HostBytes::from(name), value.map(HostBytes::from))
                };
                Item::Row(row.into_iter().map(field).collect())
            });
            let set: Vec<Item> = [Item::Begin].into_iter().chain(rows).chain([Item::End]).collect();
            prop_assert_eq!(items, [set.clone(), set].concat());
        }

        #[test]
        fn hostile_output_is_an_error_or_ends(output in "(<row>|<field name=\"|</row>|<resultset|>|&|x| )*") {
            let mut reader = Reader::default();
            reader.feed(output.as_bytes());
            while let Ok(Some(_)) = reader.next() {}
        }
    }

    #[test]
    fn other_output_is_an_error() {
        let mut reader = Reader::default();
        reader.feed(b"a\tb\n");
        assert!(reader.next().unwrap_err().to_string().starts_with("expected <resultset>, found a"));
    }

    #[test]
    fn endless_row_is_an_error() {
        let mut reader = Reader::default();
        reader.feed(b"<resultset x=\"y\"><row>");
        assert_eq!(reader.next(), Ok(Some(Item::Begin)));
        for _ in 0..9 {
            reader.feed(&vec![b'x'; 1 << 20]);
            if reader.next() == Err(XmlError::TooLong) {
                return;
            }
        }
        panic!("it was read without a limit");
    }
}
