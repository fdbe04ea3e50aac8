//! Programs of backups and of replication, as jobs and as stages of the stream. Pure.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::plan::{Follow, Position, ReplicaPlan};
use crate::config::values::TableCheck;
use crate::host::agent::JobName;
use crate::host::command::Word;
use crate::host::scripts::Script;
use crate::host::wire::Field;
use crate::pipeline::places::{argv, arrival};
use crate::pipeline::render::{self, single};
use crate::pipeline::stage::{Pipeline, Stage};
use crate::plan::{BackupPlan, Plan, Prepare, TargetPlan};
use crate::shape::Producer;

/// Returns the stage that writes a hot backup to the stream.
#[must_use]
pub(crate) fn backup(plan: &Plan, backup: &BackupPlan) -> Stage {
    let mut words = argv(&["bash", "--norc", "-p"]);
    // Checks the socket right before the backup logs in.
    words.extend([Word::Home("login.sh".into()), Word::from("")]);
    words.push(Word::from(&plan.source.endpoint.path));
    words.extend(argv(&[backup.defaults_file.as_str(), backup.program.as_str()]));
    // Must be the first option.
    words.extend(defaults_file(&backup.defaults_file));
    words.extend(argv(&["--backup", "--stream=xbstream", "--host=localhost"]));
    words.push(option("--socket=", &plan.source.endpoint.path));
    words.push(option("--datadir=", &backup.datadir));
    words.push(Word::from(&format!("--parallel={}", backup.threads)));
    words.extend(open_files(plan));
    words.extend(argv(&backup.places));
    if backup.replica {
        words.push(Word::from("--slave-info"));
    }
    words.extend([Word::from("--target-dir"), Word::Home("backup".into())]);
    Stage { log: true, ..Stage::other("backup", words) }
}

/// Returns the stage that extracts a backup from the stream.
#[must_use]
pub(crate) fn extract(plan: &Plan, target: &TargetPlan) -> Stage {
    let threads = plan.backup_threads.unwrap_or(target.cores.div_ceil(2));
    Stage::other("extract", argv(&[target.extractor, "-x", &format!("--parallel={threads}")]))
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
        .then(|| Word::from(&format!("--open-files-limit={}", plan.source.files.saturating_add(OTHERS))))
}

/// Returns the option `NAME=PATH`.
fn option(name: &str, path: &Path) -> Word {
    Word::Literal([name.as_bytes(), path.as_os_str().as_bytes()].concat())
}

/// Returns the job that prepares a backup.
#[must_use]
pub(crate) fn prepare(plan: &Plan, how: &Prepare, program: &str) -> Vec<u8> {
    let memory = format!("--use-memory={}", how.memory);
    let mut words = argv(&[program, "--prepare", &memory, "--target-dir=."]);
    words.extend(open_files(plan));
    let stage = Stage { log: true, ..Stage::other("prepare", words) };
    render::script(&Pipeline {
        job: JobName::Prepare,
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
    single(JobName::Inspect, arrival(plan), "inspect", words)
}
