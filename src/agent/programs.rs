//! Programs of the host, by the search path of the login.

use std::path::PathBuf;

use rustix::fs::{Access, AtFlags, CWD, accessat};

/// Returns the path of a program, searched for in the `PATH` of the login.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).filter(|directory| directory.is_absolute()).map(|d| d.join(program)).find(
        |path| path.is_file() && accessat(CWD, path.as_path(), Access::EXEC_OK, AtFlags::EACCESS).is_ok(),
    )
}

/// Returns whether a program is installed.
pub(crate) fn is_installed(program: &str) -> bool {
    find(program).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_executable_files_are_programs() {
        assert!(is_installed("sh") && find("sh").is_some_and(|path| path.is_absolute()));
        assert!(!is_installed("no-such-program") && !is_installed("/") && !is_installed(""));
    }
}
