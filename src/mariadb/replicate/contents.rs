//! Contents of the tables of a server, and how they differ from those of another one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::mem::size_of;
use std::time::Duration;

use super::error::{Named as _, Trouble};
use crate::base::printable::{LONGEST_PATH, LONGEST_TEXT, short};
use crate::base::statement::identifier;
use crate::config::values::TableCheck;
use crate::mariadb::sql::{Session, name, text};
use crate::proto::server::ResultSet;

/// Tables with contents of their own. Views and sequences have none; rows in memory or elsewhere are not
/// copied; the server's own tables differ on each server.
const LIST: &str = "SELECT table_schema, table_name, COALESCE(engine, '') FROM information_schema.tables
    WHERE table_type IN ('BASE TABLE', 'SYSTEM VERSIONED')
      AND table_schema NOT IN ('mysql', 'sys', 'performance_schema', 'information_schema')
      AND COALESCE(engine, '') NOT IN ('MEMORY', 'BLACKHOLE', 'FEDERATED', 'CONNECT', 'SPIDER', 'S3')";
/// Engines whose tables a snapshot covers.
const TRANSACTIONAL: [&str; 2] = ["InnoDB", "ROCKSDB"];
/// Time limit of the list, which takes long with very many tables.
const LIST_LIMIT: Duration = Duration::from_secs(3600);
/// Time limit of reading tables: none that matters.
const READ_LIMIT: Duration = Duration::from_secs(30 * 86_400);
/// Number of tables that are read by one request.
const BATCH: usize = 64;
/// The same for tables that are locked: a client that outlives its agent reads on to the end of its request.
const LOCKED_BATCH: usize = 8;
/// Maximum length in bytes of a name; servers permit 64 characters.
const LONGEST_NAME: usize = 512;
/// Maximum size of a list in memory: half a million tables.
const MOST_BYTES: usize = 128 << 20;
/// Size in memory of a table besides its names, about.
const TABLE_SIZE: usize = 2 * size_of::<Table>() + 64;
/// Maximum number of tables in a message; all differences are counted.
const MOST_NAMED: usize = 20;
/// Savepoint before each table.
const SAVEPOINT: &str = "transfer";

/// Table of a server.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Table {
    schema: Box<str>,
    name: Box<str>,
}

/// Checksum or number of rows of each table.
pub(super) type Contents = BTreeMap<Table, u64>;

/// Tables of a server.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Tables that a snapshot covers.
    pub(super) transactional: Vec<Table>,
    /// Tables that must be locked.
    pub(super) others: Vec<Table>,
    size: usize,
}

/// How tables are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// As they are.
    Plain,
    /// As they are, while others wait for their locks.
    Locked,
    /// In a snapshot that stays open: a change of the definition of a table waits while that one is read, and
    /// no longer.
    Snapshot,
}

impl Table {
    /// Returns the name for a statement.
    pub(super) fn quoted(&self) -> String {
        format!("{}.{}", identifier(&self.schema), identifier(&self.name))
    }

    fn statement(&self, check: TableCheck, reading: Reading) -> String {
        let table = self.quoted();
        let statement = match check {
            TableCheck::Checksum => format!("CHECKSUM TABLE {table} EXTENDED"),
            TableCheck::Rows => format!("SELECT COUNT(*) FROM {table}"),
        };
        match reading {
            Reading::Plain | Reading::Locked => format!("{statement};\n"),
            Reading::Snapshot => {
                format!("SAVEPOINT {SAVEPOINT};\n{statement};\nROLLBACK TO SAVEPOINT {SAVEPOINT};\n")
            }
        }
    }
}

/// Shows the table as users know it.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&short(format!("{}/{}", self.schema, self.name).as_bytes(), LONGEST_PATH))
    }
}

impl Tables {
    /// Lists the tables of a server.
    pub(super) async fn list(session: &Session<'_>) -> Result<Self, Trouble> {
        let mut tables = Self::default();
        let listed = session.execute_in_parts(LIST_LIMIT, LIST, |sets| tables.add(&sets)).await;
        match listed {
            Err(Trouble::Sql(error)) => Err(error).or_trouble("cannot list its tables"),
            other => other.map(|()| tables),
        }
    }

