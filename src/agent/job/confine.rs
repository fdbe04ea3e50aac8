//! Confinement: a program that decodes data of other hosts may change files below one directory only (Landlock).
//! Modes, owners, times and attributes of files elsewhere are not covered by the kernel.

use std::io;
use std::os::fd::AsFd;
use std::process::{Child, Command};

use landlock::{
    ABI, AccessFs, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus,
};

/// First version with a right for renames and hard links between directories; kernels before it allow none.
const FIRST: ABI = ABI::V2;
/// Newest version whose rights are used, where the kernel has them.
const NEWEST: ABI = ABI::V5;

/// Whether a program was confined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Confinement {
    /// The program is confined.
    Full,
    /// The kernel cannot confine it.
    Missing,
}

/// Starts a program that may change files below `directory` only.
pub(super) fn spawn(command: &mut Command, directory: impl AsFd + Sync) -> io::Result<(Child, Confinement)> {
    // A domain belongs to a thread, and a program inherits that of the thread which starts it. So the rest of the
    // job stays as it is.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().spawn_scoped(scope, || {
            let confinement = restrict(&directory).unwrap_or(Confinement::Missing);
            Ok((command.spawn()?, confinement))
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that confines it has failed")))
    })
}

/// Confines the calling thread.
fn restrict(directory: impl AsFd) -> Result<Confinement, RulesetError> {
    let needed = Ruleset::default().set_compatibility(CompatLevel::SoftRequirement);
    let rights = AccessFs::from_write(NEWEST);
    let ruleset = needed
        .handle_access(AccessFs::from_write(FIRST))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(rights)?
        .create()?;
    let mut ruleset = ruleset.add_rule(PathBeneath::new(directory, rights))?;
    if let Ok(null) = PathFd::new("/dev/null") {
        ruleset = ruleset.add_rule(PathBeneath::new(null, AccessFs::WriteFile))?;
    }
    let status = ruleset.restrict_self()?;
    Ok(if status.ruleset == RulesetStatus::NotEnforced { Confinement::Missing } else { Confinement::Full })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};

    #[test]
    fn confined_program_changes_files_below_its_directory_only() {
        let home = tempfile::tempdir().unwrap();
        let path = |name: &str| home.path().join(name);
        fs::create_dir_all(path("in/a")).unwrap();
        fs::create_dir_all(path("in/b")).unwrap();
        fs::write(path("out"), "old").unwrap();
        let mut command = Command::new("sh");
        // Hard links and renames between directories are what tar and mbstream need, and pipes what decoders need.
        command.arg("-c").current_dir(home.path()).arg(
            "echo 1 >in/a/x && ln in/a/x in/b/y && mv in/a/x in/b/z && echo 3 >/dev/null && mkfifo in/p || exit 10
             ! echo new 2>/dev/null >out && ! echo new 2>/dev/null >other && ! rm out 2>/dev/null &&
             ! ln in/b/z link 2>/dev/null && ! mv in/b/z gone 2>/dev/null && ! mkdir d 2>/dev/null",
        );
        let (mut child, confinement) = spawn(&mut command, File::open(path("in")).unwrap()).unwrap();
        let status = child.wait().unwrap();
        if confinement == Confinement::Missing {
            return;
        }
        assert!(status.success(), "{status}");
        assert_eq!(fs::read_to_string(path("out")).unwrap(), "old");
        // The thread was confined, and not the process.
        fs::write(path("out"), "new").unwrap();
    }
}
