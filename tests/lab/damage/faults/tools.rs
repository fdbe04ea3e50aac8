//! Programs of hosts that fail or are missing.

use super::{Fault, fault, plain};
use crate::damage::experiment::Experiment;
use crate::damage::moments::End;

/// Programs of the pipelines.
const NEEDED: [&str; 4] = ["tar", "zstd", "openssl", "nc"];
/// Programs that change the firewall of a target.
const FIREWALLS: [&str; 2] = ["nft", "iptables-legacy"];
/// Programs by which the agent gets onto a host, up to the one that becomes it.
const BOOTSTRAP: [&str; 7] = ["uname", "sha256sum", "id", "mkdir", "ls", "head", "chmod"];

/// Programs that fail from a moment on, with status 1 or as if they were missing.
pub(super) fn tools() -> Vec<Fault> {
    let mut faults = Vec::new();
    for status in ["1", "127"] {
        for (end, host) in [(End::Source, "source"), (End::Target, "target")] {
            for tool in NEEDED {
                // Failures that look like an unexpected peer count as one, after ten attempts.
                let is_silent = host == "target" && status == "1";
                let codes: &[i32] = if is_silent { &[1, 3, 5] } else { &[1, 3] };
                let early = broken(end, tool, status).at(|moment| moment.name == "target");
                faults.push(Fault { names: Some(tool), ..early.ends(codes, &[]) });
                let late = broken(end, tool, status).at(|moment| moment.name == "last");
                faults.push(late.ends(&[0, 1, 3, 6], &["db"]));
            }
        }
        for tool in FIREWALLS {
            let early = broken(End::Target, tool, status).at(|moment| moment.name == "target");
            faults.push(Fault { names: Some(tool), ..early.ends(&[1], &["db2"]) });
            let late = broken(End::Target, tool, status).at(|moment| moment.name == "last");
            faults.push(Fault { names: Some(tool), ..late.ends(&[6], &["db2"]) });
        }
        for tool in BOOTSTRAP {
            let fault = broken(End::Target, tool, status).at(|moment| moment.name == "connecting");
            // A login that is not known to be root has the directories of a user.
            let codes: &[i32] = if tool == "id" { &[0] } else { &[4] };
            faults.push(fault.ends(codes, &["db2"]));
        }
    }
    faults
}

fn broken(end: End, tool: &'static str, status: &'static str) -> Fault {
    let name = if status == "127" { "missing" } else { "failing" };
    let host = if end == End::Source { "source" } else { "target" };
    let strike = move |experiment: &mut Experiment| experiment.break_tool(end, tool, status);
    fault(&format!("{name}-{tool}-{host}"), strike)
        .mend(move |experiment| experiment.mend_tool(end, tool))
        .by(plain)
}
