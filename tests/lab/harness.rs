//! How a test reaches the hosts of the lab: commands, files, the program under test, and what breaks a host. Every
//! step goes through `lab.sh`, so that there is one place which knows what a host is made of.

use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const LAB_SH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/lab.sh");
/// Unless `TRANSFER_LAB_PROGRAM` names another one, such as that of the release.
const PROGRAM: &str = env!("CARGO_BIN_EXE_transfer");
/// Outside of what a snapshot looks at.
const LOCK: &str = "/usr/local/lib/transfer-lab.lock";
/// Where the program is on the controller, in a directory per build: two builds may be tested in one lab.
const PROGRAM_HOME: &str = "/usr/local/lib/transfer-lab";

/// The lab that this run of the tests was given.
pub(crate) struct Lab {
    id: String,
}

impl Lab {
    /// The lab named by `TRANSFER_LAB`, or `None` when labs are turned off with `LAB=off`.
    ///
    /// Without either, the test fails: a test that silently did nothing would pass for one that passed.
    #[track_caller]
    pub(crate) fn get() -> Option<Self> {
        if let Ok(id) = std::env::var("TRANSFER_LAB") {
            return Some(Self { id });
        }
        if std::env::var("LAB").is_ok_and(|lab| lab == "off") {
            println!("skipped: LAB=off");
            return None;
        }
        panic!(
            "TRANSFER_LAB names no lab: run `make test`, or `tests/lab/lab.sh with cargo nextest run` as root, \
             or set LAB=off to skip the tests that need one"
        );
    }

    /// Another lab, whether it is there or not.
    pub(crate) fn named(id: &str) -> Self {
        Self { id: id.to_owned() }
    }

    /// Its name.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Makes the lab, and removes what there was of that name before. It goes with the one in which all tests run.
    #[track_caller]
    pub(crate) fn remake(&self, hosts: &[&str]) {
        let owner = std::env::var("TRANSFER_LAB_OWNER").unwrap_or_else(|_| "1".into());
        lab_sh("down", std::slice::from_ref(&self.id));
        let hosts = hosts.iter().map(ToString::to_string);
        lab_sh(
            "up",
            &[self.id.clone(), "--owner".into(), owner].into_iter().chain(hosts).collect::<Vec<_>>(),
        );
    }

    /// A host by its name. Whether there is one shows when it is used.
    pub(crate) fn host(&self, name: &str) -> Host {
        Host { lab: self.id.clone(), name: name.to_owned() }
    }

    /// The program under test with these arguments, to be run on the controller.
    pub(crate) fn program(&self, args: &[&str]) -> Invocation {
        let ctl = self.host("ctl");
        let mut invocation = ctl.command(&[&install_program(&ctl)]);
        invocation.args.extend(args.iter().map(ToString::to_string));
        invocation
    }

    /// Runs the program under test on the controller.
    pub(crate) fn transfer(&self, args: &[&str]) -> Output {
        self.program(args).run()
    }

    /// Starts the program under test on the controller.
    pub(crate) fn transfer_spawn(&self, args: &[&str]) -> Running {
        self.program(args).spawn()
    }

    /// A directory for this test alone, by the same path on each of these hosts.
    pub(crate) fn scratch(&self, hosts: &[&str]) -> Scratch {
        let test = thread::current().name().filter(|name| *name != "main").map_or_else(
            || std::env::var("NEXTEST_TEST_NAME").unwrap_or_else(|_| "test".to_owned()),
            ToOwned::to_owned,
        );
        // Short: paths of sockets below it have at most 107 bytes.
        let name = test.rsplit("::").next().unwrap_or_default().trim_start_matches("exclusive_");
        let path = format!("/srv/{name}-{}", std::process::id());
        let hosts = hosts.iter().map(|name| self.host(name)).collect();
        // Made before the directories are: a host that is down must not leave those of the others.
        let scratch = Scratch { path, hosts };
        for host in &scratch.hosts {
            host.run(&["mkdir", &scratch.path]).expect_success();
        }
        scratch
    }

    /// Drops everything between two hosts until the returned value is dropped. Neither host can see how.
    pub(crate) fn cut(&self, a: &str, b: &str) -> Cut {
        let pair = [self.id.clone(), a.to_owned(), b.to_owned()];
        lab_sh("cut", &pair);
        Cut { pair }
    }
}

/// Runs a command of `lab.sh` that has to succeed.
#[track_caller]
fn lab_sh(command: &str, args: &[String]) {
    let output = Command::new(LAB_SH).arg(command).args(args).output().expect("lab.sh cannot be started");
    assert!(output.status.success(), "lab.sh {command} {args:?}: {}", Output::from(output));
}

