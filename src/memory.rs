//! Memory of this process, which holds the key of a run and passwords.

use nix::errno::Errno;
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};

/// Keeps the memory of this process out of core dumps, and other processes of the account away from it.
///
/// The limit is for files, and inherited by the programs that this process starts. A program that the kernel's core pattern
/// pipes dumps into gets them whatever the limit; not those of a process that cannot be dumped.
///
/// # Errors
/// When the kernel refuses it.
pub fn forbid_dumps() -> Result<(), Errno> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    set_dumpable(false)
}
