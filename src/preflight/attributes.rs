//! Extended attributes that a target's file system cannot hold.

use super::{Findings, Side, shown};
use crate::host::facts::{SourceFacts, TargetFacts};
use crate::settings::Settings;
use crate::values::files;

impl Findings {
    /// Attributes of the source that would be lost, unless that is allowed.
    pub(super) fn attributes(
        &mut self,
        settings: &Settings,
        side: Side<'_>,
        (of_source, of_target): (&SourceFacts, &TargetFacts),
    ) {
        let lost = of_source.attributes.iter().filter(|(kind, _)| of_target.lacks.contains(kind));
        for (kind, (count, example)) in lost.filter(|(kind, _)| !settings.drop_attributes.contains(kind)) {
            self.refuse(
                &format!(
                    "the file system of {} cannot hold {}, which {} of the source {}, such as {example}",
                    shown(&side.endpoint.path),
                    kind.plural(),
                    files(*count),
                    if *count == 1 { "has" } else { "have" },
                ),
                &format!(
                    "choose another file system, or allow the loss with --drop-attributes={}",
                    kind.name()
                ),
            );
        }
    }
}
