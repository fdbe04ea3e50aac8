//! Form of a copy on the source and on the targets, and its publication there, by the type of the transfer
//! and the kind of the source. Pure.

use std::ffi::OsString;

use crate::base::endpoint::Endpoint;
use crate::config::settings::Settings;
use crate::config::values::{Compress, Compressor, TransferType};
use crate::host::facts::{Facts, Instance};
use crate::proto::facts::path::{Content, Format};

/// First stage of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Producer {
    /// tar of a file or a directory tree
    Tree,
    /// A hot backup
    Backup,
    /// The file itself
    File,
}

/// Last stage of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumer {
    /// tar, with the source's names
    Tree,
    /// Extractor of a hot backup
    Backup,
    /// Extractor of an archive
    Archive,
    /// A file
    File,
}

/// Way in which a copy gets its final name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publication {
    /// With one rename
    Name,
    /// Entry by entry, into an empty target directory
    Fill,
    /// Entry by entry, next to existing ones
    Add,
}

/// Form of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// First stage, on the source.
    pub producer: Producer,
    /// Compression that the source's data has already.
    pub packed: Option<Format>,
    /// Last stage, on the targets.
    pub consumer: Consumer,
    /// Publication on the targets.
    pub publication: Publication,
}

impl Shape {
    /// Returns the form for a transfer.
    #[must_use]
    pub(crate) fn of(settings: &Settings, source: &Facts) -> Self {
        let filling = if Self::fills(settings) { Publication::Fill } else { Publication::Name };
        let archive = source.source.as_ref().and_then(|source| source.archive);
        let of_source = if source.instance.is_some() { Producer::Backup } else { Producer::Tree };
        let (producer, consumer, publication) = match settings.transfer_type {
            TransferType::File => (Producer::Tree, Consumer::Tree, Publication::Name),
            TransferType::Backup => (Producer::Backup, Consumer::Backup, filling),
            TransferType::Decompress => {
                let backup = archive.is_some_and(|archive| archive.content == Content::Backup);
                (Producer::File, if backup { Consumer::Backup } else { Consumer::Archive }, filling)
            }
            TransferType::Compress => (of_source, Consumer::File, Publication::Add),
        };
        let packed = archive.filter(|_| producer == Producer::File).and_then(|archive| archive.format);
        Self { producer, packed, consumer, publication }
    }

    /// Returns whether the copy has no name of its own and fills the target directory.
    #[must_use]
    pub(crate) fn fills(settings: &Settings) -> bool {
        settings.rename.is_none()
            && matches!(settings.transfer_type, TransferType::Backup | TransferType::Decompress)
    }

    /// Returns whether each file can be compared with the source's.
    #[must_use]
    pub(crate) fn compares_files(self) -> bool {
        (self.producer, self.consumer) == (Producer::Tree, Consumer::Tree)
    }
}

/// Returns the name of the copy; `None` if it fills the target directory. The name of an archive depends on
/// the source and the programs there.
#[must_use]
pub(crate) fn final_name(settings: &Settings, source: &Endpoint, facts: Option<&Facts>) -> Option<OsString> {
    match (&settings.rename, settings.transfer_type) {
        (Some(name), _) => Some(name.0.clone()),
        (None, TransferType::File) => Some(source.name().unwrap_or_default().to_owned()),
        (None, TransferType::Compress) => facts.map(|facts| archive_name(settings, source, facts)),
        (None, TransferType::Backup | TransferType::Decompress) => None,
    }
}

/// `sqldata.tar.zst`, or `mysql.xb.zst` for a server whose data directory is named `mysql`.
fn archive_name(settings: &Settings, source: &Endpoint, facts: &Facts) -> OsString {
    let datadir = facts.instance.as_ref().map(Instance::datadir);
    let (path, kind) = datadir.as_deref().map_or((&*source.path, "tar"), |datadir| (datadir, "xb"));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{kind}"));
    if let Some(program) = archiver(settings, facts) {
        name.push(format!(".{}", program.extension()));
    }
    name
}

/// Returns the compressor for an archive of the source: the first one that the source has.
#[must_use]
pub(crate) fn archiver(settings: &Settings, facts: &Facts) -> Option<Compressor> {
    match settings.compress {
        Compress::No => None,
        Compress::With(program) => Some(program),
        Compress::Auto if facts.has("zstd") => Some(Compressor::Zstd),
        Compress::Auto if facts.has("pigz") => Some(Compressor::Pigz),
        Compress::Auto => Some(Compressor::Gzip),
    }
}
