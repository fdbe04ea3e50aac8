//! After-hooks: commands of the user that run when everything else was rolled back, however the run ended.
//!
//! Marks in the run's directory say which hooks have begun and which have succeeded. A hook that has begun
//! once is repeated on request only: whoever ran it may have been killed in it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::BorrowedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Mode, OFlags, openat, statat};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::agent::journal::contents::Conclusion;
use crate::agent::tool::{self, Tool};
use crate::proto::Text;
use crate::proto::journal::Hook;

use super::programs::Programs;
use super::restore::{Circumstances, MayStart};

/// Maximum time of a hook.
const LIMIT: Duration = Duration::from_secs(600);
/// Script that becomes a hook: with the permissions and the signals that a user's command expects.
const PREPARE: &str = "umask 022; signals=--default-signal=HUP,INT,TERM; \
    if env $signals true 2>/dev/null; then exec env $signals \"$@\"; else exec \"$@\"; fi";
/// Maximum size of the output that is searched for its last line.
const LAST: u64 = 500;

/// Circumstances in which a hook runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context<'a> {
    /// Directory of the run.
    pub(crate) directory: BorrowedFd<'a>,
    /// Name of the run.
    pub(crate) run: &'a str,
    /// Result of the run.
    pub(crate) conclusion: Conclusion,
    /// Circumstances of the rollback.
    pub(crate) circumstances: Circumstances,
    /// Hooks are marked as done instead of being run: a person requested it.
    pub(crate) forgets: bool,
}

/// End of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookEnd {
    /// The hook has succeeded, now or before.
    Succeeded,
    /// The hook is not run any more.
    Forgotten,
}

/// Error of a hook.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HookError {
    /// An earlier attempt has failed, or was ended.
    #[error("has failed, or was ended")]
    Begun,
    /// The hook may not run.
    #[error("has not run")]
    NotRun,
    /// A mark cannot be written.
    #[error("cannot write {name} in the directory of the run: {source}")]
    Mark {
        /// Name.
        name: String,
        /// Cause.
        source: io::Error,
    },
    /// The shell cannot be started.
    #[error("cannot start the shell: {0}")]
    Start(#[source] io::Error),
    /// The hook has not ended.
    #[error("has not ended within {} s{said}", limit.as_secs())]
    Slow {
        /// Time limit.
        limit: Duration,
        /// Last line of its output, behind a colon.
        said: Text,
    },
    /// The hook has failed.
    #[error("failed ({}){said}", status_words(*status))]
    Failed {
        /// Status.
        status: ExitStatus,
        /// Last line of its output, behind a colon.
        said: Text,
    },
}

fn status_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        _ => status.to_string(),
    }
}

/// Runs an after-hook, unless it has succeeded already.
pub(crate) fn run_after(
    context: &Context<'_>,
    hook: &Hook,
    programs: &Programs,
) -> Result<HookEnd, HookError> {
    run_within(context, hook, programs, LIMIT)
}

