//! Jobs of a single program, beside the stream and after it. Pure.

use std::os::unix::ffi::OsStrExt as _;

use super::build::{INBOX, argv, arrival, excluded, open_files, owners_count, source_directory};
use super::render;
use super::stage::{Channel, Pipeline, Stage};
use crate::host::command::Word;
use crate::host::scripts::Script;
use crate::host::wire::Field;
use crate::plan::replica::{Follow, Position, ReplicaPlan};
use crate::plan::{Plan, Prepare, TargetPlan};
use crate::shape::Publication;
use crate::values::{FileDigest, Hook, TableCheck};

/// Returns the job that lists and digests the source during the copy.
#[must_use]
pub(crate) fn source_manifest(plan: &Plan) -> Vec<u8> {
    let workers = plan.threads.unwrap_or(plan.source.cores.div_ceil(2));
    manifest(plan, "manifest", &source_directory(plan), workers, Freshness::Old)
}

/// Returns the job that lists and digests the received files; with `--fsync` it reads them from disk.
#[must_use]
pub(crate) fn target_manifest(plan: &Plan, target: &TargetPlan) -> Vec<u8> {
    let freshness = if plan.fsync { Freshness::Synced } else { Freshness::Unsynced };
    manifest(plan, "verify", &Word::from(INBOX), plan.threads.unwrap_or(target.cores), freshness)
}

/// Returns the job that writes a list of the files that changed on the source since the start of the agent.
#[must_use]
pub(crate) fn changed(plan: &Plan) -> Vec<u8> {
    // The agent writes its tools only at its start: their time is the reference. Errors of find about files
    // that disappear are ignored: a path that is not listed explains no difference.
    let find = "find -H \"./$1\" -cnewer \"$home/pump.pl\" -print0 >\"$home/changed\" || :";
    let words = argv(&["bash", "--norc", "-p", "-c", find, "changed"]);
    let name = Word::from(&plan.staged);
    single("changed", source_directory(plan), "find", [words, vec![name]].concat())
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
    Some(single("chown", Word::from(INBOX), "chown", words))
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
    single("hook", Word::from("/"), "hook", words)
}

/// Returns the job that prepares a backup.
#[must_use]
pub(crate) fn prepare(plan: &Plan, how: &Prepare, program: &str) -> Vec<u8> {
    let memory = format!("--use-memory={}", how.memory);
    let mut words = argv(&[program, "--prepare", &memory, "--target-dir=."]);
    words.extend(open_files(plan));
    let stage = Stage { log: true, ..Stage::new("prepare", words) };
    render::script(&Pipeline {
        job: "prepare",
        directory: arrival(plan),
        called: None,
        gate: None,
        stages: vec![stage],
    })
}

/// Returns the job that starts replication from a position and waits until the replica has caught up. Its key
/// is the account.
#[must_use]
pub(crate) fn follow(plan: &Plan, replica: &ReplicaPlan, how: &Follow, from: &Position) -> Vec<u8> {
    let (gtid, file, position) = match from {
        Position::Gtid(gtid) => (gtid.as_str(), "", String::new()),
        Position::File(file, position) => ("", file.as_str(), position.to_string()),
    };
    let events = if how.events { "on" } else { "off" };
    let more = [events, gtid, file, &position].map(|word| word.as_bytes().to_vec());
    Script::follow(&[waiting("follow", plan, replica, how), more.to_vec()].concat()).as_bytes().to_vec()
}

/// Returns the job that waits once more until the replica has caught up.
#[must_use]
pub(crate) fn follow_again(plan: &Plan, replica: &ReplicaPlan, how: &Follow) -> Vec<u8> {
    Script::follow(&waiting("again", plan, replica, how)).as_bytes().to_vec()
}

