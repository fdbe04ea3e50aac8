//! Archives, by their contents and not by their names.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

use super::decode::{INPUT, Until, decode};
use crate::agent::programs::is_installed;
use crate::proto::facts::path::{Archive, Content, Format};

/// Length of the header of a tar archive.
const HEAD: usize = 512;
/// Mark in each header of a tar archive, and its offset.
const TAR: (usize, &[u8]) = (257, b"ustar");
/// Beginning of a chunk of mbstream and xbstream.
const BACKUP: &[u8] = b"XBSTCK01";
/// Maximum size of a gzip file that is decompressed to measure it: a file may have several members, and only
/// the length of the last one is recorded. It unpacks to 1 GiB at most.
const SMALL: u64 = 1 << 20;
/// Maximum output of a program that describes an archive.
const DESCRIPTION: usize = 64 << 10;

/// Returns the facts about an archive; `None` unless it is a regular file that can be read. Its owner may have put
/// a pipe in its place, which is not waited for.
pub(super) fn archive(path: &Path) -> Option<Archive> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::empty()).ok()?;
    let stat = fstat(&file).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut file = File::from(file);
    let size = u64::try_from(stat.st_size).ok()?;
    let head = head(&file);
    let format = format(&head);
    let (bytes, at_least) = size_of(&mut file, format, size, &head);
    let content = match format.map(decoder) {
        None => content(&head),
        Some(command) if is_installed(command[0]) => {
            let decoded = decode(&mut file, command, HEAD, Until::Kept);
            decoded.map_or(Content::Unknown, |decoded| content(&decoded.kept))
        }
        Some(_) => Content::Unknown,
    };
    Some(Archive { format, content, bytes, at_least })
}

fn head(file: &File) -> Vec<u8> {
    let mut head = vec![0; HEAD];
    let mut length = 0;
    while let Ok(read @ 1..) = file.read_at(&mut head[length..], length as u64) {
        length += read;
    }
    head.truncate(length);
    head
}

fn format(head: &[u8]) -> Option<Format> {
    let magics: [(&[u8], Format); 4] = [
        (b"\x1f\x8b", Format::Gzip),
        (b"\x28\xb5\x2f\xfd", Format::Zstd),
        (b"\x04\x22\x4d\x18", Format::Lz4),
        (b"\xfd7zXZ\0", Format::Xz),
    ];
    magics.into_iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, format)| format)
}

fn decoder(format: Format) -> &'static [&'static str] {
    match format {
        Format::Gzip => &["gzip", "-dc"],
        Format::Zstd => &["zstd", "-q", "-dc"],
        Format::Lz4 => &["lz4", "-q", "-dc"],
        Format::Xz => &["xz", "-q", "-dc"],
    }
}

fn content(head: &[u8]) -> Content {
    if head.starts_with(BACKUP) {
        Content::Backup
    } else if head.get(TAR.0..).is_some_and(|rest| rest.starts_with(TAR.1)) {
        Content::Tar
    } else {
        Content::Other
    }
}

/// Returns the size of the decompressed contents as far as it is recorded, and whether it is a lower bound.
fn size_of(file: &mut File, format: Option<Format>, size: u64, head: &[u8]) -> (Option<u64>, bool) {
    let exact = |bytes: Option<u64>| (bytes, bytes.is_none());
    match format {
        None => (Some(size), false),
        Some(Format::Gzip) if size < SMALL => {
            let decoded = decode(file, decoder(Format::Gzip), 0, Until::End);
            let is_complete = decoded.as_ref().is_some_and(|decoded| decoded.is_complete);
            (decoded.map(|decoded| decoded.bytes), !is_complete)
        }
        Some(Format::Gzip) => (gzip_size(file, size), true),
        Some(Format::Lz4) => exact(lz4_size(head)),
        Some(Format::Zstd) => exact(described(file, &["zstd", "-lvf", "--", INPUT], zstd_size)),
        Some(Format::Xz) => exact(described(file, &["xz", "--robot", "-l", "--", INPUT], xz_size)),
    }
}

/// Returns the smallest size that the last four bytes of a gzip file allow: the length of the last member without
/// the part beyond 32 bits. A file does not get much larger than its contents.
fn gzip_size(file: &File, size: u64) -> Option<u64> {
    let mut last = [0; 4];
    file.read_exact_at(&mut last, size.checked_sub(4)?).ok()?;
    let last = u64::from(u32::from_le_bytes(last));
    let missing = size.saturating_sub(last + 1024);
    Some(last + missing.div_ceil(1 << 32) * (1 << 32))
}

