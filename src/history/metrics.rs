//! Metrics file for the textfile collector of Prometheus' `node_exporter`: for each source and target the
//! result of the last run, and the time of the last success. The values are stored next to the records of
//! runs, and may outlive them.

use std::io::{self, Read as _};
use std::path::Path;

use prometheus::{Encoder as _, GaugeVec, Opts, Registry, TextEncoder};
use serde::{Deserialize, Serialize};

use crate::base::replace::replace;
use crate::base::trust::{self, Place};
use crate::history::Record;

/// Version of the file of values, increased when a field changes its meaning or is removed.
const VERSION: u32 = 1;
/// Labels of each metric.
const LABELS: [&str; 2] = ["source", "target"];

/// Values for one source and target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pair {
    source: String,
    target: String,
    exit: u8,
    ended: f64,
    seconds: f64,
    bytes: Option<u64>,
    succeeded: Option<f64>,
}

/// File of values.
#[derive(Deserialize, Serialize)]
struct Kept {
    version: u32,
    pairs: Vec<Pair>,
}

/// Reads the stored values; none if there is no file.
///
/// # Errors
/// When it cannot be read; `InvalidData` if it has another content.
pub(crate) fn read(path: &Path) -> io::Result<Vec<Pair>> {
    let mut bytes = Vec::new();
    match trust::own_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?.read_to_end(&mut bytes)?,
    };
    let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
    match kept.version {
        VERSION => Ok(kept.pairs),
        other => Err(invalid(format!("expected version {VERSION}, found {other}"))),
    }
}

/// Replaces the values of a finished run's source and targets.
pub(crate) fn update(pairs: &mut Vec<Pair>, record: &Record) {
    let Some(end) = &record.end else { return };
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of our time")]
    let ended = end.at.as_millisecond() as f64 / 1000.0;
    for target in &record.targets {
        let exit = target.exit.unwrap_or(end.exit);
        let is_same = |pair: &Pair| pair.source == record.source && pair.target == target.target;
        let before = pairs.iter().position(is_same).map(|at| pairs.swap_remove(at));
        pairs.push(Pair {
            source: record.source.clone(),
            target: target.target.clone(),
            exit,
            ended,
            seconds: end.seconds,
            bytes: target.bytes,
            succeeded: if exit == 0 { Some(ended) } else { before.and_then(|before| before.succeeded) },
        });
    }
}

/// Stores the values, readable only by this account.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn keep(path: &Path, pairs: &[Pair]) -> io::Result<()> {
    let kept = Kept { version: VERSION, pairs: pairs.to_vec() };
    replace(path, &serde_json::to_vec(&kept)?, 0o600)
}

/// Replaces the metrics file, readable by everyone. Its directory may belong to a collector, but existing
/// entries there cannot redirect the write or change the owner.
///
/// # Errors
/// When it cannot be written, or exists and is not a regular file of root or this account.
pub(crate) fn write(path: &Path, pairs: &[Pair]) -> io::Result<()> {
    let place = Place::find(path)?;
    let text = text(pairs).map_err(io::Error::other)?;
    // The error's text would name the directory by its descriptor.
    replace(&place.path(), text.as_bytes(), 0o644).map_err(|error| error.kind().into())
}

