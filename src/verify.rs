//! What differs between the lists of two hosts, by file name. Both are sorted and compared as they come, so that the
//! controller's memory does not grow with their length.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use bstr::ByteSlice;
use tokio::io::AsyncBufRead;

use crate::error::Error;
use crate::host::scripts::Script;
use crate::host::wire::{LONGEST_PATH, LONGEST_TEXT, printable, read_record, short};
use crate::lease::End;

/// How many names are told; all are counted.
const MOST_NAMES: usize = 20;
/// How many differences can be explained, and how long their paths may be together, in bytes.
const MOST_PATHS: usize = 10_000;
const MOST_BYTES: usize = 16 << 20;
/// How many directories these paths may lead through together: each may be the reason of a difference.
const MOST_DIRECTORIES: usize = 1 << 18;

/// The longest that lists may take to be read, many millions of files.
const READ_LIMIT: Duration = Duration::from_secs(3600);

/// What differs between two lists.
#[derive(Debug, Default)]
pub struct Differences {
    count: u64,
    named: Vec<String>,
    paths: Vec<(Kind, Vec<u8>)>,
    bytes: usize,
    directories: usize,
}

/// How an entry differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// It is on both sides.
    Changed,
    /// It is on one side only.
    Alone,
}

/// Reads a list of both hosts and finds the files that differ, are missing or are too many on the target.
pub async fn differences(source: &End, target: &End, list: &str) -> Result<Differences, Error> {
    let there = source.host.shell("reading a list", &Script::print(source.agent.id().as_str(), list)).await?;
    let here = target.host.shell("reading a list", &Script::print(target.agent.id().as_str(), list)).await?;
    in_time(compare(there.stdout, here.stdout)).await
}

/// Whether all differences come from what changed on the source since the run began: `list` there is of the paths whose
/// inode changed. If so, what changed in words.
pub async fn explained(source: &End, list: &str, differences: &Differences) -> Result<Option<String>, Error> {
    // Of two lists that differ and then do not, neither is to be believed.
    if differences.count == 0 || differences.count > differences.paths.len() as u64 {
        return Ok(None);
    }
    let changed =
        source.host.shell("reading a list", &Script::print(source.agent.id().as_str(), list)).await?;
    let explained = in_time(explain(differences, changed.stdout)).await?;
    Ok(explained.then(|| format!("changed while it was copied: {differences}")))
}

/// Lists are read as they come, so that one without end would be read for ever.
async fn in_time<T>(reading: impl Future<Output = std::io::Result<T>>) -> Result<T, Error> {
    let read = tokio::time::timeout(READ_LIMIT, reading).await;
    read.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(|error| Error::Failed(format!("cannot read the lists of files: {error}")))
}

