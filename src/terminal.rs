//! What may be written to the terminal: one that is none, or is dumb, gets lines and nothing else.

use std::io::IsTerminal as _;

/// Whether standard error is a terminal whose cursor can be moved.
#[must_use]
pub fn has_cursor() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// What goes before a line on standard error while a bar may stand there: it takes the bar away, which draws itself
/// again below that line.
#[must_use]
pub fn over_the_bar() -> &'static str {
    if has_cursor() { "\r\x1b[K" } else { "" }
}
