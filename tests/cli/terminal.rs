//! A real terminal: its bar, size, loss and keys. And outputs that accept no data.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::fcntl_setpipe_size;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::support::local::holds::{Hold, Point};
use crate::support::local::processes::{names, staging};
use crate::support::local::runs::{LONG, Running, wait_until};
use crate::support::local::sandbox::{Sandbox, Words};
use crate::support::local::trees::assert_same;
use crate::support::output::Output;

/// A terminal with a program, and a thread that reads its output.
struct Terminal {
    master: Arc<File>,
    /// Output so far.
    shown: Arc<Mutex<Vec<u8>>>,
    closed: Arc<AtomicBool>,
    reader: JoinHandle<()>,
    running: Running,
}

impl Terminal {
    /// Starts a command as session leader on a new terminal of 100 columns.
    fn start(mut command: Command) -> Self {
        let master: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        // For the reader to see the request to stop, and to close the terminal.
        fcntl_setfl(&master, OFlags::NONBLOCK).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave =
            OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NOCTTY).open(name).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let master = Arc::new(File::from(master));
        resize(&master, 100);
        let running = Running::unread(command.stdin(end()).stdout(end()).stderr(end()));
        // The command has its own copies of the descriptor.
        drop(command);
        let (shown, closed) = (Arc::<Mutex<Vec<u8>>>::default(), Arc::new(AtomicBool::new(false)));
        let reader = std::thread::spawn({
            let (master, shown, closed) = (Arc::clone(&master), Arc::clone(&shown), Arc::clone(&closed));
            move || {
                let mut bytes = [0; 4096];
                while !closed.load(Ordering::Relaxed) {
                    match master.as_ref().read(&mut bytes) {
                        Ok(count) if count > 0 => shown.lock().unwrap().extend(&bytes[..count]),
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        // Nothing to read now, or no process that could write.
                        _ => std::thread::sleep(Duration::from_millis(5)),
                    }
                }
            }
        });
        Self { master, shown, closed, reader, running }
    }

    /// Returns all output so far.
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn shows(&self, text: &str) {
        wait_until(&format!("{text:?} is shown"), LONG, || self.text().contains(text));
    }

    /// Waits until a text is shown again.
    #[track_caller]
    fn shows_again(&self, text: &str) {
        let before = self.text().len();
        wait_until(&format!("{text:?} is shown again"), LONG, || self.text()[before..].contains(text));
    }

    fn types(&self, keys: &str) {
        self.master.as_ref().write_all(keys.as_bytes()).unwrap();
    }

    /// Hangs up the terminal.
    fn hang_up(self) -> Running {
        self.closed.store(true, Ordering::Relaxed);
        self.reader.join().unwrap();
        drop(self.master);
        self.running
    }

    /// Waits for the end of the program; returns what was shown as its standard output.
    #[track_caller]
    fn wait(self) -> Output {
        let ended = self.running.wait(LONG);
        // Everything written before the end can be read by now; the reader does so within its next polls.
        let mut last = 0;
        wait_until("all is read", LONG, || {
            std::thread::sleep(Duration::from_millis(50));
            let before = std::mem::replace(&mut last, self.shown.lock().unwrap().len());
            before == last
        });
        self.closed.store(true, Ordering::Relaxed);
        self.reader.join().unwrap();
        let stdout = String::from_utf8_lossy(&self.shown.lock().unwrap()).into_owned();
        Output { stdout, ..ended }
    }
}

fn resize(master: &File, columns: u16) {
    let size = Winsize { ws_row: 30, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).unwrap();
}

/// Returns the versions of a line that was drawn repeatedly, without cursor movements.
fn drawn(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\x1b' => while letters.next().is_some_and(|letter| !letter.is_ascii_alphabetic()) {},
            '\r' | '\n' => lines.push(String::new()),
            letter => lines.last_mut().unwrap().push(letter),
        }
    }
    lines.retain(|line| !line.trim().is_empty());
    lines
}

/// A run on a terminal that is held in mid-stream.
struct Scene {
    sandbox: Sandbox,
    hold: Hold,
    source: PathBuf,
    target: PathBuf,
    terminal: Terminal,
}

