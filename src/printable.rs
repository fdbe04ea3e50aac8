//! Text that others made, as it may be shown on a terminal.

/// Bytes of a text of others, such as a message, that are shown.
pub const LONGEST_TEXT: usize = 500;
/// The same of a path: the kernel takes no longer ones.
pub const LONGEST_PATH: usize = 4096;

/// Bytes of a host, a file or a user as text without control characters and invalid UTF-8.
#[must_use]
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || misleads(c) {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// The same, of a long one the beginning: at most `most` bytes of text, and `…`.
#[must_use]
pub fn short(bytes: &[u8], most: usize) -> String {
    let mut text = printable(&bytes[..bytes.len().min(most)]);
    if bytes.len() > most || text.len() > most {
        let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Marks of direction and of isolation, which can make a name read as another, and the separators of lines and paragraphs,
/// which are new lines to some.
fn misleads(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_printed_controls_the_terminal() {
        assert_eq!(printable(b"a\x1b[2J\n\xffb"), "a\\u{1b}[2J\\n\\xffb");
        assert_eq!(printable("f\u{202e}txt".as_bytes()), "f\\u{202e}txt");
        assert_eq!(printable("a\u{2028}b\u{200f}".as_bytes()), "a\\u{2028}b\\u{200f}");
        assert_eq!(printable("Übung".as_bytes()), "Übung");
    }

    #[test]
    fn a_long_text_is_cut_and_says_so() {
        assert_eq!(short(b"abc", 3), "abc");
        assert_eq!(short(b"abcd", 3), "abc…");
        assert_eq!(short(b"\x1b\x1b", 8), "\\u{1b}\\u…");
        assert_eq!(short("aüü".as_bytes(), 4), "aü\\…");
        for most in 0..20 {
            let text = short("a\u{202e}ü\x07\n€x".repeat(5).as_bytes(), most);
            assert!(text.len() <= most + '…'.len_utf8(), "{text}");
        }
    }
}
