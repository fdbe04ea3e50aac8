//! Hosts of the lab, and the program under test on its controller.
//!
//! Every step goes through `lab.sh`: only that script knows how a host is implemented.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use super::commands::{Invocation, Running};
use super::output::Output;

pub(super) const LAB_SH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/lab/lab.sh");
/// Default of `TRANSFER_LAB_PROGRAM`.
const PROGRAM: &str = env!("CARGO_BIN_EXE_transfer");
/// In no directory that a snapshot lists.
const LOCK: &str = "/usr/local/lib/transfer-lab.lock";
/// Directory of the program on the controller, with one directory per build: two builds may share a lab.
const PROGRAM_HOME: &str = "/usr/local/lib/transfer-lab";

/// The lab of this run of the tests.
pub(crate) struct Lab {
    pub(super) id: String,
}

impl Lab {
    /// The lab named by `TRANSFER_LAB`, or `None` when labs are turned off with `LAB=off`.
    ///
    /// Fails without either: a test that silently does nothing would count as passed.
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

    /// Returns a host by its name, whether it exists or not.
    pub(crate) fn host(&self, name: &str) -> Host {
        Host { lab: self.id.clone(), name: name.to_owned() }
    }

    /// The program under test with these arguments, to be run on the controller.
    pub(crate) fn program(&self, args: &[&str]) -> Invocation {
        let ctl = self.host("ctl");
        ctl.command(&[&install_program(&ctl)]).args(args)
    }

    /// Runs the program under test on the controller.
    pub(crate) fn transfer(&self, args: &[&str]) -> Output {
        self.program(args).run()
    }
}

/// Runs a command of `lab.sh`, which has to succeed.
#[track_caller]
pub(super) fn lab_sh(command: &str, args: &[String]) {
    let output = Command::new(LAB_SH).arg(command).args(args).output().expect("lab.sh cannot be started");
    let text = [output.stdout, output.stderr].concat();
    let (status, text) = (output.status, String::from_utf8_lossy(&text));
    assert!(status.success(), "lab.sh {command} {args:?}: {status}\n{text}");
}

/// Puts the program and its agent on the controller unless this build of them is there, and returns its path.
///
/// Under a lock, since many test processes do this at the same time. Builds that were not used for an hour
/// are removed: a lab for development may exist for days.
fn install_program(ctl: &Host) -> String {
    let program = std::env::var("TRANSFER_LAB_PROGRAM").unwrap_or_else(|_| PROGRAM.to_owned());
    let agent = Path::new(&program).with_file_name("transfer-agent");
    let files = [agent.as_path(), Path::new(&program)];
    let mut hasher = DefaultHasher::new();
    for file in files {
        let built = fs::metadata(file).expect("the program under test is not built");
        (file, built.len(), built.mtime(), built.mtime_nsec()).hash(&mut hasher);
    }
    let directory = format!("{PROGRAM_HOME}/{:016x}", hasher.finish());
    let install = r#"
        mkdir -p "${1%/*}" && touch "${1%/*}"
        [ ! -x "$1" ] || exit 0
        find "$2" -mindepth 1 -maxdepth 1 -type d -mmin +60 -exec rm -rf {} +
        cat >"$1.new" && chmod 0755 "$1.new" && mv -f "$1.new" "$1" && ln -sfn "$1" "/usr/local/bin/${1##*/}""#;
    let mut path = String::new();
    for file in files {
        path = format!("{directory}/{}", file.file_name().unwrap_or_default().to_string_lossy());
        let program = fs::File::open(file).expect("the program under test cannot be read");
        let command = ctl.command(&["flock", LOCK, "sh", "-c", install, "sh", &path, PROGRAM_HOME]);
        command.stdin_file(program).run().expect_success();
    }
    path
}

/// One host of the lab.
#[derive(Clone)]
pub(crate) struct Host {
    pub(super) lab: String,
    pub(super) name: String,
}

impl Host {
    /// Returns a command that runs as root, in `/`, with the environment of a login.
    pub(crate) fn command(&self, args: &[&str]) -> Invocation {
        Invocation::new(self, args)
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).run()
    }

    /// Runs a bash script, which has to succeed, and returns its standard output.
    #[track_caller]
    pub(crate) fn sh(&self, script: &str) -> String {
        let script = format!("set -euo pipefail\n{script}\n");
        self.command(&["bash", "--norc", "-s"]).stdin(script).run().expect_success().stdout
    }

    /// Starts a command.
    pub(crate) fn spawn(&self, args: &[&str]) -> Running {
        self.command(args).spawn()
    }

    /// Creates or replaces a file, in one rename.
    #[track_caller]
    pub(crate) fn put(&self, bytes: impl AsRef<[u8]>, path: &str, mode: u32) {
        let mut file = tempfile::NamedTempFile::new().expect("no temporary file");
        file.write_all(bytes.as_ref()).expect("no temporary file");
        let from = file.path().to_str().expect("the path of a temporary file").to_owned();
        lab_sh("put", &[self.lab.clone(), self.name.clone(), from, path.to_owned(), format!("{mode:04o}")]);
    }
}
