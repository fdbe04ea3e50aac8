//! Durations, counts and ports.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Duration of `MIN` to `MAX` seconds: a number of seconds, or with units as in `90s`, `15m`, `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time<const MIN: u64, const MAX: u64>(pub Duration);

impl<const MIN: u64, const MAX: u64> FromStr for Time<MIN, MAX> {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let seconds = match word.parse::<u64>() {
            Ok(seconds) => seconds,
            Err(_) => word
                .parse::<jiff::SignedDuration>()
                .ok()
                .and_then(|time| u64::try_from(time.as_secs()).ok())
                .ok_or("expected a number of seconds, or a duration such as 15m or 1h30m")?,
        };
        if !(MIN..=MAX).contains(&seconds) {
            return Err(format!("must be {MIN} to {MAX} seconds"));
        }
        Ok(Self(Duration::from_secs(seconds)))
    }
}

/// Integer between `MIN` and `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole<const MIN: u32, const MAX: u32>(pub u32);

impl<const MIN: u32, const MAX: u32> FromStr for Whole<MIN, MAX> {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let number = word.parse().ok().filter(|number| (MIN..=MAX).contains(number));
        number.map(Self).ok_or_else(|| format!("must be {MIN} to {MAX}"))
    }
}

/// Amount of memory: bytes, or with a unit as in `512M` and `4GiB`; at least 64 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory(pub u64);

impl Memory {
    /// Minimum in bytes: with less, no server recovers.
    pub(crate) const LEAST: u64 = 64 << 20;
}

impl FromStr for Memory {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        // As MariaDB interprets them: M is 2^20.
        let size = parse_size::Config::new().with_binary().parse_size(word);
        let bytes = size.map_err(|_| "expected a size such as 512M or 4GiB")?;
        if bytes < Self::LEAST {
            return Err("must be at least 64M".into());
        }
        Ok(Self(bytes))
    }
}

/// Range of ports, written `4400-4500`, or one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port, not below the first.
    pub last: u16,
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err("expected FIRST-LAST, ports from 1 to 65535".into()),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// Nice value of the programs on hosts: 0 (default priority) to 19.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nice(pub u8);

impl FromStr for Nice {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word.to_ascii_lowercase().as_str() {
            "true" => Ok(Self(10)),
            "false" => Ok(Self(0)),
            word => {
                word.parse().ok().filter(|nice| *nice <= 19).map(Self).ok_or_else(|| "must be 0 to 19".into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_limits() {
        let time = |word: &str| word.parse::<Time<2, 86_400>>().map(|time| time.0.as_secs());
        assert_eq!(time("90"), Ok(90));
        assert_eq!(time("90s"), Ok(90));
        assert_eq!(time("1h30m"), Ok(5400));
        assert_eq!(time("1"), Err("must be 2 to 86400 seconds".into()));
        assert!(time("-5s").is_err() && time("soon").is_err() && time("").is_err());
    }

    #[test]
    fn memory_accepts_mariadb_units() {
        let bytes = |word: &str| word.parse::<Memory>().map(|memory| memory.0);
        assert_eq!(bytes("512M"), Ok(512 << 20));
        assert_eq!(bytes("4GiB"), Ok(4 << 30));
        assert_eq!(bytes("134217728"), Ok(128 << 20));
        assert_eq!(bytes("63M"), Err("must be at least 64M".into()));
        assert!(bytes("much").is_err() && bytes("-1G").is_err());
    }

    #[test]
    fn port_ranges_are_ordered() {
        let range = |word: &str| word.parse::<PortRange>().map(|range| range.to_string());
        assert_eq!(range("4400-4500"), Ok("4400-4500".into()));
        assert_eq!(range("4444"), Ok("4444".into()));
        for word in ["4500-4400", "0-5", "1-70000", "a-b", "", "-"] {
            assert!(range(word).is_err(), "{word}");
        }
    }
}
