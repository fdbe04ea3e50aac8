//! Report for programs, as docs/json.md describes it.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{OldData, Report, TargetReport, rate};
use crate::base::json::line;
use crate::base::printable::printable;
use crate::error::Error;
use crate::mariadb::plan::Position;
use crate::report::outcome::{Copied, Outcome};

impl Report {
    /// Returns the last line of `--json`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let phases: Map<String, Value> =
            self.phases.iter().map(|(phase, took)| ((*phase).to_owned(), json!(seconds(*took)))).collect();
        let run = self.run.as_ref();
        let leftovers: Vec<Value> = self
            .leftovers
            .iter()
            .map(|left| json!({ "host": left.host, "what": left.what.to_string() }))
            .collect();
        line(
            "report",
            &json!({
                "exit": self.exit().code(),
                "error": self.error.as_ref().map(Error::chain),
                "run": self.id.as_ref().map(ToString::to_string),
                "source": run.map(|run| json!({
                    "host": run.source.host.to_string(),
                    "path": shown(&run.source.path),
                    "entries": run.entries,
                    "files": run.files,
                    "bytes": run.bytes,
                    "bytes_on_disk": run.disk_bytes,
                    "log": run.log,
                })),
                "compression": run.and_then(|run| run.compression).map(|compression| json!({
                    "program": compression.program.name(),
                    "level": compression.level,
                })),
                "encrypted": run.map(|run| run.encrypted),
                "exclude": run.map(|run| &run.exclude),
                "targets": self.targets.iter().map(target).collect::<Vec<_>>(),
                "findings": self.findings,
                "leftovers": leftovers,
                "seconds": seconds(self.phases.iter().map(|(_, took)| took).sum()),
                "phases": phases,
                "plan": self.dry_run,
            }),
        )
    }
}

fn target(target: &TargetReport) -> Value {
    let (status, error, copy) = match &target.outcome {
        Outcome::Done(copied) => ("done", None, Some(copy(copied))),
        Outcome::Published => ("published", None, None),
        Outcome::Failed(error) => ("failed", Some(error), None),
    };
    json!({
        "host": target.endpoint.host.to_string(),
        "path": shown(&target.endpoint.path),
        "final_path": target.final_path.as_deref().map(shown),
        "status": status,
        "exit": error.map_or(0, |error| error.exit().code()),
        "error": error.map(Error::chain),
        "address": target.addresses.map(|(address, _)| address),
        "source_address": target.addresses.map(|(_, peer)| peer),
        "port": target.port,
        "copy": copy,
        "kept_staging": target.kept,
        "log": target.log,
        "old": match &target.old {
            OldData::Kept(path) => Some(shown(path)),
            _ => None,
        },
    })
}

/// Returns a path as text.
fn shown(path: &Path) -> String {
    printable(path.as_os_str().as_encoded_bytes())
}

/// Returns seconds, rounded to milliseconds.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

fn copy(copied: &Copied) -> Value {
    #[expect(clippy::cast_precision_loss, reason = "a ratio")]
    let ratio = copied.read_bytes as f64 / copied.wire_bytes.max(1) as f64;
    json!({
        "entries": copied.entries,
        "bytes": copied.bytes,
        "bytes_read": copied.read_bytes,
        "bytes_on_wire": copied.wire_bytes,
        "compression_ratio": (ratio * 1000.0).round() / 1000.0,
        "bytes_per_second": rate(copied),
        "seconds": seconds(copied.took),
        "seconds_copying": seconds(copied.streamed),
        "stream_digest": copied.stream_digest.as_ref().map(|algorithm| json!({
            "algorithm": algorithm,
            "value": copied.stream_value,
        })),
        "files_compared": copied.files_compared.map(|(digest, files)| json!({
            "algorithm": digest.name(),
            "files": files,
        })),
        "entries_sha256": copied.entries_digest,
        "synced": copied.synced,
        "changed_during_copy": copied.changed,
        "dropped_attributes": copied.dropped.iter()
            .map(|(kind, files)| (kind.name().to_owned(), json!(files))).collect::<Map<_, _>>(),
        "compared": copied.listed,
        "backup": copied.backup.as_ref().map(|backup| json!({
            "tool": backup.tool,
            "server_version": backup.server_version,
            "prepared": backup.prepared,
            "gtid": backup.gtid,
            "binlog_file": backup.binlog.as_ref().map(|(file, _)| file),
            "binlog_position": backup.binlog.as_ref().map(|(_, position)| position),
            "source_position": backup.source_position,
        })),
        "replica": copied.replica.as_ref().map(|replica| json!({
            "primary": replica.primary,
            "primary_place": replica.place,
            "account": replica.user,
            "account_created": replica.made,
            "began_from": match &replica.began {
                Position::Gtid(gtid) => json!({ "gtid": gtid }),
                Position::File(file, position) => json!({ "file": file, "position": position }),
            },
            "gtid": replica.gtid,
            "lag_seconds": seconds(replica.lag),
            "read_only": true,
            "tables": replica.tables.as_ref().map(|(check, tables, moment)| json!({
                "check": check.name(),
                "count": tables,
                "moment": moment,
            })),
            "seconds": replica.steps.iter()
                .map(|(step, took)| (step.replace(' ', "_"), json!(seconds(*took)))).collect::<Map<_, _>>(),
        })),
        "notes": copied.source_remarks.iter().chain(&copied.remarks).collect::<Vec<_>>(),
    })
}