    /// Returns the tables of a list.
    #[cfg(test)]
    pub(super) fn of(sets: &[ResultSet]) -> Result<Self, Trouble> {
        let mut tables = Self::default();
        tables.add(sets).map(|()| tables)
    }

    fn add(&mut self, sets: &[ResultSet]) -> Result<(), Trouble> {
        for row in sets.iter().flat_map(|set| &set.rows) {
            let (schema, table) = (name(row, 0), name(row, 1));
            if [&schema, &table].iter().any(|name| name.is_empty() || name.len() > LONGEST_NAME) {
                let found = format!("{}/{}", text(row, 0), text(row, 1));
                return Err(Trouble::Name(short(found.as_bytes(), LONGEST_TEXT)));
            }
            self.size += TABLE_SIZE + schema.len() + table.len();
            if self.size > MOST_BYTES {
                return Err(Trouble::TooManyTables);
            }
            let is_transactional = TRANSACTIONAL.contains(&text(row, 2).as_str());
            let tables = if is_transactional { &mut self.transactional } else { &mut self.others };
            tables.push(Table { schema: schema.into(), name: table.into() });
        }
        Ok(())
    }
}

/// Reads tables and adds their contents.
pub(super) async fn read(
    session: &Session<'_>,
    check: TableCheck,
    reading: Reading,
    tables: Vec<Table>,
    contents: &mut Contents,
) -> Result<(), Trouble> {
    let most = if reading == Reading::Locked { LOCKED_BATCH } else { BATCH };
    let mut tables = tables.into_iter();
    loop {
        let batch: Vec<Table> = tables.by_ref().take(most).collect();
        if batch.is_empty() {
            return Ok(());
        }
        let statements: String = batch.iter().map(|table| table.statement(check, reading)).collect();
        let mut sets = session.execute(READ_LIMIT, &statements).await?.into_iter();
        for table in batch {
            let set = sets.next().unwrap_or_default();
            let field = set.rows.first().and_then(|row| row.last()).and_then(Option::as_ref);
            let number = field.and_then(|field| std::str::from_utf8(field.as_bytes()).ok()?.parse().ok());
            let Some(number) = number else {
                return Err(match field {
                    None if check == TableCheck::Checksum => no_checksum(session, &table).await,
                    field => Trouble::NoNumber {
                        table: table.to_string(),
                        found: field.map(ToString::to_string).unwrap_or_default(),
                    },
                });
            };
            contents.insert(table, number);
        }
    }
}

/// Returns why a table has no checksum, which is no error to the server.
async fn no_checksum(session: &Session<'_>, table: &Table) -> Trouble {
    let statements = format!("CHECKSUM TABLE {} EXTENDED; SHOW WARNINGS", table.quoted());
    match session.execute(READ_LIMIT, &statements).await {
        Err(error) => Trouble::Sql(error),
        Ok(sets) => {
            let warning = sets.get(1).and_then(|set| set.rows.first()).map(|row| text(row, 2));
            let why = warning.unwrap_or_else(|| "no reason reported".to_owned());
            Trouble::NoChecksum { table: table.to_string(), why: short(why.as_bytes(), LONGEST_TEXT) }
        }
    }
}

/// Differences between the tables of two servers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Differences {
    count: u64,
    named: Vec<String>,
}

