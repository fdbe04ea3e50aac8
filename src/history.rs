//! What this machine's runs were: a record of each in a directory of the controller, the oldest of which go.
//!
//! A record is written when its run begins, and locked (flock) as long as the run's process lives; at the end it is written
//! anew, whole, under the same name. So one without an end is of a run that goes on, or of one whose process was killed.
//! Nothing in the directory but regular files with the names of runs is looked at, and nothing in one that others may write to.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use comfy_table::{CellAlignment, ContentArrangement, Table};
use jiff::Timestamp;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::endpoint::Endpoint;
use crate::exit::Exit;
use crate::printable::printable;
use crate::report::Report;
use crate::run_id::RunId;
use crate::transfer::Outcome;

/// The version of a record. It grows when a field changes its meaning or goes.
const VERSION: u32 = 1;
/// What the name of a record ends in.
const SUFFIX: &str = ".json";
/// A file that was begun and got no name within this time never will.
const UNFINISHED: Duration = Duration::from_secs(3600);

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The version of the record.
    pub record: u32,
    /// The run's name.
    pub run: String,
    /// When it began.
    pub began: Timestamp,
    /// The account of this machine that it ran as.
    pub user: String,
    /// Who became that by sudo.
    pub sudo_user: Option<String>,
    /// Its process.
    pub pid: u32,
    /// What was typed, the program's name included.
    pub command: Vec<String>,
    /// What was to be copied: `HOST:/PATH`, or of replicas the host that is their source.
    pub source: String,
    /// Where to, and what became of each; before the end nothing has become of them.
    pub targets: Vec<TargetRecord>,
    /// How it ended; `None` while it goes on, or when its process was killed.
    pub end: Option<End>,
}

/// One target of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetRecord {
    /// `HOST:/PATH`, with the name that the copy gets there if one was said, or of replicas the host.
    pub target: String,
    /// Its exit code, 6 where the run left something behind; `None` before the end.
    pub exit: Option<u8>,
    /// The sizes of all files of its copy, in bytes, if there is one.
    pub bytes: Option<u64>,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// When.
    pub at: Timestamp,
    /// How many seconds it took.
    pub seconds: f64,
    /// The exit code.
    pub exit: u8,
    /// What was printed.
    pub text: String,
    /// The report, as docs/json.md describes it.
    pub report: Value,
}

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

/// Why records cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The directory is there and cannot be read.
    #[error("the records of past runs in {}: {error}", directory.display())]
    Unreadable {
        /// The directory.
        directory: PathBuf,
        /// What is wrong with it.
        error: io::Error,
    },
    /// There is no such run, or more than one.
    #[error("{0}")]
    Unknown(String),
    /// An account without a place for them.
    #[error("this account has no home directory, and so no records of past runs")]
    Homeless,
}

