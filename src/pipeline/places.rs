//! Words of the programs of a plan: the directories in which they work, and what they leave out.

use crate::plan::Plan;
use crate::proto::HostBytes;
use crate::proto::files::Tree;
use crate::proto::task::Place;
use crate::shape::Consumer;

/// Returns the working directory of the consumer on a target.
pub(crate) fn arrival(plan: &Plan) -> Place {
    Place::Staging(match plan.shape.consumer {
        // The stream contains the name of the copy.
        Consumer::Tree => HostBytes::default(),
        _ => HostBytes::from(&plan.staged),
    })
}

/// Returns the tree of the source, without what is excluded.
pub(crate) fn source_tree(plan: &Plan) -> Tree {
    let exclude = plan.exclude.iter().flat_map(|pattern| pattern.below(&plan.source.name));
    Tree { name: HostBytes::from(&plan.staged), exclude: exclude.map(HostBytes::from).collect() }
}

/// Returns whether owners and full modes are compared: only root can set them.
pub(crate) fn owners_count(plan: &Plan) -> bool {
    plan.source.root && plan.targets.iter().all(|target| target.root)
}
