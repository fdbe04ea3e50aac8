//! Several hosts in one word, in the syntax of `ClusterShell`: `db[1-20]:/srv` and `db{1,3,7}:/srv`.
//!
//! Numbers, ranges and lists of both are in brackets or braces, any number of times in a name. Leading zeros
//! are kept (`db[01-20]`), and so is the order. Nothing is expanded behind the host's colon.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// Maximum number of hosts in one word.
const MOST: usize = 1000;
/// Maximum number of digits of a number.
const DIGITS: usize = 9;

/// Error in a word with several hosts.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum FleetError {
    /// Unbalanced bracket, or something other than numbers inside.
    #[error(
        "'{0}' is not a list of numbers (at most {DIGITS} digits) and ranges; write db[1-20] or db{{1,3,7}}"
    )]
    List(String),
    /// Too many hosts.
    #[error("names more than {MOST} hosts")]
    Most,
}

/// Expands a word to one word per host, or to itself.
///
/// # Errors
/// When brackets or braces in its host hold no list of numbers, or name too many hosts.
pub(crate) fn expand(word: &OsStr) -> Result<Vec<OsString>, FleetError> {
    let bytes = word.as_bytes();
    let end = host_end(bytes);
    let mut words: Vec<Vec<u8>> = vec![Vec::new()];
    let mut at = 0;
    while at < end {
        let close = match bytes[at] {
            // Brackets of an address: a list has no colon.
            b'[' if is_address(&bytes[at..end]) => None,
            b'[' => Some(b']'),
            b'{' => Some(b'}'),
            _ => None,
        };
        let Some(close) = close else {
            for word in &mut words {
                word.push(bytes[at]);
            }
            at += 1;
            continue;
        };
        let length = bytes[at..end].iter().position(|byte| *byte == close);
        let list = length.map_or(&bytes[at..end], |length| &bytes[at + 1..at + length]);
        let numbers = match length {
            Some(_) => numbers(list)?,
            None => return Err(FleetError::List(crate::base::printable::printable(list))),
        };
        if words.len() * numbers.len() > MOST {
            return Err(FleetError::Most);
        }
        words = words
            .iter()
            .flat_map(|word| numbers.iter().map(|number| [word, number.as_bytes()].concat()))
            .collect();
        at += list.len() + 2;
    }
    Ok(words.into_iter().map(|word| OsString::from_vec([&word, &bytes[end..]].concat())).collect())
}

/// Returns the end of the host: the colon before the path, or the end of the word. A path on this machine has
/// no host.
fn host_end(bytes: &[u8]) -> usize {
    if bytes.first() == Some(&b'/') {
        return 0;
    }
    let mut open = false;
    bytes
        .iter()
        .position(|byte| {
            open = match byte {
                b'[' | b'{' => true,
                b']' | b'}' => false,
                _ => open,
            };
            *byte == b':' && !open
        })
        .unwrap_or(bytes.len())
}

/// Returns whether this bracket begins an IPv6 address.
fn is_address(bytes: &[u8]) -> bool {
    bytes.iter().take_while(|byte| **byte != b']').any(|byte| *byte == b':')
}

/// Expands `1-3,07` to `1`, `2`, `3`, `07`; a number that occurs twice is named once.
fn numbers(list: &[u8]) -> Result<Vec<String>, FleetError> {
    let ranges = std::str::from_utf8(list)
        .ok()
        .and_then(|text| text.split(',').map(Range::parse).collect::<Option<Vec<_>>>())
        .ok_or_else(|| FleetError::List(crate::base::printable::printable(list)))?;
    // Checked before the numbers are generated.
    if ranges.iter().map(Range::len).sum::<usize>() > MOST {
        return Err(FleetError::Most);
    }
    let mut numbers = Vec::new();
    for number in ranges.iter().flat_map(Range::numbers) {
        if !numbers.contains(&number) {
            numbers.push(number);
        }
    }
    Ok(numbers)
}

/// Number with its leading zeros.
#[derive(Clone, Copy)]
struct Number {
    value: u32,
    zeros: usize,
}

impl Number {
    fn parse(word: &str) -> Option<Self> {
        if word.len() > DIGITS || !word.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let value: u32 = word.parse().ok()?;
        Some(Self { value, zeros: word.len() - value.to_string().len() })
    }
}

/// Range of numbers in either direction, or one number.
struct Range {
    first: Number,
    last: Number,
}

