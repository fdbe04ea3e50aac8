//! Classification of what programs write on standard error: files that they lost although they may exit with 0, and
//! messages of success.

use std::sync::LazyLock;

use regex_lite::Regex;

use crate::proto::files::AttributeKind;
use crate::proto::job::FaultClass;

/// Files that disappeared while they were read, and those without attributes, are no faults.
const HARMLESS: [&str; 2] = ["No such file or directory", "Operation not supported"];
/// Messages by which a broken pipe of openssl is known.
const TELLING: [&str; 2] = ["error writing output file", "file_ctrl:Broken pipe"];

/// Beginnings of messages of success.
const SUCCESSES: [&str; 4] = ["Connection to ", "(UNKNOWN) [", "listening on [", "connect to ["];

static STREAM: LazyLock<Regex> = LazyLock::new(|| {
    regex(concat!(
        r"(?i)^(?:\[\d+\] )?(?:[-\d]+[ T][\d:.]+ )?(?:\S*/)?(?:mb|xb)stream: ",
        r"(.*(?:invalid|fail|error|cannot|can't).*)$"
    ))
});
static SUCCESS: LazyLock<Regex> = LazyLock::new(|| {
    regex(concat!(
        r"^(?:Connection to \S+ \d+ port \[tcp/.*\] succeeded!|\(UNKNOWN\) \[\S+\] \d+ \(.*\) open",
        r"|listening on \[\S+\] \d+ \.\.\.|connect to \[\S+\] from \(UNKNOWN\) \[\S+\] \d+)$"
    ))
});

/// Compiles a pattern of this program.
pub(super) fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).expect("patterns are constants, which the tests use")
}

/// Returns the class of a line about a lost file, and the file with the reason.
///
/// tar may write a line for each of a million files, which patterns would be too slow for. Users choose the names of
/// files: these come after the words with which a program begins a line, and before those with which it ends the line.
pub(super) fn fault(line: &str) -> Option<(FaultClass, String)> {
    if let Some(text) = line.strip_prefix("tar: ") {
        return lost_attribute(text).or_else(|| {
            let is_fault = is_unreadable(text) && !is_harmless(text);
            is_fault.then(|| (FaultClass::Unreadable, text.to_owned()))
        });
    }
    if let Some(text) = line.strip_prefix("find: ") {
        let is_fault = text.contains(": ") && !is_harmless(text);
        return is_fault.then(|| (FaultClass::Unreadable, text.to_owned()));
    }
    // Most lines need no closer look.
    if line.contains("stream: ") || line.contains("STREAM: ") {
        return STREAM.captures(line).map(|found| (FaultClass::Skipped, found[1].to_owned()));
    }
    None
}

/// Takes apart `FUNCTION: Cannot set … for file 'FILE': REASON` of tar.
fn lost_attribute(text: &str) -> Option<(FaultClass, String)> {
    let (function, what) = text.split_once(": Cannot ")?;
    if !function.bytes().all(is_of_word) {
        return None;
    }
    let (what, reason) = what.rsplit_once("': ").filter(|(_, reason)| !reason.contains(':'))?;
    let beginnings = ["set POSIX ACLs for file '", "drop default POSIX ACLs for file '"];
    let (kind, file) = if let Some(attribute) = what.strip_prefix("set '") {
        let (name, file) = attribute.split_once("' extended attribute for file '")?;
        let kind = match name {
            name if name.starts_with("system.posix_acl_") => AttributeKind::Acls,
            "security.capability" => AttributeKind::Capabilities,
            _ => AttributeKind::Xattrs,
        };
        (kind, file)
    } else if let Some(file) = beginnings.iter().find_map(|beginning| what.strip_prefix(beginning)) {
        (AttributeKind::Acls, file)
    } else {
        (AttributeKind::Xattrs, what.strip_prefix("set SELinux context for file '")?)
    };
    Some((FaultClass::Attributes(kind), format!("{file}: {reason}")))
}

/// Returns whether a line of tar is `FILE: Cannot VERB …: REASON` or `FILE: Read error at byte N…: REASON`, perhaps
/// with `Warning: ` behind the file.
fn is_unreadable(text: &str) -> bool {
    let Some(rest) = behind_name(text).and_then(|rest| rest.strip_prefix(": ")) else { return false };
    let rest = rest.strip_prefix("Warning: ").unwrap_or(rest);
    let number = rest
        .strip_prefix("Read error at byte ")
        .filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let verb = rest.strip_prefix("Cannot ").filter(|rest| rest.bytes().next().is_some_and(is_of_word));
    let reason = number.or(verb).and_then(|rest| Some(rest.split_once(':')?.1));
    reason.is_some_and(|reason| reason.starts_with(' ') && !reason.contains(':'))
}

