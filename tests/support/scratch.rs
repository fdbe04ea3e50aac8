//! A directory for one test.

use std::thread;

use super::hosts::{Host, Lab};

impl Lab {
    /// Creates a directory for this test, with the same path on each of these hosts.
    pub(crate) fn scratch(&self, hosts: &[&str]) -> Scratch {
        let test = thread::current().name().filter(|name| *name != "main").map_or_else(
            || std::env::var("NEXTEST_TEST_NAME").unwrap_or_else(|_| "test".to_owned()),
            ToOwned::to_owned,
        );
        // Short: the path of a socket has at most 107 bytes.
        let name = test.rsplit("::").next().unwrap_or_default().trim_start_matches("exclusive_");
        let path = format!("/srv/{name}-{}", std::process::id());
        let hosts = hosts.iter().map(|name| self.host(name)).collect();
        // Before the directories: when one host is down, those of the others are removed.
        let scratch = Scratch { path, hosts };
        for host in &scratch.hosts {
            host.run(&["mkdir", &scratch.path]).expect_success();
        }
        scratch
    }
}

/// A test's own directory on some hosts. Dropping it removes it, including file systems that are mounted in
/// it.
pub(crate) struct Scratch {
    path: String,
    hosts: Vec<Host>,
}

impl Scratch {
    /// Returns the path of an entry of the directory.
    pub(crate) fn join(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// Returns the path of the directory.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Mounts a file system of this size in the directory, on one host.
    #[track_caller]
    pub(crate) fn small_disk(&self, host: &Host, name: &str, bytes: u64) -> String {
        let path = self.join(name);
        host.sh(&format!("mkdir '{path}'; mount -t tmpfs -o size={bytes} lab '{path}'"));
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let remove = r#"awk -v d="$1/" 'index($2, d) == 1 { print $2 }' /proc/mounts | tac | xargs -r -n 1 umount -l
            chattr -R -i "$1" 2>/dev/null
            rm -rf --one-file-system "$1""#;
        for host in &self.hosts {
            let output = host.run(&["sh", "-c", remove, "sh", &self.path]);
            if !output.status.success() {
                // No panic: the host may be down, or the test may be failing already.
                eprintln!("{} could not be removed from {}: {output}", self.path, host.name);
            }
        }
    }
}