fn waiting(mode: &str, plan: &Plan, replica: &ReplicaPlan, how: &Follow) -> Vec<Field> {
    let (port, lag) = (replica.port.to_string(), replica.max_lag.as_secs().to_string());
    let (idle, ssl) = (plan.idle_timeout.as_secs().to_string(), if replica.ssl { "1" } else { "0" });
    let whose = replica.position.name();
    let words = [mode, &how.host, &port, ssl, whose, &lag, &idle, &how.socket, &replica.defaults_file];
    words.map(|word| word.as_bytes().to_vec()).to_vec()
}

/// Returns the job that lists the contents of the source's tables at a position that it reports. The position
/// is not before any of these GTIDs.
#[must_use]
pub(crate) fn source_tables(
    plan: &Plan,
    replica: &ReplicaPlan,
    check: TableCheck,
    behind: &[String],
) -> Vec<u8> {
    let socket = plan.source.endpoint.path.as_os_str().as_bytes();
    let idle = plan.idle_timeout.as_secs().to_string();
    let (check, whose) = (check.name().as_bytes(), replica.position.name().as_bytes());
    let words = [b"source", socket, replica.defaults_file.as_bytes(), check, whose, idle.as_bytes()];
    let behind = behind.iter().map(String::as_bytes);
    let words: Vec<Field> = words.into_iter().chain(behind).map(<[u8]>::to_vec).collect();
    Script::tables(&words).as_bytes().to_vec()
}

/// Returns the job that stops the replication threads of a replica.
#[must_use]
pub(crate) fn rest_tables(plan: &Plan, replica: &ReplicaPlan, how: &Follow) -> Vec<u8> {
    let idle = plan.idle_timeout.as_secs().to_string();
    let words = ["rest", &how.socket, &replica.defaults_file, &idle].map(|word| word.as_bytes().to_vec());
    Script::tables(&words).as_bytes().to_vec()
}

/// Returns the job that lists the contents of a replica's tables at a position of the source.
#[must_use]
pub(crate) fn target_tables(
    plan: &Plan,
    replica: &ReplicaPlan,
    how: &Follow,
    check: TableCheck,
    moment: &Position,
) -> Vec<u8> {
    let idle = plan.idle_timeout.as_secs().to_string();
    let (gtid, file, position) = match moment {
        Position::Gtid(gtid) => (gtid.clone(), String::new(), String::new()),
        Position::File(file, position) => (String::new(), file.clone(), position.to_string()),
    };
    let words = ["target", &how.socket, &replica.defaults_file, check.name(), &idle, &gtid, &file, &position];
    Script::tables(&words.map(|word| word.as_bytes().to_vec())).as_bytes().to_vec()
}

/// Returns the job that reports the metadata of a backup.
#[must_use]
pub(crate) fn inspect(plan: &Plan) -> Vec<u8> {
    let mut words = argv(&["bash", "--norc", "-p"]);
    words.extend([Word::Home("inspect.sh".into()), Word::from("inspect")]);
    single("inspect", arrival(plan), "inspect", words)
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
    single("strip", Word::from(INBOX), "strip", words)
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
    single("archive", arrival(plan), "digest", words)
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

fn manifest(plan: &Plan, job: &'static str, directory: &Word, workers: u32, freshness: Freshness) -> Vec<u8> {
    let workers = u64::from(if plan.threads.is_some() { workers } else { workers.clamp(1, 4) });
    // Files per process: few enough that all workers are busy, many enough that starting processes costs
    // nothing.
    let batch = (plan.source.files / (workers * 8)).clamp(1, 256);
    let mut words = argv(&["bash", "--norc", "-p"]);
    words.push(Word::Home("manifest.sh".into()));
    words.extend([Word::from(job), directory.clone(), Word::from(&plan.staged)]);
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

/// Returns the script of a job with a single program.
fn single(job: &'static str, directory: Word, name: &str, argv: Vec<Word>) -> Vec<u8> {
    let stages = vec![Stage::new(name, argv).with(Channel::Events)];
    render::script(&Pipeline { job, directory, called: None, gate: None, stages })
}
