//! Logs of backup programs: whether they succeeded, and the reason why not. Pure.

/// Most log lines that an error shows.
const LINES: usize = 3;

/// Returns whether the log ends with the program's success message.
#[must_use]
pub(crate) fn completed(log: &[String]) -> bool {
    log.last().is_some_and(|line| line.ends_with("completed OK!"))
}

/// Returns the end of an error message: the last lines about a failure, or else the last lines of the log,
/// and the fix if one is known.
#[must_use]
pub(crate) fn last_words(log: &[String]) -> String {
    let failures: Vec<&str> = log.iter().map(String::as_str).filter(|line| is_failure(line)).collect();
    let all: Vec<&str> = log.iter().map(String::as_str).collect();
    let lines = if failures.is_empty() { &all } else { &failures };
    if lines.is_empty() {
        return String::new();
    }
    let mut text = format!(": {}", lines[lines.len().saturating_sub(LINES)..].join("; "));
    if let Some(fix) = fix(log) {
        text.push_str(&format!("; {fix}"));
    }
    text
}

/// Returns whether a line is about a failure. Progress lines are not, whatever the names of their files.
fn is_failure(line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    // InnoDB logs it as a note.
    if lower.contains("io error") {
        return true;
    }
    let of_failure = [
        "error",
        "fatal",
        "fail",
        "cannot",
        "unable",
        "denied",
        "only able",
        "try increasing",
        "overwritten",
    ];
    of_failure.iter().any(|word| lower.contains(word))
        && !["[note]", "streaming ", " streamed", "error log"].iter().any(|word| lower.contains(word))
}

fn fix(log: &[String]) -> Option<&'static str> {
    let any = |words: &[&str]| log.iter().any(|line| words.iter().any(|word| line.contains(word)));
    if any(&["innodb_log_file_size", "overwritten", "wrapped around"]) {
        Some(
            "the server overwrote its redo log before the backup had read it: raise innodb_log_file_size \
             there, copy when there are fewer writes, or speed up the copy",
        )
    } else if any(&["No space left", "Disk is full", "error number 28", "errno: 28", "Error: 28"]) {
        Some("the disk is full")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn success_is_the_last_line() {
        assert!(completed(&log(&["x", "[00] 2026-11-21 22:48:21 completed OK!"])));
        assert!(!completed(&log(&["completed OK!", "[00] FATAL ERROR: of the disk"])));
        assert!(!completed(&[]));
    }

    #[test]
    fn failure_lines_are_shown_without_the_lines_after_them() {
        let failed = log(&[
            "[01] 2026-11-21 22:52:24 Streaming ./shop/errors.ibd to <STDOUT>",
            "[00] FATAL ERROR: 2026-11-21 22:52:25 Failed to read the first page",
            "mariabackup: Stopping log copying thread.",
            "2026-11-21 22:52:25 0 [Note] InnoDB: Some operating system error numbers are described at",
        ]);
        assert_eq!(
            last_words(&failed),
            ": [00] FATAL ERROR: 2026-11-21 22:52:25 Failed to read the first page"
        );
        assert_eq!(
            last_words(&log(&["a", "b", "c", "the table space ran away"])),
            ": b; c; the table space ran away"
        );
        assert_eq!(last_words(&[]), "");
    }

    #[test]
    fn overwritten_redo_log_has_a_fix() {
        let failed = log(&["[00] 2026-11-21 22:52:25 mariabackup: Try increasing the innodb_log_file_size."]);
        assert!(last_words(&failed).contains("size.; the server overwrote its redo log before"));
    }
}