/// Puts the program on the controller unless this build of it is there, and returns its path.
///
/// Many test processes come here at once: the lock makes one of them copy and the others wait. Builds that nobody has
/// used for an hour go, since a lab for development lives for days.
fn install_program(ctl: &Host) -> String {
    let program = std::env::var("TRANSFER_LAB_PROGRAM").unwrap_or_else(|_| PROGRAM.to_owned());
    let built = fs::metadata(&program).expect("the program under test is not built");
    let mut hasher = DefaultHasher::new();
    (&program, built.len(), built.mtime(), built.mtime_nsec()).hash(&mut hasher);
    let path = format!("{PROGRAM_HOME}/{:016x}/transfer", hasher.finish());
    let install = r#"
        mkdir -p "${1%/*}" && touch "${1%/*}"
        [ ! -x "$1" ] || exit 0
        find "$2" -mindepth 1 -maxdepth 1 -type d -mmin +60 -exec rm -rf {} +
        cat >"$1.new" && chmod 0755 "$1.new" && mv -f "$1.new" "$1" && ln -sfn "$1" /usr/local/bin/transfer"#;
    let mut invocation = ctl.command(&["flock", LOCK, "sh", "-c", install, "sh", &path, PROGRAM_HOME]);
    invocation.stdin = Input::File(fs::File::open(&program).expect("the program under test cannot be read"));
    invocation.run().expect_success();
    path
}

/// One host of the lab.
#[derive(Clone)]
pub(crate) struct Host {
    lab: String,
    name: String,
}

impl Host {
    /// A command to be run on the host as root, from `/`, with the environment of a login.
    pub(crate) fn command(&self, args: &[&str]) -> Invocation {
        Invocation {
            host: self.clone(),
            args: args.iter().map(ToString::to_string).collect(),
            env: Vec::new(),
            user: None,
            stdin: Input::Bytes(Vec::new()),
        }
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).run()
    }

    /// Runs a bash script, which has to succeed, and returns what it printed.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let script = format!("set -euo pipefail\n{script}\n");
        self.command(&["bash", "--norc", "-s"]).stdin(script).run().expect_success().stdout
    }

    /// Starts a command that goes on while the test does something else.
    pub(crate) fn spawn(&self, args: &[&str]) -> Running {
        self.command(args).spawn()
    }

    /// Makes or replaces a file, in one rename.
    #[track_caller]
    pub(crate) fn put(&self, bytes: impl AsRef<[u8]>, path: &str, mode: u32) {
        let mut file = tempfile::NamedTempFile::new().expect("no temporary file");
        file.write_all(bytes.as_ref()).expect("no temporary file");
        let from = file.path().to_str().expect("the path of a temporary file").to_owned();
        lab_sh("put", &[self.lab.clone(), self.name.clone(), from, path.to_owned(), format!("{mode:04o}")]);
    }

    /// Cuts the power: no process says goodbye, no trap runs, what is in memory file systems is lost.
    #[track_caller]
    pub(crate) fn crash(&self) {
        lab_sh("crash", &[self.lab.clone(), self.name.clone()]);
    }

    /// Starts the host again after [`Host::crash`]; returns when ssh answers.
    #[track_caller]
    pub(crate) fn boot(&self) {
        lab_sh("boot", &[self.lab.clone(), self.name.clone()]);
    }
}

/// What a command reads.
enum Input {
    Bytes(Vec<u8>),
    File(fs::File),
    Held,
}

/// A command on a host, before it runs.
#[must_use]
pub(crate) struct Invocation {
    host: Host,
    args: Vec<String>,
    env: Vec<String>,
    user: Option<String>,
    stdin: Input,
}

