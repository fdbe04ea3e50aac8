//! Lists of digests as the programs `b3sum`, `md5sum`, `sha256sum` and `b2sum` write and check them.

use std::io::{self, BufRead, Write};

use bstr::ByteSlice as _;

/// Writes the lines of a list of digests, with paths relative to the directory that contains the tree.
pub(crate) fn render_digests(mut list: impl BufRead, mut out: impl Write) -> io::Result<()> {
    let mut record = Vec::new();
    loop {
        record.clear();
        list.read_until(0, &mut record)?;
        match record.pop() {
            None => return out.flush(),
            Some(0) => {}
            Some(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        let Some((path, digest)) = split(&record) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        out.write_all(&render_line(digest, path.strip_prefix(b"./").unwrap_or(path)))?;
    }
}

/// Splits a record into path and digest.
fn split(record: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = record.rfind("//")?;
    Some((&record[..end], &record[end + 2..]))
}

/// Returns the line of a file. In front of a name with escapes there is a backslash.
pub(crate) fn render_line(digest: &[u8], path: &[u8]) -> Vec<u8> {
    let mut line = Vec::with_capacity(digest.len() + path.len() + 4);
    if path.find_byteset(b"\\\n\r").is_some() {
        line.push(b'\\');
    }
    line.extend_from_slice(digest);
    line.extend_from_slice(b"  ");
    for &byte in path {
        match byte {
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            byte => line.push(byte),
        }
    }
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(list: &[u8]) -> io::Result<String> {
        let mut out = Vec::new();
        render_digests(list, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn lines_are_those_of_the_programs() {
        let list = b"./d/a b//0123\0./d/back\\slash//45\0./d/new\nline\r//67\0";
        assert_eq!(rendered(list).unwrap(), "0123  d/a b\n\\45  d/back\\\\slash\n\\67  d/new\\nline\\r\n");
        assert_eq!(rendered(b"").unwrap(), "");
    }

    #[test]
    fn torn_lists_are_errors() {
        rendered(b"./d/a//0123").unwrap_err();
        rendered(b"./d/a\0").unwrap_err();
    }

    #[test]
    fn md5sum_accepts_the_lines() {
        let tree = tempfile::tempdir().unwrap();
        let names = ["plain", "back\\slash", "new\nline", " space"];
        let mut list = Vec::new();
        for name in names {
            std::fs::write(tree.path().join(name), "abc").unwrap();
            list.extend_from_slice(format!("./{name}//900150983cd24fb0d6963f7d28e17f72\0").as_bytes());
        }
        std::fs::write(tree.path().join("sums"), rendered(&list).unwrap()).unwrap();
        let checked = std::process::Command::new("md5sum")
            .args(["--check", "--strict", "--status", "sums"])
            .current_dir(tree.path())
            .status()
            .unwrap();
        assert!(checked.success());
    }
}
