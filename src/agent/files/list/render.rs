//! Lines of digests as the programs `b3sum`, `md5sum`, `sha256sum` and `b2sum` write and check them.

use bstr::ByteSlice as _;

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

    #[test]
    fn lines_are_those_of_the_programs() {
        for (path, digest, line) in [
            ("d/a b", "0123", "0123  d/a b\n"),
            ("d/back\\slash", "45", "\\45  d/back\\\\slash\n"),
            ("d/new\nline\r", "67", "\\67  d/new\\nline\\r\n"),
        ] {
            assert_eq!(render_line(digest.as_bytes(), path.as_bytes()), line.as_bytes());
        }
    }

    #[test]
    fn md5sum_accepts_the_lines() {
        let tree = tempfile::tempdir().unwrap();
        let mut lines = Vec::new();
        for name in ["plain", "back\\slash", "new\nline", " space"] {
            std::fs::write(tree.path().join(name), "abc").unwrap();
            lines.extend(render_line(b"900150983cd24fb0d6963f7d28e17f72", name.as_bytes()));
        }
        std::fs::write(tree.path().join("sums"), lines).unwrap();
        let checked = std::process::Command::new("md5sum")
            .args(["--check", "--strict", "--status", "sums"])
            .current_dir(tree.path())
            .status()
            .unwrap();
        assert!(checked.success());
    }
}
