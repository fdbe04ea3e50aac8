//! Tests with real processes.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use command_fds::CommandFdExt as _;

use super::*;

/// Time for processes to end in tests.
const LIMIT: Duration = Duration::from_secs(10);

struct Job {
    scratch: tempfile::TempDir,
    file: Option<File>,
}

fn job() -> Job {
    let scratch = tempfile::tempdir().unwrap();
    let file = create_lock(&scratch.path().join("receiver.job")).unwrap();
    Job { scratch, file: Some(file) }
}

impl Job {
    fn lock(&self) -> PathBuf {
        self.scratch.path().join("receiver.job")
    }

    /// Starts a script that has the lock file open and reports with a line that it is ready.
    fn start(&self, script: &str, uid: Option<u32>) -> Child {
        let mut command = Command::new("bash");
        command.args(["--norc", "-c", script]).stdin(Stdio::null()).stdout(Stdio::piped());
        command.preserved_fds(vec![self.file.as_ref().unwrap().try_clone().unwrap().into()]);
        if let Some(uid) = uid {
            command.uid(uid);
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        child
    }

    /// Ends the processes as an agent does, which has passed the lock file on and closed it.
    fn end(&mut self) -> Result<(), EndError> {
        self.file = None;
        end_all(&self.lock(), LIMIT)
    }

    fn members(&self) -> usize {
        let mut count = 0;
        let members = Members::of(&self.lock()).unwrap().unwrap();
        members
            .visit(&mut |_| {
                count += 1;
                Ok(())
            })
            .unwrap();
        count
    }
}

#[test]
fn all_processes_of_a_job_end() {
    let mut job = job();
    // A session of its own, an ignored SIGTERM, a stopped process, and one whose parent has ended.
    let mut child = job.start("(trap '' TERM; while :; do sleep 1; done) & (setsid sleep 100 & disown); sleep 100 & kill -STOP $!; echo ready; wait", None);
    let count = job.members();
    assert!(count >= 4, "{count}");
    job.end().unwrap();
    assert_eq!(job.members(), 0);
    assert!(!child.wait().unwrap().success());
}

#[test]
fn processes_are_found_after_the_lock_file_was_renamed() {
    let mut job = job();
    let mut child = job.start("echo ready; exec sleep 100", None);
    job.file = None;
    let moved = job.scratch.path().join("other.job");
    std::fs::rename(job.lock(), &moved).unwrap();
    end_all(&job.lock(), LIMIT).unwrap();
    assert!(child.try_wait().unwrap().is_none());
    end_all(&moved, LIMIT).unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn other_processes_are_not_touched() {
    let (mut job, mut other) = (job(), job());
    let mut child = other.start("echo ready; exec sleep 100", None);
    // A file of the same name, which this process has open, too.
    let _open = File::open(job.lock()).unwrap();
    job.end().unwrap();
    assert!(child.try_wait().unwrap().is_none());
    other.end().unwrap();
    child.wait().unwrap();
}

#[test]
fn missing_lock_file_has_no_processes() {
    end_all(Path::new("/nonexistent/receiver.job"), LIMIT).unwrap();
}

#[test]
fn processes_of_other_users_are_found_by_the_lock() {
    if !geteuid().is_root() {
        return;
    }
    let mut job = job();
    let mut child = job.start("echo ready; exec sleep 100", Some(65534));
    job.end().unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn lock_that_is_held_is_reported() {
    let job = job();
    // This process is never ended.
    let error = end_all(&job.lock(), Duration::from_millis(100)).unwrap_err();
    assert!(matches!(error, EndError::Remain { count: 0, .. }), "{error}");
}

#[test]
fn job_that_forks_all_the_time_ends() {
    let mut job = job();
    let mut child = job
        .start("spin() { (trap '' TERM; sleep 0.01; spin) & }; spin; spin; echo ready; exec sleep 100", None);
    job.end().unwrap();
    assert_eq!(job.members(), 0);
    child.wait().unwrap();
}

#[test]
fn remaining_processes_are_named() {
    assert_eq!(remaining(&[7, 8], 2), "processes do not end: 7, 8");
    assert_eq!(remaining(&[7, 8], 12), "processes do not end: 7, 8 and 10 more");
    assert_eq!(remaining(&[], 0), "a process that cannot be seen holds the lock file of the job");
}
