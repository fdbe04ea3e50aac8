//! Processes on this machine: a child instead of an SSH session.

use std::ffi::OsStr;
use std::io;
use std::process::Stdio;

use tokio::io::BufReader;
use tokio::process::Command;

use super::{Process, Shell};

/// Starts a program in a process group of its own: ^C in the terminal must reach only the controller, which then
/// releases its agents.
pub(super) fn start(program: &str, arguments: &[impl AsRef<OsStr>]) -> io::Result<Shell> {
    let mut child = Command::new(program)
        .args(arguments)
        .process_group(0)
        // The user's own SSH login says nothing about how this machine is reached.
        .env_remove("SSH_CONNECTION")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    Ok(Shell {
        stdin: Box::new(stdin),
        stdout: BufReader::new(Box::new(stdout)),
        process: Process::Local(child),
    })
}
