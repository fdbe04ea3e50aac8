//! Comparison of the lists of two hosts, by file name. Both lists are sorted and compared as streams, so that
//! the controller's memory does not grow with their length.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::time::Duration;

use bstr::ByteSlice;

use crate::base::printable::{LONGEST_PATH, LONGEST_TEXT, printable, short};
use crate::error::Error;
use crate::host::agent::Agent;
use crate::host::conversation::AgentError;
use crate::lease::End;
use crate::proto::command::{Answer, Command};
use crate::proto::job::List;

/// Maximum number of names in a message; all differences are counted.
const MOST_NAMES: usize = 20;
/// Maximum number of differences that can be explained.
const MOST_PATHS: usize = 10_000;
/// Maximum total length of their paths.
const MOST_BYTES: usize = 16 << 20;
/// Maximum total number of directories in these paths: each may explain a difference.
const MOST_DIRECTORIES: usize = 1 << 18;

/// Maximum length in bytes of a record.
const MOST_RECORD: usize = 64 * 1024;

/// Time limit for reading the lists, which may have many millions of files.
const READ_LIMIT: Duration = Duration::from_secs(3600);

/// Differences between two lists.
#[derive(Debug, Default)]
pub struct Differences {
    count: u64,
    named: Vec<String>,
    paths: Vec<(Kind, Vec<u8>)>,
    bytes: usize,
    directories: usize,
}

/// Kind of difference of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The entry is on both sides.
    Changed,
    /// The entry is on one side only.
    Alone,
}

/// Reads a list of both hosts and returns the files that differ or are on one side only.
pub(crate) async fn differences(source: &End, target: &End, list: List) -> Result<Differences, Error> {
    let [there, here] = [source, target].map(|end| RemoteList::new(&end.agent, Some(list)));
    in_time(compare(there, here)).await
}

/// Checks whether all differences come from changes on the source since the run began, and returns a
/// description if so. The list of changes contains the paths on the source whose inode changed.
pub(crate) async fn explained(source: &End, differences: &Differences) -> Result<Option<String>, Error> {
    // Lists whose digests differ, but which are equal when read again, cannot be trusted.
    if differences.count == 0 || differences.count > differences.paths.len() as u64 {
        return Ok(None);
    }
    let changed = RemoteList::new(&source.agent, None);
    let explained = in_time(explain(differences, changed)).await?;
    Ok(explained.then(|| format!("changed during the copy: {differences}")))
}

/// Reads with a time limit: a hostile host could send an endless list.
async fn in_time<T>(reading: impl Future<Output = Result<T, ListError>>) -> Result<T, Error> {
    match tokio::time::timeout(READ_LIMIT, reading).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(ListError::Agent(error))) => Err(error.into()),
        Ok(Err(ListError::Content(error))) => {
            Err(Error::Failed(format!("cannot read the lists of files: {error}")))
        }
        Err(_) => {
            Err(Error::Failed(format!("cannot read the lists of files within {} s", READ_LIMIT.as_secs())))
        }
    }
}

/// Error of a list.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The agent cannot send it.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// Answer that is no list.
    #[error(transparent)]
    Content(#[from] io::Error),
}

/// Source of the records of a list, in the order of their bytes.
pub trait Records {
    /// Returns the next record; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Result<Option<Vec<u8>>, ListError>>;
}

/// List of a run, which is read from its host part by part.
struct RemoteList<'a> {
    agent: &'a Agent,
    list: Option<List>,
    /// Number of bytes that were read.
    offset: u64,
    part: Vec<u8>,
    /// Beginning of the next record in the part.
    next: usize,
    is_last: bool,
}

impl<'a> RemoteList<'a> {
    fn new(agent: &'a Agent, list: Option<List>) -> Self {
        Self { agent, list, offset: 0, part: Vec::new(), next: 0, is_last: false }
    }

    /// Reads the next part, behind the rest of this one.
    async fn fetch(&mut self) -> Result<(), ListError> {
        self.part.drain(..self.next);
        self.next = 0;
        let command = Command::ReadList { list: self.list, offset: self.offset };
        let Answer::List { bytes, is_last } = self.agent.call(command).await? else {
            return Err(self.agent.unexpected().into());
        };
        self.offset += bytes.as_bytes().len() as u64;
        // A list that goes on must bring something.
        self.is_last = is_last || bytes.is_empty();
        self.part.extend_from_slice(bytes.as_bytes());
        Ok(())
    }
}

impl Records for RemoteList<'_> {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, ListError> {
        loop {
            if let Some(record) = record(&self.part[self.next..])? {
                self.next += record.len() + 1;
                return Ok(Some(record));
            }
            if self.is_last {
                return end(&self.part[self.next..]);
            }
            self.fetch().await?;
        }
    }
}

