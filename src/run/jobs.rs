//! Tasks of a single kind of work, beside the stream and after it. Pure.

use crate::config::values::Hook;
use crate::pipeline::places::{arrival, owners_count, source_tree};
use crate::plan::{Plan, TargetPlan};
use crate::proto::HostBytes;
use crate::proto::files::{Changes, DigestKind, Freshness, ListTask, Naming, NewOwner, OwnerColumn, Tree};
use crate::proto::task::{BeforeHook, Task};
use crate::shape::Publication;

/// Returns the job that lists and digests the source during the copy.
#[must_use]
pub(crate) fn source_list(plan: &Plan) -> Task {
    let workers = plan.threads.unwrap_or(plan.source.cores.div_ceil(2));
    let changes = if plan.ignore_changed { Changes::Lenient } else { Changes::Strict };
    Task::ListSource(list(plan, source_tree(plan), workers, (Freshness::Old, changes)))
}

/// Returns the job that lists and digests the received files; with `--fsync` it reads them from disk.
#[must_use]
pub(crate) fn target_list(plan: &Plan, target: &TargetPlan) -> Task {
    let freshness = if plan.fsync { Freshness::JustWritten } else { Freshness::Old };
    // Excluded files exist only on the source; here every file is listed.
    let tree = Tree { name: HostBytes::from(&plan.staged), exclude: Vec::new() };
    Task::ListCopy(list(plan, tree, plan.threads.unwrap_or(target.cores), (freshness, Changes::Strict)))
}

fn list(plan: &Plan, tree: Tree, workers: u32, (freshness, changes): (Freshness, Changes)) -> ListTask {
    let workers = if plan.threads.is_some() { workers } else { workers.clamp(1, 4) };
    ListTask {
        tree,
        digest: plan.file_digest.map(crate::config::values::DigestAlgorithm::kind),
        workers: u16::try_from(workers).unwrap_or(u16::MAX),
        owners: if owners_count(plan) { OwnerColumn::Present } else { OwnerColumn::Absent },
        freshness,
        changes,
    }
}

/// Returns the job that writes a list of the files that changed on the source since the run began.
#[must_use]
pub(crate) fn changed(plan: &Plan) -> Task {
    Task::Changed(source_tree(plan))
}

/// Returns the job that changes the owner of a copy.
#[must_use]
pub(crate) fn chown(plan: &Plan, owner: NewOwner) -> Task {
    Task::ChangeOwner { name: HostBytes::from(&plan.staged), owner, durable: plan.fsync }
}

/// Returns the job that runs a hook.
#[must_use]
pub(crate) fn hook(plan: &Plan, hook: &Hook, source: &str, targets: &str) -> Task {
    Task::Hook(BeforeHook {
        command: hook.command.clone(),
        end: hook.end.name().to_owned(),
        run: plan.run.to_string(),
        source: source.to_owned(),
        targets: targets.to_owned(),
    })
}

/// Returns the job that removes the top directory of an unpacked archive, if it is the only entry.
#[must_use]
pub(crate) fn strip(plan: &Plan) -> Task {
    let naming = match plan.shape.publication {
        Publication::Fill => Naming::Fill,
        Publication::Name | Publication::Add => Naming::Rename(plan.replace),
    };
    Task::Strip { name: HostBytes::from(&plan.staged), naming }
}

/// Returns the job that reads an archive back from disk and writes a digest file beside it.
#[must_use]
pub(crate) fn digest_archive(plan: &Plan, target: &TargetPlan, digest: DigestKind) -> Task {
    let name = HostBytes::from(target.final_path.file_name().unwrap_or_default());
    Task::DigestArchive { place: arrival(plan), name, digest, durable: plan.fsync }
}