/// Returns a line of tar from the first colon on that does not belong to the name: tar writes those as `\:`.
fn behind_name(text: &str) -> Option<&str> {
    let mut is_escaped = false;
    let end = text.bytes().position(|byte| {
        let is_end = byte == b':' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    });
    text.get(end?..)
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn is_harmless(line: &str) -> bool {
    HARMLESS.iter().any(|end| line.ends_with(end))
}

/// Returns whether a netcat writes the line when all is well.
pub(super) fn is_success(line: &str) -> bool {
    SUCCESSES.iter().any(|beginning| line.starts_with(beginning)) && SUCCESS.is_match(line)
}

/// Returns whether the line is reported however many lines there are.
pub(super) fn is_telling(line: &str) -> bool {
    TELLING.iter().any(|text| line.contains(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_attributes_are_of_their_kind() {
        let kind = |line: &str| match fault(line) {
            Some((FaultClass::Attributes(kind), text)) => (kind, text),
            other => panic!("{line}: {other:?}"),
        };
        let attribute = |name: &str| {
            kind(&format!(
                "tar: setxattrat: Cannot set '{name}' extended attribute for file './a: b': No space left"
            ))
        };
        assert_eq!(attribute("user.x"), (AttributeKind::Xattrs, "./a: b: No space left".into()));
        assert_eq!(attribute("system.posix_acl_access").0, AttributeKind::Acls);
        assert_eq!(attribute("security.capability").0, AttributeKind::Capabilities);
        let acl = "tar: acl_set_file_at: Cannot set POSIX ACLs for file 'x': Operation not supported";
        assert_eq!(kind(acl), (AttributeKind::Acls, "x: Operation not supported".into()));
        let label = "tar: fsetfilecon: Cannot set SELinux context for file 'x': Permission denied";
        assert_eq!(kind(label).0, AttributeKind::Xattrs);
    }

    #[test]
    fn unreadable_and_skipped_files_are_faults() {
        let text = fault;
        let unreadable = |text: &str| Some((FaultClass::Unreadable, text.to_owned()));
        assert_eq!(
            text("tar: ./a\\: b: Cannot open: Permission denied"),
            unreadable("./a\\: b: Cannot open: Permission denied")
        );
        let read = "./a: Warning: Read error at byte 0, while reading 512 bytes: Input/output error";
        assert_eq!(text(&format!("tar: {read}")), unreadable(read));
        assert_eq!(text("find: './a': Permission denied"), unreadable("'./a': Permission denied"));
        let skipped = "Can't create/write to file './x' (Errcode: 28)";
        assert_eq!(
            text(&format!("[00] 2026-11-21 22:52:24 /usr/bin/mbstream: {skipped}")),
            Some((FaultClass::Skipped, skipped.into()))
        );
        assert_eq!(text("mbstream: done"), None);
    }

    #[test]
    fn files_that_disappeared_and_names_of_users_are_no_faults() {
        for line in [
            "tar: ./a: Cannot stat: No such file or directory",
            "tar: ./a: Warning: Cannot llistxattrat: Operation not supported",
            "find: './a': No such file or directory",
            "tar: ./a: File shrank by 5 bytes; padding with zeros",
            "tar: ./x\\: Cannot open\\: Permission denied: file changed as we read it",
            "tar: Exiting with failure status due to previous errors",
            "tar: a b: Cannot set 'user.x' extended attribute for file 'x': File exists: no",
            "tar: ./a\\",
        ] {
            assert_eq!(fault(line), None, "{line}");
        }
    }

    #[test]
    fn messages_of_success_are_those_of_netcats() {
        let harmless = [
            "Connection to fd77::12 4400 port [tcp/*] succeeded!",
            "(UNKNOWN) [10.77.0.12] 4400 (?) open",
            "listening on [10.77.0.12] 4400 ...",
            "connect to [10.77.0.12] from (UNKNOWN) [10.77.0.11] 43580",
        ];
        assert!(harmless.into_iter().all(is_success));
        let failures = [
            "nc: connect to 10.77.0.12 port 4400 (tcp) failed: Connection refused",
            "(UNKNOWN) [10.77.0.12] 4400 (?) : Connection refused",
            "retrying local 10.77.0.12:4400 : Address already in use",
        ];
        assert!(!failures.into_iter().any(is_success));
        assert!(is_telling("error writing output file") && !is_telling("zstd: error"));
    }
}
