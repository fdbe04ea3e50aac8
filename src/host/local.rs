//! This machine as a host: a child process instead of an SSH session.

use std::io;
use std::process::Stdio;

use tokio::io::BufReader;
use tokio::process::Command;

use super::{Process, ROOT_SHELL, Shell};

/// A bash in a process group of its own: a ^C in the terminal is for the controller, which then tells its agents.
pub(super) fn shell(sudo: bool) -> io::Result<Shell> {
    let words: &[&str] = if sudo { &["sh", "-c", ROOT_SHELL] } else { &["bash", "--norc", "-p", "-s"] };
    let mut child = Command::new(words[0])
        .args(&words[1..])
        .process_group(0)
        // How its user came here is no fact of this machine.
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