impl Differences {
    /// Compares the tables of the donor with those of a replica; `None` if they agree.
    pub(super) fn between(there: &Contents, here: &Contents) -> Option<Self> {
        let mut differences = Self { count: 0, named: Vec::new() };
        for table in there.keys().chain(here.keys()).collect::<BTreeSet<_>>() {
            let difference = match (there.get(table), here.get(table)) {
                (Some(there), Some(here)) if there == here => continue,
                (Some(_), Some(_)) => " (different contents)",
                (_, None) => " is missing on the target",
                (None, _) => " is only on the target",
            };
            differences.count += 1;
            if differences.named.len() < MOST_NAMED {
                differences.named.push(format!("{table}{difference}"));
            }
        }
        (differences.count > 0).then_some(differences)
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.named.join(", ");
        match (self.count, self.count - self.named.len() as u64) {
            (1, _) => write!(f, "1 entry differs: {names}"),
            (count, 0) => write!(f, "{count} entries differ: {names}"),
            (count, more) => write!(f, "{count} entries differ: {names}, and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::HostBytes;

    fn table(schema: &str, name: &str) -> Table {
        Table { schema: schema.into(), name: name.into() }
    }

    fn listed(rows: &[[&str; 3]]) -> Result<Tables, Trouble> {
        let rows = rows.iter().map(|row| row.iter().map(|field| Some(HostBytes::from(field))).collect());
        Tables::of(&[ResultSet { rows: rows.collect(), ..ResultSet::default() }])
    }

    #[test]
    fn tables_are_told_apart_by_their_engine() {
        let rows = [["d", "a", "InnoDB"], ["d", "b", "MyISAM"], ["d", "c", "ROCKSDB"], ["d", "e", ""]];
        let tables = listed(&rows).unwrap();
        assert_eq!(tables.transactional, [table("d", "a"), table("d", "c")]);
        assert_eq!(tables.others, [table("d", "b"), table("d", "e")]);
    }

    #[test]
    fn hostile_lists_are_bounded() {
        let long = "x".repeat(LONGEST_NAME + 1);
        for row in [["d", long.as_str(), ""], ["", "t", ""], ["d", "", ""]] {
            let error = listed(&[row]).unwrap_err();
            assert!(matches!(error, Trouble::Name(_)) && error.to_string().len() < 2 * LONGEST_TEXT);
        }
        let set = |_| ResultSet {
            rows: vec![vec![Some(HostBytes::from("d")), Some(HostBytes::from(&long[1..])), None]; 1000],
            ..ResultSet::default()
        };
        let mut tables = Tables::default();
        let added = (0..10_000).find_map(|round| tables.add(&[set(round)]).err());
        assert!(matches!(added, Some(Trouble::TooManyTables)));
        assert!(tables.others.len() > 100_000, "{}", tables.others.len());
    }

    #[test]
    fn statements_contain_any_name() {
        let table = table("a`b", "c;\n'd\\");
        assert_eq!(
            table.statement(TableCheck::Checksum, Reading::Plain),
            "CHECKSUM TABLE `a``b`.`c;\n'd\\` EXTENDED;\n"
        );
        assert_eq!(
            table.statement(TableCheck::Rows, Reading::Snapshot),
            "SAVEPOINT transfer;\nSELECT COUNT(*) FROM `a``b`.`c;\n'd\\`;\nROLLBACK TO SAVEPOINT transfer;\n"
        );
        assert_eq!(table.to_string(), "a`b/c;\\n'd\\");
    }

    fn described(there: &[(&str, u64)], here: &[(&str, u64)]) -> Option<String> {
        let contents =
            |side: &[(&str, u64)]| side.iter().map(|(name, value)| (table("d", name), *value)).collect();
        Differences::between(&contents(there), &contents(here)).map(|differences| differences.to_string())
    }

    #[test]
    fn differences_are_described_by_table() {
        assert_eq!(described(&[("a", 1), ("b", 2)], &[("a", 1), ("b", 2)]), None);
        let one = described(&[("a", 1), ("b", 2)], &[("a", 1), ("b", 3)]).unwrap();
        assert_eq!(one, "1 entry differs: d/b (different contents)");
        let two = described(&[("a", 1)], &[("b", 1)]).unwrap();
        assert_eq!(two, "2 entries differ: d/a is missing on the target, d/b is only on the target");
    }

    #[test]
    fn only_the_first_of_many_differences_are_named() {
        let names: Vec<String> = (10..60).map(|number| number.to_string()).collect();
        let there: Vec<(&str, u64)> = names.iter().map(|name| (name.as_str(), 1)).collect();
        let text = described(&there, &[]).unwrap();
        assert!(text.starts_with("50 entries differ: d/10 is missing on the target, d/11 "), "{text}");
        assert!(text.ends_with("d/29 is missing on the target, and 30 more"), "{text}");
    }
}