impl HistoryError {
    /// The exit code of a command that ends with this.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Unknown(_) => Exit::Usage,
            Self::Unreadable { .. } | Self::Homeless => Exit::Failed,
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
    pub fn prepare(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)?;
        self.check()
    }

    /// Whether it is a directory of our own, if it is there.
    fn check(&self) -> io::Result<()> {
        let found = match fs::symlink_metadata(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        let is_ours =
            found.is_dir() && found.uid() == nix::unistd::geteuid().as_raw() && found.mode() & 0o022 == 0;
        is_ours
            .then_some(())
            .ok_or_else(|| io::Error::other("it is no directory that only this account may write to"))
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
        let paths = self.check().and_then(|()| self.paths());
        let paths =
            paths.map_err(|error| HistoryError::Unreadable { directory: self.directory.clone(), error })?;
        let all: Vec<_> = paths.iter().map(|path| read(path)).collect();
        let unreadable = all.iter().filter(|record| record.is_none()).count();
        let mut records: Vec<(Record, State)> = all.into_iter().flatten().collect();
        // The names of two of one second are in no order.
        records.sort_by_key(|(record, _)| record.began);
        Ok((records, unreadable))
    }

    /// The records' files, the oldest first, as far as their names tell.
    fn paths(&self) -> io::Result<Vec<PathBuf>> {
        let mut paths = self.files()?;
        paths.retain(|path| !is_hidden(path));
        paths.sort_unstable();
        Ok(paths)
    }

    /// The same, and those that have no name yet.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        let is_ours = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let run = name.trim_start_matches('.').split(SUFFIX).next().unwrap_or_default();
            RunId::is_name(run) && (is_hidden(path) || name.ends_with(SUFFIX))
        };
        Ok(paths.filter(is_ours).collect())
    }

    /// The oldest records go, and what processes left that were killed while they wrote one.
    fn rotate(&self, keep: usize) -> io::Result<()> {
        let paths = self.paths()?;
        for old in &paths[..paths.len().saturating_sub(keep)] {
            // That of a run that goes on is not old.
            if !open(old).is_ok_and(is_locked) {
                let _ = fs::remove_file(old);
            }
        }
        for path in self.files()?.iter().filter(|path| is_hidden(path)) {
            let age = fs::symlink_metadata(path).and_then(|file| file.modified()).map(|time| time.elapsed());
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
    keep: usize,
    /// Until the process ends, however it does.
    _lock: Flock<File>,
}

impl Recording {
    /// Writes the record of a run that begins; `keep` records are kept.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn begin(history: History, keep: usize, record: &Record) -> io::Result<Self> {
        history.prepare()?;
        let path = history.path(&format!("{}{SUFFIX}", record.run));
        // Locked before it has its name, or who looks would take it for lost.
        let (file, hidden) = create(&path)?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error)?;
        lock.write_all(line(record).as_bytes())?;
        fs::rename(hidden, path)?;
        Ok(Self { history, keep, _lock: lock })
    }

    /// Writes the whole record, with its end, in place of the one that was begun, and removes the oldest ones.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self, record: &Record) -> io::Result<()> {
        let path = self.history.path(&format!("{}{SUFFIX}", record.run));
        let (mut file, hidden) = create(&path)?;
        file.write_all(line(record).as_bytes())?;
        fs::rename(hidden, path)?;
        self.history.rotate(self.keep)
    }
}

/// A new file beside another one, which nobody else may read, and its name.
fn create(path: &Path) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let hidden = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&hidden)?;
    Ok((file, hidden))
}

/// Opens a record, which is a regular file.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    let is_file = file.metadata()?.is_file();
    is_file.then_some(file).ok_or_else(|| io::Error::other("it is no file"))
}

