//! Attackers on hosts of the lab: an ordinary account, its programs, and processes that pose as servers.

pub(crate) mod eve;
pub(crate) mod impostors;
pub(crate) mod stand;

use super::copies::make_random;
use super::scenes::Scene;

/// A text in each source, by which its bytes are recognised.
pub(crate) const MARKER: &str = "only-for-the-target";

impl Scene {
    /// A scene with a tree on db1, a file with [`MARKER`] and one of some MiB, and an empty target directory
    /// on db2.
    #[track_caller]
    pub(crate) fn with_source(mib: u32) -> Option<Self> {
        let scene = Self::new()?;
        scene.db1.sh(&format!("mkdir '{0}'; echo {MARKER} >'{0}/marked'", scene.source));
        make_random(&scene.db1, &scene.at("source/file"), mib);
        scene.db2.run(&["mkdir", &scene.target]).expect_success();
        Some(scene)
    }
}