/// List in memory.
impl Records for &[u8] {
    async fn next(&mut self) -> Result<Option<Vec<u8>>, ListError> {
        match record(self)? {
            Some(record) => {
                *self = &self[record.len() + 1..];
                Ok(Some(record))
            }
            None => end(self),
        }
    }
}

/// Returns the first record of a part, if it is complete. Records end with NUL.
fn record(part: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let end = part.find_byte(0);
    if end.unwrap_or(part.len()) > MOST_RECORD {
        let text = "the host sent a record of more than 64 KiB";
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(end.map(|end| part[..end].to_vec()))
}

/// Returns the end of a list, behind which nothing may be left.
fn end(rest: &[u8]) -> Result<Option<Vec<u8>>, ListError> {
    if rest.is_empty() { Ok(None) } else { Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()) }
}

/// Returns whether a list of changed paths explains all differences. An entry that is on both sides must have
/// changed itself. For one that was created or removed, a change of any directory above it is enough: its own
/// directory may be gone, too.
pub async fn explain(differences: &Differences, mut changed: impl Records) -> Result<bool, ListError> {
    let paths = &differences.paths;
    let wanted: HashSet<&[u8]> = paths.iter().flat_map(|(kind, path)| reasons(*kind, path)).collect();
    let mut found: HashSet<&[u8]> = HashSet::new();
    while let Some(path) = changed.next().await? {
        found.extend(wanted.get(path.as_slice()));
    }
    Ok(paths.iter().all(|(kind, path)| reasons(*kind, path).any(|reason| found.contains(reason))))
}

/// Returns the paths of which at least one must have changed to explain a difference.
fn reasons(kind: Kind, path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let above = path.rfind_iter("/").map(|slash| &path[..slash]).filter(|above| *above != b".");
    [path].into_iter().chain(above.filter(move |_| kind == Kind::Alone))
}

/// Merges the lists of source and target.
pub async fn compare(mut there: impl Records, mut here: impl Records) -> Result<Differences, ListError> {
    let mut differences = Differences::default();
    let mut report = |kind: Kind, what: &str, record: &[u8]| {
        differences.count += 1;
        let path = path(record);
        differences.bytes = differences.bytes.saturating_add(path.len());
        differences.directories = differences.directories.saturating_add(path.find_iter("/").count());
        if differences.paths.len() < MOST_PATHS
            && differences.bytes <= MOST_BYTES
            && differences.directories <= MOST_DIRECTORIES
        {
            differences.paths.push((kind, path.to_vec()));
        }
        if differences.named.len() < MOST_NAMES {
            let name = short(path.strip_prefix(b"./").unwrap_or(path), LONGEST_PATH);
            differences.named.push(name + &short(what.as_bytes(), LONGEST_TEXT));
        }
    };
    let mut left = there.next().await?;
    let mut right = here.next().await?;
    loop {
        match (&left, &right) {
            (None, None) => break,
            (Some(a), Some(b)) if a == b => {
                left = there.next().await?;
                right = here.next().await?;
            }
            (Some(a), Some(b)) if path(a) == path(b) => {
                report(Kind::Changed, &describe(a, b), a);
                left = there.next().await?;
                right = here.next().await?;
            }
            // Same order as `sort`: no path contains `//`, so records are in the order of their paths.
            (Some(a), b) if b.as_ref().is_none_or(|b| a < b) => {
                report(Kind::Alone, " is missing on the target", a);
                left = there.next().await?;
            }
            (_, Some(b)) => {
                report(Kind::Alone, " is only on the target", b);
                right = here.next().await?;
            }
            (Some(_), None) => unreachable!("taken by the guard above"),
        }
    }
    Ok(differences)
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.named.join(", ");
        match (self.count, self.count - self.named.len() as u64) {
            (0, _) => f.write_str("the lists of files differed, but not when read again"),
            (1, _) => write!(f, "1 entry differs: {names}"),
            (count, 0) => write!(f, "{count} entries differ: {names}"),
            (count, more) => write!(f, "{count} entries differ: {names}, and {more} more"),
        }
    }
}

/// Returns the path of a record `PATH//DETAILS`.
fn path(record: &[u8]) -> &[u8] {
    &record[..record.find("//").unwrap_or(record.len())]
}

