//! Tests of jobs as processes: this test program becomes the job.

use std::fs;
use std::os::fd::AsFd as _;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use super::*;
use crate::agent::job;
use crate::proto::job::{Meter, Program};
use crate::proto::server::Login;
use crate::proto::task::{Invocation, Pipeline, Place, Run, Stage};

/// Maximum time to wait for a report.
const LIMIT: Duration = Duration::from_secs(30);
/// Script that runs the test [`becomes_a_job`]. The test harness writes on standard output, so the reports go to
/// standard error.
const BECOME: &str = "export BECOMES_A_JOB=1
    exec \"$0\" --exact agent::jobs::tests::becomes_a_job --nocapture --test-threads=1 2>&1 >/dev/null";

struct NoChecks;

impl job::Checks for NoChecks {
    fn login(&self, _: &Login, _: &std::ffi::OsStr) -> Result<Vec<OsString>, Text> {
        Err(Text::new("no logins in tests"))
    }
}

#[test]
fn becomes_a_job() {
    if std::env::var_os("BECOMES_A_JOB").is_none() {
        return;
    }
    let reports = File::options().write(true).open("/proc/self/fd/2").unwrap();
    let status = job::run(io::stdin(), reports, &NoChecks);
    std::process::exit(i32::from(status != std::process::ExitCode::SUCCESS));
}

/// Handlers that pass reports on, and end processes by the inode of the lock.
struct Scene(Sender<JobReport>);

impl Handlers for Scene {
    fn report(&self, _: JobName, report: JobReport) {
        let _ = self.0.send(report);
    }

    fn end(&self, lock: &Path) -> Result<(), Text> {
        for round in 0..400 {
            let pids = holders(lock);
            if pids.is_empty() {
                return Ok(());
            }
            let signal = if round < 100 { "-TERM" } else { "-KILL" };
            if round == 0 || round >= 100 {
                let _ = Command::new("kill").arg(signal).args(&pids).stderr(Stdio::null()).status();
            }
            thread::sleep(Duration::from_millis(10));
        }
        Err(Text::new("some processes do not end"))
    }
}

/// Returns the processes that have the lock as descriptor [`LOCK`].
fn holders(lock: &Path) -> Vec<String> {
    use std::os::unix::fs::MetadataExt as _;
    let inode = fs::metadata(lock).unwrap().ino();
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let holds =
        |pid: &String| fs::metadata(format!("/proc/{pid}/fd/{LOCK}")).is_ok_and(|file| file.ino() == inode);
    pids.filter(|pid| pid.parse::<u32>().is_ok()).filter(holds).collect()
}

struct Launched {
    home: tempfile::TempDir,
    jobs: Jobs,
    reports: Receiver<JobReport>,
}

impl Launched {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let (sender, reports) = channel();
        let mut jobs = Jobs::new(home.path().to_owned(), 5, Arc::new(Scene(sender)));
        let program = std::env::current_exe().unwrap();
        jobs.launcher =
            Launcher { program: "/bin/sh".into(), args: vec!["-c".into(), BECOME.into(), program.into()] };
        Self { home, jobs, reports }
    }

    fn start(&mut self, gate: Option<usize>, stages: Vec<Stage>) {
        let (place, called, rate, into) = (Place::Staging("in".into()), None, None, Some("file".into()));
        fs::create_dir_all(self.home.path().join("staging/in")).unwrap();
        let task = Task::Pipeline(Pipeline { place, called, gate, rate, into, stages });
        let staging = File::open(self.home.path().join("staging")).unwrap();
        let held = vec![(Held::Staging, staging.as_fd())];
        let mut recorded = None;
        let start = Start { name: JobName::Sender, task, key: None, held };
        let record = |undo: &Undo| {
            recorded = Some(undo.clone());
            Ok(())
        };
        self.jobs.start(start, record).unwrap();
        let lock = self.home.path().join("sender.job").as_os_str().into();
        assert_eq!(recorded, Some(Undo::Job { lock }));
    }

    /// Returns the reports up to and with one of a kind.
    fn until(&self, is_last: impl Fn(&JobReport) -> bool) -> Vec<JobReport> {
        let mut all = Vec::new();
        while !all.last().is_some_and(&is_last) {
            all.push(self.reports.recv_timeout(LIMIT).unwrap_or_else(|_| panic!("{all:?}")));
        }
        all
    }

    fn exit(&self) -> Vec<JobReport> {
        self.until(|report| matches!(report, JobReport::Exit(_)))
    }
}

