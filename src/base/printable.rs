//! Text from other hosts, programs and users, made safe to show on a terminal.

use std::iter::Peekable;
use std::str::Chars;

/// Maximum length in bytes of foreign text that is shown, such as a message.
pub const LONGEST_TEXT: usize = 500;
/// Maximum length in bytes of a path that is shown: the kernel accepts no longer one.
pub const LONGEST_PATH: usize = 4096;
/// Maximum length in characters of a terminal string, such as a window title, that is skipped: a hostile text
/// could begin very many that never end.
const LONGEST_TITLE: usize = 256;
/// Separator of the lines of a message that is shown in one line.
const NEXT_LINE: &str = " | ";

/// Returns a name (host, file, user) with control characters and invalid UTF-8 escaped, so that different
/// names stay different.
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
        escape_bytes(&mut text, chunk.invalid());
    }
    text
}

/// Returns the beginning of [`printable`] text: at most `most` bytes, followed by `…` if it was cut.
#[must_use]
pub fn short(bytes: &[u8], most: usize) -> String {
    let mut text = printable(&bytes[..bytes.len().min(most)]);
    if bytes.len() > most || text.len() > most {
        text.truncate(boundary(&text, most));
        text.push('…');
    }
    text
}

/// Returns the output of another program as one readable line: lines are joined with ` | `, tabs become
/// spaces, terminal sequences and other control characters are dropped. A text of more than `most` bytes
/// keeps its beginning and its end, with `…` between them.
#[must_use]
pub fn message(bytes: &[u8], most: usize) -> String {
    let mut text = String::new();
    for line in bytes.split(|byte| matches!(byte, b'\n' | b'\r' | 0x0b | 0x0c)) {
        let line = plain(line);
        let line = line.trim();
        if !line.is_empty() {
            if !text.is_empty() {
                text.push_str(NEXT_LINE);
            }
            text.push_str(line);
        }
    }
    if text.len() > most {
        let beginning = boundary(&text, most / 3 * 2);
        let end = text.len() - (most - beginning);
        let end = (end..=text.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(text.len());
        text.replace_range(beginning..end, "…");
    }
    text
}

/// Returns the last character boundary of a text that is not after `most`.
fn boundary(text: &str, most: usize) -> usize {
    (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default()
}

/// Returns a line of a message without terminal sequences and control characters.
fn plain(line: &[u8]) -> String {
    let mut text = String::with_capacity(line.len());
    for chunk in line.utf8_chunks() {
        let mut chars = chunk.valid().chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\t' => text.push(' '),
                '\u{1b}' => skip_sequence(&mut chars),
                '\u{9b}' => skip_parameters(&mut chars),
                c if c.is_control() || misleads(c) => {}
                c => text.push(c),
            }
        }
        escape_bytes(&mut text, chunk.invalid());
    }
    text
}

/// Skips the rest of a terminal sequence after its ESC. Of a string that never ends only the ESC is skipped.
fn skip_sequence(chars: &mut Peekable<Chars<'_>>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            skip_parameters(chars);
        }
        // A title or another string, up to BEL or to ESC and a backslash.
        Some(']') => {
            let mut ahead = chars.clone();
            for _ in 0..LONGEST_TITLE {
                let Some(c) = ahead.next() else { break };
                if c == '\u{7}' || c == '\u{1b}' && ahead.next_if_eq(&'\\').is_some() {
                    *chars = ahead;
                    break;
                }
            }
        }
        _ => {}
    }
}

/// Skips the parameters of a control sequence and the letter that ends it.
fn skip_parameters(chars: &mut Peekable<Chars<'_>>) {
    while chars.next_if(|c| (' '..='?').contains(c)).is_some() {}
    chars.next_if(|c| ('@'..='~').contains(c));
}

fn escape_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push_str(&format!("\\x{byte:02x}"));
    }
}

/// Returns whether a character can make a text read as another one: marks of direction and of isolation, and
/// the separators of lines and paragraphs, which some programs show as new lines.
fn misleads(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped() {
        assert_eq!(printable(b"a\x1b[2J\n\xffb"), "a\\u{1b}[2J\\n\\xffb");
        assert_eq!(printable("f\u{202e}txt".as_bytes()), "f\\u{202e}txt");
        assert_eq!(printable("a\u{2028}b\u{200f}".as_bytes()), "a\\u{2028}b\\u{200f}");
        assert_eq!(printable("Übung".as_bytes()), "Übung");
    }

    #[test]
    fn long_names_are_cut_visibly() {
        assert_eq!(short(b"abc", 3), "abc");
        assert_eq!(short(b"abcd", 3), "abc…");
        assert_eq!(short(b"\x1b\x1b", 8), "\\u{1b}\\u…");
        assert_eq!(short("aüü".as_bytes(), 4), "aü\\…");
        for most in 0..20 {
            let text = short("a\u{202e}ü\x07\n€x".repeat(5).as_bytes(), most);
            assert!(text.len() <= most + '…'.len_utf8(), "{text}");
        }
    }

    #[test]
    fn messages_are_one_line_without_terminal_sequences() {
        let read = |text: &str| message(text.as_bytes(), LONGEST_TEXT);
        assert_eq!(read("first\r\n\n  second\tpart \n"), "first | second part");
        assert_eq!(read("10%\r20%\rdone"), "10% | 20% | done");
        assert_eq!(read("\u{1b}[1;31merror:\u{1b}[0m no\u{7} \u{202e}space"), "error: no space");
        assert_eq!(read("\u{1b}]0;title\u{7}a\u{1b}]0;title\u{1b}\\b\u{9b}5nc"), "abc");
        assert_eq!(read("\u{1b}]0;no end\u{1b}"), "]0;no end");
        assert_eq!(message(b"caf\xe9 \x1b[\xff", LONGEST_TEXT), "caf\\xe9 \\xff");
        assert_eq!(read("\u{1b}[2J\u{7}\n"), "");
    }

    #[test]
    fn long_messages_keep_their_beginning_and_their_end() {
        let text = format!("tar: {}: Permission denied", "x".repeat(1000));
        let text = message(text.as_bytes(), LONGEST_TEXT);
        assert!(text.starts_with("tar: x") && text.ends_with("x: Permission denied"), "{text}");
        assert_eq!(text.len(), LONGEST_TEXT + '…'.len_utf8());
        for most in 0..20 {
            let text = message("a\u{202e}ü\x07\n€x".repeat(5).as_bytes(), most);
            assert!(text.len() <= most + '…'.len_utf8(), "{text}");
        }
    }
}
