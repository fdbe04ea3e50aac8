//! Programs of backups, as jobs and as stages of the stream. Pure.

use std::ffi::OsStr;
use std::path::Path;

use crate::lease::login;
use crate::pipeline::places::arrival;
use crate::plan::{BackupPlan, Plan, Prepare, TargetPlan};
use crate::proto::HostBytes;
use crate::proto::job::Program;
use crate::proto::task::{Invocation, Pipeline, Run, Stage, Stderr, Task, Word};
use crate::shape::Producer;

/// Name of the directory of the run in which a backup program keeps files that are not part of the stream.
const SCRATCH: &str = "backup";

/// Returns the stage that writes a hot backup to the stream.
#[must_use]
pub(crate) fn backup(plan: &Plan, backup: &BackupPlan) -> Stage {
    let socket = &plan.source.endpoint.path;
    let mut program = Invocation::new(&backup.program, [""; 0]);
    // Checked right before the backup logs in.
    program.login = Some(login(socket.as_os_str(), &backup.defaults_file));
    program.stderr = Stderr::Log;
    let args = &mut program.args;
    // Must be the first option.
    args.extend(defaults_file(&backup.defaults_file));
    args.extend(["--backup", "--stream=xbstream", "--host=localhost"].map(word));
    args.push(option("--socket=", socket));
    args.push(option("--datadir=", &backup.datadir));
    args.push(word(&format!("--parallel={}", backup.threads)));
    args.extend(open_files(plan));
    args.extend(backup.places.iter().map(|place| word(place)));
    if backup.replica {
        args.push(word("--slave-info"));
    }
    args.extend([word("--target-dir"), Word::RunFile(SCRATCH.to_owned())]);
    Stage::other("backup", program)
}

/// Returns the stage that extracts a backup from the stream.
#[must_use]
pub(crate) fn extract(plan: &Plan, target: &TargetPlan) -> Stage {
    let threads = plan.backup_threads.unwrap_or(target.cores.div_ceil(2));
    let mut program = Invocation::new(target.extractor, ["-x", &format!("--parallel={threads}")]);
    program.confined = true;
    Stage::other("extract", program)
}

/// Returns `--defaults-file`, if a file was given.
fn defaults_file(file: &str) -> Option<Word> {
    (!file.is_empty()).then(|| option("--defaults-file=", Path::new(file)))
}

/// Returns the limit of open files for a backup program, from the number of files of the source. A backup
/// keeps the files of all tables open and, as root, may exceed the limit of logins.
fn open_files(plan: &Plan) -> Option<Word> {
    const OTHERS: u64 = 1024;
    (plan.shape.producer == Producer::Backup)
        .then(|| word(&format!("--open-files-limit={}", plan.source.files.saturating_add(OTHERS))))
}

/// Returns the option `NAME=PATH`.
fn option(name: &str, path: &Path) -> Word {
    let bytes = [name.as_bytes(), path.as_os_str().as_encoded_bytes()].concat();
    Word::Literal(HostBytes::from(bytes))
}

fn word(text: &str) -> Word {
    Word::Literal(HostBytes::from(OsStr::new(text)))
}

/// Returns the job that prepares a backup.
#[must_use]
pub(crate) fn prepare(plan: &Plan, how: &Prepare, program: &str) -> Task {
    let memory = format!("--use-memory={}", how.memory);
    let mut program = Invocation::new(program, ["--prepare", &memory, "--target-dir=."]);
    program.args.extend(open_files(plan));
    program.stderr = Stderr::Log;
    let stage = Stage { name: Program::Other("prepare".into()), run: Run::Program(program) };
    Task::Pipeline(Pipeline {
        place: arrival(plan),
        called: None,
        gate: None,
        rate: None,
        into: None,
        stages: vec![stage],
    })
}

/// Returns the job that reports the metadata of a backup.
#[must_use]
pub(crate) fn inspect(plan: &Plan) -> Task {
    Task::Inspect(arrival(plan))
}
