//! What differs between the lists of two hosts, by file name. Both are sorted and compared as they come, so that the
//! controller's memory does not grow with their length.

use bstr::ByteSlice;
use tokio::io::AsyncBufRead;

use crate::error::Error;
use crate::host::scripts::Script;
use crate::host::wire::{printable, read_record};
use crate::lease::End;

/// How many names are told; all are counted.
const MOST_NAMES: usize = 20;

/// A sentence that names the files that differ, are missing or are too many on the target.
pub async fn differences(source: &End, target: &End, list: &str) -> Result<String, Error> {
    let there = source.host.shell("reading a list", &Script::print(source.guard.id().as_str(), list)).await?;
    let here = target.host.shell("reading a list", &Script::print(target.guard.id().as_str(), list)).await?;
    compare(there.stdout, here.stdout)
        .await
        .map_err(|error| Error::Failed(format!("cannot read the lists of files: {error}")))
}

async fn compare(
    mut there: impl AsyncBufRead + Unpin,
    mut here: impl AsyncBufRead + Unpin,
) -> std::io::Result<String> {
    let mut named = Vec::new();
    let mut count = 0_u64;
    let mut tell = |what: &str, record: &[u8]| {
        count += 1;
        if named.len() < MOST_NAMES {
            named.push(format!(
                "{}{what}",
                printable(path(record).strip_prefix(b"./").unwrap_or(path(record)))
            ));
        }
    };
    let mut left = read_record(&mut there, 0).await?;
    let mut right = read_record(&mut here, 0).await?;
    loop {
        match (&left, &right) {
            (None, None) => break,
            (Some(a), Some(b)) if a == b => {
                left = read_record(&mut there, 0).await?;
                right = read_record(&mut here, 0).await?;
            }
            (Some(a), Some(b)) if path(a) == path(b) => {
                tell(&describe(a, b), a);
                left = read_record(&mut there, 0).await?;
                right = read_record(&mut here, 0).await?;
            }
            // Ordered as `sort` did: no path holds `//`, so records are in the order of their paths.
            (Some(a), b) if b.as_ref().is_none_or(|b| a < b) => {
                tell(" is not on the target", a);
                left = read_record(&mut there, 0).await?;
            }
            (_, Some(b)) => {
                tell(" is on the target only", b);
                right = read_record(&mut here, 0).await?;
            }
            (Some(_), None) => unreachable!("taken by the guard above"),
        }
    }
    let more = count - named.len() as u64;
    Ok(match count {
        0 => "the lists of files differ, and no more when read again".to_owned(),
        _ if more > 0 => format!("{count} entries differ: {}, and {more} more", named.join(", ")),
        1 => format!("1 entry differs: {}", named.join(", ")),
        _ => format!("{count} entries differ: {}", named.join(", ")),
    })
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
            records.iter().flat_map(|r| [r.as_bytes(), b"\0"].concat()).collect::<Vec<u8>>()
        };
        compare(join(there).as_slice(), join(here).as_slice()).await.unwrap()
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
}
