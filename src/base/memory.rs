//! Protection of this process's memory, which contains the key of a run and passwords.

use nix::errno::Errno;
use nix::sys::prctl::set_dumpable;
use nix::sys::resource::{Resource, setrlimit};

/// Keeps the memory of this process out of core dumps, and protects it from other processes of the account.
///
/// The limit applies to core files and is inherited by child processes. A program that receives dumps through
/// a pipe in the kernel's core pattern ignores the limit, but gets no dump of a process that is not dumpable.
///
/// # Errors
/// When the kernel refuses.
pub fn forbid_dumps() -> Result<(), Errno> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    set_dumpable(false)
}
