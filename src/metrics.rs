//! A file for the textfile collector of Prometheus' `node_exporter`: of each source and target what became of the last run, and
//! when one last succeeded. What it tells is kept beside the records of runs, which may go before it.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use prometheus::{Encoder as _, GaugeVec, Opts, Registry, TextEncoder};
use serde::{Deserialize, Serialize};

use crate::history::Record;

/// The labels of each value.
const LABELS: [&str; 2] = ["source", "target"];

/// What is told of one source and target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    source: String,
    target: String,
    exit: u8,
    ended: f64,
    seconds: f64,
    bytes: u64,
    succeeded: Option<f64>,
}

/// What was told last, from its file; nothing where there is none.
///
/// # Errors
/// When it cannot be read, or holds something else.
pub fn read(path: &Path) -> io::Result<Vec<Pair>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        text => Ok(serde_json::from_slice(&text?)?),
    }
}

/// A run ended: what was told of its source and targets is so no more.
pub fn update(pairs: &mut Vec<Pair>, record: &Record) {
    let Some(end) = &record.end else { return };
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of our time")]
    let ended = end.at.as_millisecond() as f64 / 1000.0;
    for target in &record.targets {
        let exit = target.exit.unwrap_or(end.exit);
        let is_its = |pair: &Pair| pair.source == record.source && pair.target == target.target;
        let before = pairs.iter().position(is_its).map(|at| pairs.swap_remove(at));
        pairs.push(Pair {
            source: record.source.clone(),
            target: target.target.clone(),
            exit,
            ended,
            seconds: end.seconds,
            bytes: target.bytes.unwrap_or(0),
            succeeded: if exit == 0 { Some(ended) } else { before.and_then(|before| before.succeeded) },
        });
    }
}

/// Keeps what is told, for nobody but this account.
///
/// # Errors
/// When it cannot be written.
pub fn keep(path: &Path, pairs: &[Pair]) -> io::Result<()> {
    replace(path, &serde_json::to_vec(pairs)?, 0o600)
}

/// Writes the file anew. Everybody may read it.
///
/// # Errors
/// When it cannot be written, or is there and is no regular file.
pub fn write(path: &Path, pairs: &[Pair]) -> io::Result<()> {
    if fs::symlink_metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(io::Error::other("it is there already, and no regular file"));
    }
    replace(path, text(pairs).map_err(io::Error::other)?.as_bytes(), 0o644)
}

/// By rename, so that nobody reads a part. The directory may be somebody else's.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The collector reads *.prom, and this is not that.
    let mut file = tempfile::Builder::new().prefix(".transfer-").tempfile_in(directory)?;
    file.write_all(bytes)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.persist(path)?;
    Ok(())
}

/// In Prometheus' text format.
fn text(pairs: &[Pair]) -> prometheus::Result<String> {
    let registry = Registry::new();
    let gauge = |name: &str, help: &str| -> prometheus::Result<GaugeVec> {
        let gauge = GaugeVec::new(Opts::new(name, help), &LABELS)?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(gauge)
    };
    let exit = gauge(
        "transfer_last_run_exit_code",
        "Exit code of the last run for this target: 0 when it has its copy, and nothing was left behind.",
    )?;
    let ended =
        gauge("transfer_last_run_timestamp_seconds", "When the last run ended, in seconds since the epoch.")?;
    let seconds = gauge("transfer_last_run_duration_seconds", "How long the last run took.")?;
    let bytes = gauge(
        "transfer_last_run_bytes",
        "Sizes of all files of the copy that the last run made, 0 if it made none.",
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
        #[expect(clippy::cast_precision_loss, reason = "a size, for graphs")]
        bytes.with_label_values(&labels).set(pair.bytes as f64);
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
    use super::*;
    use crate::endpoint::Endpoint;
    use crate::error::Error;
    use crate::history::place;
    use crate::lease::Leftover;
    use crate::report::Report;
    use crate::run_id::RunId;

    fn record(target: &str, report: Report, at: i64) -> Record {
        let source = place(&Endpoint::parse("db1:/srv/a\"b ü".as_ref()).unwrap());
        let mut record = Record::new(&RunId::new().unwrap(), Vec::new(), source, vec![target.into()]);
        record.finish(&report, 2.5);
        record.end.as_mut().unwrap().at = jiff::Timestamp::from_second(at).unwrap();
        record
    }

    fn failed(error: Error) -> Report {
        Report { error: Some(error), ..Report::default() }
    }

    #[test]
    fn the_last_run_of_each_pair_is_told_and_when_one_last_succeeded() {
        let mut pairs = Vec::new();
        let leftover = Leftover { host: "db4".into(), what: "rule x".into() };
        for record in [
            record("db2:/srv", Report::default(), 100),
            record("db2:/srv", failed(Error::Failed("x".into())), 200),
            record("db3:/srv", failed(Error::Refused("y".into())), 300),
            record("db4:/srv", Report { leftovers: vec![leftover], ..Report::default() }, 400),
        ] {
            update(&mut pairs, &record);
        }
        let kept = serde_json::to_vec(&pairs).unwrap();
        assert_eq!(serde_json::from_slice::<Vec<Pair>>(&kept).unwrap(), pairs);
        let text = text(&pairs).unwrap();
        for line in [
            r#"transfer_last_run_exit_code{source="db1:/srv/a\"b ü",target="db2:/srv"} 1"#,
            r#"transfer_last_run_timestamp_seconds{source="db1:/srv/a\"b ü",target="db2:/srv"} 200"#,
            r#"transfer_last_success_timestamp_seconds{source="db1:/srv/a\"b ü",target="db2:/srv"} 100"#,
            r#"transfer_last_run_duration_seconds{source="db1:/srv/a\"b ü",target="db3:/srv"} 2.5"#,
            r#"transfer_last_run_exit_code{source="db1:/srv/a\"b ü",target="db3:/srv"} 4"#,
            r#"transfer_last_run_exit_code{source="db1:/srv/a\"b ü",target="db4:/srv"} 6"#,
            "# TYPE transfer_last_run_bytes gauge",
        ] {
            assert!(text.lines().any(|other| other == line), "{line}: {text}");
        }
        assert_eq!(text.matches("transfer_last_success_timestamp_seconds{").count(), 1);
    }

    #[test]
    fn what_is_no_file_is_not_replaced_and_what_cannot_be_written_leaves_nothing() {
        assert!(write(Path::new("/dev/null"), &[]).unwrap_err().to_string().contains("no regular file"));
        let error = write(Path::new("/proc/none/x.prom"), &[]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
    }
}
