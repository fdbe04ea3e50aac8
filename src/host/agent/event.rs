//! Events of an agent, decoded in one place from the fields of its lines. Unknown events, jobs and names are
//! ignored: a host may send anything. So are `undone` and the ending `released`, on which nothing depends.

use std::time::Duration;

use crate::base::endpoint::MOST_TARGETS;
use crate::host::leases::Held;
use crate::host::wire::{Field, LONGEST_PATH, LONGEST_TEXT, message, short};
use crate::proto::job::sink_number;
pub use crate::proto::job::{Dropped, FaultClass, JobName, List, Manifest, Meter, Program};

/// Maximum number of stages of a pipeline: a sender has one for each target, and a few more.
pub const MOST_STAGES: usize = MOST_TARGETS + 16;

/// Event of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The agent accepts commands.
    Ready,
    /// The agent refuses to start, for this reason.
    Refused(String),
    /// The agent begins to end.
    Ending(Ending),
    /// The agent has attempted the rollback of every lease.
    Bye,
    /// The copy has its final name.
    Published {
        /// The data that had this name before still exists.
        old_kept: bool,
    },
    /// The final name leads to what it led to before.
    Unpublished,
    /// The old data will be removed.
    OldGoes,
    /// Staging directory that is kept.
    Kept(String),
    /// A lease of an agent is not rolled back.
    Left(String, Held),
    /// A job has reported something.
    Job(JobName, Report),
}

/// Reason why an agent begins to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// No heartbeat within the lease time.
    Silence,
    /// The input ended.
    Closed,
    /// A signal: HUP, INT or TERM.
    Signal(&'static str),
}

/// Report of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Bytes that went through a meter so far.
    Bytes(Meter, u64),
    /// The sink of the target with this number was dropped from the stream.
    Dropped(usize, Dropped),
    /// Line of standard error.
    Complaint(String),
    /// Number of further lines on standard error.
    Silenced(u64),
    /// Files that a program has lost so far, and one of them.
    Fault(FaultClass, u64, Option<String>),
    /// Line of a log.
    Log(String),
    /// The job repeats this error without making progress.
    Stuck(String),
    /// The job waits for this; `None`: no longer.
    Waits(Option<String>),
    /// Result of the job.
    Fact(Fact),
    /// Exit statuses of the stages, in the pipeline's order.
    Stages(Vec<(Program, i32)>),
    /// Digest of the stream, hexadecimal.
    Digest(String),
    /// A list is complete.
    Manifest(List, Manifest),
    /// The job has ended with this status.
    Exit(i32),
}

/// Result of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Reason of a failure.
    Error(String),
    /// Seconds that a replica is behind; `None` while it does not know.
    Behind(Option<u64>),
    /// Lag of a replica that has caught up.
    Lag(Duration),
    /// GTID position.
    Gtid(String),
    /// Binlog file of a position.
    File(String),
    /// Offset of a position in its binlog file.
    Position(u64),
    /// Version of the server that was backed up.
    ServerVersion(String),
    /// State of a backup.
    State(String),
    /// Backup program.
    ToolName(String),
    /// Version of the backup program.
    ToolVersion(String),
    /// Binlog file of a backup.
    BinlogFile(String),
    /// Offset of a backup in its binlog file.
    BinlogPosition(u64),
    /// Position in the upstream's binlog, as a statement.
    SourcePosition(String),
}

impl Fact {
    fn parse(name: &str, value: &[u8]) -> Option<Self> {
        // Most facts are names, in which every character counts.
        let text = || short(value, LONGEST_PATH);
        let number = || text().parse::<u64>().ok();
        Some(match name {
            "error" => Self::Error(message(value, LONGEST_TEXT)),
            "behind" => Self::Behind(number()),
            "lag_ms" => Self::Lag(Duration::from_millis(number()?)),
            "gtid" => Self::Gtid(text()),
            "file" => Self::File(text()),
            "position" => Self::Position(number()?),
            "server_version" => Self::ServerVersion(text()),
            "state" => Self::State(text()),
            "tool_name" => Self::ToolName(text()),
            "tool_version" => Self::ToolVersion(text()),
            "binlog_file" => Self::BinlogFile(text()),
            "binlog_position" => Self::BinlogPosition(number()?),
            "source_position" => Self::SourcePosition(text()),
            _ => return None,
        })
    }
}

impl Event {
    /// Decodes the fields of a line after its mark. `None` for what is not known.
    #[must_use]
    pub fn decode(kind: &str, fields: &[Field]) -> Option<Self> {
        Some(match kind {
            "ready" => Self::Ready,
            "refused" => Self::Refused(said(fields, 0)),
            "ending" => Self::Ending(match text(fields, 0).as_str() {
                "silence" => Ending::Silence,
                "eof" => Ending::Closed,
                "HUP" => Ending::Signal("HUP"),
                "INT" => Ending::Signal("INT"),
                "TERM" => Ending::Signal("TERM"),
                _ => return None,
            }),
            "bye" => Self::Bye,
            "unpublished" => Self::Unpublished,
            "old_goes" => Self::OldGoes,
            "published" => Self::Published { old_kept: !text(fields, 1).is_empty() },
            "kept" => Self::Kept(fields.first().map(|path| short(path, LONGEST_PATH)).unwrap_or_default()),
            "left" => Self::Left(text(fields, 0), Held::parse(fields.get(1..).unwrap_or_default())),
            kind => {
                let name = text(fields, 0);
                let job = JobName::ALL.into_iter().find(|job| job.name() == name)?;
                Self::Job(job, Report::decode(kind, fields.get(1..).unwrap_or_default())?)
            }
        })
    }
}

