//! A plan as steps: per host and in order what would be done, and how it would be undone.

use std::fmt;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use indicatif::HumanBytes;
use serde::Serialize;

use crate::host::wire::printable;
use crate::pipeline::{build, render};
use crate::plan::{Plan, TargetPlan};
use crate::settings::Replace;

/// What a dry run tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DryRun {
    run: String,
    files: u64,
    bytes: u64,
    hosts: Vec<HostSteps>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct HostSteps {
    host: String,
    role: &'static str,
    guard: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Step {
    kind: &'static str,
    does: String,
    undo: Option<String>,
}

fn step(kind: &'static str, does: String, undo: impl Into<Option<&'static str>>) -> Step {
    Step { kind, does, undo: undo.into().map(Into::into) }
}

impl DryRun {
    /// The steps of a plan.
    #[must_use]
    pub fn of(plan: &Plan) -> Self {
        let sinks: Vec<(usize, IpAddr, u16)> =
            plan.targets.iter().map(|target| (target.number, target.address, plan.ports.first)).collect();
        let send = render::summary(&build::sender(plan, &sinks));
        let source = HostSteps {
            host: plan.source.endpoint.host.to_string(),
            role: "source",
            guard: plan.source.guard.to_string(),
            steps: vec![step("send", send, "end its processes")],
        };
        Self {
            run: plan.run.to_string(),
            files: plan.source.files,
            bytes: plan.source.bytes,
            hosts: plan.targets.iter().map(|target| of_target(plan, target)).chain([source]).collect(),
        }
    }
}

fn of_target(plan: &Plan, target: &TargetPlan) -> HostSteps {
    let (staging, path) = (shown(&target.staging), shown(&target.final_path));
    let choice = if plan.ports.first == plan.ports.last { "" } else { "the first free port of " };
    let mut steps = vec![
        step("name", format!("lock {path}, so that no other run writes to it"), "free the lock"),
        Step {
            kind: "stage",
            does: format!("mkdir {staging}"),
            undo: Some(if plan.keep_staging {
                "rmdir it, if nothing is in it (--keep-staging)".into()
            } else {
                format!("rm -rf {staging}")
            }),
        },
        step("port", format!("lock {choice}{}", plan.ports), "free and remove the lock"),
    ];
    for layer in &target.layers {
        steps.push(Step {
            kind: "firewall",
            does: format!("{}: insert: tcp from {} to that port: accept", layer.name(), target.peer),
            undo: Some(format!("delete the rules tagged transfer-{}", target.guard)),
        });
    }
    if target.layers.is_empty() {
        steps.push(step("firewall", "nothing to open".into(), None));
    }
    let receive = render::summary(&build::receiver(plan, target, plan.ports.first));
    steps.push(step("receive", receive, "end its processes"));
    steps.push(step("verify", build::describe_verification(plan), None));
    if let Some(owner) = &plan.chown {
        steps.push(step("chown", format!("give all of it to {}", owner.0), None));
    }
    let staged = shown(&target.staging.join(&plan.source.name));
    let publish = match plan.replace {
        Replace::No => format!("rename {staged} to {path}, not over an existing one"),
        Replace::Remove => format!("{staged} and {path} change places; the old one is removed"),
        Replace::Keep => {
            format!("{path} becomes {}, {staged} becomes {path}, in one step", shown(&target.old_path))
        }
    };
    steps.push(step("publish", publish, None));
    HostSteps {
        host: target.endpoint.host.to_string(),
        role: "target",
        guard: target.guard.to_string(),
        steps,
    }
}

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}

impl fmt::Display for DryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = if self.files == 1 { "file" } else { "files" };
        let Self { run, bytes, .. } = self;
        writeln!(f, "run {run}: {} {files}, {bytes} bytes ({})", self.files, HumanBytes(*bytes))?;
        for HostSteps { host, role, guard, steps } in &self.hosts {
            writeln!(f, "\n{host} ({role}, guard {guard})")?;
            for Step { kind, does, undo } in steps {
                // A stage of a pipeline and a check a line: all in one nobody can read.
                let does = does.replace(" | ", "\n              | ").replace("; ", ";\n              ");
                writeln!(f, "  {kind:<11} {does}")?;
                if let Some(undo) = undo {
                    writeln!(f, "    undo      {undo}")?;
                }
            }
        }
        writeln!(f, "\n$home: the directory of each guard on its host, as long as it runs")?;
        write!(f, "nothing was changed (dry run)")
    }
}