/// The next record of a list that ends with the record `end`; an error where it breaks off before. No path is `end`: all
/// begin with `./`.
async fn next(list: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<Vec<u8>>> {
    match read_record(list, 0).await? {
        Some(record) if record == b"end" => Ok(None),
        Some(record) => Ok(Some(record)),
        None => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Whether a list of what changed explains all differences. An entry that is on both sides must have changed itself. For
/// one that came or went it is enough that a directory above it changed: the one that it was in may be gone, too.
pub async fn explain(
    differences: &Differences,
    mut changed: impl AsyncBufRead + Unpin,
) -> std::io::Result<bool> {
    let paths = &differences.paths;
    let wanted: HashSet<&[u8]> = paths.iter().flat_map(|(kind, path)| reasons(*kind, path)).collect();
    let mut found: HashSet<&[u8]> = HashSet::new();
    while let Some(path) = next(&mut changed).await? {
        found.extend(wanted.get(path.as_slice()));
    }
    Ok(paths.iter().all(|(kind, path)| reasons(*kind, path).any(|reason| found.contains(reason))))
}

/// The paths of which one must have changed.
fn reasons(kind: Kind, path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let above = path.rfind_iter("/").map(|slash| &path[..slash]).filter(|above| *above != b".");
    [path].into_iter().chain(above.filter(move |_| kind == Kind::Alone))
}

/// Merges two lists, the source's and the target's.
pub async fn compare(
    mut there: impl AsyncBufRead + Unpin,
    mut here: impl AsyncBufRead + Unpin,
) -> std::io::Result<Differences> {
    let mut differences = Differences::default();
    let mut tell = |kind: Kind, what: &str, record: &[u8]| {
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
    let mut left = next(&mut there).await?;
    let mut right = next(&mut here).await?;
    loop {
        match (&left, &right) {
            (None, None) => break,
            (Some(a), Some(b)) if a == b => {
                left = next(&mut there).await?;
                right = next(&mut here).await?;
            }
            (Some(a), Some(b)) if path(a) == path(b) => {
                tell(Kind::Changed, &describe(a, b), a);
                left = next(&mut there).await?;
                right = next(&mut here).await?;
            }
            // Ordered as `sort` did: no path holds `//`, so records are in the order of their paths.
            (Some(a), b) if b.as_ref().is_none_or(|b| a < b) => {
                tell(Kind::Alone, " is not on the target", a);
                left = next(&mut there).await?;
            }
            (_, Some(b)) => {
                tell(Kind::Alone, " is on the target only", b);
                right = next(&mut here).await?;
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
            (0, _) => f.write_str("the lists of files differ, and no more when read again"),
            (1, _) => write!(f, "1 entry differs: {names}"),
            (count, 0) => write!(f, "{count} entries differ: {names}"),
            (count, more) => write!(f, "{count} entries differ: {names}, and {more} more"),
        }
    }
}

/// The path of a record `PATH//DETAILS`.
fn path(record: &[u8]) -> &[u8] {
    &record[..record.find("//").unwrap_or(record.len())]
}

/// How two records of one path differ: `TYPE//SIZE-OR-TARGET`, then `//ATTRIBUTES` between root accounts; or a digest.
fn describe(there: &[u8], here: &[u8]) -> String {
    let details =
        |record: &[u8]| printable(record[path(record).len()..].strip_prefix(b"//").unwrap_or_default());
    let (there, here) = (details(there), details(here));
    let (Some((kind, there)), Some((kind_here, here))) = (there.split_once("//"), here.split_once("//"))
    else {
        return " (other contents)".into();
    };
    let (what_there, attributes_there) = there.rsplit_once("//").unwrap_or((there, ""));
    let (what_here, attributes_here) = here.rsplit_once("//").unwrap_or((here, ""));
    match kind {
        _ if kind != kind_here => " (of another type)".into(),
        "f" if what_there != what_here => {
            format!(" ({what_there} bytes on the source, {what_here} on the target)")
        }
        _ if what_there != what_here => " (points elsewhere)".into(),
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
            records.iter().chain(&["end"]).flat_map(|r| [r.as_bytes(), b"\0"].concat()).collect::<Vec<u8>>()
        };
        compare(join(there).as_slice(), join(here).as_slice()).await.unwrap().to_string()
    }

    #[tokio::test(flavor = "current_thread")]
    async fn differences_are_named_by_file() {
        assert_eq!(
            compared(
                &["./d//d//", "./d/a//f//10", "./d/b//f//1", "./d-x//f//5"],
                &["./d//d//", "./d/a//f//11", "./d-x//f//5"]
            )
            .await,
            "2 entries differ: d/a (10 bytes on the source, 11 on the target), d/b is not on the target"
        );
        assert_eq!(
            compared(&["./d/a//0123"], &["./d/a//4567", "./d/z//89"]).await,
            "2 entries differ: d/a (other contents), d/z is on the target only"
        );
        assert_eq!(
            compared(&["./l//l///x//y"], &["./l//l///z"]).await,
            "1 entry differs: l (points elsewhere)"
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
    async fn many_differences_are_counted_and_some_named() {
        let there: Vec<String> = (0..50).map(|n| format!("./d/{n:02}//f//1")).collect();
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        let text = compared(&there, &[]).await;
        assert!(
            text.starts_with("50 entries differ: d/00 is not") && text.ends_with("and 30 more"),
            "{text}"
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn only_what_changed_explains_a_difference() {
        async fn explained(kind: Kind, path: &str, changed: &[&str]) -> bool {
            let changed: Vec<u8> =
                changed.iter().chain(&["end"]).flat_map(|path| [path.as_bytes(), b"\0"].concat()).collect();
            let differences = Differences { paths: vec![(kind, path.into())], ..Differences::default() };
            explain(&differences, changed.as_slice()).await.unwrap()
        }
        assert!(explained(Kind::Changed, "./d/a", &["./d/a"]).await);
        assert!(
            !explained(Kind::Changed, "./d/a", &["./d", "./d/b"]).await,
            "a neighbour that came explains no other"
        );
        assert!(explained(Kind::Alone, "./d/x/a", &["./d"]).await);
        assert!(!explained(Kind::Alone, "./d/x/a", &["./d/y", "."]).await);
        assert!(!explained(Kind::Alone, "./d/a", &[]).await);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_list_that_breaks_off_is_no_list() {
        assert!(compare(&b"./a//f//1\0"[..], &b"./a//f//1\0end\0"[..]).await.is_err());
        assert!(compare(&b"end\0"[..], &b"./a//f//1"[..]).await.is_err());
        assert!(explain(&Differences::default(), &b"./a\0"[..]).await.is_err());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn paths_that_lead_through_no_end_of_directories_are_counted_and_not_explained() {
        let deep = "/d".repeat(30_000);
        let list: Vec<u8> =
            (0..40).flat_map(|n| format!(".{deep}/{n:02}\0").into_bytes()).chain(*b"end\0").collect();
        let differences = compare(list.as_slice(), &b"end\0"[..]).await.unwrap();
        assert_eq!(differences.count, 40);
        assert!(differences.paths.len() < 10 && differences.to_string().len() < 100_000);
    }
}
