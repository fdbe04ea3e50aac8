//! Commands whose input stays open.

use super::commands::{Invocation, Running};

impl Invocation {
    /// Leaves the input open until [`Running::close_stdin`].
    pub(crate) fn hold_stdin(mut self) -> Self {
        self.holds_stdin = true;
        self
    }
}

impl Running {
    /// Closes the input that [`Invocation::hold_stdin`] left open.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }
}
