//! Standard error of the programs of a job: the first lines are reported, each once, and lost files are counted.
//! Everything is read, so that no program blocks on it.

use std::collections::{BTreeMap, HashSet};

use super::faults::{fault, is_success, is_telling};
use super::lines::text;
use super::report::Reports;
use crate::proto::job::{FaultClass, JobReport};
use crate::proto::{HostBytes, Text};

/// Maximum number of lines that are reported.
const MOST_LINES: usize = 40;
/// Maximum number of lines that are reported, including those by which a failure is known.
const MOST_TELLING: usize = 2 * MOST_LINES;
/// Maximum number of lost files of a class that are reported.
const MOST_FILES: u64 = 3;

/// Complaints of the programs of a job.
#[derive(Debug)]
pub(super) struct Complaints {
    reports: Reports,
    called: Option<String>,
    seen: HashSet<Text>,
    silenced: u64,
    faults: BTreeMap<FaultClass, Lost>,
}

/// Lost files of a class.
#[derive(Debug, Default)]
struct Lost {
    files: u64,
    last: String,
}

impl Complaints {
    /// Creates the complaints of a job whose working directory is shown by another name.
    pub(super) fn new(reports: Reports, called: Option<&HostBytes>) -> Self {
        let called = called.map(|name| text(name.as_bytes()));
        Self { reports, called, seen: HashSet::new(), silenced: 0, faults: BTreeMap::new() }
    }

    /// Reports a message of the job itself.
    pub(super) fn say(&mut self, message: impl Into<String>) {
        self.report(Text::from(message.into()), false);
    }

    /// Takes a line of a program.
    pub(super) fn line(&mut self, line: &[u8]) {
        let line = self.renamed(text(line));
        let fault = fault(&line);
        let class = fault.as_ref().map(|(class, _)| *class);
        if let Some((class, text)) = fault {
            let lost = self.faults.entry(class).or_default();
            // A file that lacks several attributes of a kind counts once: its lines follow each other.
            if lost.last != text {
                lost.files += 1;
                if lost.files <= MOST_FILES {
                    self.reports.send(JobReport::Fault(class, lost.files, Some(Text::new(&text))));
                }
                lost.last = text;
            }
        }
        if !matches!(class, Some(FaultClass::Attributes(_))) && !is_success(&line) {
            self.report(Text::new(&line), is_telling(&line));
        }
    }

    /// Reports the counts.
    pub(super) fn finish(&mut self) {
        if self.silenced > 0 {
            self.reports.send(JobReport::Silenced(self.silenced));
        }
        for (class, lost) in std::mem::take(&mut self.faults) {
            if lost.files > MOST_FILES {
                self.reports.send(JobReport::Fault(class, lost.files, None));
            }
        }
    }

    fn report(&mut self, text: Text, is_telling: bool) {
        if text.is_empty() || self.seen.contains(&text) {
            return;
        }
        if self.seen.len() >= if is_telling { MOST_TELLING } else { MOST_LINES } {
            self.silenced += 1;
            return;
        }
        self.seen.insert(text.clone());
        self.reports.send(JobReport::Complaint(text));
    }

    /// Replaces the `.` with which tar names the directory that it copies from within.
    fn renamed(&self, line: String) -> String {
        let Some(called) = &self.called else { return line };
        let Some((before, path)) = line.split_once("tar: .") else { return line };
        if before.contains(char::is_whitespace) || !(path.starts_with('/') || path.starts_with(": ")) {
            return line;
        }
        format!("{before}tar: ./{called}{path}")
    }
}

#[cfg(test)]
mod tests {
    use super::super::pipes::pipe;
    use super::*;
    use crate::proto::files::AttributeKind;
    use crate::proto::frame;
    use std::fs::File;
    use std::time::Duration;

    fn reports_of(called: Option<&str>, lines: &[&str]) -> Vec<JobReport> {
        let (input, output) = pipe().unwrap();
        let reports = Reports::start(File::from(output)).unwrap();
        let mut complaints = Complaints::new(reports.clone(), called.map(HostBytes::from).as_ref());
        for line in lines {
            complaints.line(line.as_bytes());
        }
        complaints.finish();
        reports.finish(Duration::from_secs(60));
        let mut input = File::from(input);
        std::iter::from_fn(|| frame::read(&mut input).unwrap()).collect()
    }

    fn complaint(text: &str) -> JobReport {
        JobReport::Complaint(Text::new(text))
    }

    #[test]
    fn first_lines_are_reported_once() {
        let lines: Vec<String> = (0..50).map(|n| format!("line {n}")).collect();
        let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        lines.splice(1..1, ["line 0", "", "listening on [10.77.0.12] 4400 ..."]);
        lines.push("error writing output file");
        let reports = reports_of(None, &lines);
        assert_eq!(reports.len(), MOST_LINES + 2);
        assert_eq!(reports[..2], [complaint("line 0"), complaint("line 1")]);
        assert_eq!(reports[MOST_LINES..], [complaint("error writing output file"), JobReport::Silenced(10)]);
    }

    #[test]
    fn lost_files_are_counted_by_class() {
        let lines: Vec<String> = (0..5)
            .flat_map(|n| {
                let of = |name| {
                    format!("tar: fsetxattr: Cannot set '{name}' extended attribute for file '{n}': No space")
                };
                [of("user.a"), of("user.b")]
            })
            .collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let class = FaultClass::Attributes(AttributeKind::Xattrs);
        let expected: Vec<JobReport> = (1..=3)
            .map(|n| JobReport::Fault(class, n, Some(Text::new(format!("{}: No space", n - 1)))))
            .chain([JobReport::Fault(class, 5, None)])
            .collect();
        assert_eq!(reports_of(None, &lines), expected);
    }

    #[test]
    fn unreadable_files_are_faults_and_complaints_with_the_name_of_the_source() {
        let reports = reports_of(Some("data"), &["tar: ./a: Cannot open: Permission denied", "tar: .: gone"]);
        let text = "./data/a: Cannot open: Permission denied";
        let expected = [
            JobReport::Fault(FaultClass::Unreadable, 1, Some(Text::new(text))),
            complaint(&format!("tar: {text}")),
            complaint("tar: ./data: gone"),
        ];
        assert_eq!(reports, expected);
        assert_eq!(reports_of(Some("data"), &["tar: ..: x", "x tar: ./a"]).len(), 2);
    }
}
