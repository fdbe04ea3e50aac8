//! Checks of an archive that is to be unpacked.

use super::{Findings, Side, shown};
use crate::config::settings::Settings;
use crate::config::values::TransferType;
use crate::proto::facts::path::{Content, Format};
use crate::shape::Shape;

impl Findings {
    /// Checks an archive that is to be unpacked.
    pub(super) fn archive(&mut self, settings: &Settings, side: Side<'_>) {
        if settings.transfer_type != TransferType::Decompress {
            return;
        }
        let path = shown(&side.endpoint.path);
        let Some(archive) = side.facts.source.as_ref().and_then(|source| source.archive) else { return };
        match archive.content {
            Content::Tar | Content::Backup => {}
            Content::Other => self.refuse(
                &format!(
                    "{path} is not an archive (expected a tar or a backup stream, plain or in gzip, zstd, \
                     lz4 or xz)"
                ),
                "copy it as it is with --type file",
            ),
            Content::Unknown => {
                self.warn(&format!("cannot determine the format of {path}"), "it is assumed to be a tar");
            }
        }
        if archive.bytes.is_none() || archive.at_least {
            self.warn(
                &format!("the unpacked size of {path} is unknown"),
                "make sure that the targets have enough free space",
            );
        }
    }

    /// Checks that a target has the program that unpacks what it receives.
    pub(super) fn unpacker(&mut self, settings: &Settings, source: Side<'_>, side: Side<'_>) {
        if let Some((program, package)) = Shape::of(settings, source.facts).packed.map(Format::program) {
            self.needs(side.facts, program, package);
        }
    }
}
