//! Commands of other accounts than root.

use super::commands::Invocation;

impl Invocation {
    /// Runs the command as another account of the host, such as the unprivileged `dba`.
    pub(crate) fn user(mut self, name: &str) -> Self {
        self.user = Some(name.to_owned());
        self
    }
}
