//! Processes for tests: the test binary starts itself once more with one test, which plays a part.

use std::process::{Command, Stdio};

/// Variable that names the part.
const PART: &str = "TRANSFER_TEST_PART";

/// Returns the part that this process plays, if a test has started it.
pub(crate) fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// Returns a command that runs one test of this binary, by its path below the crate, in a process of its own.
pub(crate) fn play(test: &str, part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(PART, part).stdin(Stdio::null());
    command
}
