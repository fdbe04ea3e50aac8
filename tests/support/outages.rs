//! Power cuts of hosts, and networks that are cut.

use super::hosts::{Host, Lab, lab_sh};

impl Lab {
    /// Drops all packets between two hosts until the returned value is dropped. Neither host can see the
    /// cause.
    pub(crate) fn cut(&self, a: &str, b: &str) -> Cut {
        let pair = [self.id.clone(), a.to_owned(), b.to_owned()];
        lab_sh("cut", &pair);
        Cut { pair }
    }
}

/// Two hosts that cannot reach each other. Dropping it reconnects them.
pub(crate) struct Cut {
    pair: [String; 3],
}

impl Drop for Cut {
    fn drop(&mut self) {
        lab_sh("heal", &self.pair);
    }
}

impl Host {
    /// Cuts the power: no process can clean up, no trap runs, file systems in memory are lost.
    #[track_caller]
    pub(crate) fn crash(&self) {
        lab_sh("crash", &[self.lab.clone(), self.name.clone()]);
    }

    /// Boots the host after [`Host::crash`]; returns when sshd answers.
    #[track_caller]
    pub(crate) fn boot(&self) {
        lab_sh("boot", &[self.lab.clone(), self.name.clone()]);
    }
}