impl Scene {
    /// Starts the program as `"$@"` of a bash script, on a terminal of that type.
    fn start(kind: &str, script: &str, options: Words<'_>) -> Option<Self> {
        let sandbox = Sandbox::new()?;
        let hold = sandbox.hold(Point::Archive);
        let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
        let mut words: Vec<&dyn AsRef<std::ffi::OsStr>> = vec![&source, &target];
        words.extend(options);
        let program = sandbox.command(&words);
        let mut command = sandbox.through(&["setsid", "--ctty", "bash", "--norc", "-c", script, "bash"]);
        // Only the program and its arguments: the rest of the sandbox's command is set up already.
        let is_program = |word: &&std::ffi::OsStr| !word.to_string_lossy().ends_with("/transfer");
        command.args(program.get_args().skip_while(is_program)).env("TERM", kind);
        let terminal = Terminal::start(command);
        hold.reached();
        Some(Self { sandbox, hold, source, target, terminal })
    }

    /// Asserts that the run continues and succeeds.
    #[track_caller]
    fn succeeds(self) -> Output {
        self.hold.open();
        let ended = self.terminal.wait().expect_success().says(": done: 2.00 MiB in 3 entries");
        assert_same(&self.source, &self.target.join("source"));
        self.sandbox.is_clean(&[&self.target]);
        ended
    }
}

/// Runs the program as the terminal's own process.
const PLAINLY: &str = "exec \"$@\"";
/// Runs the program in a shell with job control: it can be stopped, and continues when a line is typed.
const JOB: &str = "set -m; \"$@\"; echo \"[shell: $?]\"; read -r _; fg >/dev/null; status=$?; echo \"[end: $status]\"; exit $status";

#[test]
fn bar_disappears_at_the_end() {
    let Some(scene) = Scene::start("xterm", PLAINLY, &[]) else { return };
    scene.terminal.shows("copying");
    scene.terminal.shows("[>         ]");
    let ended = scene.succeeds();
    let end = ended.stdout.rfind("localhost:").unwrap();
    let bar = ended.stdout[..end].rfind("] ").unwrap();
    assert!(ended.stdout[bar..end].contains("\x1b[2K"), "the last bar was not taken away: {ended}");
    assert!(!ended.stdout[end..].contains('\x1b'), "{ended}");
}

#[test]
fn warnings_and_steps_replace_the_bar() {
    let warning =
        "--stop-replication has no effect on a copy of files; omit it, or stop the replication yourself";
    for (option, head) in [("--progress=bar", "transfer: warning: localhost: "), ("--verbose", "")] {
        let Some(scene) = Scene::start("xterm", PLAINLY, &[&"--stop-slave", &option]) else { return };
        scene.terminal.shows("copying");
        let ended = scene.succeeds();
        let taken_away = |line: &&str| line.contains(warning) && line.contains("\r\x1b[K");
        assert!(ended.stdout.lines().any(|line| taken_away(&line)), "{ended}");
        let lines = drawn(&ended.stdout);
        assert!(lines.iter().any(|line| line.starts_with(head) && line.ends_with(warning)), "{ended}");
    }
}

#[test]
fn dumb_terminal_gets_lines() {
    let Some(scene) = Scene::start("dumb", PLAINLY, &[&"--stop-slave"]) else { return };
    scene.terminal.shows("copying\r\n");
    let ended = scene.succeeds();
    assert!(!ended.stdout.contains('\x1b'), "{ended}");
    assert!(ended.stdout.contains("transfer: warning: localhost: --stop-replication"), "{ended}");
}

#[test]
fn narrowed_terminal_gets_fitting_lines() {
    let Some(scene) = Scene::start("xterm", PLAINLY, &[]) else { return };
    scene.terminal.shows("copying");
    resize(&scene.terminal.master, 20);
    // An update may be in progress.
    scene.terminal.shows_again("copying");
    let before = scene.terminal.text().len();
    scene.terminal.shows_again("copying");
    scene.terminal.shows_again("copying");
    let narrow = scene.terminal.text()[before..].to_owned();
    resize(&scene.terminal.master, 100);
    scene.terminal.shows_again("] ");
    scene.succeeds();
    for line in drawn(&narrow) {
        assert!(line.chars().count() <= 20, "{line:?}");
    }
}

#[test]
fn closed_terminal_rolls_the_run_back() {
    let Some(Scene { sandbox, hold: _hold, target, terminal, .. }) = Scene::start("xterm", PLAINLY, &[])
    else {
        return;
    };
    terminal.hang_up().wait(LONG).expect_code(129);
    sandbox.is_clean(&[&target]);
    assert_eq!(names(&target), Vec::<String>::new());
}

