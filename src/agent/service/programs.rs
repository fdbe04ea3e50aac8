//! Where the programs of the host are.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::agent::tool::Tool;

/// Directories of a host's programs.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    search: OsString,
}

impl Programs {
    /// Creates it from directories separated by colons. Relative ones are ignored: they would depend on the
    /// working directory.
    pub(crate) fn new(search: impl Into<OsString>) -> Self {
        Self { search: search.into() }
    }

    /// Creates it from the `PATH` of the login.
    pub(crate) fn of_login() -> Self {
        Self::new(std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()))
    }

    /// Returns the path of a program.
    pub(crate) fn find(&self, name: impl AsRef<OsStr>) -> Option<PathBuf> {
        let is_program = |path: &PathBuf| {
            path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        };
        std::env::split_paths(&self.search)
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(name.as_ref()))
            .find(is_program)
    }

    /// Returns a program to be run; starting it fails if it is missing.
    pub(crate) fn tool(&self, name: &str) -> Tool {
        Tool::new(self.find(name).map_or_else(|| name.into(), PathBuf::into_os_string))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn programs_are_found_in_absolute_directories_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tool");
        fs::write(&path, "").unwrap();
        let programs = Programs::new(format!(".::{}", directory.path().display()));
        assert_eq!(programs.find("tool"), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(programs.find("tool"), Some(path));
        assert_eq!(programs.find("sh"), None);
        assert!(Programs::of_login().find("sh").is_some());
    }
}