impl Report {
    fn decode(kind: &str, fields: &[Field]) -> Option<Self> {
        Some(match kind {
            "bytes" => Self::Bytes(Meter::named(&text(fields, 0))?, number(fields, 1)),
            "dropped" => Self::Dropped(
                sink_number(&text(fields, 0))?,
                if text(fields, 1) == "stalled" { Dropped::Stalled } else { Dropped::Closed },
            ),
            "stderr" => Self::Complaint(Some(said(fields, 0)).filter(|line| !line.is_empty())?),
            "silenced" => Self::Silenced(number(fields, 0)),
            "fault" => {
                let file = fields.get(2).map(|_| said(fields, 2));
                Self::Fault(FaultClass::named(&text(fields, 0))?, number(fields, 1), file)
            }
            "log" => Self::Log(said(fields, 0)),
            "stuck" => Self::Stuck(said(fields, 0)),
            "waits" => Self::Waits(fields.first().map(|_| said(fields, 0))),
            "fact" => {
                Self::Fact(Fact::parse(&text(fields, 0), fields.get(1).map_or(&[][..], Vec::as_slice))?)
            }
            "stages" => {
                let stage = |index| {
                    let field = text(fields, index);
                    let (stage, status) = field.split_once('=')?;
                    Some((Program::named(stage), status.parse().unwrap_or(255)))
                };
                Self::Stages((0..fields.len().min(MOST_STAGES)).filter_map(stage).collect())
            }
            "digest" => Self::Digest(text(fields, 0)),
            "manifest" => {
                let name = text(fields, 0);
                let list = List::ALL.into_iter().find(|list| list.name() == name)?;
                let (records, bytes, digest) = (number(fields, 1), number(fields, 2), text(fields, 3));
                Self::Manifest(list, Manifest { records, bytes, digest })
            }
            "exit" => Self::Exit(text(fields, 0).parse().unwrap_or(255)),
            _ => return None,
        })
    }
}

/// Returns a name or a word of the protocol in a form that can be shown.
pub(super) fn text(fields: &[Field], index: usize) -> String {
    fields.get(index).map(|field| short(field, LONGEST_TEXT)).unwrap_or_default()
}

/// Returns the output of a program on a host in a form that can be shown.
pub(super) fn said(fields: &[Field], index: usize) -> String {
    fields.get(index).map(|field| message(field, LONGEST_TEXT)).unwrap_or_default()
}

/// Returns a number, or 0.
pub(super) fn number(fields: &[Field], index: usize) -> u64 {
    text(fields, index).parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::wire::decode;

    fn event(line: &str) -> Option<Event> {
        let fields = decode(line.as_bytes());
        Event::decode(&text(&fields, 0), fields.get(1..).unwrap_or_default())
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for job in JobName::ALL {
            assert_eq!(event(&format!("exit\t{}\t3", job.name())), Some(Event::Job(job, Report::Exit(3))));
        }
        for list in List::ALL {
            let line = format!("manifest\tverify\t{}\t3\t4\tab", list.name());
            let manifest = Manifest { records: 3, bytes: 4, digest: "ab".into() };
            assert_eq!(event(&line), Some(Event::Job(JobName::Verify, Report::Manifest(list, manifest))));
        }
        for meter in [Meter::Read, Meter::Wire, Meter::Digests, Meter::Log, Meter::Sink(17)] {
            let line = format!("bytes\tsender\t{meter}\t8");
            assert_eq!(event(&line), Some(Event::Job(JobName::Sender, Report::Bytes(meter, 8))));
        }
        for name in
            ["tar", "compress", "decompress", "encrypt", "decrypt", "netcat", "netcat3", "read", "netcatx"]
        {
            let line = format!("stages\tsender\t{name}=1");
            let Some(Event::Job(_, Report::Stages(stages))) = event(&line) else { panic!("{line}") };
            assert_eq!((stages[0].0.to_string().as_str(), stages[0].1), (name, 1));
            assert_eq!(
                matches!(stages[0].0, Program::Other(_)),
                ["read", "netcatx"].contains(&name),
                "{name}"
            );
        }
    }

    /// Names of events in the programs that hosts run.
    #[test]
    fn names_that_hosts_write_are_known() {
        let scripts = [
            include_str!("../sh/log.pl"),
            include_str!("../sh/hash.pl"),
            include_str!("../sh/inspect.sh"),
            include_str!("../sh/follow.sh"),
            include_str!("../sh/tables.sh"),
            include_str!("../sh/manifest.sh"),
            include_str!("../sh/complain.pl"),
        ];
        let text = scripts.concat();
        let words_after = |beginning: &str| {
            let rests = text.split(beginning).skip(1);
            let words =
                rests.map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '_').next().unwrap());
            words.filter(|word| !word.is_empty()).map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        let meters = [words_after("event('bytes', '"), words_after("bytes\\t$job\\t")].concat();
        assert_eq!(meters, ["log", "digests"]);
        assert!(meters.iter().all(|name| Meter::named(name).is_some()));
        let facts = words_after("tell ");
        assert!(facts.len() > 5, "{facts:?}");
        for name in facts {
            assert!(Fact::parse(&name, b"1").is_some(), "{name}");
        }
    }

    #[test]
    fn unknown_events_jobs_and_names_are_ignored() {
        for line in [
            "",
            "sing",
            "exit\tdance\t1",
            "bytes\tsender\tnoise\t1",
            "fact\tinspect\tcolour\tred",
            "ending\tUSR1",
            "manifest\tverify\tsongs\t1",
            "fault\tsender\tcolour\t1",
            "dropped\tsender\ttar\tstalled",
            "fact\tfollow\tlag_ms\tlong",
        ] {
            assert_eq!(event(line), None, "{line}");
        }
    }
}