#[test]
fn closed_terminal_is_harmless_under_nohup() {
    for script in ["trap '' HUP; exec \"$@\"", "cd \"$HOME\"; exec nohup \"$@\""] {
        let Some(scene) = Scene::start("xterm", script, &[&"--verbose"]) else { return };
        let running = scene.terminal.hang_up();
        scene.hold.open();
        running.wait(LONG).expect_success();
        assert_same(&scene.source, &scene.target.join("source"));
        scene.sandbox.is_clean(&[&scene.target]);
    }
}

#[test]
fn stopped_run_continues_within_lease_time() {
    let Some(scene) = Scene::start("xterm", JOB, &[]) else { return };
    scene.terminal.shows("copying");
    scene.terminal.types("\x1a");
    scene.terminal.shows("[shell: 148]");
    std::thread::sleep(Duration::from_secs(2));
    scene.terminal.types("\n");
    scene.terminal.shows_again("copying");
    scene.succeeds().says("[end: 0]");
}

#[test]
fn stopped_run_fails_after_lease_time() {
    let Some(Scene { sandbox, hold: _hold, target, terminal, .. }) =
        Scene::start("xterm", JOB, &[&"--lease-time=2"])
    else {
        return;
    };
    terminal.types("\x1a");
    terminal.shows("[shell: 148]");
    wait_until("the agents have undone", LONG, || {
        staging(&target).is_empty() && sandbox.journals().is_empty()
    });
    terminal.types("\n");
    let ended = terminal.wait().expect_code(1).says("[end: 1]");
    ended
        .says("no heartbeat from this controller within the lease time")
        .says("was the connection cut, or this machine suspended?")
        .says("all changes on the hosts were rolled back");
    sandbox.is_clean(&[&target]);
    assert_eq!(names(&target), Vec::<String>::new());
}

#[test]
fn ctrl_c_rolls_back_everything() {
    let Some(Scene { sandbox, hold: _hold, target, terminal, .. }) = Scene::start("xterm", PLAINLY, &[])
    else {
        return;
    };
    terminal.types("\x03");
    terminal.wait().expect_code(130).says("transfer: interrupted by SIGINT");
    sandbox.is_clean(&[&target]);
}

#[test]
fn paused_terminal_blocks_no_run() {
    let Some(scene) = Scene::start("xterm", PLAINLY, &[&"--verbose", &"--lease-time=2"]) else { return };
    scene.terminal.shows("copying");
    scene.terminal.types("\x13");
    // Longer than the lease time: heartbeats continue.
    std::thread::sleep(Duration::from_secs(4));
    scene.hold.open();
    wait_until("the copy is there", LONG, || scene.target.join("source").exists());
    scene.sandbox.gets_clean_of_journals(&scene.target);
    scene.terminal.types("\x11");
    scene.succeeds();
}

#[test]
fn full_pipes_block_no_run() {
    let Some(sandbox) = Sandbox::new() else { return };
    let (source, target) = (sandbox.source("source"), sandbox.dir("target"));
    let mut command = sandbox.command(&[&source, &target, &"--verbose", &"--json"]);
    let pipes = [full(), full()];
    let [out, err] = pipes.each_ref().map(|(_, end)| Stdio::from(end.try_clone().unwrap()));
    let running = Running::unread(command.stdout(out).stderr(err));
    drop(command);
    wait_until("the copy is there", LONG, || target.join("source").exists());
    sandbox.gets_clean_of_journals(&target);
    assert_same(&source, &target.join("source"));
    // A late reader gets the end.
    let texts = pipes.map(|(reader, end)| {
        drop(end);
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = File::from(reader).read_to_end(&mut bytes);
            String::from_utf8_lossy(&bytes).into_owned()
        })
    });
    running.wait(LONG).expect_success();
    let [out, _] = texts.map(|text| text.join().unwrap());
    assert!(out.lines().last().unwrap().contains("\"event\":\"report\""), "{out}");
    sandbox.is_clean(&[&target]);
}

/// Returns a full pipe.
fn full() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let size = fcntl_setpipe_size(&writer, 4096).unwrap();
    File::from(writer.try_clone().unwrap()).write_all(&b"\n".repeat(size)).unwrap();
    (reader, writer)
}
