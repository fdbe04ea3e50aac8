//! One cell: a run that is held at a moment, a fault, and the judgement of every host afterwards.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::experiment::{Experiment, LEASE};
use super::faults::Fault;
use super::moments::Moment;
use super::published::Found;
use super::state::{CLOSED, is_open};
use super::variants::{Variant, host_of};
use crate::support::hosts::Lab;
use crate::support::output::Output;

/// Limit for the moment to come.
pub(super) const HELD: Duration = Duration::from_secs(30);
/// Limit, from the end of the run, for everything that is not a pipeline, a port or a firewall rule.
const ROLLED_BACK: Duration = Duration::from_secs(15);
/// Further time for sshd to notice the end of a connection that was cut: TCP repeats its messages at intervals that
/// grow with the time of the cut.
const TCP_RETRIES: Duration = Duration::from_secs(60);

/// Whether a line is about the process of an SSH session, which ends with its connection.
fn is_session(line: &str) -> bool {
    line.contains("process: sshd ")
}

/// One cell of the matrix.
pub(crate) struct Cell {
    pub(crate) fault: Arc<Fault>,
    pub(crate) moment: &'static Moment,
    pub(crate) variant: &'static Variant,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.fault.name, self.moment.name, self.variant.name)
    }
}

/// End of a run.
struct Ended {
    /// Exit code, or the negative number of the signal that killed it.
    code: i32,
    said: String,
    at: Instant,
}

impl Cell {
    /// Runs the cell; fails when anything is not as it must be.
    pub(crate) fn run(&self) {
        let Some(main) = Lab::get() else { return };
        let mut experiment = Experiment::new(&main, self.moment, self.variant);
        let ended = self.play(&mut experiment);
        self.judge(&mut experiment, &ended);
        experiment.give_back();
    }

    /// Starts the run, applies the fault at the moment, and waits for the end.
    fn play(&self, experiment: &mut Experiment) -> Ended {
        let armed = self.moment.arm(&experiment.host(self.moment.end), self.variant);
        let mut run = armed.start(experiment.program(self.fault.name.starts_with("clock-")));
        let held = armed.await_held(&mut run, HELD);
        experiment.armed = Some(armed);
        if !held {
            run.signal("TERM");
            panic!("the moment does not come: {}", run.wait());
        }
        experiment.run = Some(run);
        (self.fault.strike)(experiment);
        experiment.let_go();
        let mut run = experiment.run.take().expect("a run");
        let vanished = self.fault.codes == [-9];
        let status = run.wait_end(self.fault.patience);
        let at = Instant::now();
        let Output { stderr, stdout, .. } = run.wait();
        let said = format!("{stdout}{stderr}");
        assert!(
            !vanished || !status.success() && !said.contains(": done"),
            "it ended before it was struck: {said}"
        );
        let code = if vanished { -9 } else { status.code().unwrap_or(-1) };
        Ended { code, said, at }
    }

    fn judge(&self, experiment: &mut Experiment, ended: &Ended) {
        let Ended { code, said, at } = ended;
        println!("exit code {code} after the fault; said:\n{said}");
        let codes = self.fault.codes;
        let late = self.moment.is_from(self.fault.late) && *code == 0;
        assert!(codes.contains(code) || late, "exit code {code}, expected one of {codes:?}; said:\n{said}");
        if *code != 0 {
            for text in self.fault.says.iter().chain(&self.fault.names) {
                assert!(said.contains(text), "nothing of '{text}' in\n{said}");
            }
        }
        experiment.others.clear();
        let orphans = (self.fault.orphans)(experiment);
        let lease = if self.fault.vanishes { LEASE } else { Duration::ZERO };
        assert!(*code != 6 || said.contains(": NOT ROLLED BACK: "), "nothing is said to be left:\n{said}");
        if orphans.is_empty() {
            let mut hosts = experiment.hosts();
            hosts.retain(|host| !experiment.down.contains(host));
            // Leftovers that the run has reported may stay until the fault is repaired.
            let is_told = |line: &str| {
                let host = line.split(':').next().unwrap_or_default();
                *code == 6 && said.contains(&format!("{host}: NOT ROLLED BACK: "))
            };
            experiment.await_gone(&hosts, *at + lease + CLOSED, |line| is_open(line) && !is_told(line));
        }
        if self.fault.vanishes && orphans.is_empty() {
            let mut hosts = experiment.hosts();
            hosts.retain(|host| !experiment.down.contains(host));
            let counts = |line: &str| !experiment.is_ours(line) && !is_session(line);
            experiment.await_gone(&hosts, *at + lease + ROLLED_BACK, counts);
        }
        (self.fault.mend)(experiment);
        let mended = Instant::now();
        experiment.clear(&orphans, *code);
        let rolled_back = mended.max(*at + lease) + ROLLED_BACK;
        let counts = |line: &str| !experiment.is_ours(line);
        experiment.await_gone(&experiment.hosts(), rolled_back, |line| counts(line) && !is_session(line));
        let closed = if self.fault.vanishes { rolled_back + TCP_RETRIES } else { rolled_back };
        experiment.await_gone(&experiment.hosts(), closed, counts);
        experiment.armed.take().expect("armed").disarm();
        self.judge_copies(experiment, *code, said);
        experiment.follow();
    }

    /// Asserts that no target has a partial copy, or any copy of a run that failed before its publication,
    /// and that old copies are complete.
    fn judge_copies(&self, experiment: &Experiment, code: i32, said: &str) {
        for target in experiment.variant.targets {
            let host = host_of(target);
            let found = experiment.found(host);
            let nothing = if experiment.variant.replaces() { Found::Old } else { Found::Nothing };
            let alone = experiment.variant.targets.len() == 1;
            let end = format!("{target}{}", experiment.variant.directory);
            let is_done = |line: &str| line.starts_with(&end) && line.contains(": done: ");
            if said.lines().any(is_done) {
                assert_eq!(found, Found::Copy, "reported as done on {host}; said:\n{said}");
            } else if said.contains(&format!("{end}: FAILED: ")) && !self.moment.may_be_published() {
                assert_eq!(found, nothing, "reported as failed on {host}; said:\n{said}");
            }
            match code {
                0 => assert_eq!(found, Found::Copy, "exit code 0 without a copy on {host}; said:\n{said}"),
                // The copy may be published, and some lease could not be rolled back.
                6 => assert!([Found::Copy, nothing].contains(&found), "{found:?} on {host}"),
                _ if self.moment.may_be_published() || !alone => {
                    assert!([Found::Copy, nothing].contains(&found), "{found:?} on {host}");
                }
                _ => assert_eq!(found, nothing, "exit code {code} before the publication; said:\n{said}"),
            }
            experiment.reset(host);
        }
    }
}
