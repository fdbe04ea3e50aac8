//! What backup programs write into their logs: whether they succeeded, and why they did not. Pure.

/// Lines of a log that an error shows.
const LINES: usize = 3;

/// The program's own word for its success.
#[must_use]
pub fn completed(log: &[String]) -> bool {
    log.last().is_some_and(|line| line.ends_with("completed OK!"))
}

/// The last lines that tell of a failure, or the last ones at all, as the tail of a message; and what to do about those
/// failures that have a remedy.
#[must_use]
pub fn last_words(log: &[String]) -> String {
    let telling: Vec<&str> = log.iter().map(String::as_str).filter(|line| is_telling(line)).collect();
    let all: Vec<&str> = log.iter().map(String::as_str).collect();
    let lines = if telling.is_empty() { &all } else { &telling };
    if lines.is_empty() {
        return String::new();
    }
    let mut text = format!(": {}", lines[lines.len().saturating_sub(LINES)..].join("; "));
    if let Some(remedy) = remedy(log) {
        text.push_str(&format!("; {remedy}"));
    }
    text
}

/// It is about what went wrong, and not one of the many about files with whatever names.
fn is_telling(line: &str) -> bool {
    let lower = line.to_ascii_lowercase();
    // InnoDB has called it a note.
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

fn remedy(log: &[String]) -> Option<&'static str> {
    let any = |words: &[&str]| log.iter().any(|line| words.iter().any(|word| line.contains(word)));
    if any(&["innodb_log_file_size", "overwritten", "wrapped around"]) {
        Some(
            "the server wrote over its redo log before the backup had read it: raise innodb_log_file_size there, copy when \
             less is written, or let the copy be faster",
        )
    } else if any(&["No space left", "Disk is full", "error number 28", "errno: 28", "Error: 28"]) {
        Some("its disk is full")
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
    fn success_is_the_last_word() {
        assert!(completed(&log(&["x", "[00] 2026-11-21 22:48:21 completed OK!"])));
        assert!(!completed(&log(&["completed OK!", "[00] FATAL ERROR: of the disk"])));
        assert!(!completed(&[]));
    }

    #[test]
    fn the_lines_of_the_failure_are_shown_and_not_those_behind_it() {
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
    fn a_redo_log_that_ran_over_has_a_remedy() {
        let failed = log(&["[00] 2026-11-21 22:52:25 mariabackup: Try increasing the innodb_log_file_size."]);
        assert!(last_words(&failed).contains("size.; the server wrote over its redo log before"));
    }
}
