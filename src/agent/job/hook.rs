//! Command of the user before the copy. Its time is limited; processes that it leaves in the background are neither
//! waited for nor ended.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::process::{Signal, kill_process_group};

use super::channel::{Inbox, Notice};
use super::program::{Running, clean_environment, null, patiently};
use super::thread::ready;
use super::{Context, End, GRACE, LOCK};
use crate::proto::Text;
use crate::proto::job::JobReport;
use crate::proto::task::BeforeHook;

/// Maximum time that a command may take.
const LIMIT: Duration = Duration::from_secs(600);
/// Time for a command to end after its limit before it is killed.
const LAST: Duration = Duration::from_secs(10);
/// Exit status of a command that took too long.
const TOO_LONG: i32 = 124;
/// File for the output. The command's background processes may keep it open.
const OUTPUT: &str = "hook.said";
/// Maximum length of the last line.
const LAST_LINE: u64 = 500;

/// Runs a command for [`LIMIT`] at most, and reports the last line of its output.
pub(super) fn run(context: &Context<'_>, hook: &BeforeHook, inbox: &mut Inbox) -> io::Result<End> {
    run_within(context, hook, inbox, LIMIT)
}

fn run_within(
    context: &Context<'_>,
    hook: &BeforeHook,
    inbox: &mut Inbox,
    limit: Duration,
) -> io::Result<End> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::APPEND | OFlags::NOFOLLOW;
    let path = context.directory.join(OUTPUT);
    let mut output = File::from(openat(CWD, path, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?);
    let mut hook = Running::new(start(hook, &output)?)?;
    let mut deadline = Deadline { at: Instant::now() + limit, is_over: false };
    let status = loop {
        let left = deadline.at.saturating_duration_since(Instant::now());
        let has_ended = {
            let mut all = vec![hook.pidfd()];
            all.extend(inbox.descriptors());
            ready(&all, Some(left))?[0]
        };
        if has_ended {
            let status = hook.wait();
            break if deadline.is_over { TOO_LONG } else { status };
        }
        if inbox.notices().contains(&Notice::Stop) {
            stop(&mut hook)?;
            return Ok(End::Stopped);
        }
        if deadline.at <= Instant::now() {
            deadline.pass(&hook);
        }
    };
    let mut line = last_line(&mut output)?;
    if deadline.is_over && line.is_empty() {
        line = Text::from(format!("the command has not ended within {} s", limit.as_secs()));
    }
    if !line.is_empty() {
        context.reports.send(JobReport::Complaint(line));
    }
    Ok(End::Exit(status))
}

/// Time limit of a command: first it is terminated, then killed.
struct Deadline {
    at: Instant,
    is_over: bool,
}

impl Deadline {
    fn pass(&mut self, hook: &Running) {
        // It was not waited for, so the number of its group is still its own.
        let _ = kill_process_group(hook.pid(), if self.is_over { Signal::KILL } else { Signal::TERM });
        self.is_over = true;
        self.at = Instant::now() + LAST;
    }
}

fn stop(hook: &mut Running) -> io::Result<()> {
    let _ = kill_process_group(hook.pid(), Signal::TERM);
    if !ready(&[hook.pidfd()], Some(GRACE))?[0] {
        let _ = kill_process_group(hook.pid(), Signal::KILL);
    }
    hook.wait();
    Ok(())
}

/// Starts the command with bash, or with sh where there is none.
fn start(hook: &BeforeHook, output: &File) -> io::Result<Child> {
    let bash = shell("bash", &["--norc", "-p"], hook, output);
    match bash {
        Err(error) if error.kind() == ErrorKind::NotFound => shell("sh", &[], hook, output),
        result => result,
    }
}

fn shell(program: &str, options: &[&str], hook: &BeforeHook, output: &File) -> io::Result<Child> {
    let mut command = Command::new(program);
    // Without the job's lock, by which the processes of a job are found and ended.
    let script = format!("exec {LOCK}>&-; eval \"$1\"");
    command.args(options).args(["-c", &script, "transfer-hook", &hook.command]);
    clean_environment(&mut command);
    let facts = [
        ("PHASE", "before"),
        ("STATUS", ""),
        ("RUN", &hook.run),
        ("END", &hook.end),
        ("SOURCE", &hook.source),
        ("TARGETS", &hook.targets),
    ];
    command.envs(facts.map(|(name, value)| (format!("TRANSFER_HOOK_{name}"), value)));
    command.stdin(null()?).stdout(output.try_clone()?).stderr(output.try_clone()?);
    command.current_dir("/").process_group(0);
    patiently(|| command.spawn())
}

