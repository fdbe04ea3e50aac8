//! Extended attributes that a target's file system does not support.

use super::{Copying, Findings, shown};
use crate::config::values::files;

impl Findings {
    /// Refuses to lose attributes of the source, except for kinds that may be dropped.
    pub(super) fn attributes(&mut self, copying: Copying<'_>) {
        let Copying { settings, target, of_source, of_target, .. } = copying;
        let lost = of_source.attributes.iter().filter(|(kind, _)| of_target.lacks.contains(kind));
        for (kind, (count, example)) in lost.filter(|(kind, _)| !settings.drop_attributes.contains(kind)) {
            self.refuse(
                &format!(
                    "the file system of {} does not support {}, which are set on {} of the source, such as \
                     {example}",
                    shown(&target.endpoint.path),
                    kind.plural(),
                    files(*count),
                ),
                &format!(
                    "choose another file system, or allow the loss with --drop-attributes={}",
                    kind.name()
                ),
            );
        }
    }
}
