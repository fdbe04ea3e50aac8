//! Programs that read a file on their standard input, with limits of time and output.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::agent::tool::ENVIRONMENT;

/// Maximum time for a program.
const LIMIT: Duration = Duration::from_secs(60);

/// Path by which a program opens its standard input as a file.
pub(super) const INPUT: &str = "/proc/self/fd/0";

/// Condition under which a program is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// When enough output is kept.
    Kept,
    /// At its own end.
    End,
}

/// Output of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decoded {
    /// Beginning of the output.
    pub(super) kept: Vec<u8>,
    /// Length of the output so far.
    pub(super) bytes: u64,
    /// The program has succeeded.
    pub(super) is_complete: bool,
}

/// Runs a program with a file as its input, and keeps the beginning of its output. `None` where it cannot be
/// started.
pub(super) fn decode(file: &mut File, command: &[&str], keep: usize, until: Until) -> Option<Decoded> {
    file.rewind().ok()?;
    let (program, args) = command.split_first()?;
    let mut child = Command::new(OsStr::new(program))
        .args(args)
        .env_clear()
        .envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .env("LC_ALL", "C")
        .process_group(0)
        .stdin(file.try_clone().ok()?)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut decoded = Decoded::default();
    let is_over = collect(&mut child, &mut decoded, keep, until).unwrap_or(false);
    if !is_over {
        // It was not waited for, so its number is still its own.
        let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    }
    decoded.is_complete = child.wait().is_ok_and(|status| status.success());
    Some(decoded)
}

/// Reads the output, and returns whether it has ended.
fn collect(child: &mut Child, decoded: &mut Decoded, keep: usize, until: Until) -> std::io::Result<bool> {
    let deadline = Instant::now() + LIMIT;
    let Some(mut output) = child.stdout.take() else { return Ok(false) };
    fcntl_setfl(&output, fcntl_getfl(&output)? | OFlags::NONBLOCK)?;
    let mut buffer = vec![0; 64 << 10];
    while until == Until::End || decoded.kept.len() < keep {
        let Some(left) = deadline.checked_duration_since(Instant::now()) else { return Ok(false) };
        let left = Timespec::try_from(left).unwrap_or(Timespec { tv_sec: 60, tv_nsec: 0 });
        match poll(&mut [PollFd::from_borrowed_fd(output.as_fd(), PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        match output.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(read) => {
                decoded.bytes += read as u64;
                let space = keep - decoded.kept.len();
                decoded.kept.extend_from_slice(&buffer[..read.min(space)]);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_counted_and_its_beginning_kept() {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &vec![b'x'; 300_000]).unwrap();
        let whole = decode(&mut file, &["cat"], 10, Until::End).unwrap();
        assert_eq!(
            (whole.kept.as_slice(), whole.bytes, whole.is_complete),
            (&b"xxxxxxxxxx"[..], 300_000, true)
        );
        let again = decode(&mut file, &["cat", INPUT], 10, Until::End).unwrap();
        assert_eq!(again.bytes, 300_000);
        assert!(!decode(&mut file, &["false"], 10, Until::End).unwrap().is_complete);
        assert_eq!(decode(&mut file, &["no-such-program"], 10, Until::End), None);
    }

    #[test]
    fn endless_program_is_ended_when_enough_is_kept() {
        let start = Instant::now();
        let mut file = tempfile::tempfile().unwrap();
        let head = decode(&mut file, &["yes"], 512, Until::Kept).unwrap();
        assert!(head.kept.len() == 512 && !head.is_complete && start.elapsed() < LIMIT);
    }
}
