//! A plan as steps: per host and in order what would be done, and how it would be undone.

use std::fmt;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use indicatif::HumanBytes;
use serde::Serialize;

use crate::endpoint::HostName;
use crate::host::command::typable;
use crate::host::wire::printable;
use crate::pipeline::{build, render};
use crate::plan::replica::{AccountPlan, Whose};
use crate::plan::{Plan, StopPlan, TargetPlan};
use crate::settings::Replace;
use crate::shape::Publication;
use crate::values::{Hook, HookEnd, Phase, TableCheck};

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
    agent: String,
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
        // tar works within what it copies, a file is read from the directory that holds it.
        let within = if plan.source.is_directory { &plan.source.endpoint.path } else { &plan.source.parent };
        let send = format!("cd {}; {}", typed(within), render::summary(&build::sender(plan, &sinks)));
        let mut steps = hooks(plan, HookEnd::Source);
        let back = "start it, as soon as its files are read, and its replication as it was";
        steps.extend(plan.source.servers.iter().map(|server| stop(server, "before the stream", back)));
        if plan.backup.as_ref().is_some_and(|backup| backup.stop_replication) {
            let does = "stop the replication that runs, before the stream";
            steps.push(step(
                "replication",
                does.into(),
                "start exactly that again, as soon as the stream has ended",
            ));
        }
        steps.push(step("send", send, "end its processes"));
        let source = HostSteps {
            host: plan.source.endpoint.host.to_string(),
            role: "source",
            agent: plan.source.agent.to_string(),
            steps,
        };
        Self {
            run: plan.run.to_string(),
            files: plan.source.files,
            bytes: plan.source.bytes,
            hosts: of_controller(plan)
                .into_iter()
                .chain(of_primary(plan))
                .chain(plan.targets.iter().map(|target| of_target(plan, target)))
                .chain([source])
                .collect(),
        }
    }
}

fn of_controller(plan: &Plan) -> Option<HostSteps> {
    let steps = hooks(plan, HookEnd::Controller);
    (!steps.is_empty()).then(|| HostSteps {
        host: HostName::Local.to_string(),
        role: "controller",
        agent: plan.run.controller_agent().to_string(),
        steps,
    })
}

/// The accounts that are made.
fn of_primary(plan: &Plan) -> Option<HostSteps> {
    let replica = plan.replica.as_ref()?;
    let AccountPlan::Create { place, .. } = &replica.account else { return None };
    let does = |target: &TargetPlan| {
        let own = target.follow.as_ref().map_or("", |how| &how.own);
        let name = plan.account_name(target.number);
        Step {
            kind: "account",
            does: format!(
                "CREATE USER '{name}'@'{own}', with a password that is its replica's alone; GRANT REPLICATION SLAVE"
            ),
            undo: Some("DROP USER, unless its replica has caught up".into()),
        }
    };
    Some(HostSteps {
        host: place.host.to_string(),
        role: "primary",
        agent: plan.run.primary_agent().to_string(),
        steps: plan.targets.iter().map(does).collect(),
    })
}

/// What makes a copy a replica.
fn following(plan: &Plan, target: &TargetPlan) -> Vec<Step> {
    let Some((replica, how)) = plan.replica.as_ref().zip(target.follow.as_ref()) else { return Vec::new() };
    let whose = match replica.position {
        Whose::Own => "that of the backup",
        Whose::Upstream => "that which the source has of it",
    };
    let mut steps = vec![
        step(
            "start",
            format!("start {} with the copy; it replicates nothing, and takes no writes", how.unit),
            None,
        ),
        step(
            "follow",
            format!(
                "set the position ({whose}, GTID before file and position); CHANGE MASTER TO {}:{}; read_only; START SLAVE",
                how.host, replica.port
            ),
            None,
        ),
        step(
            "catch up",
            format!("until it has all that {} had {} s ago", replica.primary, replica.max_lag.as_secs()),
            None,
        ),
    ];
    if let Some(check) = replica.tables {
        let how = match check {
            TableCheck::Checksum => "CHECKSUM TABLE of all tables",
            TableCheck::Rows => "count the rows of all tables",
        };
        steps.push(step("compare", format!("{how} on both sides, at one GTID; then catch up again"), None));
    }
    let last = if plan.replace == Replace::Keep { "" } else { "; the old data is removed" };
    steps.push(step("accept", format!("the new data stays{last}"), None));
    steps
}

/// The user's commands on an end.
fn hooks(plan: &Plan, end: HookEnd) -> Vec<Step> {
    let does = |hook: &Hook| match hook.phase {
        Phase::Before => step("hook", printable(hook.command.as_bytes()), None),
        Phase::After => Step {
            kind: "hook",
            does: "nothing yet".into(),
            undo: Some(format!("last of all, however it ends: {}", printable(hook.command.as_bytes()))),
        },
    };
    plan.hooks.iter().filter(|hook| hook.end == end).map(does).collect()
}

