//! The file of this agent, which the controller has put onto the host.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::agent::state::{AGENT, Directories, PROGRAM};
use crate::base::printable::printable;

/// File of this process, whatever has its name now.
const OWN: &str = "/proc/self/exe";

/// Removes the file of this agent, if the controller has put it onto the host. The program goes on without it, and
/// an agent that is killed leaves nothing.
pub(crate) fn remove(directories: &Directories) {
    let Ok(path) = fs::read_link(OWN) else { return };
    let own = path
        .parent()
        .filter(|own| own.file_name().is_some_and(|name| name.as_bytes().starts_with(AGENT.as_bytes())));
    if let Some(own) = own {
        // What cannot be removed is removed by a later agent.
        let _ = fs::remove_file(&path);
        let _ = fs::remove_dir(own);
        directories.prune();
    }
}

/// Puts the program into the directory of a run, where it stays until the run is rolled back.
pub(crate) fn keep_in(directory: &Path) -> io::Result<()> {
    let kept = directory.join(PROGRAM);
    fs::copy(OWN, &kept)?;
    File::open(&kept)?.sync_all()
}

/// Returns whether the file of this program has this SHA-256, hexadecimal.
pub(crate) fn has_digest(expected: &[u8]) -> bool {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    fs::read(OWN).is_ok_and(|bytes| hex(&Sha256::digest(&bytes)) == printable(expected))
}
