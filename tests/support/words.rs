//! Arguments of any bytes.

use super::commands::Invocation;

impl Invocation {
    /// Adds words in the syntax of bash, such as `$'\xff'`: names do not have to be UTF-8.
    pub(crate) fn words(self, words: &str) -> Self {
        self.in_script(&format!("exec \"$0\" \"$@\" {words}"))
    }
}