impl Range {
    fn parse(word: &str) -> Option<Self> {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let range = Self { first: Number::parse(first)?, last: Number::parse(last)? };
        let (low, high) = range.ends();
        // `1-03` would need two widths.
        (low.zeros >= high.zeros).then_some(range)
    }

    /// Returns the lower and the higher end.
    fn ends(&self) -> (Number, Number) {
        if self.first.value > self.last.value { (self.last, self.first) } else { (self.first, self.last) }
    }

    fn len(&self) -> usize {
        self.first.value.abs_diff(self.last.value) as usize + 1
    }

    /// Returns the numbers in their order, with leading zeros: `09-11` is padded to the width of `09`, and in
    /// `01-011` every number has one zero.
    fn numbers(&self) -> impl Iterator<Item = String> {
        let (low, high) = self.ends();
        let is_reversed = self.first.value > self.last.value;
        (0..=high.value - low.value).map(move |step| {
            let text = if is_reversed { high.value - step } else { low.value + step }.to_string();
            let length = if low.zeros == high.zeros { text.len() } else { low.value.to_string().len() };
            format!("{text:0>width$}", width = low.zeros + length)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(word: &str) -> Result<Vec<String>, FleetError> {
        let words = expand(OsStr::new(word))?;
        Ok(words.into_iter().map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn ranges_and_lists_expand_in_order() {
        assert_eq!(expanded("db[1-3]:/srv").unwrap(), ["db1:/srv", "db2:/srv", "db3:/srv"]);
        assert_eq!(expanded("db{1,3,7}:/srv").unwrap(), ["db1:/srv", "db3:/srv", "db7:/srv"]);
        assert_eq!(
            expanded("root@db[09-11,2].eqiad").unwrap(),
            ["root@db09.eqiad", "root@db10.eqiad", "root@db11.eqiad", "root@db2.eqiad"]
        );
        assert_eq!(
            expanded("r[1-2]-db{1,3}:/x").unwrap(),
            ["r1-db1:/x", "r1-db3:/x", "r2-db1:/x", "r2-db3:/x"]
        );
        assert_eq!(expanded("db[1001-1003]").unwrap().len(), 3);
        assert_eq!(expanded("db[3-1]").unwrap(), ["db3", "db2", "db1"]);
        assert_eq!(expanded("db[1,1-2,2]").unwrap(), ["db1", "db2"]);
    }

    #[test]
    fn leading_zeros_are_kept() {
        assert_eq!(expanded("db[001-002]").unwrap(), ["db001", "db002"]);
        assert_eq!(expanded("db[10-09]").unwrap(), ["db10", "db09"]);
        assert_eq!(expanded("db[098-100]").unwrap(), ["db098", "db099", "db100"]);
        assert_eq!(expanded("db[09-010]").unwrap(), ["db09", "db010"]);
        assert_eq!(expanded("db[0,00,0-1]").unwrap(), ["db0", "db00", "db1"]);
    }

    #[test]
    fn other_words_are_unchanged() {
        for word in [
            "db1:/srv/a[1-3]",
            "/srv/{1,2}",
            "[fd77::11]:/srv",
            "root@[fd77::11]:/srv/[1]",
            "db1",
            "",
            "a:b:/c",
        ] {
            assert_eq!(expanded(word).unwrap(), [word]);
        }
        let raw = OsStr::from_bytes(b"db1:/\xff[1-2]");
        assert_eq!(expand(raw).unwrap(), [raw]);
    }

    #[test]
    fn rejects_invalid_lists_and_too_many_hosts() {
        for word in [
            "db[1-",
            "db[]:/srv",
            "db{a,b}:/srv",
            "db[1-2-3]",
            "db[1,]",
            "db[1-]",
            "db[+1]",
            "db[1-03]",
            "db{}",
            "db[1-9999999999]",
            "db[x]",
            "db{1],é[2}:/y",
            "db{1]x[2}",
        ] {
            assert!(matches!(expanded(word), Err(FleetError::List(_))), "{word}: {:?}", expanded(word));
        }
        for word in ["db[1-1001]", "db[1-999999999]", "db[999999999-1,2]", "db[1-999,1-999]"] {
            assert_eq!(expanded(word), Err(FleetError::Most), "{word}");
        }
        assert_eq!(expanded("db[1-100]x[1-100]"), Err(FleetError::Most));
        assert_eq!(
            expanded("db[a]:/srv").unwrap_err().to_string(),
            "'a' is not a list of numbers (at most 9 digits) and ranges; write db[1-20] or db{1,3,7}"
        );
    }
}
