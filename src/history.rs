//! What this machine's runs were: a record of each in a directory of the controller, the oldest of which go.
//!
//! A record is written when its run begins, and locked (flock) as long as the run's process lives; at the end it is written
//! anew, whole, under the same name. So one without an end is of a run that goes on, or of one whose process was killed.
//! Nothing in the directory but regular files with the names of runs is looked at, and nothing in one that others may write to.

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

pub use record::{End, Record, TargetRecord, place};
use record::{VERSION, table};

use crate::exit::Exit;
use crate::printable::printable;
use crate::replace::{self, UNNAMED, replace};
use crate::run_id::RunId;
use crate::trust::{self, Distrust};

/// What the name of a record ends in.
const SUFFIX: &str = ".json";
/// A file that was begun and got no name within this time never will.
const UNFINISHED: Duration = Duration::from_secs(3600);

/// What is known of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Running,
    Lost,
    Ended,
}

/// A record as it is told.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    record: &'a Record,
    state: State,
}

/// Why records cannot be shown or kept.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The directory cannot be read or written.
    #[error("the records of past runs in {}: {error}", directory.display())]
    Unusable {
        /// The directory.
        directory: PathBuf,
        /// What is wrong with it.
        error: io::Error,
    },
    /// There is no such run, or more than one.
    #[error("{0}")]
    Unknown(String),
    /// An account without a place for them.
    #[error("this account has no place for records of past runs; set HOME or XDG_STATE_HOME")]
    Homeless,
}

impl HistoryError {
    /// The exit code of a command that ends with this.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unknown(_) => Exit::Usage,
            Self::Unusable { .. } | Self::Homeless => Exit::Failed,
        }
    }
}

/// The records of this machine and account.
#[derive(Clone, Debug)]
pub struct History {
    directory: PathBuf,
}

impl History {
    /// Where they are: root's in `/var/lib`, others' in their own state directory.
    ///
    /// # Errors
    /// When the account has none.
    pub fn of_this_account() -> Result<Self, HistoryError> {
        let said = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let state = if nix::unistd::geteuid().is_root() {
            Some("/var/lib".into())
        } else {
            said("XDG_STATE_HOME").or_else(|| Some(said("HOME")?.join(".local/state")))
        };
        let state = state.ok_or(HistoryError::Homeless)?;
        Ok(Self { directory: state.join("transfer-history") })
    }

    /// Makes the directory where it is missing.
    ///
    /// # Errors
    /// When it cannot be made, or others may write to it.
    pub fn prepare(&self) -> Result<(), HistoryError> {
        let make = || fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        // First as far as it is there: nothing is made where others lead.
        self.check().and_then(|()| make()).and_then(|()| self.check()).map_err(self.unusable())
    }

    fn unusable(&self) -> impl FnOnce(io::Error) -> HistoryError + use<> {
        let directory = self.directory.clone();
        |error| HistoryError::Unusable { directory, error }
    }

    /// Whether it is a directory of our own, if it is there.
    fn check(&self) -> io::Result<()> {
        match trust::own_directory(&self.directory) {
            Err(Distrust::Unreadable(error)) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            checked => Ok(checked?),
        }
    }

