//! Records of the runs of this controller: one file per run in a directory; the oldest ones are removed.
//!
//! A record is written when its run starts, and locked (flock) while the run's process exists. At the end it
//! is replaced by the complete record under the same name. A record without an end therefore belongs to a run
//! that is still going on, or whose process was killed. Only regular files with the names of runs are read,
//! and only if no other account can write to the directory.

pub(crate) mod metrics;
mod record;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;

pub(crate) use record::{Record, place};
use record::{VERSION, table};

use crate::base::exit::Exit;
use crate::base::printable::printable;
use crate::base::replace::{self, UNNAMED, replace};
use crate::base::run_id::RunId;
use crate::base::trust::{self, Distrust};

/// Suffix of the name of a record.
const SUFFIX: &str = ".json";
/// Age after which an unnamed file is a remainder of a killed process.
const UNFINISHED: Duration = Duration::from_secs(3600);

/// State of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Running,
    Lost,
    Ended,
}

/// Record as it is printed.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    record: &'a Record,
    state: State,
}

/// Error of showing or keeping records.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Directory that cannot be read or written.
    #[error("records of past runs in {}: {error}", directory.display())]
    Unusable {
        /// The directory.
        directory: PathBuf,
        /// Cause.
        error: io::Error,
    },
    /// No such run, or more than one.
    #[error("{0}")]
    Unknown(String),
    /// Account without a state directory.
    #[error("no directory for records of past runs; set HOME or XDG_STATE_HOME")]
    Homeless,
}

impl HistoryError {
    /// Returns the exit code of a command that ends with this error.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unknown(_) => Exit::Usage,
            Self::Unusable { .. } | Self::Homeless => Exit::Failed,
        }
    }
}

/// Records of one account on this machine.
#[derive(Clone, Debug)]
pub struct History {
    directory: PathBuf,
}

impl History {
    /// Returns the records of root in `/var/lib`, of other accounts in their state directory.
    ///
    /// # Errors
    /// When the account has no state directory.
    pub fn of_this_account() -> Result<Self, HistoryError> {
        let from = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = if nix::unistd::geteuid().is_root() {
            Some("/var/lib".into())
        } else {
            from("XDG_STATE_HOME").or_else(|| Some(from("HOME")?.join(".local/state")))
        };
        let state = state.ok_or(HistoryError::Homeless)?;
        Ok(Self { directory: state.join("transfer-history") })
    }

    /// Creates the directory if it is missing.
    ///
    /// # Errors
    /// When it cannot be created, or other accounts can write to it.
    pub(crate) fn prepare(&self) -> Result<(), HistoryError> {
        let make = || fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        // Checks the existing part first: nothing is created below a directory that others control.
        self.check().and_then(|()| make()).and_then(|()| self.check()).map_err(self.unusable())
    }

    fn unusable(&self) -> impl FnOnce(io::Error) -> HistoryError + use<> {
        let directory = self.directory.clone();
        |error| HistoryError::Unusable { directory, error }
    }

