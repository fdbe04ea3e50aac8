//! Programs of hosts that fail or are missing.

use super::{Fault, fault, plain};
use crate::damage::moments::End;

/// Programs that fail from a moment on, with status 1 or as if they were missing.
pub(super) fn tools() -> Vec<Fault> {
    /// Programs that every run needs; the agent remembers the paths of its own.
    const NEEDED: [&str; 9] = ["tar", "zstd", "openssl", "nc", "perl", "find", "sort", "md5sum", "mkfifo"];
    const OTHERS: [&str; 12] = [
        "sync",
        "nft",
        "iptables-legacy",
        "mkdir",
        "rmdir",
        "rm",
        "mv",
        "stat",
        "awk",
        "flock",
        "sha256sum",
        "cat",
    ];
    let broken = |end: End, host: &'static str, tool: &'static str, status: &'static str| {
        let name = if status == "127" { "missing" } else { "failing" };
        fault(&format!("{name}-{tool}-{host}"), move |experiment| experiment.break_tool(end, tool, status))
            .mend(move |experiment| experiment.mend_tool(end, tool))
            .by(plain)
    };
    let mut faults = Vec::new();
    for status in ["1", "127"] {
        for (end, host) in [(End::Source, "source"), (End::Target, "target")] {
            for tool in NEEDED {
                // Failures that look like an unexpected peer count as one, after ten attempts.
                let silent = host == "target" && status == "1" || tool == "perl";
                let codes: &[i32] = if silent { &[1, 3, 5] } else { &[1, 3] };
                let early = broken(end, host, tool, status).at(|moment| moment.name == "target");
                // perl passes on the messages of programs.
                let names = Some(tool).filter(|tool| *tool != "perl");
                faults.push(Fault { names, ..early.ends(codes, &[]) });
            }
            let tools = OTHERS.iter().filter(|tool| host == "target" || **tool == "sync");
            for tool in NEEDED.iter().chain(tools) {
                let late = broken(end, host, tool, status).at(|moment| moment.name == "last");
                faults.push(late.ends(&[0, 1, 3, 6], &["db"]));
            }
        }
        for tool in OTHERS {
            let early = broken(End::Target, "target", tool, status).at(|moment| moment.name == "target");
            // The comparison would use the page cache.
            let codes: &[i32] = if tool == "sync" { &[1, 3, 6] } else { &[0, 1, 3, 6] };
            faults.push(early.ends(codes, &["db2"]));
        }
    }
    faults
}