fn stop(server: &StopPlan, when: &str, back: &'static str) -> Step {
    step("server", format!("stop {}, which works in {}, {when}", server.unit, shown(&server.datadir)), back)
}

fn of_target(plan: &Plan, target: &TargetPlan) -> HostSteps {
    let (staging, path) = (shown(&target.staging), shown(&target.final_path));
    let choice = if plan.ports.first == plan.ports.last { "" } else { "the first free port of " };
    let mut steps = hooks(plan, HookEnd::Target);
    steps.extend([
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
    ]);
    for layer in &target.layers {
        steps.push(Step {
            kind: "firewall",
            does: format!("{}: insert: tcp from {} to that port: accept", layer.name(), target.peer),
            undo: Some(format!("delete the rules tagged transfer-{}", target.agent)),
        });
    }
    if target.layers.is_empty() {
        steps.push(step("firewall", "nothing to open".into(), None));
    }
    let receive = render::summary(&build::receiver(plan, target, plan.ports.first));
    let receive = format!("cd {}; {receive}", typed(&target.inbox()));
    steps.push(step("receive", receive, "end its processes"));
    if let Some(how) = &target.prepare {
        let programs: Vec<&str> = how.tools.iter().map(|tool| tool.program.as_str()).collect();
        let memory = HumanBytes(how.memory);
        let does = format!("{} --prepare, with {memory} of memory", programs.join(" or "));
        steps.push(step("prepare", does, None));
    }
    steps.push(step("verify", build::describe_verification(plan), None));
    let owner = target.prepare.as_ref().map(|how| &how.owner).or(plan.chown.as_ref().map(|owner| &owner.0));
    if let Some(owner) = owner {
        steps.push(step("chown", format!("give all of it to {owner}"), None));
    }
    let back = if target.follow.is_some() {
        "start it with its old data, and its replication as it was, unless the new replica is accepted"
    } else {
        "start it behind that; what it replicates rests with new data, and is as it was with its own"
    };
    steps.extend(target.servers.iter().map(|server| stop(server, "before the publication", back)));
    let staged = shown(&target.inbox().join(&plan.staged));
    let publish = match plan.replace {
        _ if target.follow.is_some() => {
            let old = shown(&target.old_path);
            format!("{path}, if it is there, becomes {old}, {staged} becomes {path}, in one step, on trial")
        }
        _ if plan.shape.publication != Publication::Name => {
            let directory = shown(&target.endpoint.path);
            format!("rename all that is in {staged} into {directory}, one by one, not over existing ones")
        }
        Replace::No => format!("rename {staged} to {path}, not over an existing one"),
        Replace::Remove if target.keeps_old_until_it_runs() => {
            format!(
                "{staged} and {path} change places; the old one is removed when the server runs with the new"
            )
        }
        Replace::Remove => format!("{staged} and {path} change places; the old one is removed"),
        Replace::Keep => {
            format!("{path} becomes {}, {staged} becomes {path}, in one step", shown(&target.old_path))
        }
    };
    let undo =
        target.follow.as_ref().map(|_| "stop its server, and change the names back, until it is accepted");
    steps.push(step("publish", publish, undo));
    steps.extend(following(plan, target));
    HostSteps {
        host: target.endpoint.host.to_string(),
        role: "target",
        agent: target.agent.to_string(),
        steps,
    }
}

/// A path as it may be typed.
fn typed(path: &Path) -> String {
    typable(path.as_os_str().as_bytes())
}

fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_bytes())
}

impl fmt::Display for DryRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = if self.files == 1 { "file" } else { "files" };
        let Self { run, bytes, .. } = self;
        writeln!(f, "run {run}: {} {files}, {bytes} bytes ({})", self.files, HumanBytes(*bytes))?;
        for HostSteps { host, role, agent, steps } in &self.hosts {
            writeln!(f, "\n{host} ({role}, agent {agent})")?;
            for Step { kind, does, undo } in steps {
                // A stage of a pipeline and a check a line: all in one nobody can read.
                let does = does.replace(" | ", "\n              | ").replace("; ", ";\n              ");
                writeln!(f, "  {kind:<11} {does}")?;
                if let Some(undo) = undo {
                    writeln!(f, "    undo      {undo}")?;
                }
            }
        }
        writeln!(f, "\n$home: the directory of each agent on its host, as long as it runs")?;
        write!(f, "nothing was changed (dry run)")
    }
}
