//! What can stand against the source's path.

use super::{Findings, Side, shown};
use crate::settings::Settings;
use crate::values::TransferType;

impl Findings {
    pub(super) fn path(&mut self, settings: &Settings, side: Side<'_>) {
        let (path, facts) = (shown(&side.endpoint.path), side.facts);
        let source = facts.source.clone().unwrap_or_default();
        let wanted = match settings.transfer_type {
            TransferType::File => "name a file or a directory",
            TransferType::Backup => "name the socket of a server, such as /run/mysqld/mysqld.sock",
            TransferType::Decompress => "name an archive",
            TransferType::Compress => "name a file, a directory, or the socket of a server",
        };
        match (settings.transfer_type, source.file_type.as_str()) {
            (_, "missing" | "") => self.refuse(&format!("{path} does not exist"), "check the path"),
            (_, "symbolic link") => self.refuse(
                &format!("{path} is a symbolic link"),
                &format!("name what it points to: {}", shown(&source.real)),
            ),
            (TransferType::Backup | TransferType::Compress, "socket") => {}
            (TransferType::File, "socket") => self.refuse(
                &format!("{path} is a socket"),
                "name a file or a directory; or copy the server that listens there with --type mariabackup",
            ),
            _ if side.endpoint.name().is_none() => self.refuse(
                &format!("{path} has no name of its own that it could get on the target"),
                "name a directory in it, and no . or .. at the end",
            ),
            (TransferType::File | TransferType::Compress, "directory")
            | (
                TransferType::File | TransferType::Compress | TransferType::Decompress,
                "regular file" | "regular empty file",
            ) => {
                if !source.readable {
                    self.refuse(
                        &format!("{path} cannot be read by user id {}", facts.uid),
                        "log in as a user who may",
                    );
                }
            }
            (_, other) => self.refuse(&format!("{path} is a {other}"), wanted),
        }
    }
}
