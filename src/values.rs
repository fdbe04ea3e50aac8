//! The values of options: each is read from one word, the same on the command line, in a file and in the environment.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use crate::endpoint::HostName;

/// What to transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferType {
    /// A file or a directory tree
    File,
    /// A hot backup; not in this version
    #[value(hide = true)]
    Xtrabackup,
    /// An archive that is unpacked on the target; not in this version
    #[value(hide = true)]
    Decompress,
}

/// What to open of a firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirewallChoice {
    /// Every layer that is in use on the target
    Auto,
    /// iptables only, both back ends
    Iptables,
    /// Native nftables only
    Nftables,
    /// Open nothing
    None,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProgressChoice {
    /// A bar on a terminal, plain lines elsewhere
    Auto,
    /// A bar
    Bar,
    /// Lines, one in ten seconds
    Plain,
    /// Nothing
    None,
}

/// The digest of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileDigest {
    /// MD5, by md5sum
    Md5,
    /// SHA-256, by sha256sum
    Sha256,
    /// The 512 bits of `BLAKE2b`, by b2sum
    Blake2b,
}

impl FileDigest {
    /// As the option calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Sha256 => "sha256",
            Self::Blake2b => "blake2b",
        }
    }

    /// The program of coreutils that takes it.
    #[must_use]
    pub fn program(self) -> &'static str {
        match self {
            Self::Md5 => "md5sum",
            Self::Sha256 => "sha256sum",
            Self::Blake2b => "b2sum",
        }
    }
}

/// A program that compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compressor {
    /// zstd
    Zstd,
    /// pigz; gzip's format, on several processors
    Pigz,
    /// gzip
    Gzip,
    /// lz4
    Lz4,
}

impl Compressor {
    /// Its name, which is its program's and its Debian package's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Pigz => "pigz",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
        }
    }

    /// Its highest level without options of its own.
    #[must_use]
    pub fn highest_level(self) -> u8 {
        match self {
            Self::Zstd => 19,
            Self::Lz4 => 12,
            Self::Pigz | Self::Gzip => 9,
        }
    }
}

/// Whether and how to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// Not at all.
    No,
    /// With the first of zstd, pigz and gzip that all ends have.
    Auto,
    /// With this one.
    With(Compressor),
}

impl FromStr for Compress {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Ok(match word.to_ascii_lowercase().as_str() {
            "true" | "auto" | "yes" | "on" | "1" => Self::Auto,
            "false" | "none" | "no" | "off" | "0" => Self::No,
            "zstd" => Self::With(Compressor::Zstd),
            "pigz" => Self::With(Compressor::Pigz),
            "gzip" => Self::With(Compressor::Gzip),
            "lz4" => Self::With(Compressor::Lz4),
            _ => return Err("it is none of zstd, pigz, gzip, lz4, true and false".into()),
        })
    }
}

/// A time of `MIN` to `MAX` seconds: a number of seconds, or with units as in `90s`, `15m`, `1h30m`.
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
                .ok_or("it is neither a number of seconds nor a time like 15m or 1h30m")?,
        };
        if !(MIN..=MAX).contains(&seconds) {
            return Err(format!("it must be {MIN} to {MAX} seconds"));
        }
        Ok(Self(Duration::from_secs(seconds)))
    }
}

/// A whole number of `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole<const MIN: u32, const MAX: u32>(pub u32);

impl<const MIN: u32, const MAX: u32> FromStr for Whole<MIN, MAX> {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let number = word.parse().ok().filter(|number| (MIN..=MAX).contains(number));
        number.map(Self).ok_or_else(|| format!("it must be {MIN} to {MAX}"))
    }
}

/// First and last port of a range, written `4400-4500`, or one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The first.
    pub first: u16,
    /// The last; not before the first.
    pub last: u16,
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
        match (port(first), port(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self { first, last }),
            _ => Err("it is no range of ports: write FIRST-LAST, from 1 to 65535".into()),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// How much our programs stand back behind others: 0 (not at all) to 19.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nice(pub u8);

impl FromStr for Nice {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        match word.to_ascii_lowercase().as_str() {
            "true" => Ok(Self(10)),
            "false" => Ok(Self(0)),
            word => word
                .parse()
                .ok()
                .filter(|nice| *nice <= 19)
                .map(Self)
                .ok_or_else(|| "it must be 0 to 19".into()),
        }
    }
}

/// Whom the copy is given to, `USER`, `USER:GROUP` or `:GROUP`: names of the target, or numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner(pub String);

impl FromStr for Owner {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let names: Vec<&str> = word.split(':').collect();
        let good = |name: &str| {
            !name.starts_with(['-', '+'])
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-$".contains(&byte))
        };
        let said = names.iter().any(|name| !name.is_empty());
        // `USER:` would mean the user's login group, which nobody sees here.
        if names.len() > 2 || !said || word.ends_with(':') || !names.into_iter().all(good) {
            return Err("it is none of USER, USER:GROUP and :GROUP".into());
        }
        Ok(Self(word.to_owned()))
    }
}

/// The name of something in a directory: any bytes but a slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName(pub OsString);

impl FileName {
    /// Reads a name of any bytes.
    pub fn parse(name: &OsStr) -> Result<Self, String> {
        let bytes = name.as_bytes();
        if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') || bytes.contains(&0) {
            return Err("it is no name of a file: not empty, neither . nor .., and without a slash".into());
        }
        Ok(Self(name.to_owned()))
    }
}

/// Which entries are left out: a pattern of the shell (`*`, `?`, `[…]`), matched against whole components of the path
/// below the source, at any depth; one that begins with a slash begins at the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(pub OsString);