impl Invocation {
    /// Adds a variable to the environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push(format!("{name}={value}"));
        self
    }

    /// Runs the command as another account of the host, such as `dba`, who has no privileges.
    pub(crate) fn user(mut self, name: &str) -> Self {
        self.user = Some(name.to_owned());
        self
    }

    /// Gives the command something to read. Without it, its input is empty.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Input::Bytes(bytes.into());
        self
    }

    /// Adds words as bash reads them, such as `$'\xff'`: names need not be UTF-8.
    pub(crate) fn words(self, words: &str) -> Self {
        self.in_script(&format!("exec \"$0\" \"$@\" {words}"))
    }

    /// Hands the command to a bash script, as `$0` and `$@`.
    pub(crate) fn in_script(mut self, script: &str) -> Self {
        self.args.splice(0..0, ["bash", "--norc", "-c", script].map(ToOwned::to_owned));
        self
    }

    /// Leaves the input open until [`Running::close_stdin`].
    pub(crate) fn hold_stdin(mut self) -> Self {
        self.stdin = Input::Held;
        self
    }

    /// Runs the command to its end.
    pub(crate) fn run(self) -> Output {
        self.spawn().wait()
    }

    /// Starts the command.
    pub(crate) fn spawn(self) -> Running {
        // The shell says which pid it has inside and then becomes the command, through exec all the way.
        let mut command = Command::new(LAB_SH);
        command.args(["exec", &self.host.lab, &self.host.name, "--"]);
        command.args(["sh", "-c", r#"echo "$$" && exec "$@""#, "sh"]);
        if let Some(user) = &self.user {
            command.args(["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--"]);
            command.args([
                "env",
                &format!("HOME=/home/{user}"),
                &format!("USER={user}"),
                &format!("LOGNAME={user}"),
            ]);
        } else if !self.env.is_empty() {
            command.arg("env");
        }
        command.args(&self.env).args(&self.args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let bytes = match self.stdin {
            Input::File(file) => {
                command.stdin(file);
                None
            }
            Input::Bytes(bytes) if bytes.is_empty() => {
                command.stdin(Stdio::null());
                None
            }
            Input::Bytes(bytes) => Some(bytes),
            Input::Held => Some(Vec::new()),
        };
        if bytes.is_some() {
            command.stdin(Stdio::piped());
        }
        let hold = bytes.as_ref().is_some_and(Vec::is_empty);
        let mut child = command.spawn().expect("lab.sh cannot be started");
        let mut stdout = child.stdout.take().expect("piped");
        let stderr = child.stderr.take().expect("piped");
        let mut stdin = child.stdin.take();
        // The whole input before the first look at the output would block on a command that answers as it reads.
        let writer = bytes.filter(|bytes| !bytes.is_empty()).and_then(|bytes| {
            let mut stdin = stdin.take()?;
            // A command may end before it has read everything; that is for its status to tell.
            Some(thread::spawn(move || drop(stdin.write_all(&bytes))))
        });
        let pid = read_pid(&mut stdout);
        Running {
            host: self.host,
            pid,
            child,
            stdin: stdin.filter(|_| hold),
            writer,
            stdout: Collector::start(stdout),
            stderr: Collector::start(stderr),
            ended: false,
        }
    }
}

/// Reads the line in which the shell tells its pid, and not a byte more. `None` when there is none, because the host
/// is down; then the command's status and output say so.
fn read_pid(stdout: &mut impl Read) -> Option<u32> {
    let mut line = String::new();
    let mut byte = [0];
    while stdout.read(&mut byte).is_ok_and(|count| count == 1) && byte[0] != b'\n' {
        line.push(char::from(byte[0]));
    }
    line.parse().ok()
}

/// Reads a pipe to its end in a thread, so that a test can look at what has come so far.
struct Collector {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Collector {
    fn start(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut chunk = vec![0; 65536];
            while let Ok(count) = pipe.read(&mut chunk) {
                if count == 0 {
                    return;
                }
                sink.lock().expect("a reader panicked").extend_from_slice(&chunk[..count]);
            }
        });
        Self { bytes, reader: Some(reader) }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("a reader panicked")).into_owned()
    }

    fn read_to_end(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("a reader panicked");
        }
        self.so_far()
    }
}

/// A command that runs on a host. Dropping it kills it, and only it.
pub(crate) struct Running {
    host: Host,
    pid: Option<u32>,
    child: Child,
    stdin: Option<ChildStdin>,
    writer: Option<JoinHandle<()>>,
    stdout: Collector,
    stderr: Collector,
    ended: bool,
}

impl Running {
    /// The pid of the command, as the host counts.
    #[track_caller]
    pub(crate) fn pid(&self) -> u32 {
        self.pid.expect("the command did not start")
    }

