//! Binlog position at which a replica starts, from the metadata of its backup.

use crate::error::Error;
use crate::mariadb::plan::{Position, Whose};
use crate::report::outcome::BackupFacts;

/// Returns the binlog position of the copy.
pub(super) fn position(whose: Whose, backup: Option<&BackupFacts>) -> Result<Position, Error> {
    let found = backup.and_then(|backup| match whose {
        Whose::Own if !backup.gtid.is_empty() => Some(Position::Gtid(backup.gtid.clone())),
        Whose::Own => backup.binlog.clone().map(|(file, position)| Position::File(file, position)),
        Whose::Upstream => backup.source_position.as_deref().and_then(of_statement),
    });
    found.ok_or_else(|| Error::Failed("the backup does not contain its binlog position".into()))
}

/// Parses the position from the statements in a backup of a replica.
fn of_statement(text: &str) -> Option<Position> {
    let quoted = |key: &str| {
        let rest = text.split_once(key)?.1.trim_start().strip_prefix('=')?.trim_start().strip_prefix('\'')?;
        Some(rest.split_once('\'')?.0.to_owned())
    };
    if let Some(gtid) = quoted("gtid_slave_pos").filter(|gtid| !gtid.is_empty()) {
        return Some(Position::Gtid(gtid));
    }
    let rest = text.split_once("MASTER_LOG_POS")?.1.trim_start().strip_prefix('=')?.trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
    Some(Position::File(quoted("MASTER_LOG_FILE")?, digits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_is_parsed_from_the_backup_of_a_replica() {
        let gtid =
            "SET GLOBAL gtid_slave_pos = '0-1-6,5-9-100';\nCHANGE MASTER TO master_use_gtid = slave_pos;";
        assert_eq!(of_statement(gtid), Some(Position::Gtid("0-1-6,5-9-100".into())));
        let named =
            "SET GLOBAL gtid_slave_pos = '0-1-6';\nCHANGE MASTER 'main' TO master_use_gtid = slave_pos;";
        assert_eq!(of_statement(named), Some(Position::Gtid("0-1-6".into())));
        let file = "CHANGE MASTER TO MASTER_LOG_FILE='mysql-bin.000007', MASTER_LOG_POS=1234;\n";
        assert_eq!(of_statement(file), Some(Position::File("mysql-bin.000007".into(), 1234)));
        for text in ["", "CHANGE MASTER TO", "MASTER_LOG_FILE='x', MASTER_LOG_POS=", "gtid_slave_pos = ''"] {
            assert_eq!(of_statement(text), None, "{text}");
        }
    }
}