/// Returns the size in the header of an LZ4 frame, if its flag is set.
fn lz4_size(head: &[u8]) -> Option<u64> {
    let has_size = head.get(4)? & 8 != 0;
    let bytes = head.get(6..14)?.try_into().ok()?;
    has_size.then(|| u64::from_le_bytes(bytes))
}

fn described(file: &mut File, command: &[&str], parse: fn(&str) -> Option<u64>) -> Option<u64> {
    let described = decode(file, command, DESCRIPTION, Until::End)?;
    parse(&String::from_utf8_lossy(&described.kept))
}

/// Parses `Decompressed Size: 1.00 MiB (1048576 B)`.
fn zstd_size(description: &str) -> Option<u64> {
    let line = description.lines().find_map(|line| line.trim_start().strip_prefix("Decompressed Size:"))?;
    line.rsplit_once('(')?.1.split_once(" B)")?.0.parse().ok()
}

/// Parses the fifth field of `totals`.
fn xz_size(description: &str) -> Option<u64> {
    let line = description.lines().find(|line| line.starts_with("totals\t"))?;
    line.split('\t').nth(4)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn sh(directory: &Path, script: &str) {
        assert!(Command::new("sh").args(["-ec", script]).current_dir(directory).status().unwrap().success());
    }

    #[test]
    fn formats_and_contents_are_told_by_magic() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        sh(
            directory.path(),
            "head -c 100000 /dev/zero >data; tar -cf a.tar data; printf XBSTCK01rest >backup",
        );
        let size = std::fs::metadata(path("a.tar")).unwrap().len();
        let plain = |content, bytes| Archive { format: None, content, bytes: Some(bytes), at_least: false };
        assert_eq!(archive(&path("a.tar")), Some(plain(Content::Tar, size)));
        assert_eq!(archive(&path("backup")), Some(plain(Content::Backup, 12)));
        assert_eq!(archive(&path("data")), Some(plain(Content::Other, 100_000)));
        for (format, program, option) in [
            (Format::Gzip, "gzip", ""),
            (Format::Zstd, "zstd", ""),
            (Format::Lz4, "lz4", "--content-size"),
            (Format::Xz, "xz", ""),
        ] {
            if !is_installed(program) {
                continue;
            }
            sh(directory.path(), &format!("{program} -q {option} -c a.tar >packed"));
            let expected =
                Archive { format: Some(format), content: Content::Tar, bytes: Some(size), at_least: false };
            assert_eq!(archive(&path("packed")), Some(expected), "{program}");
        }
    }

    #[test]
    fn sizes_that_are_not_recorded_are_unknown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("packed");
        for (program, at_least) in [("zstd", true), ("lz4", true)] {
            if is_installed(program) {
                sh(directory.path(), &format!("echo text | {program} -q -c >packed"));
                let found = archive(&path).unwrap();
                assert_eq!(
                    (found.bytes, found.at_least, found.content),
                    (None, at_least, Content::Other),
                    "{program}"
                );
            }
        }
    }

    #[test]
    fn all_members_of_a_small_gzip_file_are_measured() {
        let directory = tempfile::tempdir().unwrap();
        sh(directory.path(), "{ echo one | gzip; echo three | gzip; } >packed");
        let found = archive(&directory.path().join("packed")).unwrap();
        assert_eq!((found.bytes, found.at_least), (Some(10), false));
        sh(directory.path(), "printf '\\037\\213broken' >packed");
        assert!(archive(&directory.path().join("packed")).unwrap().at_least);
    }

    #[test]
    fn length_of_a_large_gzip_file_is_at_least_its_size() {
        let file = tempfile::tempfile().unwrap();
        let size = 5 << 30;
        file.set_len(size).unwrap();
        file.write_all_at(&7u32.to_le_bytes(), size - 4).unwrap();
        assert_eq!(gzip_size(&file, size), Some((2 << 32) + 7));
        file.write_all_at(&2_000_000u32.to_le_bytes(), 1_500_000 - 4).unwrap();
        assert_eq!(gzip_size(&file, 1_500_000), Some(2_000_000));
    }

    #[test]
    fn pipes_and_links_are_no_archives() {
        let directory = tempfile::tempdir().unwrap();
        sh(directory.path(), "mkfifo pipe; echo x >file; ln -s file link");
        assert_eq!(archive(&directory.path().join("pipe")), None);
        assert_eq!(archive(&directory.path().join("link")), None);
    }
}