    /// Sends a signal (`"INT"`, `"TERM"`, `"KILL"`, `"STOP"`…) to exactly this process. No error when it has ended.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        self.host.run(&["/bin/kill", "-s", name, &pid]);
        if name == "CONT" || name == "KILL" {
            // nsenter, which stands for the command on this side, stops itself when the command is stopped.
            let _ = kill(self.outer(), Signal::SIGCONT);
        }
    }

    fn outer(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// Ends the command's input that [`Invocation::hold_stdin`] left open.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Whether the command still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the command has printed a text on either stream.
    ///
    /// # Panics
    ///
    /// When it ends, or `within` passes, without that.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str, within: Duration) {
        let found = eventually(within, || {
            self.stdout.so_far().contains(text) || self.stderr.so_far().contains(text) || !self.is_running()
        });
        // What came last may be read after the end was seen.
        if found && !self.is_running() {
            self.stdout.read_to_end();
            self.stderr.read_to_end();
        }
        let (stdout, stderr) = (self.stdout.so_far(), self.stderr.so_far());
        assert!(
            stdout.contains(text) || stderr.contains(text),
            "waited for '{text}' in vain\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
        );
    }

    /// Waits for the end. Output is read until nobody holds the pipes any more, the command's children included.
    pub(crate) fn wait(mut self) -> Output {
        self.stdin = None;
        let stdout = self.stdout.read_to_end();
        let stderr = self.stderr.read_to_end();
        let status = self.child.wait().expect("a child can be waited for");
        self.ended = true;
        if let Some(writer) = self.writer.take() {
            writer.join().expect("the writer panicked");
        }
        Output { status, stdout, stderr }
    }

    /// Waits for the end of the command alone, at most for a while; children of it may still hold its pipes.
    #[track_caller]
    pub(crate) fn wait_end(&mut self, within: Duration) -> ExitStatus {
        assert!(
            eventually(within, || !self.is_running()),
            "still running after {within:?}\n--- stdout\n{}\n--- stderr\n{}",
            self.stdout.so_far(),
            self.stderr.so_far()
        );
        self.ended = true;
        self.child.wait().expect("a child can be waited for")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended && self.is_running() {
            if self.pid.is_some() {
                self.signal("KILL");
            }
            // Stopped or not, the stand-in on this side goes too.
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

/// How a command ended and what it printed.
pub(crate) struct Output {
    /// As the command's parent would see it, a signal included.
    pub(crate) status: ExitStatus,
    /// What was printed, with replacement characters where it is no UTF-8.
    pub(crate) stdout: String,
    /// The same for standard error.
    pub(crate) stderr: String,
}

impl Output {
    /// Passes an output on when its command succeeded.
    ///
    /// # Panics
    ///
    /// With all of the output, when it did not.
    #[track_caller]
    pub(crate) fn expect_success(self) -> Self {
        assert!(self.status.success(), "{self}");
        self
    }

    /// The same for a command that has to fail in a certain way.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert!(self.status.code() == Some(code), "expected exit code {code}: {self}");
        self
    }
}

impl From<std::process::Output> for Output {
    fn from(output: std::process::Output) -> Self {
        Self {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => write!(f, "exit code {code}")?,
            (None, signal) => write!(f, "killed by signal {}", signal.unwrap_or(0))?,
        }
        write!(f, "\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr)
    }
}

/// A test's own directory on some hosts; dropping it removes it, with whatever is mounted in it.
pub(crate) struct Scratch {
    path: String,
    hosts: Vec<Host>,
}

impl Scratch {
    /// The path of something in the directory, the same on every host.
    pub(crate) fn join(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// The directory itself.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Mounts a file system of this many bytes in the directory, on one host: a disk that fills up.
    #[track_caller]
    pub(crate) fn small_disk(&self, host: &Host, name: &str, bytes: u64) -> String {
        let path = self.join(name);
        host.sh(&format!("mkdir '{path}'; mount -t tmpfs -o size={bytes} lab '{path}'"));
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let remove = r#"awk -v d="$1/" 'index($2, d) == 1 { print $2 }' /proc/mounts | tac | xargs -r -n 1 umount -l
            chattr -R -i "$1" 2>/dev/null
            rm -rf --one-file-system "$1""#;
        for host in &self.hosts {
            let output = host.run(&["sh", "-c", remove, "sh", &self.path]);
            if !output.status.success() {
                // Not a panic: a test that crashed the host, or that fails already, comes here too.
                eprintln!("{} stays on {}: {output}", self.path, host.name);
            }
        }
    }
}

/// Two hosts that cannot reach each other; dropping it heals them.
pub(crate) struct Cut {
    pair: [String; 3],
}

impl Drop for Cut {
    fn drop(&mut self) {
        lab_sh("heal", &self.pair);
    }
}

/// Asks until the answer is yes. `false` when it still is no after `within`.
pub(crate) fn eventually(within: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if start.elapsed() >= within {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
