//! Statements with a short answer, each by a client of its own.

use std::time::Duration;

use crate::agent::tool::{Tool, ToolError};
use crate::proto::server::{ANSWER_LIMIT, ResultSet, Row};
use crate::proto::{HostBytes, Text};

use super::client::{Client, SqlError};
use super::xml::{Item, Reader};

/// Time limit unless another one is given.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);
/// Size in bytes of a field or a row besides its contents, at most, in an answer.
const FIELD_SIZE: usize = 8;

/// Result sets as they arrive.
#[derive(Debug, Default)]
pub(super) struct Collector {
    sets: Vec<ResultSet>,
    size: usize,
}

impl Client {
    /// Executes statements and returns their result sets.
    pub(crate) fn query(&self, statements: &str) -> Result<Vec<ResultSet>, SqlError> {
        self.execute(statements.as_bytes(), LIMIT)
    }

    /// Executes statements within a time limit and returns their result sets.
    pub(crate) fn execute(&self, statements: &[u8], limit: Duration) -> Result<Vec<ResultSet>, SqlError> {
        let mut input = statements.to_vec();
        input.push(b'\n');
        run(self.tool().input(input).limit(limit), |stderr, status| self.error(stderr, status))
    }

    /// Executes a statement and returns the first field of its result; nothing if this is NULL or there is
    /// none.
    pub(crate) fn value(&self, statement: &str) -> Result<HostBytes, SqlError> {
        let row = self.query(statement)?.into_iter().next().and_then(|set| set.rows.into_iter().next());
        Ok(row.and_then(|row| row.into_iter().next().flatten()).unwrap_or_default())
    }

    /// Returns whether a server answers, even if it refuses the login.
    pub(crate) fn answers(&self) -> Result<(), SqlError> {
        match self.query("SELECT 1") {
            Err(error) if !error.is_of_server() => Err(error),
            _ => Ok(()),
        }
    }
}

/// Runs a client to its end and returns its result sets.
pub(super) fn run(
    client: Tool,
    failure: impl FnOnce(&[u8], Text) -> SqlError,
) -> Result<Vec<ResultSet>, SqlError> {
    let output = client.run().map_err(|error| match error {
        ToolError::Slow { limit, .. } => SqlError::Slow(limit),
        ToolError::TooMuch { .. } => SqlError::TooLong,
        other => other.into(),
    })?;
    if !output.status.success() {
        return Err(failure(&output.stderr, Text::from(&output.status)));
    }
    let (mut reader, mut collector) = (Reader::default(), Collector::default());
    reader.feed(&output.stdout);
    while let Some(item) = reader.next()? {
        collector.add(item);
        if collector.size > ANSWER_LIMIT {
            return Err(SqlError::TooLong);
        }
    }
    Ok(collector.take())
}

impl Collector {
    /// Adds a part of a result set. Returns the size of what was added, at most, in an answer.
    pub(super) fn add(&mut self, item: Item) -> usize {
        match (item, self.sets.last_mut()) {
            (Item::Row(fields), Some(set)) => {
                let (columns, row): (Vec<HostBytes>, Row) = fields.into_iter().unzip();
                let size = |field: &HostBytes| field.as_bytes().len() + FIELD_SIZE;
                let mut added =
                    FIELD_SIZE + row.iter().map(|field| field.as_ref().map_or(1, size)).sum::<usize>();
                if set.rows.is_empty() {
                    added += columns.iter().map(size).sum::<usize>();
                    set.columns = columns;
                }
                set.rows.push(row);
                self.size += added;
                return added;
            }
            (Item::End, Some(set)) => set.continues = false,
            (Item::Begin, _) => {
                self.size += FIELD_SIZE;
                self.sets.push(ResultSet { continues: true, ..ResultSet::default() });
            }
            (_, None) => {}
        }
        0
    }

    /// Removes the set that was begun last.
    pub(super) fn forget_last(&mut self) {
        self.sets.pop();
    }

    /// Returns the size of what was collected, at most, in an answer.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Returns what was collected. A set that has not ended goes on in the first one of what is collected
    /// then.
    pub(super) fn take(&mut self) -> Vec<ResultSet> {
        self.size = 0;
        let sets = std::mem::take(&mut self.sets);
        if sets.last().is_some_and(|set| set.continues) {
            self.add(Item::Begin);
        }
        sets
    }
}
