//! Points at which a run is held or damaged, by scripts in front of programs.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::support::local::processes::{Process, processes_of};
use crate::support::local::runs::{LONG, wait_until};
use crate::support::local::sandbox::Sandbox;

/// Point at which a run is held.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Point {
    /// The source's tar has written 256 KiB of its archive and blocks on the next.
    Archive,
    /// The target listens; the source's netcat has not connected yet.
    Connect,
    /// The target whose directory has this name reads nothing of the stream.
    Unpack(&'static str),
}

impl Point {
    fn program(self) -> &'static str {
        match self {
            Self::Archive | Self::Unpack(_) => "tar",
            Self::Connect => "nc",
        }
    }

    /// Returns the script that holds the program; `held` waits, `"$real"` is the program.
    fn script(self) -> String {
        match self {
            Self::Archive => r#"if [[ $1 == --create ]]; then
                set -o pipefail
                "$real" "$@" | { head -c 262144; held; exec cat; }
                exit
            fi"#
            .to_owned(),
            Self::Connect => "[[ \" $* \" == *' -l '* || $1 == -h ]] || held".to_owned(),
            Self::Unpack(target) => format!("[[ $1 == --extract && $PWD == */{target}/* ]] && held"),
        }
    }
}

/// Role of a program in a run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// tar, on the source.
    Pack,
    /// tar, on a target.
    Unpack,
    /// netcat, on a target.
    Receive,
}

/// Runs that are held at a point.
pub(crate) struct Hold {
    sandbox: PathBuf,
    gate: PathBuf,
    opened: File,
}

impl Sandbox {
    /// Puts a bash script in front of a program. The script has the real program as `$real`, which runs after
    /// its end.
    pub(crate) fn shim(&self, program: &str, script: &str) {
        let path = std::env::var("PATH").unwrap();
        let real =
            std::env::split_paths(&path).map(|path| path.join(program)).find(|path| path.exists()).unwrap();
        let text = format!("#!/bin/bash\nreal={}\n{script}\nexec \"$real\" \"$@\"\n", real.display());
        let path = self.path("bin").join(program);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    /// As `shim`, with a script that runs instead of the program in one of its roles.
    pub(crate) fn replace(&self, role: Role, script: &str) {
        let (program, condition) = match role {
            Role::Pack => ("tar", "[[ $1 == --create ]]"),
            Role::Unpack => ("tar", "[[ $1 == --extract ]]"),
            Role::Receive => ("nc", "[[ \" $* \" == *' -l '* ]]"),
        };
        self.shim(program, &format!("set -o pipefail\nif {condition}; then {script}; exit; fi"));
    }

    /// Holds all runs of the sandbox at a point, until the gate is opened or the test ends.
    pub(crate) fn hold(&self, point: Point) -> Hold {
        let gate = self.path(format!("gate-{}", point.program()));
        self.fifo(&gate);
        // A held program is known by the pipe that it reads: one that unpacks may write nowhere.
        let held = format!("held() {{ read -r _ <'{}'; }}\n", gate.display());
        self.shim(point.program(), &(held + &point.script()));
        // Opened for reading, too: neither opening nor writing then depends on a reader.
        let opened = OpenOptions::new().read(true).write(true).open(&gate).unwrap();
        Hold { sandbox: self.path(""), gate, opened }
    }
}

impl Hold {
    /// Waits until so many programs are held.
    #[track_caller]
    pub(crate) fn reached_by(&self, count: usize) {
        let is_held = |process: &Process| process.descriptors().contains(&self.gate);
        let held = || processes_of(&self.sandbox).into_iter().filter(is_held).count();
        wait_until("the run is held", LONG, || held() >= count);
    }

    /// Waits until a run is held.
    #[track_caller]
    pub(crate) fn reached(&self) {
        self.reached_by(1);
    }

    /// Lets all programs continue that are held, now or later.
    pub(crate) fn open(&self) {
        (&self.opened).write_all(&b"go\n".repeat(64)).unwrap();
    }
}
