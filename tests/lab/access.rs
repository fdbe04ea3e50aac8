//! Access to hosts and through them: accounts, login shells, sudo, options of ssh, addresses; compatibility
//! with transferpy.

mod accounts;
mod addresses;
mod logins;
mod niceness;
mod transferpy;

use std::time::{Duration, Instant};

use crate::support::changes::Changed;
use crate::support::copies::assert_same;
use crate::support::held::Held;
use crate::support::hosts::Host;
use crate::support::scenes::Scene;

/// Limit for errors that are found before the program connects.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Accepts only ssh and the packets that it needs.
const CLOSE: &str = "nft 'add table inet closed; add chain inet closed in { type filter hook input priority 0; policy drop; };
    add rule inet closed in ct state established,related accept; add rule inet closed in meta l4proto ipv6-icmp accept;
    add rule inet closed in tcp dport { 22, 2222 } accept'";

fn closed(host: &Host) -> Changed {
    Changed::new(host, CLOSE, "nft delete table inet closed")
}

/// Allows `dba` to become root, by a line of sudoers.
fn sudoers(host: &Host, commands: &str) -> Changed {
    let file = "/etc/sudoers.d/lab";
    let write = format!("echo 'dba ALL=(root) {commands}' >{file}; chmod 0440 {file}; visudo -cq");
    Changed::new(host, &write, &format!("rm -f {file}"))
}

impl Scene {
    #[track_caller]
    fn held_between(&self, ends: [&str; 2], options: &[&str]) -> Held {
        let args = self.args_between(ends, options);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Held::start(&self.lab, &args, &self.db2, self.scratch.path())
    }

    /// Asserts that the copy is correct, and removes it.
    #[track_caller]
    fn take_copy(&self) {
        assert_same((&self.db1, &self.source), (&self.db2, &self.source));
        self.db2.run(&["rm", "-r", &self.source]).expect_success();
    }
}
