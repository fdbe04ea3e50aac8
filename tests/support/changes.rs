//! Hosts that a test changes until the end of a scope.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::hosts::Host;

/// Time after which wrappers have no effect: more than any test with a wrapper takes.
const WRAPPED: Duration = Duration::from_secs(180);

/// A script in front of a program of a host, with the real program as `$real`, until this is dropped.
///
/// The script has no effect after [`WRAPPED`], since the test may be killed before it is dropped. All
/// processes of the host run it: only for exclusive tests.
pub(crate) struct Wrapper {
    host: Host,
    path: String,
}

impl Wrapper {
    /// Puts a bash script in front of a program; the real program runs after its end.
    pub(crate) fn new(host: &Host, program: &str, script: &str) -> Self {
        let path = format!("/usr/local/bin/{program}");
        let wrapper = Self { host: host.clone(), path };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        let text = format!(
            "#!/bin/bash\nreal=/usr/bin/{program}\n((EPOCHSECONDS > {})) && exec $real \"$@\"\n{script}\nexec $real \"$@\"\n",
            now + WRAPPED.as_secs()
        );
        host.put(text, &wrapper.path, 0o755);
        wrapper
    }
}

impl Drop for Wrapper {
    fn drop(&mut self) {
        self.host.run(&["rm", "-f", &self.path]);
    }
}

/// Puts one of the host's netcats in front of `nc`.
pub(crate) fn call_nc(host: &Host, netcat: &str) -> Wrapper {
    Wrapper::new(host, "nc", &format!("exec {netcat} \"$@\""))
}

/// A host that a script has changed, until this is dropped and another script has restored it.
pub(crate) struct Changed {
    host: Host,
    back: String,
}

impl Changed {
    #[track_caller]
    pub(crate) fn new(host: &Host, script: &str, back: &str) -> Self {
        // Before the script runs: a script that fails halfway is reverted, too.
        let changed = Self { host: host.clone(), back: back.to_owned() };
        host.sh(script);
        changed
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        let output = self.host.run(&["bash", "-c", &self.back]);
        if !output.status.success() {
            eprintln!("a host could not be restored: {output}");
        }
    }
}
