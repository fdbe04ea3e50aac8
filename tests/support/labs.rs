//! Labs beside the one of this run of the tests.

use super::hosts::{Lab, lab_sh};

impl Lab {
    /// Returns another lab, whether it exists or not.
    pub(crate) fn named(id: &str) -> Self {
        Self { id: id.to_owned() }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Creates the lab, after removing a former one of the same name. It is removed together with the lab of
    /// the tests.
    #[track_caller]
    pub(crate) fn remake(&self, hosts: &[&str]) {
        let owner = std::env::var("TRANSFER_LAB_OWNER").unwrap_or_else(|_| "1".into());
        lab_sh("down", std::slice::from_ref(&self.id));
        let hosts = hosts.iter().map(ToString::to_string);
        lab_sh(
            "up",
            &[self.id.clone(), "--owner".into(), owner].into_iter().chain(hosts).collect::<Vec<_>>(),
        );
    }
}
