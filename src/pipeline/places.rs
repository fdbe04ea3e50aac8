//! Words of the programs of a plan: the directories in which they work, and what they leave out.

use std::ffi::OsStr;
use std::path::Path;

use crate::host::command::Word;
use crate::plan::Plan;
use crate::shape::Consumer;

/// Source directory, by the descriptor that the agent holds.
pub(crate) const SOURCE: &str = "/proc/self/fd/12";

/// Returns the directory on the source that contains the name to copy: one of the agent's, in which the name
/// is a link to the descriptor that the agent holds.
pub(crate) fn source_directory(plan: &Plan) -> Word {
    if plan.source.inode.is_empty() {
        return Word::from(&plan.source.parent);
    }
    Word::Home("source".into())
}

/// Staging directory of a target, by the descriptor that the agent holds.
pub(crate) const INBOX: &str = "/proc/self/fd/13";

/// Returns the working directory of the consumer on a target.
pub(crate) fn arrival(plan: &Plan) -> Word {
    match plan.shape.consumer {
        // The stream contains the name of the copy.
        Consumer::Tree => Word::from(INBOX),
        _ => Word::from(&Path::new(INBOX).join(&plan.staged)),
    }
}

/// Returns whether owners and full modes are compared: only root can set them.
pub(crate) fn owners_count(plan: &Plan) -> bool {
    plan.source.root && plan.targets.iter().all(|target| target.root)
}

/// Returns the excluded patterns for whole paths.
pub(crate) fn excluded(plan: &Plan) -> Vec<Vec<u8>> {
    plan.exclude.iter().flat_map(|pattern| pattern.below(&plan.source.name)).collect()
}

pub(crate) fn argv<T: AsRef<OsStr>>(words: &[T]) -> Vec<Word> {
    words.iter().map(Word::from).collect()
}
