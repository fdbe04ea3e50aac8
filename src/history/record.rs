//! Record of one run, and its presentation.

use comfy_table::{CellAlignment, ContentArrangement, Table};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::State;
use crate::base::endpoint::Endpoint;
use crate::base::exit::Exit;
use crate::base::printable::printable;
use crate::base::run_id::RunId;
use crate::report::Report;
use crate::report::outcome::Outcome;

/// Version of the record format, increased when a field changes its meaning or is removed.
pub(super) const VERSION: u32 = 1;

/// Record of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "names of the format")]
pub(crate) struct Record {
    /// Version of the format.
    pub record: u32,
    /// Name of the run.
    pub run: String,
    /// Start of the run.
    pub began: Timestamp,
    /// Account on this machine that it ran as.
    pub user: String,
    /// User who became that account with sudo.
    pub sudo_user: Option<String>,
    /// Process ID.
    pub pid: u32,
    /// Command line including the program's name, each word quoted for bash.
    pub command: Vec<String>,
    /// Source: `HOST:/PATH`; for replicas the host of their upstream.
    pub source: String,
    /// Targets and their results.
    pub targets: Vec<TargetRecord>,
    /// End of the run; `None` while it is in progress, or if its process was killed.
    pub end: Option<RunEnd>,
}

/// Record of one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TargetRecord {
    /// `HOST:/PATH`, with the name of the copy if one was given; for replicas the host.
    pub target: String,
    /// Exit code, 6 if the run has leftovers; `None` before the end.
    pub exit: Option<u8>,
    /// Sum of the sizes of all files of its copy, if there is one and it is known.
    pub bytes: Option<u64>,
}

/// The end of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunEnd {
    /// Time of the end.
    pub at: Timestamp,
    /// Duration in seconds.
    pub seconds: f64,
    /// Exit code.
    pub exit: u8,
    /// Text that was printed.
    pub text: String,
    /// Report, see docs/json.md.
    pub report: Value,
}

/// Formats an endpoint for records.
#[must_use]
pub(crate) fn place(endpoint: &Endpoint) -> String {
    format!("{}:{}", endpoint.host, printable(endpoint.path.as_os_str().as_encoded_bytes()))
}

impl Record {
    /// Creates the record of a run that starts now.
    #[must_use]
    pub(crate) fn new(run: &RunId, command: Vec<String>, source: String, targets: Vec<String>) -> Self {
        let uid = nix::unistd::geteuid();
        let user =
            nix::unistd::User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name);
        let sudo_user = std::env::var_os("SUDO_USER").map(|name| printable(name.as_encoded_bytes()));
        let target = |target| TargetRecord { target, exit: None, bytes: None };
        Self {
            record: VERSION,
            run: run.to_string(),
            began: Timestamp::now(),
            user,
            sudo_user,
            pid: std::process::id(),
            command,
            source,
            targets: targets.into_iter().map(target).collect(),
            end: None,
        }
    }

    /// Adds the end of the run after `seconds`. `name` returns the record's name of a target of the report.
    pub(crate) fn finish(&mut self, report: &Report, seconds: f64, name: impl Fn(&Endpoint) -> String) {
        let exit = report.exit().code();
        for target in &mut self.targets {
            let of = report.targets.iter().find(|of| target.target == name(&of.endpoint));
            target.exit = Some(match of.map(|of| &of.outcome) {
                _ if exit == Exit::Leftovers.code() => exit,
                Some(Outcome::Done(_) | Outcome::Published) => 0,
                Some(Outcome::Failed(error)) => error.exit().code(),
                None => exit,
            });
            target.bytes = match of.map(|of| &of.outcome) {
                Some(Outcome::Done(copied)) => Some(copied.bytes),
                _ => None,
            };
        }
        self.end = Some(RunEnd {
            at: Timestamp::now(),
            seconds: (seconds * 1000.0).round() / 1000.0,
            exit,
            text: report.to_string(),
            report: serde_json::from_str(&report.to_json()).unwrap_or_default(),
        });
    }

    /// Returns the command line without the program's name, quoted for bash.
    fn typed(&self) -> String {
        self.command.iter().skip(1).map(|word| printable(word.as_bytes())).collect::<Vec<_>>().join(" ")
    }

    pub(super) fn describe(&self, state: State) -> String {
        let sudo = self.sudo_user.as_ref().map_or_else(String::new, |user| format!(", {user} with sudo"));
        let mut text = format!(
            "run      {}\nbegan    {} by {}{sudo} (pid {})\ncommand  transfer {}\n",
            self.run,
            self.began.strftime("%Y-%m-%d %H:%M:%S UTC"),
            printable(self.user.as_bytes()),
            self.pid,
            self.typed()
        );
        match (&self.end, state) {
            (Some(end), _) => {
                let at = end.at.strftime("%Y-%m-%d %H:%M:%S UTC");
                text.push_str(&format!("ended    {at}, after {}, with exit code {}\n", took(end.seconds), end.exit));
                let lines = end.text.lines().map(|line| format!("\n{}", printable(line.as_bytes())));
                text.extend(lines);
                if !end.text.is_empty() {
                    text.push('\n');
                }
            }
            (None, State::Running) => text.push_str("still running\n"),
            (None, _) => text.push_str(
                "no end recorded: killed, or ended by a second signal (then the hosts roll back on their own), \
                 or the record could not be written. To see what is left on hosts: transfer status HOST...\n",
            ),
        }
        text
    }
}

/// Formats a duration for people.
pub(super) fn took(seconds: f64) -> String {
    if seconds < 100.0 {
        return format!("{seconds:.1} s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "for display, never negative"
    )]
    let whole = seconds.round() as u64;
    format!("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60)
}

/// Formats records as a table.
pub(super) fn table(records: &[(Record, State)]) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["RUN", "BEGAN (UTC)", "TOOK", "EXIT", "WHAT"]);
    for (record, state) in records {
        let end = record.end.as_ref();
        let exit = match state {
            State::Running => "running".to_owned(),
            State::Lost => "lost".to_owned(),
            State::Ended => end.map_or_else(String::new, |end| end.exit.to_string()),
        };
        let took = end.map_or_else(|| "-".into(), |end| took(end.seconds));
        let began = record.began.strftime("%Y-%m-%d %H:%M:%S").to_string();
        table.add_row([record.run.clone(), began, took, exit, record.typed()]);
    }
    for column in [2, 3] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 1));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
