//! Steps of a plan for a dry run: for each host, in order, each change and its rollback.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use indicatif::HumanBytes;
use serde::Serialize;

use crate::base::endpoint::HostName;
use crate::base::printable::printable;
use crate::config::settings::Replace;
use crate::config::values::{Hook, HookEnd, Phase, TableCheck};
use crate::host::facts::Layer;
use crate::mariadb::plan::{AccountPlan, Whose};
use crate::pipeline::places::owners_count;
use crate::plan::{Plan, StopPlan, TargetPlan};
use crate::shape::{Consumer, Publication};

/// Result of a dry run.
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
    /// Returns the steps of a plan. `send` and `receive` are the engine's work on the source and on each target.
    #[must_use]
    pub fn of(plan: &Plan, send: String, receive: impl Fn(&TargetPlan) -> String) -> Self {
        let mut steps = hooks(plan, HookEnd::Source);
        let back = "start it and restore its replication, as soon as its files are read";
        steps.extend(plan.source.servers.iter().map(|server| stop(server, "before the stream", back)));
        if plan.backup.as_ref().is_some_and(|backup| backup.stop_replication) {
            let does = "stop the running replication threads, before the stream";
            steps.push(step(
                "replication",
                does.into(),
                "start the same threads again, as soon as the stream has ended",
            ));
        }
        steps.push(step("send", send, "kill its processes"));
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
                .chain(plan.targets.iter().map(|target| of_target(plan, target, &receive)))
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

/// Returns the steps on the host where accounts are created.
fn of_primary(plan: &Plan) -> Option<HostSteps> {
    let replica = plan.replica.as_ref()?;
    let AccountPlan::Create { place, .. } = &replica.account else { return None };
    let does = |target: &TargetPlan| {
        let own = target.follow.as_ref().map_or("", |how| &how.own);
        let name = plan.account_name(target.number);
        Step {
            kind: "account",
            does: format!("CREATE USER '{name}'@'{own}' with a random password; GRANT REPLICATION SLAVE"),
            undo: Some("DROP USER, unless the replica has caught up".into()),
        }
    };
    Some(HostSteps {
        host: place.host.to_string(),
        role: "primary",
        agent: plan.run.primary_agent().to_string(),
        steps: plan.targets.iter().map(does).collect(),
    })
}

/// Returns the steps that make a copy a replica.
fn following(plan: &Plan, target: &TargetPlan) -> Vec<Step> {
    let Some((replica, how)) = plan.replica.as_ref().zip(target.follow.as_ref()) else { return Vec::new() };
    let whose = match replica.position {
        Whose::Own => "of the backup",
        Whose::Upstream => "of the donor's own replication",
    };
    let mut steps = vec![
        step("start", format!("start {} on the copy, read-only and without replication", how.unit), None),
        step(
            "follow",
            format!(
                "set the position {whose} (GTID, otherwise file and position); CHANGE MASTER TO {}:{}; read_only; START SLAVE",
                how.host, replica.port
            ),
            None,
        ),
        step(
            "catch up",
            format!("wait until it is at most {1} s behind {0}", replica.primary, replica.max_lag.as_secs()),
            None,
        ),
    ];
    if let Some(check) = replica.tables {
        let how = match check {
            TableCheck::Checksum => "CHECKSUM TABLE of all tables",
            TableCheck::Rows => "number of rows of all tables",
        };
        steps.push(step("compare", format!("{how} on both servers, at one GTID; then catch up again"), None));
    }
    let last = if plan.replace == Replace::Keep { "" } else { "; remove the old data" };
    steps.push(step("accept", format!("commit: keep the new data{last}"), None));
    steps
}

/// Returns the hooks of one end.
fn hooks(plan: &Plan, end: HookEnd) -> Vec<Step> {
    let does = |hook: &Hook| match hook.phase {
        Phase::Before => step("hook", printable(hook.command.as_bytes()), None),
        Phase::After => {
            let command = printable(hook.command.as_bytes());
            step("hook", format!("after everything else, however the run ends: {command}"), None)
        }
    };
    plan.hooks.iter().filter(|hook| hook.end == end).map(does).collect()
}

fn stop(server: &StopPlan, when: &str, back: &'static str) -> Step {
    step("server", format!("stop {} (data directory {}), {when}", server.unit, shown(&server.datadir)), back)
}

fn of_target(plan: &Plan, target: &TargetPlan, receive: &impl Fn(&TargetPlan) -> String) -> HostSteps {
    let mut steps = hooks(plan, HookEnd::Target);
    steps.extend(places(plan, target));
    steps.extend(rules(target));
    steps.push(step("receive", receive(target), "kill its processes"));
    steps.extend(checks(plan, target));
    let back = if target.follow.is_some() {
        "start it with its old data and restore its replication, unless the new data was committed"
    } else {
        "start it afterwards; its replication is restored with the old data and stays stopped with the new"
    };
    steps.extend(target.servers.iter().map(|server| stop(server, "before the publication", back)));
    steps.push(publication(plan, target));
    steps.extend(following(plan, target));
    HostSteps {
        host: target.endpoint.host.to_string(),
        role: "target",
        agent: target.agent.to_string(),
        steps,
    }
}

/// Returns the steps that lock the final name and a port, and create the staging directory.
fn places(plan: &Plan, target: &TargetPlan) -> [Step; 3] {
    let (staging, path) = (shown(&target.staging), shown(&target.final_path));
    let choice = if plan.ports.first == plan.ports.last { "" } else { "the first free port of " };
    [
        step("name", format!("lock {path} against other runs"), "release the lock"),
        Step {
            kind: "stage",
            does: format!("mkdir {staging}"),
            undo: Some(if plan.keep_staging {
                "rmdir it if it is empty (--keep-staging)".into()
            } else {
                format!("rm -rf {staging}")
            }),
        },
        step("port", format!("lock {choice}{}", plan.ports), "release and remove the lock"),
    ]
}

/// Returns the steps that open the firewall.
fn rules(target: &TargetPlan) -> Vec<Step> {
    if target.layers.is_empty() {
        return vec![step("firewall", "no rule needed".into(), None)];
    }
    let rule = |layer: &Layer| Step {
        kind: "firewall",
        does: format!("{}: insert a rule: accept tcp from {} to that port", layer.name(), target.peer),
        undo: Some(format!("delete the rules with the tag transfer-{}", target.agent)),
    };
    target.layers.iter().map(rule).collect()
}

/// Returns the steps from the received data to a verified copy.
fn checks(plan: &Plan, target: &TargetPlan) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(how) = &target.prepare {
        let programs: Vec<&str> = how.tools.iter().map(|tool| tool.program.as_str()).collect();
        let memory = HumanBytes(how.memory);
        let does = format!("{} --prepare with {memory} of memory", programs.join(" or "));
        steps.push(step("prepare", does, None));
    }
    steps.push(step("verify", describe_verification(plan), None));
    let owner = target.prepare.as_ref().map(|how| &how.owner).or(plan.chown.as_ref().map(|owner| &owner.0));
    steps.extend(owner.map(|owner| step("chown", format!("chown -R {owner}"), None)));
    steps
}

