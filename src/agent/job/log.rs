//! Log of a backup program, read line by line: its bytes are progress, waiting is reported, a program that only repeats an
//! error is stuck, and the last lines are reported at the end.

use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use regex_lite::Regex;

use super::faults::regex;
use super::lines::text;
use super::report::{Counter, Reports};
use crate::proto::Text;
use crate::proto::job::{JobReport, Meter};

/// Number of lines that are reported at the end.
const MOST_LINES: usize = 100;
/// Number of repetitions of an error after which its program is stuck. `InnoDB` retries forever to write to a full
/// disk.
const MOST_REPEATS: usize = 100;
/// Silence after which a program waits that has announced it.
const SILENCE: Duration = Duration::from_secs(1);

// mariadb-backup and xtrabackup begin most lines with it.
static STAMP: LazyLock<Regex> = LazyLock::new(|| {
    regex(concat!(r"^(?:\[\d+\]\s)?[-\d]+[T ][\d:.]+(?:[-+][\d:]+)?\s", r"(?:\d+\s(?:\[[^\]]*\]\s)+)?"))
});
// Announced before, and followed by silence.
static WAITS: LazyLock<Regex> = LazyLock::new(|| {
    regex(r"^(?:Acquiring|Waiting|Starting BACKUP STAGE|Executing (?:LOCK|FLUSH|BACKUP STAGE))\b")
});
static FAILS: LazyLock<Regex> = LazyLock::new(|| regex(r"(?i)\b(?:error|failed|cannot)\b"));
/// Beginnings of lines about the redo log, which is read at the same time.
const BESIDE: [&str; 3] = ["DDL tracking", ">> log scanned up to", "Retrying read of log"];
/// Ends of the two lines that are written for each file.
const OF_FILE: [&str; 2] = ["...done", " to <STDOUT>"];

/// Log of a program.
#[derive(Debug)]
pub(super) struct Log {
    reports: Reports,
    bytes: Counter,
    last: LastLines,
    text: String,
    repeats: usize,
    doing: String,
    has_announced: bool,
    is_waiting: bool,
    is_stuck: bool,
    silent_since: Instant,
}

impl Log {
    /// Creates an empty log.
    pub(super) fn new(reports: Reports) -> Self {
        let bytes = reports.counter(Meter::Log);
        Self {
            reports,
            bytes,
            last: LastLines::default(),
            text: String::new(),
            repeats: 0,
            doing: String::new(),
            has_announced: false,
            is_waiting: false,
            is_stuck: false,
            silent_since: Instant::now(),
        }
    }

    /// Takes a line.
    pub(super) fn line(&mut self, line: &[u8]) {
        if line.is_empty() {
            return;
        }
        if !self.is_stuck {
            self.bytes.add(line.len() + 1);
        }
        let line = text(line);
        let without_stamp = STAMP.find(&line).map_or(line.as_str(), |stamp| &line[stamp.end()..]);
        self.repeats = if without_stamp == self.text { self.repeats + 1 } else { 0 };
        if self.repeats == 0 {
            without_stamp.clone_into(&mut self.text);
        }
        if !BESIDE.iter().any(|beginning| self.text.starts_with(beginning)) {
            self.doing.clone_from(&self.text);
            self.has_announced = WAITS.is_match(&self.doing);
        }
        self.last.push(&line, self.repeats > 0);
        if !self.is_stuck && self.repeats >= MOST_REPEATS && FAILS.is_match(&self.text) {
            self.is_stuck = true;
            self.reports.send(JobReport::Stuck(Text::new(&line)));
        }
    }

    /// Takes note that lines were read.
    pub(super) fn heard(&mut self) {
        self.silent_since = Instant::now();
        if self.is_waiting && !self.has_announced {
            self.is_waiting = false;
            self.reports.send(JobReport::Waits(None));
        }
    }

    /// Returns the time until [`Self::silence`] must be called, if it must.
    pub(super) fn patience(&self) -> Option<Duration> {
        (!self.is_waiting && self.has_announced).then(|| SILENCE.saturating_sub(self.silent_since.elapsed()))
    }

    /// Takes note of the silence so far.
    pub(super) fn silence(&mut self) {
        if self.patience().is_some_and(|patience| patience.is_zero()) {
            self.is_waiting = true;
            self.reports.send(JobReport::Waits(Some(Text::new(&self.doing))));
        }
    }

    /// Reports the last lines, once.
    pub(super) fn finish(&mut self) {
        for line in self.last.lines.drain(..) {
            self.reports.send(JobReport::Log(line));
        }
    }
}

