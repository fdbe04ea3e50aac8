//! Metadata of a backup, from the files that the backup program wrote into it.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd;

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};

use crate::proto::Text;
use crate::proto::job::BackupFacts;

/// Maximum size of a file that is read.
const MOST_BYTES: u64 = 16 << 20;
/// Maximum length of a value. Longer ones are in the backup.
const MOST_CHARS: usize = 4000;
/// Names of xtrabackup, and of mariadb-backup since its version 11.
const PREFIXES: [&str; 2] = ["xtrabackup_", "mariadb_backup_"];
/// Files could be anything: a link is not followed, and a pipe is not waited for.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Reads the metadata of the backup in a directory; `None` if there is no backup.
pub(crate) fn read(directory: impl AsFd) -> Option<BackupFacts> {
    let part = |name: &str| part(&directory, name).unwrap_or_default();
    let state = value(&part("checkpoints"), "backup_type");
    if state.is_empty() {
        return None;
    }
    let info = part("info");
    let (binlog_file, binlog_position, gtid) = binlog(&part("binlog_info"));
    Some(BackupFacts {
        state,
        tool_name: value(&info, "tool_name"),
        tool_version: value(&info, "tool_version"),
        server_version: value(&info, "server_version"),
        binlog_file,
        binlog_position,
        gtid,
        source_position: bounded(part("slave_info").trim_end_matches('\n')),
    })
}

/// Returns the text of a file of the backup.
fn part(directory: impl AsFd, name: &str) -> Option<String> {
    PREFIXES.iter().find_map(|prefix| {
        let file = openat(&directory, format!("{prefix}{name}"), READ, Mode::empty()).ok()?;
        let stat = fstat(&file).ok()?;
        let is_small = u64::try_from(stat.st_size).is_ok_and(|size| size <= MOST_BYTES);
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !is_small {
            return None;
        }
        let mut bytes = Vec::new();
        File::from(file).take(MOST_BYTES).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    })
}

/// Returns the value of the first line `KEY = VALUE`.
fn value(text: &str, key: &str) -> Text {
    let of_key = |line: &str| line.strip_prefix(key)?.strip_prefix(" = ").map(Text::new);
    text.lines().find_map(of_key).unwrap_or_default()
}

/// Returns file, position and GTIDs, which are separated by tabs; GTIDs may have several lines.
fn binlog(text: &str) -> (Text, Option<u64>, String) {
    let mut fields = text.splitn(3, '\t');
    let file = Text::new(fields.next().unwrap_or_default().trim());
    let position = fields.next().and_then(|field| field.lines().next()?.trim().parse().ok());
    let gtid: String = fields.next().unwrap_or_default().split('\n').collect();
    (file, position, bounded(gtid.trim_end_matches('\t')))
}

fn bounded(text: &str) -> String {
    match text.char_indices().nth(MOST_CHARS) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, mkfifoat};
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn metadata_is_read_under_both_names() {
        let home = tempfile::tempdir().unwrap();
        let read = || read(File::open(home.path()).unwrap());
        let write = |name: &str, text: &str| fs::write(home.path().join(name), text).unwrap();
        assert_eq!(read(), None);
        write("xtrabackup_checkpoints", "backup_type = full-backuped\nfrom_lsn = 0\n");
        write("mariadb_backup_binlog_info", "db1-bin.000007\t1234\t0-1-5,\n1-1-6\n");
        write("mariadb_backup_info", "uuid = x\ntool_name = mariadb-backup\ntool_version = 11.8.2\n");
        write("xtrabackup_slave_info", "SET GLOBAL gtid_slave_pos = '0-1-5';\nCHANGE MASTER\n\n");
        let facts = read().unwrap();
        assert_eq!((facts.state.as_str(), facts.tool_name.as_str()), ("full-backuped", "mariadb-backup"));
        assert_eq!((facts.tool_version.as_str(), facts.server_version.as_str()), ("11.8.2", ""));
        assert_eq!((facts.binlog_file.as_str(), facts.binlog_position), ("db1-bin.000007", Some(1234)));
        assert_eq!(facts.gtid, "0-1-5,1-1-6");
        assert_eq!(facts.source_position, "SET GLOBAL gtid_slave_pos = '0-1-5';\nCHANGE MASTER");

        write("mariadb_backup_binlog_info", "db1-bin.000007\t1234\n");
        assert_eq!((read().unwrap().binlog_position, read().unwrap().gtid.as_str()), (Some(1234), ""));
        write("mariadb_backup_binlog_info", &format!("b\t1\t{}", "ü".repeat(5000)));
        assert_eq!(read().unwrap().gtid.chars().count(), MOST_CHARS + 1);
    }

    #[test]
    fn links_pipes_and_large_files_are_not_read() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        fs::write(path("secret"), "backup_type = stolen\n").unwrap();
        symlink(path("secret"), path("xtrabackup_checkpoints")).unwrap();
        mkfifoat(CWD, path("mariadb_backup_checkpoints"), Mode::RUSR).unwrap();
        assert_eq!(read(File::open(home.path()).unwrap()), None);
        fs::remove_file(path("mariadb_backup_checkpoints")).unwrap();
        let large = File::create(path("mariadb_backup_checkpoints")).unwrap();
        large.set_len(MOST_BYTES + 1).unwrap();
        assert_eq!(read(File::open(home.path()).unwrap()), None);
    }
}
