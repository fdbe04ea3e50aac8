//! Patterns for whole paths, as those of `find -path`: `fnmatch` without flags, on bytes.

/// Pattern in which `*`, `?` and `[…]` match every byte, also a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<u8>);

/// Result of a comparison of one byte with an element of a pattern.
enum Step {
    /// The byte matches; the rest of the pattern begins here.
    Match(usize),
    /// The byte does not match.
    Differs,
}

impl Pattern {
    /// Creates a pattern. Every byte string is one.
    pub(crate) fn new(pattern: impl Into<Vec<u8>>) -> Self {
        Self(pattern.into())
    }

    /// Returns whether the pattern matches the whole path.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        let pattern = self.0.as_slice();
        let (mut at, mut read) = (0, 0);
        // Only the last `*` has to be tried again: an earlier one gains nothing by matching more.
        let mut last_star: Option<(usize, usize)> = None;
        loop {
            if pattern.get(at) == Some(&b'*') {
                at += 1;
                last_star = Some((at, read));
                continue;
            }
            let step = match path.get(read) {
                Some(&byte) => one(pattern, at, byte),
                None if at == pattern.len() => return true,
                None => return false,
            };
            match (step, last_star) {
                (Step::Match(next), _) => (at, read) = (next, read + 1),
                (Step::Differs, Some((after, matched))) => {
                    (at, read) = (after, matched + 1);
                    last_star = Some((after, matched + 1));
                }
                (Step::Differs, None) => return false,
            }
        }
    }
}

/// Compares a byte with the element of the pattern at a position.
fn one(pattern: &[u8], at: usize, byte: u8) -> Step {
    let matched = |is_match: bool, next: usize| if is_match { Step::Match(next) } else { Step::Differs };
    match pattern.get(at) {
        None => Step::Differs,
        Some(b'?') => Step::Match(at + 1),
        Some(b'\\') => match pattern.get(at + 1) {
            Some(&literal) => matched(literal == byte, at + 2),
            None => Step::Differs,
        },
        Some(b'[') => match bracket(pattern, at + 1, byte) {
            Some((is_match, next)) => matched(is_match, next),
            // Without its end it is an ordinary character.
            None => matched(byte == b'[', at + 1),
        },
        Some(&literal) => matched(literal == byte, at + 1),
    }
}

/// Returns whether a bracket expression matches a byte, and where it ends; `None` if it does not end.
fn bracket(pattern: &[u8], start: usize, byte: u8) -> Option<(bool, usize)> {
    let is_negated = matches!(pattern.get(start)?, b'!' | b'^');
    let first = start + usize::from(is_negated);
    let (mut at, mut is_match) = (first, false);
    loop {
        if *pattern.get(at)? == b']' && at > first {
            return Some((is_match != is_negated, at + 1));
        }
        if let Some((class, next)) = named(pattern, at, b':') {
            is_match |= is_in_class(class, byte);
            at = next;
            continue;
        }
        let (low, next) = element(pattern, at)?;
        at = next;
        let is_range = pattern.get(at) == Some(&b'-') && pattern.get(at + 1).is_some_and(|end| *end != b']');
        let high = if is_range {
            let (high, next) = element(pattern, at + 1)?;
            at = next;
            high
        } else {
            low
        };
        is_match |= (low..=high).contains(&byte);
    }
}

/// Returns a character of a bracket expression, and where the next one begins.
fn element(pattern: &[u8], at: usize) -> Option<(u8, usize)> {
    for mark in [b'.', b'='] {
        if let Some(([character], next)) = named(pattern, at, mark) {
            return Some((*character, next));
        }
    }
    match *pattern.get(at)? {
        b'\\' => Some((*pattern.get(at + 1)?, at + 2)),
        character => Some((character, at + 1)),
    }
}

/// Returns the name in `[:NAME:]` or with another mark, and where that ends.
fn named(pattern: &[u8], at: usize, mark: u8) -> Option<(&[u8], usize)> {
    let rest = pattern.get(at..)?.strip_prefix(&[b'[', mark])?;
    let length = rest.windows(2).position(|pair| pair == [mark, b']'])?;
    Some((&rest[..length], at + 2 + length + 2))
}

fn is_in_class(class: &[u8], byte: u8) -> bool {
    match class {
        b"alpha" => byte.is_ascii_alphabetic(),
        b"digit" => byte.is_ascii_digit(),
        b"alnum" => byte.is_ascii_alphanumeric(),
        b"upper" => byte.is_ascii_uppercase(),
        b"lower" => byte.is_ascii_lowercase(),
        b"space" => byte.is_ascii_whitespace() || byte == 0x0b,
        b"blank" => matches!(byte, b' ' | b'\t'),
        b"punct" => byte.is_ascii_punctuation(),
        b"print" => byte == b' ' || byte.is_ascii_graphic(),
        b"graph" => byte.is_ascii_graphic(),
        b"cntrl" => byte.is_ascii_control(),
        b"xdigit" => byte.is_ascii_hexdigit(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        Pattern::new(pattern).matches(path.as_bytes())
    }

    #[test]
    fn wildcards_match_slashes() {
        assert!(matches("./d/*.tmp", "./d/a/b.tmp"));
        assert!(matches("./d?a", "./d/a"));
        assert!(matches("./d[!x]a", "./d/a"));
        assert!(matches("*", "") && matches("./*/.hidden", "./d/.hidden"));
        assert!(!matches("./d/*.tmp", "./d/a.tmp2") && !matches("./d", "./d/a") && !matches("?", ""));
    }

    #[test]
    fn several_stars_are_tried_again() {
        assert!(matches("*a*b*c", "xxaxbxcxaybyc"));
        assert!(!matches("*a*b*c", "xxaxbxcxaybyd"));
        let start = std::time::Instant::now();
        assert!(!matches(&"*a".repeat(50), &("a".repeat(49) + "b").repeat(50).replace('b', "c")[..49]));
        assert!(start.elapsed().as_secs() < 5);
    }

    #[test]
    fn escapes_are_literal() {
        assert!(matches("a\\*b", "a*b") && !matches("a\\*b", "axb"));
        assert!(matches("a\\[b", "a[b") && matches("a[\\]]b", "a]b"));
        assert!(!matches("a\\", "a\\") && !matches("a\\", "a"));
    }

    #[test]
    fn brackets_are_sets_of_bytes() {
        assert!(matches("[a-c]", "b") && !matches("[a-c]", "d") && !matches("[c-a]", "b"));
        assert!(matches("[^a-c]", "d") && matches("[]a]", "]") && matches("[!]]", "a"));
        assert!(matches("[a-]", "-") && matches("[-a]", "-"));
        assert!(matches("[[:digit:]x]", "7") && matches("[[:digit:]x]", "x") && !matches("[[:digit:]]", "a"));
        assert!(matches("[[.a.]-c]", "b"));
        assert!(Pattern::new(*b"[\xf0-\xff]").matches(b"\xf5"));
    }

    #[test]
    fn unfinished_brackets_are_literal() {
        assert!(matches("a[b", "a[b") && matches("[", "[") && matches("[!", "[!") && matches("[]", "[]"));
    }

    #[test]
    fn braces_and_double_stars_are_nothing_special() {
        assert!(matches("{a,b}", "{a,b}") && !matches("{a,b}", "a"));
        assert!(matches("a**b", "a/x/b"));
    }
}
