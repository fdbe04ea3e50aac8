//! Checks of the source's path.

use super::{Findings, Side, shown};
use crate::config::settings::Settings;
use crate::config::values::TransferType;
use crate::host::facts::PathType;

impl Findings {
    /// Refuses a path that cannot be copied with the transfer type.
    pub(super) fn path(&mut self, settings: &Settings, side: Side<'_>) {
        let (path, facts) = (shown(&side.endpoint.path), side.facts);
        let source = facts.source.clone().unwrap_or_default();
        let wanted = match settings.transfer_type {
            TransferType::File => "give a file or a directory",
            TransferType::Backup => "give the socket of a server, such as /run/mysqld/mysqld.sock",
            TransferType::Decompress => "give an archive",
            TransferType::Compress => "give a file, a directory or the socket of a server",
        };
        match (settings.transfer_type, source.path_type) {
            (_, PathType::Missing) => self.refuse(&format!("{path} does not exist"), "check the path"),
            (_, PathType::Symlink) => self.refuse(
                &format!("{path} is a symbolic link"),
                &format!("give the path that it points to: {}", shown(&source.real)),
            ),
            (TransferType::Backup | TransferType::Compress, PathType::Socket) => {}
            (TransferType::File, PathType::Socket) => self.refuse(
                &format!("{path} is a socket"),
                "give a file or a directory, or copy the server behind the socket with --type mariabackup",
            ),
            _ if side.endpoint.name().is_none() => self.refuse(
                &format!("{path} has no last component to name the copy after"),
                "give a directory below it, without . or .. at the end",
            ),
            (TransferType::File | TransferType::Compress, PathType::Directory)
            | (TransferType::File | TransferType::Compress | TransferType::Decompress, PathType::File) => {
                if !source.readable {
                    self.refuse(&format!("uid {} cannot read {path}", facts.uid), "log in as a user who can");
                }
            }
            (_, other) => self.refuse(&format!("{path} is a {other}"), wanted),
        }
    }
}
