//! A run together with its traces on the controller: record, metrics file, and log entries for its start and
//! end.
//!
//! The run has priority: a failure to record it is only a warning, and a file system that does not respond,
//! such as a network file system, delays it only for a limited time.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use backon::{BlockingRetryable as _, ConstantBuilder};
use tokio::sync::oneshot;

use crate::base::log::Log;
use crate::base::printable::printable;
use crate::base::run_id::RunId;
use crate::base::signals::Interrupts;
use crate::config::settings::Settings;
use crate::history::metrics;
use crate::history::{History, Record, Recording};
use crate::host::command::typable;
use crate::report::Report;
use crate::run::{self, Work};

/// File with the values of the metrics, next to the records.
const LAST_RUNS: &str = "last-runs.json";
/// Maximum time to wait for a file of this machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Executes the run.
pub async fn recorded(
    id: &RunId,
    settings: &Settings,
    work: Work<'_>,
    interrupts: &Interrupts,
    log: &Log,
) -> Report {
    if settings.dry_run {
        return Box::pin(run::run(id, settings, work, interrupts)).await;
    }
    let (source, targets) = work.named(settings);
    let command = std::env::args_os().map(|word| typable(word.as_encoded_bytes())).collect();
    let mut record = Record::new(id, command, source.clone(), targets.clone());
    let targets = targets.join(" ");
    log.run(id, &source, &targets);
    let recording =
        if settings.history_size > 0 { begin(settings.history_size, &record).await } else { None };
    tracing::info!(source, targets, "run started");
    let clock = Instant::now();
    let report = Box::pin(run::run(id, settings, work, interrupts)).await;
    let (exit, seconds) = (report.exit().code(), clock.elapsed().as_secs_f64());
    match exit {
        0 => tracing::info!(source, targets, exit, seconds, "run finished successfully"),
        // On a terminal the report says so.
        _ if log.is_journal() => {
            tracing::error!(source, targets, exit, seconds, "run failed with exit code {exit}");
        }
        _ => {}
    }
    record.finish(&report, seconds, |target| work.name(settings, target));
    if let Some(recording) = recording {
        let ended = record.clone();
        if let Err(error) =
            aside(move || recording.finish(&ended).map_err(|error| error.to_string()), drop).await
        {
            tracing::warn!("the end of this run was not recorded: {error}");
        }
    }
    if let Some(file) = settings.metrics.clone() {
        let name = printable(file.as_os_str().as_encoded_bytes());
        if let Err(error) = aside(move || write_metrics(&file, &record), drop).await {
            tracing::warn!("{name}: metrics of this run were not written (--metrics): {error}");
        }
    }
    report
}

/// Works on files in another thread, with a time limit. A result that comes too late is passed to `late`.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
    late: impl FnOnce(T) + Send + 'static,
) -> Result<T, String> {
    let (done, awaited) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        if let Err(Ok(unwanted)) = done.send(work()) {
            late(unwanted);
        }
    });
    match tokio::time::timeout(PATIENCE, awaited).await {
        Ok(done) => done.unwrap_or_else(|error| Err(error.to_string())),
        Err(_) => Err(format!("the file system did not respond within {} s", PATIENCE.as_secs())),
    }
}

async fn begin(keep: usize, record: &Record) -> Option<Recording> {
    let record = record.clone();
    let work = move || {
        let begun = |history| Recording::begin(history, keep, &record);
        History::of_this_account().and_then(begun).map_err(|error| error.to_string())
    };
    let begun = aside(work, Recording::abandon);
    let warn = |error: String| {
        tracing::warn!("this run will not be recorded: {error}; to disable records: --history-size 0");
    };
    begun.await.map_err(warn).ok()
}

/// Writes the metrics file with this run and the last results of other runs. If these cannot be read, nothing
/// is written: monitoring notices an old file.
fn write_metrics(file: &Path, record: &Record) -> Result<(), String> {
    let of_kept = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let mut pairs = Vec::new();
    let kept = match History::of_this_account() {
        Ok(history) => {
            history.prepare().map_err(|error| error.to_string())?;
            let path = history.path(LAST_RUNS);
            let lock = take(&history).map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => {
                    format!("{} has been locked by another run for too long", path.display())
                }
                _ => of_kept(&path, error),
            })?;
            pairs = match metrics::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    let bad = path.with_extension("json.bad");
                    std::fs::rename(&path, &bad).map_err(|error| of_kept(&path, error))?;
                    tracing::warn!(
                        "{}: {error}; renamed to {}, the metrics of other runs are lost",
                        path.display(),
                        bad.display()
                    );
                    Vec::new()
                }
                read => read.map_err(|error| of_kept(&path, error))?,
            };
            Some((path, lock))
        }
        // An account without a state directory reports only this run.
        Err(_) => None,
    };
    metrics::update(&mut pairs, record);
    if let Some((path, _lock)) = &kept {
        metrics::keep(path, &pairs).map_err(|error| of_kept(path, error))?;
    }
    metrics::write(file, &pairs).map_err(|error| error.to_string())
}

/// Takes the lock of the records: of two runs that end at the same time, the later one must see the other's
/// values.
fn take(history: &History) -> io::Result<impl Sized + use<>> {
    let lease = || history.lock()?.ok_or_else(|| io::Error::from(io::ErrorKind::WouldBlock));
    let patience = ConstantBuilder::default().with_delay(Duration::from_millis(20)).with_max_times(250);
    lease.retry(patience).when(|error: &io::Error| error.kind() == io::ErrorKind::WouldBlock).call()
}
