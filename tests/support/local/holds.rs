//! Runs are held at a chosen point, or damaged there, by programs of the same names in front of the real ones.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::support::local::runs::{LONG, wait_until};
use crate::support::local::sandbox::Sandbox;

/// Where a run is held.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Point {
    /// The source's tar has written 256 KiB of its archive and blocks on the next.
    Archive,
    /// The target's agent has locked its port; nobody listens there yet.
    Lock,
    /// The target listens; the source's netcat has not connected yet.
    Connect,
    /// A target whose directory has this name takes nothing from the stream.
    Unpack(&'static str),
    /// The copy and what has its final name are about to change places.
    Exchange,
    /// The staging directory is about to be removed.
    Removal,
}

impl Point {
    fn program(self) -> &'static str {
        match self {
            Self::Archive | Self::Unpack(_) => "tar",
            Self::Lock => "flock",
            Self::Connect => "nc",
            Self::Exchange => "perl",
            Self::Removal => "rm",
        }
    }

    /// What the shim does where it is to hold; `held` waits, `"$real"` is the program.
    fn script(self) -> String {
        match self {
            Self::Archive => r#"if [[ $1 == --create ]]; then
                set -o pipefail
                "$real" "$@" | { head -c 262144; held; exec cat; }
                exit
            fi"#
            .to_owned(),
            Self::Lock => {
                "[[ $* == '-n 7' || $* == '-w 1 7' ]] && { \"$real\" \"$@\"; status=$?; held; exit \"$status\"; }".to_owned()
            }
            Self::Connect => "[[ \" $* \" == *' -l '* || $1 == -h ]] || held".to_owned(),
            Self::Unpack(target) => format!("[[ $1 == --extract && $PWD == */{target}/* ]] && held"),
            Self::Exchange => "[[ ${4-} == 2 && ${6-} != */.exchange ]] && held".to_owned(),
            Self::Removal => "[[ $* == *--one-file-system* ]] && held".to_owned(),
        }
    }
}

/// What one of the programs of a run does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// tar, on the source.
    Pack,
    /// tar, on a target.
    Unpack,
    /// netcat, on a target.
    Receive,
}

/// Runs that are held.
pub(crate) struct Hold {
    marks: PathBuf,
    gate: File,
}

impl Sandbox {
    /// Puts a program of this name in front of the real one: a bash script that knows the real one as `$real`, and
    /// becomes it at its end.
    pub(crate) fn shim(&self, program: &str, script: &str) {
        let path = std::env::var("PATH").unwrap();
        let real =
            std::env::split_paths(&path).map(|path| path.join(program)).find(|path| path.exists()).unwrap();
        let text = format!("#!/bin/bash\nreal={}\n{script}\nexec \"$real\" \"$@\"\n", real.display());
        let path = self.path("bin").join(program);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    }

    /// As `shim`, with a script that runs instead of the program, with `"$real"` at hand, in one role of it.
    pub(crate) fn replace(&self, role: Role, script: &str) {
        let (program, condition) = match role {
            Role::Pack => ("tar", "[[ $1 == --create ]]"),
            Role::Unpack => ("tar", "[[ $1 == --extract ]]"),
            Role::Receive => ("nc", "[[ \" $* \" == *' -l '* ]]"),
        };
        self.shim(program, &format!("set -o pipefail\nif {condition}; then {script}; exit; fi"));
    }

    /// Holds all runs of the sandbox at a point, until the gate is opened or the test is over.
    pub(crate) fn hold(&self, point: Point) -> Hold {
        let marks = self.dir(format!("held-{}", point.program()));
        let gate = self.path(format!("gate-{}", point.program()));
        self.fifo(&gate);
        let held = format!("held() {{ : >'{}'/$$; read -r _ <'{}'; }}\n", marks.display(), gate.display());
        self.shim(point.program(), &(held + &point.script()));
        // Open for reading, too: opening does not wait for a reader, and what is written waits for one.
        let gate = OpenOptions::new().read(true).write(true).open(gate).unwrap();
        Hold { marks, gate }
    }
}

impl Hold {
    /// Waits until that many programs are held.
    #[track_caller]
    pub(crate) fn reached_by(&self, count: usize) {
        wait_until("the run is held", LONG, || fs::read_dir(&self.marks).unwrap().count() >= count);
    }

    /// Waits until a run is held.
    #[track_caller]
    pub(crate) fn reached(&self) {
        self.reached_by(1);
    }

    /// Lets go of all that are held now or will be.
    pub(crate) fn open(&self) {
        (&self.gate).write_all(&b"go\n".repeat(64)).unwrap();
    }
}
