//! A run, with what this machine keeps of it: a record, a file of metrics, and its begin and end in the journal.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use backon::{ConstantBuilder, Retryable as _};

use crate::history::{History, Record, Recording};
use crate::log::Log;
use crate::metrics;
use crate::printable::printable;
use crate::report::Report;
use crate::run::{self, Work};
use crate::run_id::RunId;
use crate::settings::Settings;
use crate::signals::Interrupts;

/// What the metrics tell, beside the records.
const LAST_RUNS: &str = "last-runs.json";

/// Does the run. Whatever goes wrong with what is kept of it is a warning: the run has come first.
pub async fn recorded(
    id: &RunId,
    settings: &Settings,
    work: Work<'_>,
    interrupts: &Interrupts,
    log: &Log,
) -> Report {
    if settings.dry_run {
        return run::run(id, settings, work, interrupts).await;
    }
    let (source, targets) = work.named(settings);
    let command = std::env::args_os().map(|word| printable(word.as_encoded_bytes())).collect();
    let mut record = Record::new(id, command, source.clone(), targets.clone());
    let recording = (settings.history_size > 0).then(|| begin(settings.history_size, &record)).flatten();
    let targets = targets.join(" ");
    log.run(id, &source, &targets);
    tracing::info!(source, targets, "the run begins");
    let clock = Instant::now();
    let report = run::run(id, settings, work, interrupts).await;
    let (exit, seconds) = (report.exit().code(), clock.elapsed().as_secs_f64());
    match exit {
        0 => tracing::info!(source, targets, exit, seconds, "the run has ended: all is done"),
        // To people the report says it.
        _ if log.is_journal() => {
            tracing::error!(source, targets, exit, seconds, "the run has ended with exit code {exit}");
        }
        _ => {}
    }
    record.finish(&report, seconds);
    if let Some(Err(error)) = recording.map(|recording| recording.finish(&record)) {
        tracing::warn!("the record of this run has no end: {error}");
    }
    if let Some(file) = &settings.metrics {
        tell_metrics(file, &record).await;
    }
    report
}

fn begin(keep: usize, record: &Record) -> Option<Recording> {
    let begun = match History::of_this_account() {
        Ok(history) => Recording::begin(history, keep, record).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let told = |error: String| {
        tracing::warn!("there will be no record of this run: {error}; without any: --history-size 0");
    };
    begun.map_err(told).ok()
}

/// Writes the file of metrics anew, with this run; of others as far as they are known.
async fn tell_metrics(file: &Path, record: &Record) {
    // Nothing in a directory that others may write to.
    let history = History::of_this_account().ok().filter(|history| history.prepare().is_ok());
    let kept = history.as_ref().map(|history| history.path(LAST_RUNS));
    let lock = match &history {
        Some(history) => take(history).await.ok(),
        None => None,
    };
    let before = kept.as_ref().map_or_else(|| Ok(Vec::new()), |kept| metrics::read(kept));
    let warn = |path: &Path, error: io::Error| {
        tracing::warn!("{}: {error} (--metrics)", printable(path.as_os_str().as_encoded_bytes()));
    };
    let mut pairs = match (before, &kept) {
        (Ok(pairs), _) => pairs,
        (Err(error), kept) => {
            warn(kept.as_deref().unwrap_or(file), error);
            Vec::new()
        }
    };
    metrics::update(&mut pairs, record);
    if let Some(kept) = kept {
        if let Err(error) = metrics::keep(&kept, &pairs) {
            warn(&kept, error);
        }
    }
    if let Err(error) = metrics::write(file, &pairs) {
        warn(file, error);
    }
    drop(lock);
}

/// Of two runs that end at once, the later one has to know of the other. One that stands still in between keeps nobody.
async fn take(history: &History) -> io::Result<impl Sized + use<>> {
    let lease = || async { history.lock()?.ok_or(io::ErrorKind::WouldBlock.into()) };
    let patience = ConstantBuilder::default().with_delay(Duration::from_millis(20)).with_max_times(50);
    lease.retry(patience).when(|error: &io::Error| error.kind() == io::ErrorKind::WouldBlock).await
}
