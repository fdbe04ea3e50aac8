//! Programs of the host that a run may need, and what they say about themselves.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use crate::agent::programs::is_installed;
use crate::agent::tool::Tool;
use crate::proto::Text;
use crate::proto::facts::{BackupTool, HookShell, NetcatHelp};

/// Programs that a run may need.
const TOOLS: [&str; 14] = [
    "gzip",
    "ionice",
    "lz4",
    "mariadb",
    "mbstream",
    "mysql",
    "nc",
    "openssl",
    "pigz",
    "systemctl",
    "tar",
    "xbstream",
    "xz",
    "zstd",
];
/// Netcats. The one called `nc` is whichever of the others the host has chosen.
const NETCATS: [&str; 4] = ["nc", "nc.openbsd", "ncat", "nc.traditional"];
/// Programs that copy a running server. The older name of one may be a link to the newer one.
const BACKUP_TOOLS: [&str; 3] = ["mariadb-backup", "mariabackup", "xtrabackup"];

/// Returns the installed programs.
pub(super) fn tools() -> BTreeSet<Text> {
    TOOLS.into_iter().filter(|tool| is_installed(tool)).map(Text::new).collect()
}

/// Returns the shell that runs hooks.
pub(super) fn hook_shell() -> HookShell {
    if is_installed("bash") { HookShell::Bash } else { HookShell::Sh }
}

/// Returns the first line of `tar --version`, or an empty text.
pub(super) fn tar() -> Text {
    first_line(&output("tar", ["--version"]))
}

/// Returns the installed netcats with the first line of their help.
pub(super) fn netcats() -> Vec<NetcatHelp> {
    let installed = NETCATS.into_iter().filter(|program| is_installed(program));
    installed
        .map(|program| NetcatHelp { program: Text::new(program), help: first_line(&output(program, ["-h"])) })
        .collect()
}

/// Returns the installed backup programs with the line that names their version.
pub(super) fn backup_tools() -> Vec<BackupTool> {
    let installed = BACKUP_TOOLS.into_iter().filter(|program| is_installed(program));
    installed
        .map(|program| BackupTool {
            program: Text::new(program),
            version: version_line(&output(program, ["--version"])),
        })
        .collect()
}

fn version_line(output: &[u8]) -> Text {
    let names_version = |line: &&[u8]| {
        let line = line.to_ascii_lowercase();
        [&b"version"[..], b"based on"].iter().any(|word| line.windows(word.len()).any(|part| part == *word))
    };
    output.split(|&byte| byte == b'\n').find(names_version).map(Text::new).unwrap_or_default()
}

fn first_line(output: &[u8]) -> Text {
    Text::new(output.split(|&byte| byte == b'\n').next().unwrap_or_default())
}

/// Returns both outputs of a program, whatever its status is; nothing where it does not run.
fn output(program: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Vec<u8> {
    let run = Tool::new(program).args(args).limit(super::LIMIT).run();
    run.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_programs_describe_themselves() {
        assert!(tools().len() > 3);
        if is_installed("tar") {
            assert!(tar().as_str().contains("tar"), "{}", tar());
        }
        assert!(netcats().iter().all(|netcat| !netcat.program.is_empty()));
    }

    #[test]
    fn version_is_found_among_other_lines() {
        let output =
            b"xtrabackup: recognized server arguments: --x\nxtrabackup version 8.0.35-31 based on MySQL\n";
        assert_eq!(version_line(output).as_str(), "xtrabackup version 8.0.35-31 based on MySQL");
        assert_eq!(version_line(b"mariadb-backup based on MariaDB server 10.11").as_str().len(), 44);
        assert!(version_line(b"no").is_empty());
    }
}