/// Returns the step that gives the copy its final name.
fn publication(plan: &Plan, target: &TargetPlan) -> Step {
    let (path, old) = (shown(&target.final_path), shown(&target.old_path));
    let staged = shown(&target.inbox().join(&plan.staged));
    let does = match plan.replace {
        _ if target.follow.is_some() => {
            format!("rename {path}, if it exists, to {old} and {staged} to {path}, in one step (provisional)")
        }
        _ if plan.shape.publication != Publication::Name => {
            let directory = shown(&target.endpoint.path);
            format!("rename each entry of {staged} into {directory}, never over an existing one")
        }
        Replace::No => format!("rename {staged} to {path}, never over an existing one"),
        Replace::Remove if target.keeps_old_until_it_runs() => {
            format!("exchange {staged} and {path}; remove the old data when the server runs with the new")
        }
        Replace::Remove => format!("exchange {staged} and {path}; remove the old data"),
        Replace::Keep => format!("rename {path} to {old} and {staged} to {path}, in one step"),
    };
    let undo = target
        .follow
        .as_ref()
        .map(|_| "stop its server and change the names back, until the data is committed");
    step("publish", does, undo)
}

/// Describes for the dry run how the copy is verified and synced.
fn describe_verification(plan: &Plan) -> String {
    let attributes =
        if owners_count(plan) { "names, types, sizes, modes, owners" } else { "names, types, sizes" };
    let mut checks = vec!["bytes on the wire".to_owned()];
    if plan.shape.compares_files() {
        checks.push(format!("{attributes} of all entries"));
    }
    checks.extend(plan.stream_digest.map(|digest| format!("{digest} of the stream")));
    if plan.shape.consumer == Consumer::File {
        checks.push("the archive, read back from the disk".into());
    }
    checks.extend(plan.file_digest.map(|digest| {
        let disks = if plan.fsync { "read from both disks" } else { "not waiting for the target's disk" };
        format!("{} of every file, {disks}", digest.name())
    }));
    if plan.fsync {
        checks.push("sync".into());
    }
    checks.join("; ")
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
                // One line for each stage of a pipeline and each check.
                let does = does.replace(" | ", "\n              | ").replace("; ", ";\n              ");
                writeln!(f, "  {kind:<11} {does}")?;
                if let Some(undo) = undo {
                    writeln!(f, "    rollback  {undo}")?;
                }
            }
        }
        writeln!(
            f,
            "\nRUN: directory of the run on its host; KEY: pipe with the key; (...): the agent itself"
        )?;
        write!(f, "dry run: nothing was changed")
    }
}
