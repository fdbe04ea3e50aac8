//! Records of the list of entries.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

use rustix::fs::{FileType, Stat, readlinkat};

use super::super::open::{kind, permissions};
use super::super::walk::Entry;

/// Writes the record of an entry in place of the last one.
pub(super) fn describe(record: &mut Vec<u8>, entry: &Entry<'_>, stat: &Stat, owners: bool) -> io::Result<()> {
    record.clear();
    record.extend_from_slice(entry.path);
    record.extend_from_slice(b"//");
    record.push(letter(kind(stat)));
    record.extend_from_slice(b"//");
    match kind(stat) {
        FileType::RegularFile => write!(record, "{}", stat.st_size)?,
        FileType::Symlink => {
            let target = readlinkat(entry.directory.as_fd(), entry.name, Vec::new())?;
            record.extend_from_slice(target.to_bytes());
        }
        _ => {}
    }
    if owners {
        write!(record, "//{:o} {} {}", permissions(stat), stat.st_uid, stat.st_gid)?;
        if kind(stat) == FileType::RegularFile {
            write!(record, " {}", stat.st_mtime)?;
        }
    }
    Ok(())
}

/// Returns the letter of a type, as `find` prints it.
fn letter(kind: FileType) -> u8 {
    match kind {
        FileType::RegularFile => b'f',
        FileType::Directory => b'd',
        FileType::Symlink => b'l',
        FileType::Fifo => b'p',
        FileType::Socket => b's',
        FileType::CharacterDevice => b'c',
        FileType::BlockDevice => b'b',
        FileType::Unknown => b'U',
    }
}