/// Formats the values in Prometheus' text format.
fn text(pairs: &[Pair]) -> prometheus::Result<String> {
    let registry = Registry::new();
    let gauge = |name: &str, help: &str| -> prometheus::Result<GaugeVec> {
        let gauge = GaugeVec::new(Opts::new(name, help), &LABELS)?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    };
    let exit = gauge(
        "transfer_last_run_exit_code",
        "Exit code of the last run for this target: 0 if the target has its copy and there are no leftovers.",
    )?;
    let ended =
        gauge("transfer_last_run_timestamp_seconds", "When the last run ended, in seconds since the epoch.")?;
    let seconds = gauge("transfer_last_run_duration_seconds", "How long the last run took.")?;
    let bytes = gauge(
        "transfer_last_run_bytes",
        "Sizes of all files of the copy that the last run made; absent if it made none.",
    )?;
    let succeeded = gauge(
        "transfer_last_success_timestamp_seconds",
        "When a run for this target last ended with 0, in seconds since the epoch.",
    )?;
    for pair in pairs {
        let labels = [pair.source.as_str(), pair.target.as_str()];
        exit.with_label_values(&labels).set(pair.exit.into());
        ended.with_label_values(&labels).set(pair.ended);
        seconds.with_label_values(&labels).set(pair.seconds);
        if let Some(size) = pair.bytes {
            #[expect(clippy::cast_precision_loss, reason = "a size, for graphs")]
            bytes.with_label_values(&labels).set(size as f64);
        }
        if let Some(time) = pair.succeeded {
            succeeded.with_label_values(&labels).set(time);
        }
    }
    let mut text = Vec::new();
    TextEncoder::new().encode(&registry.gather(), &mut text)?;
    String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::base::endpoint::Endpoint;
    use crate::base::run_id::RunId;
    use crate::error::Error;
    use crate::history::place;
    use crate::lease::{Leftover, Remains};
    use crate::report::Report;

    fn record(target: &str, report: Report, at: i64) -> Record {
        let source = place(&Endpoint::parse("db1:/srv/a\"b ü".as_ref()).unwrap());
        let mut record = Record::new(&RunId::new().unwrap(), Vec::new(), source, vec![target.into()]);
        record.finish(&report, 2.5, place);
        record.end.as_mut().unwrap().at = jiff::Timestamp::from_second(at).unwrap();
        record
    }

    fn failed(error: Error) -> Report {
        Report { error: Some(error), ..Report::default() }
    }

    #[test]
    fn last_run_and_last_success_are_written() {
        let mut pairs = Vec::new();
        let leftover = Leftover { host: "db4".into(), what: Remains::Unconfirmed("no answer".into()) };
        for record in [
            record("db2:/srv", Report::default(), 100),
            record("db2:/srv", failed(Error::Failed("x".into())), 200),
            record("db3:/srv", failed(Error::Refused("y".into())), 300),
            record("db4:/srv", Report { leftovers: vec![leftover], ..Report::default() }, 400),
        ] {
            update(&mut pairs, &record);
        }
        let text = text(&pairs).unwrap();
        for line in [
            r#"transfer_last_run_exit_code{source="db1:/srv/a\"b ü",target="db2:/srv"} 1"#,
            r#"transfer_last_run_timestamp_seconds{source="db1:/srv/a\"b ü",target="db2:/srv"} 200"#,
            r#"transfer_last_success_timestamp_seconds{source="db1:/srv/a\"b ü",target="db2:/srv"} 100"#,
            r#"transfer_last_run_duration_seconds{source="db1:/srv/a\"b ü",target="db3:/srv"} 2.5"#,
            r#"transfer_last_run_exit_code{source="db1:/srv/a\"b ü",target="db3:/srv"} 4"#,
            r#"transfer_last_run_exit_code{source="db1:/srv/a\"b ü",target="db4:/srv"} 6"#,
            "# TYPE transfer_last_run_duration_seconds gauge",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}: {text}");
        }
        assert_eq!(text.matches("transfer_last_success_timestamp_seconds{").count(), 1);
        assert!(
            !text.contains("transfer_last_run_bytes"),
            "none of them has a copy whose size is known: {text}"
        );
    }

    #[test]
    fn stored_values_are_read_and_other_content_is_rejected() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("last-runs.json");
        assert_eq!(read(&path).unwrap(), []);
        let mut pairs = Vec::new();
        update(&mut pairs, &record("db2:/srv", Report::default(), 100));
        keep(&path, &pairs).unwrap();
        assert_eq!(read(&path).unwrap(), pairs);
        for other in ["", "[]", r#"{"version":2,"pairs":[]}"#] {
            fs::write(&path, other).unwrap();
            assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::InvalidData, "{other}");
        }
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1);
    }

    #[test]
    fn only_regular_files_are_replaced() {
        assert!(write(Path::new("/dev/null"), &[]).unwrap_err().to_string().contains("not a regular file"));
        let error = write(Path::new("/proc/none/x.prom"), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
    }
}