    /// Checks that the directory, if it exists, is our own.
    fn check(&self) -> io::Result<()> {
        match trust::own_directory(&self.directory) {
            Err(Distrust::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            checked => Ok(checked?),
        }
    }

    /// Returns the path of a file in the directory.
    #[must_use]
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Locks the records as long as the result exists; `None` if another process has locked them.
    ///
    /// # Errors
    /// When the directory is missing or cannot be read.
    pub(crate) fn lock(&self) -> io::Result<Option<Flock<File>>> {
        match Flock::lock(File::open(&self.directory)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }

    /// Returns all records, oldest first, and the number of unreadable ones.
    fn records(&self) -> Result<(Vec<(Record, State)>, usize), HistoryError> {
        let paths = self.check().and_then(|()| self.paths()).map_err(self.unusable())?;
        let all: Vec<_> = paths.iter().map(|path| read(path)).collect();
        let unreadable = all.iter().filter(|record| record.is_none()).count();
        let mut records: Vec<(Record, State)> = all.into_iter().flatten().collect();
        // Names of the same second have no order.
        records.sort_by_key(|(record, _)| record.began);
        Ok((records, unreadable))
    }

    /// Returns the files of the records, oldest first by name.
    fn paths(&self) -> io::Result<Vec<PathBuf>> {
        let is_record = |name: &str| name.strip_suffix(SUFFIX).is_some_and(RunId::is_name);
        let mut paths = self.files(is_record)?;
        paths.sort_unstable();
        Ok(paths)
    }

    /// Returns the files whose names match.
    fn files(&self, is_one: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let named =
            entries.filter_map(Result::ok).filter(|entry| entry.file_name().to_str().is_some_and(&is_one));
        Ok(named.map(|entry| entry.path()).collect())
    }

    /// Removes all but the newest `keep` records, and unfinished files of killed processes.
    fn rotate(&self, keep: usize) -> io::Result<()> {
        let paths = self.paths()?;
        for old in &paths[..paths.len().saturating_sub(keep)] {
            // Keeps the record of a running process.
            if !trust::own_file(old).is_ok_and(is_locked) {
                let _ = fs::remove_file(old);
            }
        }
        for path in self.files(|name| name.starts_with(UNNAMED))? {
            let age = fs::symlink_metadata(&path).and_then(|file| file.modified()).map(|time| time.elapsed());
            if matches!(age, Ok(Ok(age)) if age > UNFINISHED) {
                let _ = fs::remove_file(path);
            }
        }
        Ok(())
    }

    /// Formats the last runs for `transfer history`, newest last, as a table or as JSON lines.
    ///
    /// # Errors
    /// When the directory exists but cannot be read.
    pub fn list(&self, last: usize, json: bool) -> Result<String, HistoryError> {
        let (records, unreadable) = self.records()?;
        let records = &records[records.len().saturating_sub(last)..];
        if json {
            return Ok(records.iter().map(|(record, state)| shown(record, *state)).collect());
        }
        let mut text = String::new();
        if records.is_empty() {
            text.push_str(&format!("no runs in {}\n", self.directory.display()));
        } else {
            text.push_str(&table(records));
        }
        if unreadable > 0 {
            text.push_str(&format!("{unreadable} records in {} cannot be read\n", self.directory.display()));
        }
        Ok(text)
    }

    /// Formats one run for `transfer show RUN`, given by its name or the beginning of it.
    ///
    /// # Errors
    /// When there is no such run, more than one, or the directory cannot be read.
    pub fn show(&self, run: &str, json: bool) -> Result<String, HistoryError> {
        let (records, _) = self.records()?;
        let matching: Vec<&(Record, State)> =
            records.iter().filter(|(record, _)| record.run.starts_with(run)).collect();
        let run = printable(run.as_bytes());
        match matching[..] {
            [(record, state)] if json => Ok(shown(record, *state)),
            [(record, state)] => Ok(record.describe(*state)),
            [] => {
                Err(HistoryError::Unknown(format!("no record of a run {run}; to list all: transfer history")))
            }
            [(first, _), .., (last, _)] => Err(HistoryError::Unknown(format!(
                "{run} matches {} runs, from {} to {}; enter more of the name",
                matching.len(),
                first.run,
                last.run
            ))),
        }
    }
}

/// Record of a run that is in progress.
#[derive(Debug)]
pub(crate) struct Recording {
    history: History,
    path: PathBuf,
    /// Held until the process ends.
    _lock: Flock<File>,
}

impl Recording {
    /// Writes the record of a run that starts, after removing the oldest ones: `keep` remain, including this
    /// one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn begin(history: History, keep: usize, record: &Record) -> Result<Self, HistoryError> {
        history.prepare()?;
        let path = history.path(&format!("{}{SUFFIX}", record.run));
        let begun = || {
            // First, because old records may be what fills the disk.
            history.rotate(keep.saturating_sub(1))?;
            // Locked before it gets its name; otherwise a reader would take the run for lost.
            let (file, hidden) = replace::begin(&history.directory)?.into_parts();
            let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
            lock.write_all(line(record).as_bytes())?;
            lock.sync_all()?;
            hidden.persist(&path)?;
            replace::sync(&history.directory);
            Ok(lock)
        };
        let lock = begun().map_err(history.unusable())?;
        Ok(Self { path, history, _lock: lock })
    }

    /// Replaces the record by the complete one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn finish(self, record: &Record) -> Result<(), HistoryError> {
        replace(&self.path, line(record).as_bytes(), 0o600).map_err(self.history.unusable())
    }

    /// Removes the record, because its end would never be written.
    pub(crate) fn abandon(self) {
        let _ = fs::remove_file(self.path);
    }
}

/// Reads a record; `None` if that is impossible.
fn read(path: &Path) -> Option<(Record, State)> {
    // A record without an end and without a lock may just have been replaced by the complete one.
    for last_look in [false, true] {
        let mut file = trust::own_file(path).ok()?;
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        let record: Record = serde_json::from_str(&text).ok()?;
        if record.record != VERSION || !path.file_name()?.to_string_lossy().starts_with(&record.run) {
            return None;
        }
        let state = match &record.end {
            Some(_) => State::Ended,
            None if is_locked(file) => State::Running,
            None if last_look => State::Lost,
            None => continue,
        };
        return Some((record, state));
    }
    None
}

/// Returns whether another process has locked the file.
fn is_locked(file: File) -> bool {
    matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)))
}

fn line(record: &impl Serialize) -> String {
    // Our own types have string keys and finite numbers only.
    format!("{}\n", serde_json::to_string(record).unwrap_or_default())
}

fn shown(record: &Record, state: State) -> String {
    line(&Shown { record, state })
}
