//! Jobs of a single program, beside the stream and after it. Pure.

use crate::config::values::{FileDigest, Hook};
use crate::host::agent::JobName;
use crate::host::command::Word;
use crate::pipeline::places::{INBOX, argv, arrival, excluded, owners_count, source_directory};
use crate::pipeline::render::single;
use crate::plan::{Plan, TargetPlan};
use crate::shape::Publication;

/// Returns the job that lists and digests the source during the copy.
#[must_use]
pub(crate) fn source_manifest(plan: &Plan) -> Vec<u8> {
    let workers = plan.threads.unwrap_or(plan.source.cores.div_ceil(2));
    manifest(plan, JobName::Manifest, &source_directory(plan), workers, Freshness::Old)
}

/// Returns the job that lists and digests the received files; with `--fsync` it reads them from disk.
#[must_use]
pub(crate) fn target_manifest(plan: &Plan, target: &TargetPlan) -> Vec<u8> {
    let freshness = if plan.fsync { Freshness::Synced } else { Freshness::Unsynced };
    manifest(plan, JobName::Verify, &Word::from(INBOX), plan.threads.unwrap_or(target.cores), freshness)
}

/// Returns the job that writes a list of the files that changed on the source since the start of the agent.
#[must_use]
pub(crate) fn changed(plan: &Plan) -> Vec<u8> {
    // The agent writes its tools only at its start: their time is the reference. Errors of find about files
    // that disappear are ignored: a path that is not listed explains no difference.
    let find = "find -H \"./$1\" -cnewer \"$home/pump.pl\" -print0 >\"$home/changed\" || :";
    let words = argv(&["bash", "--norc", "-p", "-c", find, "changed"]);
    let name = Word::from(&plan.staged);
    single(JobName::Changed, source_directory(plan), "find", [words, vec![name]].concat())
}

/// Returns the job that changes the owner of a copy, if requested.
#[must_use]
pub(crate) fn chown(plan: &Plan, target: &TargetPlan) -> Option<Vec<u8>> {
    let prepared = target.prepare.as_ref().map(|prepare| &prepare.owner);
    let owner = prepared.or(plan.chown.as_ref().map(|owner| &owner.0))?;
    let chown = "chown -hR -- \"$1\" \"./$2\" && { [[ $3 != sync ]] || sync -f -- .; }";
    let mut words = argv(&["bash", "--norc", "-p", "-c", chown, "chown", owner]);
    words.push(Word::from(&plan.staged));
    words.push(Word::from(if plan.fsync { "sync" } else { "no-sync" }));
    Some(single(JobName::Chown, Word::from(INBOX), "chown", words))
}

/// Returns the job that runs a hook.
#[must_use]
pub(crate) fn hook(plan: &Plan, hook: &Hook, source: &str, targets: &str) -> Vec<u8> {
    let facts = [
        ("PHASE", "before"),
        ("STATUS", ""),
        ("RUN", &plan.run.to_string()),
        ("END", hook.end.name()),
        ("SOURCE", source),
        ("TARGETS", targets),
    ];
    let mut words = argv(&["env"]);
    words.extend(facts.iter().map(|(name, value)| Word::from(&format!("TRANSFER_HOOK_{name}={value}"))));
    // Standard output counts as output for messages, too. timeout ends the command together with the job;
    // processes that it leaves in the background are not waited for. The time limit is that of the hooks in
    // journal.sh.
    let run = r#"timeout -k 10 600 bash --norc -p -c 'exec 8>&-; eval "$1"' transfer-hook "$1" >"$home/hook.said" 2>&1 5>&-
        status=$?; tail -c 500 -- "$home/hook.said" | tail -n 1 >&2; exit $status"#;
    words.extend(argv(&["bash", "--norc", "-p", "-c", run, "hook"]));
    words.push(Word::from(&hook.command));
    single(JobName::Hook, Word::from("/"), "hook", words)
}