impl Pattern {
    /// Reads a pattern of any bytes.
    pub fn parse(pattern: &OsStr) -> Result<Self, String> {
        let bytes = pattern.as_bytes();
        if bytes.iter().all(|byte| *byte == b'/') || bytes.ends_with(b"/") || bytes.contains(&0) {
            return Err("it matches nothing: it is empty or ends with a slash".into());
        }
        // tar takes it for a backslash, find refuses it.
        if bytes.iter().rev().take_while(|byte| **byte == b'\\').count() % 2 == 1 {
            return Err("it ends with a backslash that escapes nothing".into());
        }
        Ok(Self(pattern.to_owned()))
    }

    /// As patterns of whole paths `./NAME/…`, which tar (`--anchored`) and find (`-path`) match alike.
    #[must_use]
    pub fn below(&self, name: &OsStr) -> Vec<Vec<u8>> {
        let mut top = b"./".to_vec();
        for &byte in name.as_bytes() {
            if b"*?[\\".contains(&byte) {
                top.push(b'\\');
            }
            top.push(byte);
        }
        let pattern = self.0.as_bytes();
        match pattern.strip_prefix(b"/") {
            Some(rest) => vec![[&top, &b"/"[..], rest].concat()],
            None => vec![[&top, &b"/"[..], pattern].concat(), [&top, &b"/*/"[..], pattern].concat()],
        }
    }
}

/// The address of a target on the data path: `ADDRESS`, or `HOST=ADDRESS` where there are several targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetAddress {
    /// Whose it is, where it is said.
    pub host: Option<HostName>,
    /// The address.
    pub address: IpAddr,
}

impl FromStr for TargetAddress {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let (host, address) = match word.split_once('=') {
            Some((host, address)) => (Some(host), address),
            None => (None, word),
        };
        Ok(Self {
            host: host
                .map(|host| HostName::parse(OsStr::new(host)))
                .transpose()
                .map_err(|error| error.to_string())?,
            address: address
                .trim_start_matches('[')
                .trim_end_matches(']')
                .parse()
                .map_err(|_| "it is no IP address, and no HOST=ADDRESS")?,
        })
    }
}

/// A scalar of any kind, as the word that it would be on the command line.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Switch(bool),
    Number(i64),
    Text(String),
}

/// For serde: a value that is read from one word.
pub fn from_word<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: FromStr<Err = String>,
{
    let word = match Scalar::deserialize(deserializer) {
        Ok(Scalar::Switch(on)) => on.to_string(),
        Ok(Scalar::Number(number)) => number.to_string(),
        Ok(Scalar::Text(text)) => text,
        Err(_) => {
            return Err(serde::de::Error::custom("it is neither a text nor a number nor true or false"));
        }
    };
    word.parse().map(Some).map_err(serde::de::Error::custom)
}

/// For serde: one value, or a list of them, each read from one word.
pub fn from_words<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: FromStr<Err = String>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Words {
        One(String),
        Many(Vec<String>),
    }
    let words = match Words::deserialize(deserializer) {
        Ok(Words::One(word)) => vec![word],
        Ok(Words::Many(words)) => words,
        Err(_) => return Err(serde::de::Error::custom("it is neither a text nor a list of texts")),
    };
    let values: Result<Vec<T>, String> = words.iter().map(|word| word.parse()).collect();
    values.map(Some).map_err(serde::de::Error::custom)
}

impl FromStr for FileName {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::parse(OsStr::new(word))
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::parse(OsStr::new(word))
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
        assert_eq!(time("1"), Err("it must be 2 to 86400 seconds".into()));
        assert!(time("-5s").is_err() && time("soon").is_err() && time("").is_err());
    }

    #[test]
    fn ranges_of_ports_have_an_order() {
        let range = |word: &str| word.parse::<PortRange>().map(|range| range.to_string());
        assert_eq!(range("4400-4500"), Ok("4400-4500".into()));
        assert_eq!(range("4444"), Ok("4444".into()));
        for word in ["4500-4400", "0-5", "1-70000", "a-b", "", "-"] {
            assert!(range(word).is_err(), "{word}");
        }
    }

    #[test]
    fn owners_are_names_or_numbers() {
        for word in ["mysql:mysql", "mysql", ":mysql", "114:120"] {
            assert!(word.parse::<Owner>().is_ok(), "{word}");
        }
        for word in ["", ":", "mysql:", "a:b:c", "-R:x", "a b", "$(id)", "+0:0"] {
            assert!(word.parse::<Owner>().is_err(), "{word}");
        }
    }

    #[test]
    fn patterns_and_names_that_match_nothing_are_refused() {
        for word in ["", "/", "logs/", "a\\"] {
            assert!(word.parse::<Pattern>().is_err(), "{word}");
        }
        assert!("a\\\\".parse::<Pattern>().is_ok());
        for word in ["", ".", "..", "a/b"] {
            assert!(word.parse::<FileName>().is_err(), "{word}");
        }
        assert!(FileName::parse(OsStr::from_bytes(b"-\xff\n")).is_ok());
    }

    #[test]
    fn a_pattern_stands_below_the_source_whose_own_name_is_no_pattern() {
        let below = |word: &str| word.parse::<Pattern>().unwrap().below(OsStr::new("a*b"));
        assert_eq!(below("*.log"), [b"./a\\*b/*.log".to_vec(), b"./a\\*b/*/*.log".to_vec()]);
        assert_eq!(below("/tmp"), [b"./a\\*b/tmp".to_vec()]);
    }

    #[test]
    fn a_target_address_may_name_its_host() {
        let address: TargetAddress = "db2=[fd77::12]".parse().unwrap();
        assert_eq!(address.host.unwrap().to_string(), "db2");
        assert_eq!(address.address.to_string(), "fd77::12");
        assert!("db2".parse::<TargetAddress>().is_err() && "-x=10.0.0.1".parse::<TargetAddress>().is_err());
    }
}
