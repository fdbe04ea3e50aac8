//! A plan as text: per host and in order what would be done, and how it would be undone.

use std::fmt;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::host::wire::printable;
use crate::pipeline::{build, render};
use crate::plan::Plan;

/// What a dry run prints.
#[derive(Debug)]
pub struct DryRun<'a>(pub &'a Plan);

impl fmt::Display for DryRun<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0;
        let shown = |path: &Path| printable(path.as_os_str().as_bytes());
        let (first, last) = plan.port.range();
        let ports =
            if first == last { first.to_string() } else { format!("the first free port of {first}-{last}") };
        writeln!(f, "run {}: {} files, {} bytes", plan.run, plan.source.files, plan.source.bytes)?;
        for target in &plan.targets {
            writeln!(f, "\n{} (target, guard {})", target.endpoint.host, target.guard)?;
            writeln!(f, "  stage       mkdir {}", shown(&target.staging))?;
            writeln!(f, "     undo     rm -rf {}", shown(&target.staging))?;
            writeln!(f, "  port        lock {ports}")?;
            writeln!(f, "     undo     free and remove the lock")?;
            for layer in &target.layers {
                writeln!(
                    f,
                    "  firewall    {}: insert: tcp from {} to that port: accept",
                    layer.name(),
                    target.peer
                )?;
                writeln!(f, "     undo     delete the rules tagged transfer-{}", target.guard)?;
            }
            if target.layers.is_empty() {
                writeln!(f, "  firewall    nothing to open")?;
            }
            writeln!(f, "  receive     {}", render::summary(&build::receiver(plan, target, first)))?;
            writeln!(f, "     undo     end its processes")?;
            writeln!(f, "  verify      {}", build::describe_verification(plan))?;
            writeln!(
                f,
                "  publish     rename {} to {}, not over an existing one",
                shown(&target.staging.join(&plan.source.name)),
                shown(&target.final_path)
            )?;
        }
        let sinks: Vec<(usize, IpAddr, u16)> =
            plan.targets.iter().map(|target| (target.number, target.address, first)).collect();
        writeln!(f, "\n{} (source, guard {})", plan.source.endpoint.host, plan.source.guard)?;
        writeln!(f, "  send        {}", render::summary(&build::sender(plan, &sinks)))?;
        writeln!(f, "     undo     end its processes")?;
        write!(f, "\nnothing was changed (dry run)")
    }
}