/// Last lines of a log. Of lines with the same text, and of those about files, only the last one in a row is kept.
#[derive(Debug, Default)]
struct LastLines {
    lines: VecDeque<Text>,
    is_of_file: bool,
}

impl LastLines {
    fn push(&mut self, line: &str, is_repeated: bool) {
        let is_of_file = OF_FILE.iter().any(|end| line.ends_with(end));
        if is_repeated || self.is_of_file && is_of_file {
            self.lines.pop_back();
        }
        self.is_of_file = is_of_file;
        self.lines.push_back(Text::new(line));
        if self.lines.len() > MOST_LINES {
            self.lines.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::pipes::pipe;
    use super::*;
    use crate::proto::frame;
    use std::fs::File;

    /// Log whose reports can be read.
    struct Scene {
        log: Log,
        reports: Reports,
        input: File,
    }

    impl Scene {
        fn new() -> Self {
            let (input, output) = pipe().unwrap();
            let reports = Reports::start(File::from(output)).unwrap();
            Self { log: Log::new(reports.clone()), reports, input: input.into() }
        }

        fn lines<T: AsRef<str>>(&mut self, lines: impl IntoIterator<Item = T>) {
            for line in lines {
                self.log.line(line.as_ref().as_bytes());
            }
            self.log.heard();
        }

        fn reports(mut self) -> Vec<JobReport> {
            self.log.finish();
            self.reports.finish(Duration::from_secs(60));
            let reports = std::iter::from_fn(|| frame::read(&mut self.input).unwrap());
            reports.filter(|report| !matches!(report, JobReport::Bytes(..))).collect()
        }
    }

    #[test]
    fn last_lines_are_kept_and_those_of_files_once() {
        let mut scene = Scene::new();
        scene.lines((0..150).map(|n| format!("[00] 2026-11-21 22:48:21 line {n}")));
        scene
            .lines((0..50).map(|n| format!("[01] 2026-11-21 22:48:22 Streaming ./shop/{n}.ibd to <STDOUT>")));
        scene.lines(["[01] 2026-11-21 22:48:22         ...done", "[00] 2026-11-21 22:48:23 completed OK!"]);
        let reports = scene.reports();
        assert_eq!(reports.len(), MOST_LINES);
        assert_eq!(reports[0], JobReport::Log(Text::new("[00] 2026-11-21 22:48:21 line 52")));
        assert_eq!(reports[98], JobReport::Log(Text::new("[01] 2026-11-21 22:48:22         ...done")));
        assert_eq!(reports[99], JobReport::Log(Text::new("[00] 2026-11-21 22:48:23 completed OK!")));
    }

    #[test]
    fn repeated_error_is_stuck() {
        let mut scene = Scene::new();
        scene.lines(
            (0..200).map(|n| format!("2026-11-21 22:48:{:02} 0 [ERROR] InnoDB: Write failed", n % 60)),
        );
        let bytes = scene.log.bytes.get();
        scene.lines(["2026-11-21 22:49:00 0 [ERROR] InnoDB: Write failed"]);
        assert_eq!(scene.log.bytes.get(), bytes);
        let reports = scene.reports();
        assert_eq!(
            reports[0],
            JobReport::Stuck(Text::new("2026-11-21 22:48:40 0 [ERROR] InnoDB: Write failed"))
        );
        assert_eq!(
            reports[1..],
            [JobReport::Log(Text::new("2026-11-21 22:49:00 0 [ERROR] InnoDB: Write failed"))]
        );

        let mut scene = Scene::new();
        scene.lines((0..200).map(|_| "[00] 2026-11-21 22:48:21 >> log scanned up to (5)"));
        assert_eq!(scene.reports().len(), 1);
    }

    #[test]
    fn announced_waiting_is_reported_after_silence_and_ends_with_other_work() {
        let mut scene = Scene::new();
        scene.lines(["[00] 2026-11-21 22:48:21 Acquiring BACKUP LOCKS..."]);
        scene.log.silence();
        assert!(!scene.log.is_waiting);
        scene.log.silent_since -= SILENCE;
        scene.log.silence();
        assert!(scene.log.is_waiting && scene.log.patience().is_none());
        scene.lines(["[00] 2026-11-21 22:48:22 >> log scanned up to (5)"]);
        assert!(scene.log.is_waiting);
        scene.lines(["[00] 2026-11-21 22:48:23 Streaming ./a.ibd to <STDOUT>"]);
        assert!(!scene.log.is_waiting);
        let reports = scene.reports();
        assert_eq!(
            reports[..2],
            [JobReport::Waits(Some(Text::new("Acquiring BACKUP LOCKS..."))), JobReport::Waits(None)]
        );
    }
}
