//! Text of the programs of a job, for messages.

use std::collections::BTreeMap;

use crate::host::agent::{Fault, Job};
use crate::proto::job::FaultClass;

/// Maximum number of lines or files that a message shows of one program.
const MOST_SHOWN: usize = 3;
/// Summaries of GNU tar, which say nothing beside the lines before them.
const TAR_SUMMARIES: [&str; 2] =
    ["tar: Exiting with failure status due to previous errors", "tar: Error is not recoverable: exiting now"];

/// Returns the standard error of a job as the tail of a message: the first lines of each program, and the
/// number of the others.
pub(crate) fn said(job: &Job) -> String {
    let telling = |line: &&String| !TAR_SUMMARIES.contains(&line.as_str());
    let mut lines: Vec<&str> = job.complaints.iter().filter(telling).map(String::as_str).collect();
    if lines.is_empty() {
        lines = job.complaints.iter().map(String::as_str).collect();
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let (shown, hidden): (Vec<&str>, Vec<&str>) = lines.into_iter().partition(|&line| {
        // Lines without the name of their program may come from several ones.
        let (program, most) = program(line).map_or(("", 2 * MOST_SHOWN), |program| (program, MOST_SHOWN));
        let count = counts.entry(program).or_default();
        *count += 1;
        *count <= most
    });
    let mut text = if shown.is_empty() { String::new() } else { format!(": {}", shown.join("; ")) };
    // GNU tar does not name the reason of a short write.
    if job.complaints.iter().any(|line| line.contains("Wrote only")) {
        text.push_str(" (No space left on device?)");
    }
    match job.silenced.saturating_add(hidden.len() as u64) {
        0 => {}
        1 => text.push_str(" (and 1 more line)"),
        more => text.push_str(&format!(" (and {more} more lines)")),
    }
    text
}

/// Returns the name of the program that a line of standard error begins with, such as `tar` in `tar: ./a: …`.
fn program(line: &str) -> Option<&str> {
    line.split_once(": ").map(|(name, _)| name).filter(|name| !name.contains(' '))
}

/// Describes the files that a job could not read, if there are any.
pub(crate) fn cannot_read(job: &Job) -> Option<String> {
    Some(listed(job.faults.get(&FaultClass::Unreadable)?, "; "))
}

/// Lists the first files of a fault and the number of the others.
pub(crate) fn listed(fault: &Fault, separator: &str) -> String {
    let named = &fault.named[..fault.named.len().min(MOST_SHOWN)];
    let more = fault.files.saturating_sub(named.len() as u64);
    let named = named.join(separator);
    match more {
        0 => named,
        more => format!("{named}{separator}{more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_shows_the_first_lines_of_each_program_and_a_count() {
        let said = |complaints: &[&str], silenced| {
            let complaints = complaints.iter().map(ToString::to_string).collect();
            said(&Job { complaints, silenced, ..Job::default() })
        };
        let files: Vec<String> =
            (1..=12).map(|n| format!("tar: ./{n}: Cannot open: Permission denied")).collect();
        let mut lines: Vec<&str> = files.iter().map(String::as_str).collect();
        lines.extend([TAR_SUMMARIES[0], "zstd: error 70: write error"]);
        assert_eq!(
            said(&lines, 5),
            ": tar: ./1: Cannot open: Permission denied; tar: ./2: Cannot open: Permission denied; tar: ./3: \
             Cannot open: Permission denied; zstd: error 70: write error (and 14 more lines)"
        );
        assert_eq!(said(&TAR_SUMMARIES[..1], 0), format!(": {}", TAR_SUMMARIES[0]));
        assert_eq!(said(&[], 0), "");
        assert_eq!(said(&["one", "two words: x"], 1), ": one; two words: x (and 1 more line)");
    }
}
