//! Limits and priorities of a job, which its programs inherit.

use std::time::Duration;

use rustix::process::{Resource, Rlimit, getpid, getrlimit, nice, setrlimit};

use crate::agent::tool::Tool;

/// Limit that the kernel takes for "no core dump" also where a program handles core dumps; 0 would let that program
/// have them.
const NO_CORE: u64 = 1;
/// Time limit of `ionice`.
const SHORT: Duration = Duration::from_secs(10);

/// Turns core dumps off: memory may contain the key.
pub(in crate::agent) fn no_core_dumps() {
    let now = getrlimit(Resource::Core);
    let limit = Some(now.maximum.map_or(NO_CORE, |maximum| maximum.min(NO_CORE)));
    // Lowering a limit cannot fail.
    let _ = setrlimit(Resource::Core, Rlimit { current: limit, maximum: limit });
}

/// Raises the limit of open files as far as the system allows. A backup keeps the files of all tables open; the
/// usual limit of a login is 1024.
pub(super) fn many_files() {
    let now = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
}

/// Lowers the priority of the processor and of the disks. Must be called before the job has other threads.
pub(super) fn stand_back(niceness: u8) {
    if niceness == 0 {
        return;
    }
    // A job that runs at its usual priority is better than none.
    let _ = nice(i32::from(niceness));
    let pid = getpid().as_raw_pid().to_string();
    let _ = Tool::new("ionice").args(["-c", "2", "-n", "7", "-p", &pid]).limit(SHORT).run();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_limited_by_the_system_only() {
        many_files();
        let limit = getrlimit(Resource::Nofile);
        assert_eq!(limit.current, limit.maximum);
    }
}
