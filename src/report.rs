//! What a run came to: one short summary per target, what is left on hosts, and the exit code. Pure.

use std::fmt;

use indicatif::HumanBytes;

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::exit::Exit;
use crate::lease::Leftover;
use crate::transfer::{Copied, Outcome};

/// The end of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// What became of each target.
    pub targets: Vec<(Endpoint, Outcome)>,
    /// What could not be undone, or is not known to be.
    pub leftovers: Vec<Leftover>,
    /// What ended the run as a whole.
    pub error: Option<Error>,
}

impl Report {
    /// The exit code of the whole run.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let mut exit = self.error.as_ref().map_or(Exit::Done, Error::exit);
        for (_, outcome) in &self.targets {
            if let Outcome::Failed(error) = outcome {
                exit = exit.worse(error.exit());
            }
        }
        if self.leftovers.is_empty() { exit } else { exit.worse(Exit::Leftovers) }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = Vec::new();
        if let Some(error) = &self.error {
            lines.push(format!("transfer: {}", error.chain()));
        }
        for (endpoint, outcome) in &self.targets {
            match outcome {
                Outcome::Done(copied) => {
                    lines.push(format!("{endpoint}: done: {}", summary(copied)));
                    lines.extend(copied.remarks.iter().map(|remark| format!("  note: {remark}")));
                }
                Outcome::Published => {
                    lines.push(format!("{endpoint}: done: verified and published before the interruption"));
                }
                Outcome::Failed(error) => lines.push(format!("{endpoint}: FAILED: {}", error.chain())),
            }
        }
        for leftover in &self.leftovers {
            lines.push(format!("{}: LEFT BEHIND: {}", leftover.host, leftover.what));
        }
        let mut hosts: Vec<&str> = self.leftovers.iter().map(|leftover| leftover.host.as_str()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        if !hosts.is_empty() {
            lines.push(format!("to remove what is left: transfer clean {}", hosts.join(" ")));
        }
        f.write_str(&lines.join("\n"))
    }
}

fn summary(copied: &Copied) -> String {
    let seconds = copied.took.as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "for display")]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "for display, never negative"
    )]
    let rate = (copied.read_bytes as f64 / copied.streamed.as_secs_f64().max(0.001)) as u64;
    let mut checks = vec!["all names and sizes".to_owned()];
    checks.extend(copied.stream_digest.as_ref().map(|name| format!("{name} of the stream")));
    checks.extend(copied.files_compared.map(|files| format!("md5 of {files} files on both disks")));
    format!(
        "{} in {} entries, {seconds:.1} s ({}/s while copying, {} on the wire); the same on both sides: {}",
        HumanBytes(copied.bytes),
        copied.entries,
        HumanBytes(rate),
        HumanBytes(copied.wire_bytes),
        checks.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::time::Duration;

    fn endpoint() -> Endpoint {
        Endpoint::parse(OsStr::new("db2:/srv")).unwrap()
    }

    fn copied() -> Outcome {
        Outcome::Done(Copied {
            entries: 12,
            bytes: 1 << 30,
            read_bytes: 1 << 30,
            wire_bytes: 1 << 29,
            took: Duration::from_millis(9_800),
            streamed: Duration::from_secs(8),
            stream_digest: Some("sha256".into()),
            files_compared: Some(10),
            remarks: vec!["tar: ./d/s: socket ignored".into()],
        })
    }

    #[test]
    fn a_good_copy_is_one_line_and_its_notes() {
        let report = Report { targets: vec![(endpoint(), copied())], ..Report::default() };
        assert_eq!(
            report.to_string(),
            "db2:/srv: done: 1.00 GiB in 12 entries, 9.8 s (128.00 MiB/s while copying, 512.00 MiB on the wire); the same \
             on both sides: all names and sizes, sha256 of the stream, md5 of 10 files on both disks\n  \
             note: tar: ./d/s: socket ignored"
        );
        assert_eq!(report.exit(), Exit::Done);
    }

    #[test]
    fn what_is_left_is_listed_with_the_command_that_removes_it() {
        let report = Report {
            targets: vec![
                (endpoint(), copied()),
                (endpoint(), Outcome::Failed(Error::Verification("db3: bad".into()))),
            ],
            leftovers: vec![Leftover {
                host: "db2".into(),
                what: "could not be undone: rule nftables 4".into(),
            }],
            error: None,
        };
        let text = report.to_string();
        assert!(text.contains("db2:/srv: FAILED: db3: bad"), "{text}");
        assert!(text.ends_with("to remove what is left: transfer clean db2"), "{text}");
        assert_eq!(report.exit(), Exit::Leftovers, "6 whatever else happened");
    }
}