    /// A file in the directory, by its name.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Nobody else has this as long as the result lives; `None` where somebody has it.
    ///
    /// # Errors
    /// When the directory is not there or cannot be read.
    pub fn lock(&self) -> io::Result<Option<Flock<File>>> {
        match Flock::lock(File::open(&self.directory)?, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err((_, Errno::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }

    /// All records, the oldest first, and how many cannot be read.
    fn records(&self) -> Result<(Vec<(Record, State)>, usize), HistoryError> {
        let paths = self.check().and_then(|()| self.paths()).map_err(self.unusable())?;
        let all: Vec<_> = paths.iter().map(|path| read(path)).collect();
        let unreadable = all.iter().filter(|record| record.is_none()).count();
        let mut records: Vec<(Record, State)> = all.into_iter().flatten().collect();
        // The names of two of one second are in no order.
        records.sort_by_key(|(record, _)| record.began);
        Ok((records, unreadable))
    }

    /// The records' files, the oldest first, as far as their names tell.
    fn paths(&self) -> io::Result<Vec<PathBuf>> {
        let is_record = |name: &str| name.strip_suffix(SUFFIX).is_some_and(RunId::is_name);
        let mut paths = self.files(is_record)?;
        paths.sort_unstable();
        Ok(paths)
    }

    /// The files of some names.
    fn files(&self, is_one: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let named =
            entries.filter_map(Result::ok).filter(|entry| entry.file_name().to_str().is_some_and(&is_one));
        Ok(named.map(|entry| entry.path()).collect())
    }

    /// All but so many of the newest records go, and what processes left that were killed while they wrote one.
    fn rotate(&self, keep: usize) -> io::Result<()> {
        let paths = self.paths()?;
        for old in &paths[..paths.len().saturating_sub(keep)] {
            // That of a run that goes on is not old.
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

    /// `transfer history`: the last runs, the newest at the end, as a table or as JSON lines.
    ///
    /// # Errors
    /// When the directory is there and cannot be read.
    pub fn list(&self, last: usize, json: bool) -> Result<String, HistoryError> {
        let (records, unreadable) = self.records()?;
        let records = &records[records.len().saturating_sub(last)..];
        if json {
            return Ok(records.iter().map(|(record, state)| told(record, *state)).collect());
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

    /// `transfer show RUN`: one run, by its name or the beginning of it.
    ///
    /// # Errors
    /// When there is no such run, more than one, or the directory cannot be read.
    pub fn show(&self, run: &str, json: bool) -> Result<String, HistoryError> {
        let (records, _) = self.records()?;
        let meant: Vec<&(Record, State)> =
            records.iter().filter(|(record, _)| record.run.starts_with(run)).collect();
        let run = printable(run.as_bytes());
        match meant[..] {
            [(record, state)] if json => Ok(told(record, *state)),
            [(record, state)] => Ok(record.describe(*state)),
            [] => Err(HistoryError::Unknown(format!(
                "there is no record of a run {run}; to see which there are: transfer history"
            ))),
            [(first, _), .., (last, _)] => Err(HistoryError::Unknown(format!(
                "{run} is the beginning of {} runs, from {} to {}: say more of the name",
                meant.len(),
                first.run,
                last.run
            ))),
        }
    }
}

/// A run that is being recorded.
#[derive(Debug)]
pub struct Recording {
    history: History,
    path: PathBuf,
    /// Until the process ends, however it does.
    _lock: Flock<File>,
}

impl Recording {
    /// Writes the record of a run that begins, after the oldest ones went: `keep` are kept, this one included.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(history: History, keep: usize, record: &Record) -> Result<Self, HistoryError> {
        history.prepare()?;
        let path = history.path(&format!("{}{SUFFIX}", record.run));
        let begun = || {
            // First, since they may be what fills the disk.
            history.rotate(keep.saturating_sub(1))?;
            // Locked before it has its name, or who looks would take it for lost.
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

    /// Writes the whole record, with its end, in place of the one that was begun.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self, record: &Record) -> Result<(), HistoryError> {
        replace(&self.path, line(record).as_bytes(), 0o600).map_err(self.history.unusable())
    }

    /// Removes the record: nobody would write its end.
    pub fn abandon(self) {
        let _ = fs::remove_file(self.path);
    }
}

/// Reads a record; `None` where that cannot be.
fn read(path: &Path) -> Option<(Record, State)> {
    // One that has no end and no lock may have got its end meanwhile, as another file.
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

/// Whether somebody holds it.
fn is_locked(file: File) -> bool {
    matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)))
}

fn line(record: &impl Serialize) -> String {
    // What we say of ourselves has keys that are texts and no number that is none.
    format!("{}\n", serde_json::to_string(record).unwrap_or_default())
}

fn told(record: &Record, state: State) -> String {
    line(&Told { record, state })
}
