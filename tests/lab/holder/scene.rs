//! A shell that starts agents, in a directory of its own.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::agent::NAME;
use crate::support::holder::{Held, Holder, Point, Role, Spec};

/// Limit for anything.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// Shell that runs a script, with the agent as `$agent`, when the test says so. It is no child of the test: the
/// tracer would take its status.
pub(super) struct Scene {
    directory: TempDir,
    outer: Child,
    pub(super) shell: Pid,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Scene {
    pub(super) fn of(script: &str) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let agent = directory.path().join(NAME);
        let program = std::env::current_exe().unwrap();
        fs::hard_link(&program, &agent).or_else(|_| fs::copy(&program, &agent).map(drop)).unwrap();
        let script = format!("read -r _ <&3\n{script}");
        let mut outer = Command::new("bash")
            .args(["--norc", "-c", r#"exec 3<&0; bash --norc -c "$0" & echo "$!"; wait"#, &script])
            .current_dir(directory.path())
            .env("agent", &agent)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (outer.stdin.take().unwrap(), outer.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        let shell = Pid::from_raw(lines.recv_timeout(SOON).unwrap().parse().unwrap());
        Self { directory, outer, shell, input, lines }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    /// Traces the shell; `None` where the machine does not permit that.
    pub(super) fn arm(&self, roles: &'static [Role], point: Point) -> Option<Holder> {
        match Holder::arm(Spec { roles, point }, &[self.shell]) {
            Err(Errno::EPERM) => {
                println!("skipped: processes cannot be traced here");
                None
            }
            holder => Some(holder.expect("the shell cannot be traced")),
        }
    }

    /// Starts the script.
    pub(super) fn go(&mut self) {
        self.input.write_all(b"\n").unwrap();
    }

    /// Starts the script, which has to be held.
    #[track_caller]
    pub(super) fn go_until_held(&mut self, holder: &Holder) -> Held {
        self.go();
        holder.await_held(SOON, || true).expect("nothing is held")
    }

    /// Returns the next line of the script.
    #[track_caller]
    pub(super) fn line(&self) -> String {
        self.line_within(SOON)
    }

    #[track_caller]
    pub(super) fn line_within(&self, within: Duration) -> String {
        self.lines.recv_timeout(within).expect("the script prints nothing more")
    }

    /// Returns the next line if the script has printed one.
    pub(super) fn line_so_far(&self) -> Option<String> {
        self.lines.try_recv().ok()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.outer.id()).expect("a pid"));
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.outer.wait();
    }
}
