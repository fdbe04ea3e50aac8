//! Abilities of the terminal. Standard error that is no terminal, or a dumb one, gets plain lines with their time.

use std::io::IsTerminal as _;

/// Returns whether standard error is a terminal whose cursor can be moved.
#[must_use]
pub(crate) fn has_cursor() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// Returns the prefix of a line on standard error: it erases the progress bar, which is drawn again below that line.
#[must_use]
pub(crate) fn over_the_bar() -> &'static str {
    if has_cursor() { "\r\x1b[K" } else { "" }
}

/// Returns the local time for a line of a log.
#[must_use]
pub(crate) fn now() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string()
}