/// Returns the last line of the output.
fn last_line(output: &mut File) -> io::Result<Text> {
    let length = output.metadata()?.len();
    output.seek(SeekFrom::Start(length.saturating_sub(LAST_LINE)))?;
    let mut bytes = Vec::new();
    output.take(LAST_LINE).read_to_end(&mut bytes)?;
    let line = bytes.trim_ascii_end().rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    Ok(Text::new(line))
}

#[cfg(test)]
mod tests {
    use super::super::Checks;
    use super::super::pipes::pipe;
    use super::super::report::Reports;
    use super::*;
    use crate::proto::frame;
    use crate::proto::server::Login;
    use crate::proto::task::{Order, Place, Task};
    use std::ffi::{OsStr, OsString};
    use std::os::unix::net::UnixStream;

    struct NoChecks;

    impl Checks for NoChecks {
        fn login(&self, _: &Login, _: &OsStr) -> Result<Vec<OsString>, Text> {
            Ok(Vec::new())
        }
    }

    /// Runs a command, and returns its end and the last line of its output.
    fn run(command: &str, limit: Duration) -> (End, String) {
        let home = tempfile::tempdir().unwrap();
        let (input, output) = pipe().unwrap();
        let directory = home.path().as_os_str().into();
        let task = Task::Inspect(Place::Root);
        let order = Order { directory, nice: 0, task, key: None, held: Vec::new() };
        let reports = Reports::start(File::from(output)).unwrap();
        let context = Context::new(&order, Vec::new(), reports, &NoChecks);
        let hook = BeforeHook {
            command: command.into(),
            end: "target".into(),
            run: "r1".into(),
            source: "db1:/srv".into(),
            targets: "db2:/srv".into(),
        };
        let (_agent, job) = UnixStream::pair().unwrap();
        let end = run_within(&context, &hook, &mut Inbox::new(job, None).unwrap(), limit).unwrap();
        context.reports.finish(Duration::from_secs(60));
        drop(context);
        let report: Option<JobReport> = frame::read(&mut File::from(input)).unwrap();
        let line = match report {
            Some(JobReport::Complaint(text)) => text.as_str().to_owned(),
            _ => String::new(),
        };
        (end, line)
    }

    #[test]
    fn last_line_and_status_are_those_of_the_command() {
        assert_eq!(run("echo one; echo two >&2; exit 3", LIMIT), (End::Exit(3), "two".into()));
        assert_eq!(run("exit 0", LIMIT), (End::Exit(0), String::new()));
        let long = run("head -c 2000 /dev/zero | tr '\\0' x", LIMIT).1;
        assert_eq!(long, "x".repeat(500));
    }

    #[test]
    fn command_has_its_variables_and_not_the_lock() {
        let facts = "echo $TRANSFER_HOOK_PHASE-$TRANSFER_HOOK_STATUS-$TRANSFER_HOOK_RUN-$TRANSFER_HOOK_END";
        assert_eq!(run(facts, LIMIT).1, "before--r1-target");
        assert_eq!(
            run("echo $TRANSFER_HOOK_SOURCE $TRANSFER_HOOK_TARGETS $PWD", LIMIT).1,
            "db1:/srv db2:/srv /"
        );
        assert_eq!(run(&format!("test -e /proc/$$/fd/{LOCK} || echo none"), LIMIT).1, "none");
    }

    #[test]
    fn slow_commands_are_ended_and_background_processes_are_not_waited_for() {
        let start = Instant::now();
        let limit = Duration::from_millis(200);
        let message = "the command has not ended within 0 s";
        assert_eq!(run("sleep 1000", limit), (End::Exit(TOO_LONG), message.into()));
        assert_eq!(run("sleep 20 & echo done", LIMIT), (End::Exit(0), "done".into()));
        assert!(start.elapsed() < Duration::from_secs(15));
    }
}
