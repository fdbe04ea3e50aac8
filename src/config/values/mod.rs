//! Values of options. Each is parsed from one word, in the same way on the command line, in a file and in the
//! environment.

mod attributes;
mod hooks;
mod names;
mod numbers;
mod words;

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::proto::files::DigestKind;

pub(crate) use attributes::{AttributeKind, Attributes, files};
pub(crate) use hooks::{Hook, HookEnd, Phase, from_hooks};
pub use names::{FileName, HostPath, Owner, Pattern, TargetAddress, UnitName};
pub use numbers::{Memory, Nice, PortRange, Time, Whole};
pub(crate) use words::{from_word, from_words};

/// Type of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransferType {
    /// A file or a directory tree
    File,
    /// A hot backup of the server on a socket
    #[value(name = "mariabackup", aliases = ["xtrabackup", "mariadb-backup"])]
    #[serde(rename = "mariabackup", alias = "xtrabackup", alias = "mariadb-backup")]
    Backup,
    /// An archive that is unpacked on the target
    Decompress,
    /// A file, a directory tree or a hot backup that becomes an archive on the target
    Compress,
}

impl TransferType {
    /// Word for the option and the probe.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Backup => "mariabackup",
            Self::Decompress => "decompress",
            Self::Compress => "compress",
        }
    }
}

/// Comparison of the tables of two servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TableCheck {
    /// With `CHECKSUM TABLE`
    Checksum,
    /// By the number of rows
    Rows,
}

impl TableCheck {
    /// Word for the option and the job.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
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
    /// Source and targets
    Both,
    /// Neither
    None,
}

impl Ends {
    /// Returns whether the source is included.
    #[must_use]
    pub(crate) fn source(self) -> bool {
        matches!(self, Self::Source | Self::Both)
    }

    /// Returns whether the targets are included.
    #[must_use]
    pub(crate) fn target(self) -> bool {
        matches!(self, Self::Target | Self::Both)
    }
}

/// Firewall layers to open.
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

/// Display of progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProgressChoice {
    /// A bar on a terminal, plain lines elsewhere
    Auto,
    /// A bar
    Bar,
    /// Lines, one every ten seconds
    Plain,
    /// Nothing
    None,
}

/// Digest of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DigestAlgorithm {
    /// BLAKE3, several times as fast as the others
    Blake3,
    /// MD5
    Md5,
    /// SHA-256
    Sha256,
    /// The 512 bits of `BLAKE2b`
    Blake2b,
}

impl fmt::Display for DigestAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl DigestAlgorithm {
    /// Word for the option.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Blake3 => "blake3",
            Self::Md5 => "md5",
            Self::Sha256 => "sha256",
            Self::Blake2b => "blake2b",
        }
    }

    /// Returns the digest as agents name it.
    #[must_use]
    pub(crate) fn kind(self) -> DigestKind {
        match self {
            Self::Blake3 => DigestKind::Blake3,
            Self::Md5 => DigestKind::Md5,
            Self::Sha256 => DigestKind::Sha256,
            Self::Blake2b => DigestKind::Blake2b,
        }
    }
}

/// Compression program.
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
    /// Name of the program and of its Debian package.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Pigz => "pigz",
            Self::Gzip => "gzip",
            Self::Lz4 => "lz4",
        }
    }

    /// Suffix of its files.
    #[must_use]
    pub(crate) fn extension(self) -> &'static str {
        match self {
            Self::Zstd => "zst",
            Self::Pigz | Self::Gzip => "gz",
            Self::Lz4 => "lz4",
        }
    }

    /// Highest level that needs no further options.
    #[must_use]
    pub(crate) fn highest_level(self) -> u8 {
        match self {
            Self::Zstd => 19,
            Self::Lz4 => 12,
            Self::Pigz | Self::Gzip => 9,
        }
    }
}

/// Compression of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// None.
    No,
    /// The first of zstd, pigz and gzip that is present on all ends.
    Auto,
    /// The given program.
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
            _ => return Err("expected zstd, pigz, gzip, lz4, true or false".into()),
        })
    }
}
