//! A sandbox for one test, and ways to start the program in it.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::support::local::runs::{LONG, Running};
use crate::support::output::Output;

const PROGRAM: &str = env!("CARGO_BIN_EXE_transfer");
pub(crate) const AGENT: &str = env!("CARGO_BIN_EXE_transfer-agent");
/// Variable in the environment of all processes of a sandbox; its value is the sandbox's directory.
pub(crate) const MARKER: &str = "HOME";

/// Arguments: texts and paths.
pub(crate) type Words<'a> = &'a [&'a dyn AsRef<OsStr>];

/// Directories, an account and a state of one test.
pub(crate) struct Sandbox {
    directory: TempDir,
    program: PathBuf,
    /// Uid of the processes, unless it is the account of the tests.
    account: Option<u32>,
    /// Search path after the shims.
    path: String,
}

impl Sandbox {
    /// A sandbox without privileges: with an account of its own when the tests run as root, and with theirs
    /// otherwise. `None`, with a note, when this user cannot become another one.
    pub(crate) fn new() -> Option<Self> {
        if !geteuid().is_root() {
            return Some(Self::make(None));
        }
        let mut sandbox = Self::make(Some(50_000 + number() % 10_000));
        if !sandbox.can("test -x \"$1\"", PROGRAM) {
            // The source tree may be closed to others, such as in /root.
            sandbox.program = sandbox.directory.path().join("transfer");
            fs::copy(PROGRAM, &sandbox.program).unwrap();
            fs::copy(AGENT, sandbox.program.with_file_name("transfer-agent")).unwrap();
        }
        if sandbox.can("cd \"$1\" && test -w .", sandbox.directory.path()) {
            return Some(sandbox);
        }
        println!("skipped: root cannot become another user here (setpriv), or TMPDIR is closed to others");
        None
    }

    /// A sandbox with root's rights and the machine's state directory. `None`, with a note, when the tests do
    /// not run as root.
    pub(crate) fn root() -> Option<Self> {
        if geteuid().is_root() {
            return Some(Self::make(None));
        }
        println!("skipped: not root");
        None
    }

    /// A sandbox with the account of the tests, which the user database knows, as ssh requires.
    pub(crate) fn own() -> Self {
        Self::make(None)
    }

    fn make(account: Option<u32>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let sandbox = Self { directory, program: PROGRAM.into(), account, path };
        sandbox.own_it(sandbox.directory.path());
        sandbox.dir("bin");
        sandbox
    }

    /// Returns a path of a program that the sandbox's account can start.
    pub(crate) fn reachable(&self, program: &Path, name: &str) -> PathBuf {
        if self.account.is_none() || self.can("test -x \"$1\"", program) {
            return program.to_owned();
        }
        let copy = self.path(name);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(program, &copy).unwrap();
        copy
    }

    fn can(&self, script: &str, argument: impl AsRef<OsStr>) -> bool {
        self.through(&["sh", "-c", script, "sh"]).arg(argument).status().is_ok_and(|status| status.success())
    }

    /// Hides programs from the runs.
    pub(crate) fn without(&mut self, hidden: &[&str]) {
        let tools = self.dir("tools");
        for directory in std::env::split_paths(&self.path) {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if !hidden.iter().any(|name| entry.file_name() == *name) {
                    // The first program of a name counts.
                    let _ = std::os::unix::fs::symlink(entry.path(), tools.join(entry.file_name()));
                }
            }
        }
        tools.to_str().unwrap().clone_into(&mut self.path);
    }

    /// Returns the path of an entry of the sandbox, or of the sandbox itself.
    pub(crate) fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.directory.path().join(Path::new(name.as_ref()))
    }

    /// Creates a directory, owned by the sandbox's account.
    pub(crate) fn dir(&self, name: impl AsRef<OsStr>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self.own_it(&path);
        path
    }

    /// Creates a file, owned by the sandbox's account.
    pub(crate) fn file(&self, name: impl AsRef<OsStr>, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, contents).unwrap();
        self.own_it(&path);
        path
    }

    /// Creates a directory with a file `large` of 2 MiB, more than pipes hold, and a file `small`.
    pub(crate) fn source(&self, name: &str) -> PathBuf {
        let source = self.dir(name);
        self.file(source.join("large"), crate::support::local::trees::noise(2 << 20));
        self.file(source.join("small"), "small\n");
        source
    }

    /// Creates a named pipe.
    pub(crate) fn fifo(&self, path: &Path) {
        assert!(Command::new("mkfifo").args(["-m", "0600"]).arg(path).status().unwrap().success());
        self.own_it(path);
    }

    /// Gives a path to the sandbox's account.
    pub(crate) fn own_it(&self, path: &Path) {
        if self.account.is_some() {
            chown(path, self.account, self.account).unwrap();
        }
    }

    /// Returns all paths in it, without the records of past runs.
    pub(crate) fn contents(&self) -> Vec<PathBuf> {
        let mut all = crate::support::local::trees::walk(&self.path(""));
        all.retain(|path| !path.starts_with("state/transfer-history") && path != Path::new("state"));
        all
    }

    /// Returns the directory of journals.
    pub(crate) fn state(&self) -> PathBuf {
        if self.is_root() { "/var/lib/transfer".into() } else { self.path("state/transfer") }
    }

    /// Returns the directory of port locks. All sandboxes of one account share it, as all runs of a user do:
    /// netcat lets one user listen on a port twice.
    pub(crate) fn runtime(&self) -> PathBuf {
        match self.account {
            Some(uid) => self.path(format!("run/transfer-{uid}")),
            None if self.is_root() => "/run/transfer".into(),
            None => self.state().join(".locks"),
        }
    }

    /// Whether the account is the sandbox's own, and so is everything in its state and runtime directories.
    pub(crate) fn has_an_account(&self) -> bool {
        self.account.is_some()
    }

    pub(crate) fn is_root(&self) -> bool {
        self.account.is_none() && geteuid().is_root()
    }

    /// Returns a free port, outside of the ranges that the kernel and the program choose from.
    pub(crate) fn port() -> u16 {
        let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let first = 20_000 + u16::try_from(number() % 9_000).unwrap();
        (first..30_000).find(free).unwrap()
    }

    /// Returns a command in the sandbox's environment and account. Signals that the tests ignore are not
    /// ignored there.
    pub(crate) fn through(&self, words: &[&str]) -> Command {
        let mut start = Vec::new();
        if let Some(uid) = self.account {
            start = vec![
                "setpriv".into(),
                format!("--reuid={uid}"),
                format!("--regid={uid}"),
                "--clear-groups".into(),
            ];
        }
        start.extend(["env".to_owned(), "--default-signal=HUP,INT,TERM".to_owned()]);
        let mut command = Command::new(&start[0]);
        command.args(&start[1..]).args(words).current_dir("/").stdin(Stdio::null()).env_clear();
        command.env("PATH", format!("{}:{}", self.path("bin").display(), self.path));
        command.env(MARKER, self.path(""));
        command.env("XDG_STATE_HOME", self.path("state"));
        if self.account.is_some() {
            command.env("XDG_RUNTIME_DIR", self.path("run"));
        } else {
            // The history of the account itself must not grow.
            command.env("TRANSFER_HISTORY_SIZE", "0");
        }
        command
    }

    /// Returns a command that runs the program with these arguments.
    pub(crate) fn command(&self, words: Words<'_>) -> Command {
        let mut command = self.through(&[self.program.to_str().unwrap()]);
        command.args(words.iter().map(AsRef::as_ref));
        command
    }

    /// Returns a shell command whose script runs the program with these arguments as `"$@"`.
    pub(crate) fn scripted(&self, script: &str, words: Words<'_>) -> Command {
        let mut command = self.through(&["sh", "-c", script, "sh", self.program.to_str().unwrap()]);
        command.args(words.iter().map(AsRef::as_ref));
        command
    }

    /// Starts the program.
    pub(crate) fn spawn(&self, words: Words<'_>) -> Running {
        Running::start(self.command(words))
    }

    /// Runs the program to its end.
    #[track_caller]
    pub(crate) fn run(&self, words: Words<'_>) -> Output {
        self.spawn(words).wait(LONG)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Only a failed test leaves processes, and it has been reported.
        for process in self.processes() {
            process.signal(Signal::SIGKILL);
        }
        // Only root can remove copies of read-only directories.
        let _ = Command::new("chmod").args(["-R", "u+rwx"]).arg(self.path("")).stderr(Stdio::null()).status();
    }
}

/// Returns a number that is unique among running tests.
fn number() -> u32 {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    std::process::id() + COUNT.fetch_add(1, Ordering::Relaxed)
}
