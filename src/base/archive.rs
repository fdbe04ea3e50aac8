//! Archives: their compression and their contents.

/// An archive and its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archive {
    /// Compression format.
    pub format: Option<Format>,
    /// Type of the decompressed contents.
    pub content: Content,
    /// Size of the decompressed contents, as far as the format records it.
    pub bytes: Option<u64>,
    /// The size is a lower bound.
    pub at_least: bool,
}

/// Compression format of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// gzip, also as written by pigz
    Gzip,
    /// Zstandard
    Zstd,
    /// LZ4
    Lz4,
    /// xz
    Xz,
}

impl Format {
    /// Returns the program that decompresses this format, and its Debian package.
    #[must_use]
    pub fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::Gzip => ("gzip", "gzip"),
            Self::Zstd => ("zstd", "zstd"),
            Self::Lz4 => ("lz4", "lz4"),
            Self::Xz => ("xz", "xz-utils"),
        }
    }
}

/// Contents of an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// tar archive.
    Tar,
    /// Stream of mariadb-backup or xtrabackup.
    Backup,
    /// Anything else.
    Other,
    /// Unknown, because the host cannot decompress the archive.
    Unknown,
}

impl Archive {
    pub(crate) fn parse(format: &str, content: &str, bytes: &str, how: &str) -> Self {
        Self {
            format: match format {
                "gzip" => Some(Format::Gzip),
                "zstd" => Some(Format::Zstd),
                "lz4" => Some(Format::Lz4),
                "xz" => Some(Format::Xz),
                _ => None,
            },
            content: match content {
                "tar" => Content::Tar,
                "xbstream" => Content::Backup,
                "other" => Content::Other,
                _ => Content::Unknown,
            },
            bytes: bytes.parse().ok(),
            at_least: how != "exact",
        }
    }
}
