//! Transfers that are stopped in the middle of their stream.

use super::commands::Running;
use super::hosts::{Host, Lab};
use super::output::Output;
use super::scenes::SOON;
use super::trees::sh;
use super::waiting::eventually;

/// Size, in MiB, of a stream that does not fit into the buffers between two hosts: it stops when its receiver
/// does.
pub(crate) const MORE_THAN_BUFFERS: u32 = 48;

/// Stops the receiver of the next transfer into a directory, `$1`, before its stream begins, and prints its
/// pid.
const HOLD: &str = r#"
    while sleep 0.005; do
        for staging in "$1"/.transfer-*/copy; do
            [[ -d $staging ]] || continue
            for cwd in /proc/[0-9]*/cwd; do
                [[ $cwd -ef $staging ]] && read -r name <"${cwd%cwd}comm" && [[ $name == tar ]] || continue
                pid=${cwd//[!0-9]/}
                kill -STOP "$pid" && echo "$pid" && exit
            done
        done
    done
"#;

/// Prints the port on which a transfer into a directory, `$1`, has accepted its sender.
const ACCEPTED: &str = r#"
    ss -Htnp state established | while read -r _ _ own _ users; do
        [[ $users =~ pid=([0-9]+) && $(readlink "/proc/${BASH_REMATCH[1]}/cwd") == "$1"/.transfer-* ]] || continue
        echo "${own##*:}"
        break
    done
"#;

/// Prints the file in a directory, `$1`, that a tar which was started there has open.
const BEING_READ: &str = r#"
    for cwd in /proc/[0-9]*/cwd; do
        [[ $(readlink "$cwd")/ == "$1"/* ]] && read -r name <"${cwd%cwd}comm" && [[ $name == tar ]] || continue
        find "${cwd%cwd}fd" -lname "$1/*" -printf '%l\n' | while IFS= read -r file; do if [[ -f $file ]]; then echo "$file"; fi; done
    done
"#;

/// A transfer whose stream is stopped, because the tar that unpacks it on one of the targets is.
pub(crate) struct Held {
    pub(crate) transfer: Running,
    target: Host,
    directory: String,
    receiver: String,
}

impl Held {
    /// Starts a transfer of at least [`MORE_THAN_BUFFERS`], and stops its receiver in a directory of a
    /// target.
    #[track_caller]
    pub(crate) fn start(lab: &Lab, args: &[&str], target: &Host, directory: &str) -> Self {
        let mut holder = target.spawn(&["bash", "--norc", "-c", HOLD, "bash", directory]);
        let mut transfer = lab.transfer_spawn(args);
        let held = eventually(SOON, || !holder.is_running() || !transfer.is_running());
        if !held || holder.is_running() {
            transfer.signal("TERM");
            panic!("no receiver was seen: {}", transfer.wait());
        }
        let receiver = holder.wait().expect_success().stdout.trim().to_owned();
        Self { transfer, target: target.clone(), directory: directory.to_owned(), receiver }
    }

    /// Waits for the sender to connect; returns the port.
    #[track_caller]
    pub(crate) fn port(&self) -> u16 {
        let mut port = None;
        eventually(SOON, || {
            port = sh(&self.target, ACCEPTED, &self.directory).trim().parse().ok();
            port.is_some()
        });
        port.expect("the sender does not connect")
    }

    /// Lets the receiver continue and waits for the end.
    #[track_caller]
    pub(crate) fn go(self) -> Output {
        self.target.run(&["/bin/kill", "-s", "CONT", &self.receiver]).expect_success();
        self.transfer.wait()
    }
}

/// Waits until the source's tar has a file open; returns its path. `directory` is the parent of the source.
#[track_caller]
pub(crate) fn being_read(source: &Host, directory: &str) -> String {
    let mut path = String::new();
    eventually(SOON, || {
        sh(source, BEING_READ, directory).trim().clone_into(&mut path);
        !path.is_empty()
    });
    assert!(!path.is_empty(), "nothing is being read");
    path
}
