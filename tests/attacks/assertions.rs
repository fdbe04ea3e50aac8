//! Assertions about the end of a run.

use crate::support::output::Output;

/// Asserts that standard error has a text.
#[track_caller]
pub(crate) fn says(output: &Output, text: &str) {
    assert!(output.stderr.contains(text), "no '{text}': {output}");
}

/// Asserts one of several exit codes, where timing decides between them.
#[track_caller]
pub(crate) fn code_is_one_of(output: &Output, codes: &[i32]) {
    assert!(output.status.code().is_some_and(|code| codes.contains(&code)), "not one of {codes:?}: {output}");
}
