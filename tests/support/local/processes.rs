//! Traces of a run on this machine: processes, journals, locks, staging directories.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::local::runs::{LONG, Running, wait_until};
use crate::support::local::sandbox::{MARKER, Sandbox};

/// Name of a journal.
const JOURNAL: &str = "journal.bin";

/// State of a process of a sandbox.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    /// Command line, separated by blanks.
    pub(crate) command: String,
    pub(crate) environment: Vec<u8>,
}

impl Process {
    fn look_at(pid: i32) -> Option<Self> {
        let directory = PathBuf::from(format!("/proc/{pid}"));
        let stat = fs::read_to_string(directory.join("stat")).ok()?;
        let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        let command = fs::read(directory.join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        Some(Self { pid, parent, command, environment: fs::read(directory.join("environ")).ok()? })
    }

    /// Returns the files that the process has open.
    pub(crate) fn descriptors(&self) -> Vec<PathBuf> {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid)).into_iter().flatten().flatten();
        descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok()).collect()
    }

    /// Returns the name of the agent whose journal this process has open: the agent itself, or its watchdog.
    pub(crate) fn keeps(&self) -> Option<String> {
        let open = self.descriptors();
        let journal = open.iter().find(|path| path.ends_with(JOURNAL))?;
        Some(journal.parent()?.file_name()?.to_str()?.to_owned())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.pid), signal);
    }
}

/// Returns all processes of the sandbox in a directory.
pub(crate) fn processes_of(sandbox: &Path) -> Vec<Process> {
    let mark = [MARKER.as_bytes(), b"=", sandbox.as_os_str().as_bytes()].concat();
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| Process::look_at(entry.file_name().to_str()?.parse().ok()?))
        .filter(|process| process.environment.split(|&byte| byte == 0).any(|word| word == mark))
        .collect()
}

impl Sandbox {
    /// Returns all processes of the sandbox, by the marker in their environment.
    pub(crate) fn processes(&self) -> Vec<Process> {
        processes_of(&self.path(""))
    }

    /// Returns the agent of one end (`source`, `target1`) of a run.
    #[track_caller]
    pub(crate) fn agent(&self, controller: &Running, end: &str) -> Process {
        let is_it = |process: &Process| {
            process.parent == controller.pid() && process.keeps().is_some_and(|agent| agent.ends_with(end))
        };
        self.processes().into_iter().find(is_it).unwrap_or_else(|| panic!("no agent of {end}"))
    }

    /// Returns an agent, its watchdog and their helpers.
    fn keepers(&self, end: &str) -> Vec<Process> {
        let mut found = self.processes();
        found.retain(|process| process.keeps().is_some_and(|agent| agent.ends_with(end)));
        found
    }

    /// Kills the agents of an end, with watchdogs and helpers, so that none of them can roll back. All are stopped
    /// first, also those that are forked meanwhile; children die first, as the kernel continues a stopped watchdog
    /// when its agent dies.
    pub(crate) fn kill_keepers(&self, end: &str) {
        let mut stopped: Vec<Process> = Vec::new();
        let is_new =
            |process: &Process, stopped: &[Process]| stopped.iter().all(|known| known.pid != process.pid);
        loop {
            let mut found = self.keepers(end);
            found.retain(|process| is_new(process, &stopped));
            if found.is_empty() {
                break;
            }
            for process in &found {
                process.signal(Signal::SIGSTOP);
            }
            stopped.append(&mut found);
        }
        while !stopped.is_empty() {
            let parents: Vec<i32> = stopped.iter().map(|process| process.parent).collect();
            let (inner, leaves): (Vec<Process>, Vec<Process>) =
                stopped.into_iter().partition(|process| parents.contains(&process.pid));
            for process in leaves {
                process.signal(Signal::SIGKILL);
            }
            stopped = inner;
        }
    }

    /// Returns the journals of the sandbox's runs, without those of other runs in a shared state directory.
    pub(crate) fn journals(&self) -> Vec<PathBuf> {
        let ours = |path: &Path| {
            let path_here = self.path("");
            let mark = path_here.as_os_str().as_bytes();
            !self.is_root()
                || fs::read(path).is_ok_and(|text| text.windows(mark.len()).any(|part| part == mark))
        };
        let agents = fs::read_dir(self.state()).into_iter().flatten().flatten();
        agents.map(|agent| agent.path().join(JOURNAL)).filter(|path| path.exists() && ours(path)).collect()
    }

    /// Returns everything that is left of runs of the sandbox; `targets` are their target directories.
    fn left(&self, targets: &[&Path]) -> Vec<String> {
        let mut left: Vec<String> = self.journals().iter().map(|path| path.display().to_string()).collect();
        left.extend(targets.iter().flat_map(|target| staging(target)).map(|path| path.display().to_string()));
        if self.has_an_account() {
            let locks = fs::read_dir(self.runtime()).into_iter().flatten().flatten();
            left.extend(locks.map(|lock| lock.path().display().to_string()));
        }
        left
    }

    /// Asserts that a run that has ended has rolled back everything. Its processes have a moment to end.
    #[track_caller]
    pub(crate) fn is_clean(&self, targets: &[&Path]) {
        assert_eq!(self.left(targets), Vec::<String>::new());
        self.gets_clean(targets, Duration::from_secs(5));
    }

    /// Waits for the rollback, whether or not the run's controller still waits for a reader.
    #[track_caller]
    pub(crate) fn gets_clean_of_journals(&self, target: &Path) {
        wait_until("all is undone", LONG, || self.left(&[target]).is_empty());
    }

    /// Waits until nothing is left of any run, by whichever process.
    #[track_caller]
    pub(crate) fn gets_clean(&self, targets: &[&Path], limit: Duration) {
        let everything = || {
            let mut left = self.left(targets);
            left.extend(
                self.processes().iter().map(|process| format!("{} {}", process.pid, process.command)),
            );
            left
        };
        let mut last = Vec::new();
        let mut seen = BTreeSet::new();
        wait_until("nothing is left", limit, || {
            last = everything();
            if seen.insert(last.clone()) && !last.is_empty() {
                println!("left: {last:#?}");
            }
            last.is_empty()
        });
    }
}

/// Returns the staging directories in a target.
pub(crate) fn staging(target: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(target).into_iter().flatten().flatten().map(|e| e.path()).collect();
    found.retain(|path| path.file_name().unwrap().as_bytes().starts_with(b".transfer-"));
    found
}

/// Returns the names in a directory, sorted.
pub(crate) fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Whether a process listens on a port of this machine.
pub(crate) fn is_listening(port: u16) -> bool {
    let suffix = format!(":{port:04X}");
    ["/proc/net/tcp", "/proc/net/tcp6"].iter().any(|table| {
        let table = fs::read_to_string(table).unwrap_or_default();
        table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .any(|columns| columns.len() > 3 && columns[1].ends_with(&suffix) && columns[3] == "0A")
    })
}
