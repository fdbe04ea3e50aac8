//! Processes, sockets and locks of other accounts: none of them is taken for a server, is executed, gets a
//! login, or stops a run.

mod data_in_use;
mod executables;
mod logins;
mod pids;

use crate::support::output::Output;

/// Asserts that a dry run reports the same as one without eve, apart from numbers.
#[track_caller]
fn expect_same(without: &Output, with: &Output) {
    let words = |text: &str| text.replace(|c: char| c.is_ascii_hexdigit(), "");
    assert_eq!(with.status.code(), without.status.code(), "with eve: {with}\nwithout her: {without}");
    assert_eq!(words(&with.stdout), words(&without.stdout), "with eve: {with}\nwithout her: {without}");
}