/// Returns the job that removes the top directory of an unpacked archive, if it is the only entry.
#[must_use]
pub(crate) fn strip(plan: &Plan) -> Vec<u8> {
    let strip = r#"shopt -s dotglob nullglob; all=("$1"/*)
        [[ ${#all[@]} == 1 && -d ${all[0]} && ! -L ${all[0]} ]] || exit 0
        # Without root one must be writable to be moved, also out of it.
        mode=$(stat -c %a -- "${all[0]}") && chmod u+w -- "${all[0]}" && mv -T -- "${all[0]}" .top && rmdir -- "$1" && mv -T -- .top "$1" &&
            { [[ $2 == fill ]] || chmod "$mode" -- "$1"; }"#;
    let mut words = argv(&["bash", "--norc", "-p", "-c", strip, "strip"]);
    words.push(Word::from(&plan.staged));
    words.push(Word::from(if plan.shape.publication == Publication::Fill { "fill" } else { "name" }));
    single(JobName::Strip, Word::from(INBOX), "strip", words)
}

/// Returns the job that reads an archive back from disk and writes a digest file beside it. `program` is a
/// digest program of coreutils and names the extension of this file.
#[must_use]
pub(crate) fn digest_archive(plan: &Plan, target: &TargetPlan, program: &str) -> Vec<u8> {
    // The line has the format of the program's own output, including its escapes in names.
    let digest = r#"set -o pipefail; umask 077; file=./$1 sum=$1.${2%sum}
        printf '!\twaits\tarchive\tsync\n' >&5
        { [[ $3 != sync ]] || sync -f -- .; } && printf '%s\0' "$file" | perl "$home/drop.pl" || exit
        printf '!\twaits\tarchive\n' >&5
        find "$file" -prune -type f -printf '%D:%i\0%p\0' | perl "$home/hash.pl" archive "$2" strict 1 1 '' |
            perl -0 -ne 'm{\A\./(.*)//([0-9a-f]+)\0\z}s or die "no digest\n"; my ($name, $sum) = ($1, $2);
                my $escaped = $name =~ s/([\\\n])/$1 eq "\n" ? "\\n" : "\\\\"/ge ? "\\" : "";
                print "$escaped$sum  $name\n"' >"$sum" || exit
        printf '!\twaits\tarchive\tsync\n' >&5
        { [[ $3 != sync ]] || sync -- "./$sum" .; } &&
            read -r sum _ <"./$sum" && printf '!\tdigest\tarchive\t%s\n' "${sum#\\}" >&5"#;
    let mut words = argv(&["bash", "--norc", "-p", "-c", digest, "digest"]);
    words.push(Word::from(target.final_path.file_name().unwrap_or_default()));
    words.extend(argv(&[program, if plan.fsync { "sync" } else { "no-sync" }]));
    single(JobName::Archive, arrival(plan), "digest", words)
}

/// State of the files that are to be listed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Freshness {
    /// Existing files of the source.
    Old,
    /// New files, to be synced and read from disk.
    Synced,
    /// New files that are not synced.
    Unsynced,
}

fn manifest(plan: &Plan, job: JobName, directory: &Word, workers: u32, freshness: Freshness) -> Vec<u8> {
    let workers = u64::from(if plan.threads.is_some() { workers } else { workers.clamp(1, 4) });
    // Files per process: few enough that all workers are busy, many enough that starting processes costs
    // nothing.
    let batch = (plan.source.files / (workers * 8)).clamp(1, 256);
    let mut words = argv(&["bash", "--norc", "-p"]);
    words.push(Word::Home("manifest.sh".into()));
    words.extend([Word::from(job.name()), directory.clone(), Word::from(&plan.staged)]);
    words.push(Word::from(plan.file_digest.map_or("none", FileDigest::program)));
    words.extend([Word::from(&workers.to_string()), Word::from(&batch.to_string())]);
    words.push(Word::from(if owners_count(plan) { "owners" } else { "no-owners" }));
    words.push(Word::from(if freshness == Freshness::Synced { "sync" } else { "no-sync" }));
    words.push(Word::from(if plan.ignore_changed && freshness == Freshness::Old {
        "lenient"
    } else {
        "strict"
    }));
    // Excluded files exist only on the source; on the target every file is listed.
    if freshness == Freshness::Old {
        words.extend(excluded(plan).into_iter().map(Word::Literal));
    }
    single(job, Word::from("/"), "manifest", words)
}