/// Describes how two records of one path differ. Their details are `TYPE//SIZE-OR-TARGET`, followed by
/// `//ATTRIBUTES` between root accounts, or a digest.
fn describe(there: &[u8], here: &[u8]) -> String {
    let details =
        |record: &[u8]| printable(record[path(record).len()..].strip_prefix(b"//").unwrap_or_default());
    let (there, here) = (details(there), details(here));
    let (Some((kind, there)), Some((kind_here, here))) = (there.split_once("//"), here.split_once("//"))
    else {
        return " (different contents)".into();
    };
    let (what_there, attributes_there) = there.rsplit_once("//").unwrap_or((there, ""));
    let (what_here, attributes_here) = here.rsplit_once("//").unwrap_or((here, ""));
    match kind {
        _ if kind != kind_here => " (different type)".into(),
        "f" if what_there != what_here => {
            format!(" ({what_there} bytes on the source, {what_here} on the target)")
        }
        _ if what_there != what_here => " (different link target)".into(),
        _ => format!(
            " (mode, owner, group, time: {attributes_there} on the source, {attributes_here} on the target)"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn compared(there: &[&str], here: &[&str]) -> String {
        let join = |records: &[&str]| {
            let mut records = records.to_vec();
            records.sort_unstable();
            records.iter().flat_map(|r| [r.as_bytes(), b"\0"].concat()).collect::<Vec<u8>>()
        };
        compare(join(there).as_slice(), join(here).as_slice()).await.unwrap().to_string()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn differences_are_described_by_file() {
        assert_eq!(
            compared(
                &["./d//d//", "./d/a//f//10", "./d/b//f//1", "./d-x//f//5"],
                &["./d//d//", "./d/a//f//11", "./d-x//f//5"]
            )
            .await,
            "2 entries differ: d/a (10 bytes on the source, 11 on the target), d/b is missing on the target"
        );
        assert_eq!(
            compared(&["./d/a//0123"], &["./d/a//4567", "./d/z//89"]).await,
            "2 entries differ: d/a (different contents), d/z is only on the target"
        );
        assert_eq!(
            compared(&["./l//l///x//y"], &["./l//l///z"]).await,
            "1 entry differs: l (different link target)"
        );
        assert_eq!(
            compared(&["./d//d////755 0 0"], &["./d//d////700 0 0"]).await,
            "1 entry differs: d (mode, owner, group, time: 755 0 0 on the source, 700 0 0 on the target)"
        );
        assert_eq!(
            compared(&["./f//f//5//644 0 0 17"], &["./f//f//4//644 0 0 17"]).await,
            "1 entry differs: f (5 bytes on the source, 4 on the target)"
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn only_the_first_of_many_differences_are_named() {
        let there: Vec<String> = (0..50).map(|n| format!("./d/{n:02}//f//1")).collect();
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        let text = compared(&there, &[]).await;
        assert!(
            text.starts_with("50 entries differ: d/00 is missing") && text.ends_with("and 30 more"),
            "{text}"
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn only_changes_explain_differences() {
        async fn explained(kind: Kind, path: &str, changed: &[&str]) -> bool {
            let changed: Vec<u8> =
                changed.iter().flat_map(|path| [path.as_bytes(), b"\0"].concat()).collect();
            let differences = Differences { paths: vec![(kind, path.into())], ..Differences::default() };
            explain(&differences, changed.as_slice()).await.unwrap()
        }
        assert!(explained(Kind::Changed, "./d/a", &["./d/a"]).await);
        assert!(
            !explained(Kind::Changed, "./d/a", &["./d", "./d/b"]).await,
            "a new neighbour explains no other change"
        );
        assert!(explained(Kind::Alone, "./d/x/a", &["./d"]).await);
        assert!(!explained(Kind::Alone, "./d/x/a", &["./d/y", "."]).await);
        assert!(!explained(Kind::Alone, "./d/a", &[]).await);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn truncated_lists_are_errors() {
        assert!(compare(&b"./a//f//1"[..], &b"./a//f//1\0"[..]).await.is_err());
        assert!(compare(&b""[..], &b"./a//f//1"[..]).await.is_err());
        assert!(explain(&Differences::default(), &b"./a"[..]).await.is_err());
        let endless = vec![b'x'; 10 * MOST_RECORD];
        assert!(compare(&b""[..], endless.as_slice()).await.is_err());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn very_deep_paths_are_counted_but_not_explained() {
        let deep = "/d".repeat(30_000);
        let list: Vec<u8> = (0..40).flat_map(|n| format!(".{deep}/{n:02}\0").into_bytes()).collect();
        let differences = compare(list.as_slice(), &b""[..]).await.unwrap();
        assert_eq!(differences.count, 40);
        assert!(differences.paths.len() < 10 && differences.to_string().len() < 100_000);
    }
}
