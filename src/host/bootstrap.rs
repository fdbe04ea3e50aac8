//! Start of an agent on a host: a shell script that receives the program and becomes it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::OnceCell;

use super::command::quote;
use crate::base::run_id::{hex, random_hex};
use crate::base::trust::{self, Distrust};

const SCRIPT: &str = include_str!("bootstrap.sh");
/// Script for `sh` that becomes root and continues with the script in its first argument. Output of sudo is
/// kept for messages. A sudo rule for an installed agent is enough.
const SUDO: &str = concat!(
    "for f in /usr/lib/*/transfer/transfer-agent; do ",
    "for one in $2; do one=${one#*:}; ",
    "if [ -x \"$f\" ] && sudo -n -- \"$f\" is \"${one%%:*}\" >/dev/null 2>&1 </dev/null; then ",
    "exec sudo -n -- \"$f\" serve \"$SSH_CONNECTION\"; fi; done; done; ",
    "echo; sudo -n -- bash --norc -p -c true 2>&1 </dev/null && ",
    "exec sudo -n -- bash --norc -p -c \"$1\" bootstrap \"$2\" \"$3\" \"$SSH_CONNECTION\"",
);
/// Name of the program.
const PROGRAM: &str = "transfer-agent";
/// Machines (`uname -m`) for which there may be an agent, with the directory of their libraries.
const MACHINES: [(&str, &str); 2] = [("x86_64", "x86_64-linux-gnu"), ("aarch64", "aarch64-linux-gnu")];

/// Agent for one machine.
#[derive(Clone, Debug)]
pub(super) struct Image {
    /// Machine, as `uname -m` reports it.
    pub(super) machine: &'static str,
    /// SHA-256 of the program, hexadecimal.
    digest: String,
    /// The program.
    pub(super) bytes: Arc<[u8]>,
}

/// Error of the controller's own copy of the agent.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ImageError {
    /// There is none.
    #[error("{PROGRAM} is missing: expected it beside this program or in {}", directory(MACHINES[0].1).display())]
    Missing,
    /// There is one that cannot be used.
    #[error("cannot use {path}: {text}")]
    Unusable {
        /// Path.
        path: String,
        /// Reason and fix.
        text: String,
    },
}

/// Returns the agents that this controller can bring along.
pub(super) async fn images() -> Result<Arc<[Image]>, ImageError> {
    static IMAGES: OnceCell<Arc<[Image]>> = OnceCell::const_new();
    IMAGES.get_or_try_init(|| async { load() }).await.cloned()
}

fn directory(libraries: &str) -> PathBuf {
    Path::new("/usr/lib").join(libraries).join("transfer")
}

fn load() -> Result<Arc<[Image]>, ImageError> {
    let mut images = Vec::new();
    for (machine, libraries) in MACHINES {
        let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(PROGRAM)));
        let beside = beside.filter(|_| machine == std::env::consts::ARCH);
        for path in beside.into_iter().chain([directory(libraries).join(PROGRAM)]) {
            match trust::read_program(&path) {
                Ok(bytes) => {
                    let digest = hex(&Sha256::digest(&bytes));
                    images.push(Image { machine, digest, bytes: bytes.into() });
                    break;
                }
                Err(Distrust::Unreadable(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(distrust) => {
                    let path = path.display().to_string();
                    return Err(ImageError::Unusable { path, text: distrust.with_fix() });
                }
            }
        }
    }
    if images.is_empty() { Err(ImageError::Missing) } else { Ok(images.into()) }
}

/// Returns the arguments of `sh` that start an agent.
pub(super) fn arguments(images: &[Image], sudo: bool) -> Vec<String> {
    let mut agents = String::new();
    for Image { machine, digest, bytes } in images {
        let separator = if agents.is_empty() { "" } else { " " };
        let _ = write!(agents, "{separator}{machine}:{digest}:{}", bytes.len());
    }
    let script = one_line(SCRIPT);
    // Without random numbers the name is that of the process: another run's is refused by the host.
    let name = random_hex::<8>().unwrap_or_else(|_| std::process::id().to_string());
    if sudo {
        vec!["-c".to_owned(), SUDO.to_owned(), "sudo".to_owned(), script, agents, name]
    } else {
        vec!["-c".to_owned(), script, "bootstrap".to_owned(), agents, name, String::new()]
    }
}

/// Returns the command that starts an agent, for any login shell.
pub(super) fn command(images: &[Image], sudo: bool) -> String {
    let words: Vec<String> = arguments(images, sudo)
        .iter()
        .map(|word| String::from_utf8_lossy(&quote(word.as_bytes())).into_owned())
        .collect();
    format!("exec sh {}", words.join(" "))
}

