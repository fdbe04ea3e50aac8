//! What a copy is made of on the source, what takes it on a target, and how it gets its name there: by the type of the
//! transfer and by what the source is. Pure.

use std::ffi::OsString;

use crate::endpoint::Endpoint;
use crate::host::facts::{Content, Facts, Format, Instance};
use crate::settings::Settings;
use crate::values::{Compress, Compressor, TransferType};

/// What begins the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Producer {
    /// tar, of a file or a tree
    Tree,
    /// A hot backup
    Backup,
    /// The file as it is
    File,
}

/// What ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumer {
    /// tar, with the names of the source
    Tree,
    /// The files of a hot backup
    Backup,
    /// What is in an archive
    Archive,
    /// One file
    File,
}

/// How what has arrived gets its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Publication {
    /// All of it by one rename
    Name,
    /// Entry by entry, into the target directory, which is empty
    Fill,
    /// Entry by entry, beside others
    Add,
}

/// All of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// On the source.
    pub producer: Producer,
    /// How what it produces is compressed already.
    pub packed: Option<Format>,
    /// On the targets.
    pub consumer: Consumer,
    /// There, too.
    pub publication: Publication,
}

impl Shape {
    /// That of a transfer.
    #[must_use]
    pub fn of(settings: &Settings, source: &Facts) -> Self {
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

    /// The copy has no name of its own, whatever is copied.
    #[must_use]
    pub fn fills(settings: &Settings) -> bool {
        settings.rename.is_none()
            && matches!(settings.transfer_type, TransferType::Backup | TransferType::Decompress)
    }

    /// Every file can be compared with the source's.
    #[must_use]
    pub fn compares_files(self) -> bool {
        (self.producer, self.consumer) == (Producer::Tree, Consumer::Tree)
    }
}

/// The name that the copy gets; `None` where it fills the target directory itself. That of an archive depends on what the
/// source is and has.
#[must_use]
pub fn final_name(settings: &Settings, source: &Endpoint, facts: Option<&Facts>) -> Option<OsString> {
    match (&settings.rename, settings.transfer_type) {
        (Some(name), _) => Some(name.0.clone()),
        (None, TransferType::File) => Some(source.name().unwrap_or_default().to_owned()),
        (None, TransferType::Compress) => facts.map(|facts| archive_name(settings, source, facts)),
        (None, TransferType::Backup | TransferType::Decompress) => None,
    }
}

/// `sqldata.tar.zst`, or `mysql.xb.zst` of a server whose data directory is called `mysql`.
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

/// What compresses an archive that is made of the source: the first of those that it has.
#[must_use]
pub fn archiver(settings: &Settings, facts: &Facts) -> Option<Compressor> {
    match settings.compress {
        Compress::No => None,
        Compress::With(program) => Some(program),
        Compress::Auto if facts.has("zstd") => Some(Compressor::Zstd),
        Compress::Auto if facts.has("pigz") => Some(Compressor::Pigz),
        Compress::Auto => Some(Compressor::Gzip),
    }
}
