//! The file of this agent, which the controller has put onto the host.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::agent::flock::{self, Wait};
use crate::agent::state::{AGENT, Directories, PROGRAM};
use crate::base::printable::printable;

/// File of this process, whatever has its name now.
const OWN: &str = "/proc/self/exe";

/// File of this agent. Its lock shows others that the agent is running.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    _lock: File,
}

impl Program {
    /// Locks the file of this agent.
    pub(crate) fn hold() -> io::Result<Self> {
        let lock = File::open(OWN)?;
        // Another agent of an installed file holds it, too: that one nobody removes.
        let _ = flock::lock(&lock, Wait::No)?;
        Ok(Self { path: fs::read_link(OWN)?, _lock: lock })
    }

    /// Puts the file into the directory of a run, where it stays until the run is rolled back.
    pub(crate) fn keep_in(&self, directory: &Path) -> io::Result<()> {
        let kept = directory.join(PROGRAM);
        if self.own_directory().is_none() || fs::hard_link(&self.path, &kept).is_err() {
            fs::copy(OWN, &kept)?;
        }
        File::open(&kept)?.sync_all()
    }

    /// Removes the directory that was made for the file, if it was.
    pub(crate) fn remove(&self, directories: &Directories) {
        if let Some(own) = self.own_directory() {
            // What cannot be removed is removed by the next agent.
            let _ = fs::remove_file(&self.path);
            let _ = fs::remove_dir(own);
            directories.prune();
        }
    }

    fn own_directory(&self) -> Option<&Path> {
        let directory = self.path.parent()?;
        directory.file_name()?.as_bytes().starts_with(AGENT.as_bytes()).then_some(directory)
    }
}

/// Returns whether the file of this program has this SHA-256, hexadecimal.
pub(crate) fn has_digest(expected: &[u8]) -> bool {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    fs::read(OWN).is_ok_and(|bytes| hex(&Sha256::digest(&bytes)) == printable(expected))
}