/// Reads a record; `None` where that cannot be.
fn read(path: &Path) -> Option<(Record, State)> {
    // One that has no end and no lock may have got its end meanwhile, as another file.
    for last_look in [false, true] {
        let mut file = open(path).ok()?;
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

/// Whether it is one that has no name yet.
fn is_hidden(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
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

fn table(records: &[(Record, State)]) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["RUN", "BEGAN (UTC)", "TOOK", "EXIT", "WHAT"]);
    for (record, state) in records {
        let end = record.end.as_ref();
        let exit = match state {
            State::Running => "running".to_owned(),
            State::Lost => "lost".to_owned(),
            State::Ended => end.map_or_else(String::new, |end| end.exit.to_string()),
        };
        let took = end.map_or_else(|| "-".into(), |end| took(end.seconds));
        let began = record.began.strftime("%Y-%m-%d %H:%M:%S").to_string();
        table.add_row([record.run.clone(), began, took, exit, record.what()]);
    }
    for column in [2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 1));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// A place as records name it.
#[must_use]
pub fn place(endpoint: &Endpoint) -> String {
    format!("{}:{}", endpoint.host, printable(endpoint.path.as_os_str().as_encoded_bytes()))
}

impl Record {
    /// That of a run that begins now.
    #[must_use]
    pub fn new(run: &RunId, command: Vec<String>, source: String, targets: Vec<String>) -> Self {
        let uid = nix::unistd::geteuid();
        let user =
            nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        let sudo_user = std::env::var_os("SUDO_USER").map(|name| printable(name.as_encoded_bytes()));
        let target = |target| TargetRecord { target, exit: None, bytes: None };
        Self {
            record: VERSION,
            run: run.to_string(),
            began: Timestamp::now(),
            user,
            sudo_user,
            pid: std::process::id(),
            command,
            source,
            targets: targets.into_iter().map(target).collect(),
            end: None,
        }
    }

    /// It ended, so many seconds after its beginning.
    pub fn finish(&mut self, report: &Report, seconds: f64) {
        let exit = report.exit().code();
        for target in &mut self.targets {
            // By its place, with or without the copy's name, or of a replica by its host.
            let is_its = |name: &str| target.target == name || target.target.starts_with(&format!("{name}/"));
            let of = report
                .targets
                .iter()
                .find(|of| is_its(&place(&of.endpoint)) || target.target == of.endpoint.host.to_string());
            target.exit = Some(match of.map(|of| &of.outcome) {
                _ if exit == Exit::Leftovers.code() => exit,
                Some(Outcome::Done(_) | Outcome::Published) => 0,
                Some(Outcome::Failed(error)) => error.exit().code(),
                None => exit,
            });
            target.bytes = match of.map(|of| &of.outcome) {
                Some(Outcome::Done(copied)) => Some(copied.bytes),
                _ => None,
            };
        }
        self.end = Some(End {
            at: Timestamp::now(),
            seconds: (seconds * 1000.0).round() / 1000.0,
            exit,
            text: report.to_string(),
            report: serde_json::from_str(&report.to_json()).unwrap_or_default(),
        });
    }

    /// What was typed behind the program's name, as a shell would take it.
    fn what(&self) -> String {
        let words = self.command.iter().skip(1).map(|word| {
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "%+,-./:=@_".contains(c);
            if !word.is_empty() && word.chars().all(is_plain) {
                word.clone()
            } else {
                format!("'{}'", printable(word.as_bytes()).replace('\'', r"'\''"))
            }
        });
        words.collect::<Vec<_>>().join(" ")
    }

    fn describe(&self, state: State) -> String {
        let sudo = self.sudo_user.as_ref().map_or_else(String::new, |user| format!(", {user} with sudo"));
        let mut text = format!(
            "run      {}\nbegan    {} by {}{sudo} (pid {})\ncommand  transfer {}\n",
            self.run,
            self.began.strftime("%Y-%m-%d %H:%M:%S UTC"),
            printable(self.user.as_bytes()),
            self.pid,
            self.what()
        );
        match (&self.end, state) {
            (Some(end), _) => {
                let at = end.at.strftime("%Y-%m-%d %H:%M:%S UTC");
                text.push_str(&format!("ended    {at}, after {}, with exit code {}\n", took(end.seconds), end.exit));
                let lines = end.text.lines().map(|line| format!("\n{}", printable(line.as_bytes())));
                text.extend(lines);
                if !end.text.is_empty() {
                    text.push('\n');
                }
            }
            (None, State::Running) => text.push_str("goes on\n"),
            (None, _) => text.push_str(
                "was killed, or left at once by a second signal: its hosts undo what it did there; to see what they hold: transfer \
                 status HOST...\n",
            ),
        }
        text
    }
}

/// Seconds as people read them.
fn took(seconds: f64) -> String {
    if seconds < 100.0 {
        return format!("{seconds:.1} s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "for display, never negative"
    )]
    let whole = seconds.round() as u64;
    format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn history(name: &str) -> History {
        let directory = std::env::temp_dir().join(format!("transfer-history-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        History { directory }
    }

    fn record(run: &str) -> Record {
        let command = ["transfer", "db1:/srv/it's", "db2:/srv"].map(ToOwned::to_owned).to_vec();
        let id = RunId::new().unwrap();
        Record {
            run: run.into(),
            ..Record::new(&id, command, "db1:/srv/it's".into(), vec!["db2:/srv".into()])
        }
    }

    fn begin(history: &History, keep: usize, run: &str) -> Recording {
        Recording::begin(history.clone(), keep, &record(run)).unwrap()
    }

    fn finish(recording: Recording, run: &str) {
        let mut record = record(run);
        record.finish(&Report::default(), 1.0);
        assert_eq!(record.targets[0].exit, Some(0));
        recording.finish(&record).unwrap();
    }

    #[test]
    fn a_run_goes_on_until_it_has_ended_or_its_process_is_gone() {
        let history = history("states");
        let going = begin(&history, 10, "20260101-000000-aaaaaa");
        drop(begin(&history, 10, "20260102-000000-bbbbbb"));
        finish(begin(&history, 10, "20260103-000000-cccccc"), "20260103-000000-cccccc");
        let states: Vec<State> = history.records().unwrap().0.into_iter().map(|(_, state)| state).collect();
        assert_eq!(states, [State::Running, State::Lost, State::Ended]);
        let table = history.list(2, false).unwrap();
        assert!(table.starts_with("RUN ") && table.lines().count() == 3, "{table}");
        assert!(table.contains("lost") && table.contains(r"'db1:/srv/it'\''s' db2:/srv"), "{table}");
        assert!(history.show("20260101", false).unwrap().contains("goes on"));
        assert!(history.show("20260102", false).unwrap().contains("was killed"));
        assert!(history.show("20260103-000000-c", false).unwrap().contains("with exit code 0"));
        assert!(history.show("2026", false).unwrap_err().to_string().contains("the beginning of 3 runs"));
        assert_eq!(history.show("\u{1b}[", false).unwrap_err().exit(), Exit::Usage);
        assert!(!history.show("\u{1b}[", false).unwrap_err().to_string().contains('\u{1b}'));
        drop(going);
        fs::remove_dir_all(history.directory).unwrap();
    }

    #[test]
    fn the_oldest_records_go_but_not_that_of_a_run_that_goes_on_nor_what_is_no_record() {
        let history = history("rotation");
        let going = begin(&history, 2, "20260101-000000-aaaaaa");
        for name in ["notes.json", ".notes.json", "20250101-000000-aaaaaa.txt"] {
            fs::write(history.path(name), "not ours").unwrap();
        }
        for day in 2..=5 {
            let run = format!("2026010{day}-000000-aaaaaa");
            finish(begin(&history, 2, &run), &run);
        }
        let runs: Vec<String> =
            history.records().unwrap().0.into_iter().map(|(record, _)| record.run).collect();
        assert_eq!(runs, ["20260101-000000-aaaaaa", "20260104-000000-aaaaaa", "20260105-000000-aaaaaa"]);
        assert_eq!(fs::read_dir(&history.directory).unwrap().count(), 6);
        drop(going);
        fs::remove_dir_all(history.directory).unwrap();
    }

    #[test]
    fn what_others_may_have_put_there_is_neither_waited_for_nor_shown_as_it_is() {
        let history = history("hostile");
        drop(begin(&history, 10, "20260101-000000-aaaaaa"));
        nix::unistd::mkfifo(&history.path("20260102-000000-aaaaaa.json"), nix::sys::stat::Mode::S_IRWXU)
            .unwrap();
        std::os::unix::fs::symlink("/dev/zero", history.path("20260103-000000-aaaaaa.json")).unwrap();
        fs::write(history.path("20260104-000000-aaaaaa.json"), "{}").unwrap();
        let mut other = record("20260105-000000-aaaaaa");
        other.command.push("\u{1b}[31m".into());
        other.finish(&Report::default(), 1.0);
        other.end.as_mut().unwrap().text = "\u{1b}]0;title\u{7}\nline".into();
        fs::write(history.path("20260105-000000-aaaaaa.json"), line(&other)).unwrap();
        let table = history.list(20, false).unwrap();
        assert!(table.contains("3 records in ") && !table.contains('\u{1b}'), "{table}");
        let shown = history.show("20260105", false).unwrap();
        assert!(
            shown.contains("title") && shown.ends_with("\nline\n") && !shown.contains('\u{1b}'),
            "{shown}"
        );
        fs::set_permissions(&history.directory, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(history.list(20, false).unwrap_err().exit(), Exit::Failed);
        assert!(Recording::begin(history.clone(), 10, &record("20260106-000000-aaaaaa")).is_err());
        fs::remove_dir_all(history.directory).unwrap();
    }

    #[test]
    fn where_there_are_none_nothing_is_made_to_look() {
        let history = history("none");
        assert!(history.list(20, false).unwrap().starts_with("no runs in "));
        assert_eq!(history.list(20, true).unwrap(), "");
        assert!(!history.directory.exists());
    }

    #[test]
    fn times_are_seconds_until_they_are_long() {
        assert_eq!([0.04, 99.94, 100.0, 3725.4].map(took), ["0.0 s", "99.9 s", "0:01:40", "1:02:05"]);
    }
}
