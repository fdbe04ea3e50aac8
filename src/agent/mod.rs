//! The program that works on a host, `transfer-agent`: it makes changes, keeps their undos in a journal, and
//! rolls back. docs/design/agent.md describes it.
//!
//! The controller decides; nothing here does. All names of processes, sockets and files that other users of
//! the host could choose are checked by what the kernel vouches for: inodes, user IDs, peer credentials.

pub(crate) mod accounts;
pub(crate) mod facts;
pub(crate) mod files;
pub(crate) mod firewall;
pub(crate) mod flock;
pub(crate) mod holders;
pub(crate) mod job;
pub(crate) mod jobs;
pub(crate) mod journal;
pub(crate) mod locks;
pub(crate) mod mounts;
pub(crate) mod proc;
pub(crate) mod processes;
pub(crate) mod programs;
pub(crate) mod rollback;
#[cfg(test)]
pub(crate) mod scenes;
pub(crate) mod serve;
pub(crate) mod service;
pub(crate) mod sockets;
pub(crate) mod state;
pub(crate) mod tool;
pub(crate) mod trust;
pub(crate) mod units;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::process::ExitCode;

/// Runs the program. Its first argument says what it does.
#[must_use]
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&[u8]> = args.iter().map(|word| word.as_bytes()).collect();
    // The name of the file, /proc/self/exe, would say nothing. Without a name nothing is lost.
    let _ = rustix::thread::set_name(c"transfer-agent");
    match words[..] {
        // What sshd reported comes as an argument where sudo starts this program.
        [b"serve"] => serve::run(std::env::var("SSH_CONNECTION").unwrap_or_default()),
        [b"serve", connection] => serve::run(String::from_utf8_lossy(connection).into_owned()),
        [b"watchdog", agent] => serve::watch(agent),
        [b"job"] => job::run(std::io::stdin(), std::io::stdout(), &serve::JobChecks),
        [b"is", digest] if serve::program::has_digest(digest) => ExitCode::SUCCESS,
        [b"ready"] => ExitCode::SUCCESS,
        [b"clean", agent, ref words @ ..] => serve::clean_one(agent, words),
        _ => ExitCode::FAILURE,
    }
}
