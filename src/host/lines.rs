//! Lines of a host before the conversation begins. A host may be hostile: a line longer than [`MAX_LINE`] is an error.

use std::io;

use bstr::ByteSlice;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// Maximum length in bytes of a line from a host.
pub(super) const MAX_LINE: usize = 64 * 1024;

/// Reads the next line, without its newline. A last line without one counts; `None` at the end of input.
pub(super) async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let mut record = Vec::new();
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            return Ok((!record.is_empty()).then_some(record));
        }
        let found = chunk.find_byte(b'\n');
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

    #[tokio::test(flavor = "current_thread")]
    async fn endless_line_does_not_fill_the_memory() {
        let endless = vec![b'x'; 10 * MAX_LINE];
        assert!(read_line(&mut endless.as_slice()).await.is_err());
        assert_eq!(read_line(&mut &b"a\nb"[..]).await.unwrap().unwrap(), b"a");
    }
}