fn run_within(
    context: &Context<'_>,
    hook: &Hook,
    programs: &Programs,
    limit: Duration,
) -> Result<HookEnd, HookError> {
    let name = |kind: &str| format!("hook.{}.{kind}", hook.number);
    let exists = |name: &str| statat(context.directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    let (done, begun) = (name("done"), name("begun"));
    if exists(&done) {
        return Ok(HookEnd::Succeeded);
    }
    if context.forgets {
        // Also where something else is left, and the request is not repeated.
        mark(context.directory, &done)?;
        return Ok(HookEnd::Forgotten);
    }
    let Circumstances { may_start, .. } = context.circumstances;
    if may_start != MayStart::All && exists(&begun) {
        return Err(HookError::Begun);
    }
    if !context.circumstances.may_start_now() {
        return Err(HookError::NotRun);
    }
    mark(context.directory, &begun)?;
    let (said, mut output) = (name("said"), create(context.directory, &name("said"))?);
    let child = start(&mut command(context, hook, programs), &output).map_err(HookError::Start)?;
    let status = wait(child, limit).map_err(HookError::Start)?;
    match status {
        Some(status) if status.success() => {
            mark(context.directory, &done)?;
            Ok(HookEnd::Succeeded)
        }
        Some(status) => Err(HookError::Failed { status, said: last_line(&mut output, &said)? }),
        None => Err(HookError::Slow { limit, said: last_line(&mut output, &said)? }),
    }
}

/// Returns the command of a hook, with what it may want to know.
fn command(context: &Context<'_>, hook: &Hook, programs: &Programs) -> Command {
    let bash = programs.find("bash");
    let shell: &[&str] = if bash.is_some() { &["bash", "--norc", "-p", "-c"] } else { &["sh", "-c"] };
    let mut command = Tool::new(programs.find("sh").unwrap_or_else(|| "/bin/sh".into()))
        .args(["-c", PREPARE, "sh"])
        .args(shell)
        .args([&hook.command, "transfer-hook"])
        .env("TRANSFER_HOOK_PHASE", "after")
        .env("TRANSFER_HOOK_STATUS", context.conclusion.name())
        .env("TRANSFER_HOOK_RUN", context.run)
        .env("TRANSFER_HOOK_END", &hook.end)
        .env("TRANSFER_HOOK_SOURCE", &hook.source)
        .env("TRANSFER_HOOK_TARGETS", &hook.targets)
        .command();
    command.current_dir("/");
    command
}

/// Starts a hook. Its output is a file: processes that it leaves in the background are not waited for.
fn start(command: &mut Command, output: &File) -> io::Result<Child> {
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
    tool::spawn(command)
}

/// Waits for the end of a hook; `None` if it was ended at the time limit.
fn wait(mut child: Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    loop {
        let Some(left) = deadline.checked_duration_since(Instant::now()) else {
            tool::end(&mut child);
            return Ok(None);
        };
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Ok(1..) => return child.wait().map(Some),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn create(directory: BorrowedFd<'_>, name: &str) -> Result<File, HookError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::from_raw_mode(0o600));
    file.map(File::from).map_err(|error| HookError::Mark { name: name.to_owned(), source: error.into() })
}

/// Makes a mark durable.
fn mark(directory: BorrowedFd<'_>, name: &str) -> Result<(), HookError> {
    let file = create(directory, name)?;
    let synced = file.sync_all().and_then(|()| Ok(rustix::fs::fsync(directory)?));
    synced.map_err(|source| HookError::Mark { name: name.to_owned(), source })
}

/// Returns the last line of the output, behind a colon.
fn last_line(output: &mut File, name: &str) -> Result<Text, HookError> {
    let mut read = || -> io::Result<Text> {
        let size = output.metadata()?.len();
        output.seek(SeekFrom::Start(size.saturating_sub(LAST)))?;
        let mut end = Vec::new();
        output.take(LAST).read_to_end(&mut end)?;
        let line = end.trim_ascii_end().rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
        Ok(if line.is_empty() { Text::default() } else { Text::new([b": ", line].concat()) })
    };
    read().map_err(|source| HookError::Mark { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::path::Path;

    const OWN: Circumstances = Circumstances { may_start: MayStart::Own, is_rebooted: false };

    fn hook(command: &str) -> Hook {
        let [end, source, targets] = ["target", "a:/x", "b:/y c:/z"].map(str::to_owned);
        Hook { end, number: 3, command: command.to_owned(), source, targets }
    }

    fn run(path: &Path, command: &str, change: impl FnOnce(&mut Context<'_>)) -> Result<HookEnd, HookError> {
        let directory = File::open(path).unwrap();
        let mut context = Context {
            directory: directory.as_fd(),
            run: "r1",
            conclusion: Conclusion::Lost,
            circumstances: OWN,
            forgets: false,
        };
        change(&mut context);
        run_within(&context, &hook(command), &Programs::of_login(), Duration::from_secs(20))
    }

    #[test]
    fn hook_gets_its_variables_and_runs_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let command = "echo \"$TRANSFER_HOOK_PHASE $TRANSFER_HOOK_STATUS $TRANSFER_HOOK_RUN \
            $TRANSFER_HOOK_END $TRANSFER_HOOK_SOURCE $TRANSFER_HOOK_TARGETS $(umask) $(pwd)\"";
        assert_eq!(run(path, command, |_| {}).unwrap(), HookEnd::Succeeded);
        let said = fs::read_to_string(path.join("hook.3.said")).unwrap();
        assert_eq!(said, "after lost r1 target a:/x b:/y c:/z 0022 /\n");
        assert!(path.join("hook.3.done").exists() && path.join("hook.3.begun").exists());
        assert_eq!(run(path, "false", |_| {}).unwrap(), HookEnd::Succeeded);
    }

    #[test]
    fn failed_hook_is_repeated_on_request_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let error = run(path, "echo first; echo last >&2; exit 3", |_| {}).unwrap_err();
        assert_eq!(error.to_string(), "failed (exit status 3): last");
        assert!(matches!(run(path, "true", |_| {}), Err(HookError::Begun)));
        let all = |context: &mut Context<'_>| context.circumstances.may_start = MayStart::All;
        let error = run(path, "kill -9 $$", all).unwrap_err();
        assert_eq!(error.to_string(), "failed (signal 9)");
        assert_eq!(run(path, "true", all).unwrap(), HookEnd::Succeeded);
    }

    #[test]
    fn hook_of_another_boot_does_not_run_and_can_be_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let rebooted = |context: &mut Context<'_>| context.circumstances.is_rebooted = true;
        assert!(matches!(run(path, "true", rebooted), Err(HookError::NotRun)));
        assert!(!path.join("hook.3.begun").exists());
        assert_eq!(run(path, "false", |context| context.forgets = true).unwrap(), HookEnd::Forgotten);
        assert_eq!(run(path, "false", rebooted).unwrap(), HookEnd::Succeeded);
    }

    #[test]
    fn background_processes_are_not_waited_for_and_slow_hooks_are_ended() {
        let directory = tempfile::tempdir().unwrap();
        let start = Instant::now();
        run(directory.path(), "sleep 30 &", |_| {}).unwrap();
        let other = tempfile::tempdir().unwrap();
        let opened = File::open(other.path()).unwrap();
        let context = Context {
            directory: opened.as_fd(),
            run: "r1",
            conclusion: Conclusion::Failed,
            circumstances: OWN,
            forgets: false,
        };
        let programs = Programs::of_login();
        let slow = run_within(&context, &hook("sleep 30"), &programs, Duration::from_millis(100));
        assert!(matches!(slow, Err(HookError::Slow { .. })));
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
