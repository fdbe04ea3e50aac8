//! The values of options: each is read from one word, the same on the command line, in a file and in the environment.

mod attributes;
mod hooks;
mod names;
mod numbers;
mod words;

use std::str::FromStr;

use serde::Deserialize;

pub use attributes::{AttributeKind, Attributes, files};
pub use hooks::{Hook, HookEnd, Phase, from_hooks};
pub use names::{FileName, HostPath, Owner, Pattern, TargetAddress, UnitName};
pub use numbers::{Memory, Nice, PortRange, Time, Whole};
pub use words::{from_word, from_words};

/// What to transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferType {
    /// A file or a directory tree
    File,
    /// A hot backup of the server behind a socket
    #[value(name = "mariabackup", aliases = ["xtrabackup", "mariadb-backup"])]
    #[serde(rename = "mariabackup", alias = "xtrabackup", alias = "mariadb-backup")]
    Backup,
    /// An archive that is unpacked on the target
    Decompress,
    /// A file, a directory tree or a hot backup that becomes an archive on the target
    Compress,
}

impl TransferType {
    /// As the option and the probe call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Backup => "mariabackup",
            Self::Decompress => "decompress",
            Self::Compress => "compress",
        }
    }
}

/// How the tables of two servers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TableCheck {
    /// By `CHECKSUM TABLE`
    Checksum,
    /// By their numbers of rows
    Rows,
}

impl TableCheck {
    /// As the option and the job call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Checksum => "checksum",
            Self::Rows => "rows",
        }
    }
}

/// Ends of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ends {
    /// The source
    Source,
    /// The targets
    Target,
    /// All of them
    Both,
    /// None of them
    None,
}

impl Ends {
    /// The source is one of them.
    #[must_use]
    pub fn source(self) -> bool {
        matches!(self, Self::Source | Self::Both)
    }

    /// The targets are.
    #[must_use]
    pub fn target(self) -> bool {
        matches!(self, Self::Target | Self::Both)
    }
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

    /// What names of its files end with.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Zstd => "zst",
            Self::Pigz | Self::Gzip => "gz",
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