fn sh(script: &str) -> Stage {
    Stage::other("sh", Invocation::new("sh", ["-c", script]))
}

fn is_ready(report: &JobReport) -> bool {
    matches!(report, JobReport::Complaint(text) if text.as_str() == "ready")
}

#[test]
fn job_leads_its_session_and_programs_have_its_lock_and_priority() {
    let mut run = Launched::new();
    let script =
        "stat -L -c '%i' /proc/self/fd/8 >&2; cat /proc/self/stat | cut -d ' ' -f 6,19 >&2; umask >&2;
        ulimit -c >&2; echo $PPID >&2; echo data";
    let meter = Run::Meter { meter: Meter::Wire, digest: None, limited: false };
    run.start(Some(0), vec![sh(script), Stage { name: Program::Other("wire".into()), run: meter }]);
    run.jobs.control(JobName::Sender, Control::OpenGate).unwrap();
    let reports = run.exit();
    let said: Vec<&str> = reports
        .iter()
        .filter_map(|report| if let JobReport::Complaint(text) = report { Some(text.as_str()) } else { None })
        .collect();
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(run.jobs.lock(JobName::Sender)).unwrap());
    let session_and_nice = format!("{} 5", said[4]);
    assert_eq!(said[..4], [inode.to_string().as_str(), &session_and_nice, "0077", "0"], "{said:?}");
    assert!(reports.contains(&JobReport::Bytes(Meter::Wire, 5)), "{reports:?}");
    assert_eq!(reports.last(), Some(&JobReport::Exit(0)));
    let file = run.home.path().join("staging/in/file");
    assert_eq!(fs::read_to_string(&file).unwrap(), "data\n");
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(file).unwrap().permissions()) & 0o777,
        0o600
    );
}

#[test]
fn stopped_job_ends_with_all_of_its_processes() {
    let mut run = Launched::new();
    run.start(None, vec![sh("trap '' TERM; (sleep 1000 & sleep 1000) & echo ready >&2; wait; wait")]);
    run.until(is_ready);
    run.jobs.stop(JobName::Sender).unwrap();
    assert_eq!(holders(&run.jobs.lock(JobName::Sender)), [""; 0]);
    let reports = run.exit();
    assert_eq!(reports, [JobReport::Exit(STOPPED)]);
    assert!(matches!(run.jobs.control(JobName::Sender, Control::OpenGate), Err(JobError::Gone(_))));
}

#[test]
fn killed_job_is_reported_and_its_programs_are_ended() {
    let mut run = Launched::new();
    run.start(None, vec![sh("echo $PPID >&2; echo ready >&2; exec sleep 1000")]);
    let reports = run.until(is_ready);
    let JobReport::Complaint(pid) = &reports[0] else { panic!("{reports:?}") };
    Command::new("kill").args(["-KILL", pid.as_str()]).status().unwrap();
    assert_eq!(run.exit(), [JobReport::Exit(137)]);
    assert_eq!(holders(&run.jobs.lock(JobName::Sender)), [""; 0]);
}

#[test]
fn job_ends_with_its_agent() {
    let mut run = Launched::new();
    run.start(None, vec![sh("echo ready >&2; exec sleep 1000")]);
    run.until(is_ready);
    let lock = run.jobs.lock(JobName::Sender);
    assert_eq!(holders(&lock).len(), 2);
    // An agent that ends closes the channel.
    drop(run.jobs);
    let start = std::time::Instant::now();
    while !holders(&lock).is_empty() {
        assert!(start.elapsed() < LIMIT);
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn job_without_a_record_is_not_started() {
    let mut run = Launched::new();
    let task = Task::Inspect(Place::Root);
    let start = Start { name: JobName::Inspect, task, key: None, held: Vec::new() };
    let error = run.jobs.start(start, |_| Err(Text::new("the journal is full"))).unwrap_err();
    assert_eq!(error.to_string(), "the journal is full");
    assert!(run.jobs.running.is_empty());
}