/// Joins the lines of a script. Lines that are comments are left out.
fn one_line(script: &str) -> String {
    let lines = script.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::{BufRead as _, BufReader, Read as _, Write as _};
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use super::*;

    /// Account that runs the script if the tests run as root, whose directories are fixed.
    const NOBODY: u32 = 65534;
    /// Script that takes the place of the agent.
    const FAKE: &[u8] = b"#!/bin/sh\ncase $1 in serve) echo \"served from ${0%/*}\"; env;; esac\n";

    /// Runs the script, sends the bytes when it asks for the agent, and returns its other output.
    fn run(home: &Path, images: &[Image], sent: &[u8]) -> String {
        let mut command = Command::new("sh");
        command.args(arguments(images, false)).env("HOME", home).env("BASH_ENV", "/nonexistent");
        command.env_remove("TMPDIR");
        for variable in ["XDG_STATE_HOME", "XDG_RUNTIME_DIR"] {
            command.env_remove(variable);
        }
        if nix::unistd::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(shell.stdout.take().unwrap());
        let mut first = String::new();
        output.read_line(&mut first).unwrap();
        if first == "\n" {
            first.clear();
            output.read_line(&mut first).unwrap();
        }
        if first.starts_with("transfer-bootstrap send ") {
            first.clear();
            shell.stdin.take().unwrap().write_all(sent).unwrap();
        }
        output.read_to_string(&mut first).unwrap();
        shell.wait().unwrap();
        first.trim_start().to_owned()
    }

    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
        if nix::unistd::geteuid().is_root() {
            chown(home.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        home
    }

    fn fake() -> Image {
        let digest = hex(&Sha256::digest(FAKE));
        Image { machine: std::env::consts::ARCH, digest, bytes: FAKE.into() }
    }

    fn entries(home: &Path) -> usize {
        fs::read_dir(home.join(".local/state/transfer")).map_or(0, Iterator::count)
    }

    #[test]
    fn agent_is_received_and_started_with_a_clean_environment() {
        let home = home();
        let said = run(home.path(), &[fake()], FAKE);
        let state = home.path().join(".local/state/transfer");
        assert!(said.starts_with(&format!("served from {}/.agent-", state.display())), "{said}");
        assert!(
            said.contains(&format!("HOME={}", home.path().display())) && !said.contains("BASH_ENV"),
            "{said}"
        );
        // An empty one would be taken for a directory.
        assert!(!said.contains("TMPDIR"), "{said}");
        assert_eq!(entries(home.path()), 1, "the agent removes it");
        assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn other_bytes_are_not_started() {
        let home = home();
        let other: Vec<u8> = FAKE.iter().rev().copied().collect();
        let said = run(home.path(), &[fake()], &other);
        assert!(said.starts_with("transfer-bootstrap failed cannot write the agent to "), "{said}");
        assert_eq!(entries(home.path()), 0);
    }

    #[test]
    fn program_that_cannot_be_started_is_removed() {
        let home = home();
        // As where programs are forbidden; there is no second directory.
        let program = b"#!/bin/sh\nexit 1\n";
        let digest = hex(&Sha256::digest(program));
        let image = Image { machine: std::env::consts::ARCH, digest, bytes: (&program[..]).into() };
        let said = run(home.path(), &[image], program);
        assert!(said.contains(" cannot be started "), "{said}");
        assert_eq!(entries(home.path()), 0);
        assert!(!home.path().join(".local/state/transfer").exists());
    }

    #[test]
    fn linked_directory_and_unknown_machine_are_refused() {
        let home = home();
        fs::create_dir_all(home.path().join(".local/state")).unwrap();
        symlink("/tmp", home.path().join(".local/state/transfer")).unwrap();
        let said = run(home.path(), &[fake()], FAKE);
        assert!(said.starts_with("transfer-bootstrap failed no directory for the agent; "), "{said}");
        assert!(said.contains("/.local/state/transfer is a symbolic link"), "{said}");
        let said = run(home.path(), &[Image { machine: "pdp11", ..fake() }], FAKE);
        assert!(said.starts_with("transfer-bootstrap failed there is no transfer-agent for "), "{said}");
    }

    #[test]
    fn directory_that_others_can_write_to_is_refused() {
        for mode in [0o702, 0o720] {
            let home = home();
            let state = home.path().join(".local/state/transfer");
            fs::create_dir_all(&state).unwrap();
            fs::set_permissions(&state, fs::Permissions::from_mode(mode)).unwrap();
            if nix::unistd::geteuid().is_root() {
                chown(&state, Some(NOBODY), Some(NOBODY)).unwrap();
            }
            let said = run(home.path(), &[fake()], FAKE);
            assert!(said.contains("; other accounts can write to "), "{said}");
            assert_eq!(entries(home.path()), 0);
        }
    }

    #[test]
    fn scripts_pass_through_any_login_shell() {
        for script in [one_line(SCRIPT).as_str(), SUDO] {
            assert!(!script.contains(['\n', '!', '\'', '\\']), "{script}");
        }
        let command = command(&[fake()], false);
        assert!(!command.contains(['\n', '!', '\\']) && command.starts_with("exec sh -c '"), "{command}");
    }

    #[test]
    fn agents_are_offered_by_machine() {
        let image = Image { machine: "x86_64", digest: "ab".into(), bytes: vec![7, 7, 7].into() };
        let other = Image { machine: "aarch64", ..image.clone() };
        let words = arguments(&[image, other], false);
        assert_eq!(words[3], "x86_64:ab:3 aarch64:ab:3");
        assert_eq!(words.len(), 6);
    }
}
