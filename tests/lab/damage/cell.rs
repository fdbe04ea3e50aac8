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
const UNDONE: Duration = Duration::from_secs(15);

/// One of the matrix.
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

/// How a run ended.
struct Ended {
    /// Its exit code, or the signal that killed it as a negative number.
    code: i32,
    said: String,
    at: Instant,
}

impl Cell {
    /// Plays it.
    ///
    /// # Panics
    ///
    /// When anything is not as it must be.
    pub(crate) fn run(&self) {
        let Some(main) = Lab::get() else { return };
        let mut experiment = Experiment::new(&main, self.moment, self.variant);
        let ended = self.play(&mut experiment);
        self.judge(&mut experiment, &ended);
        experiment.give_back();
    }

    /// Starts the run, strikes at the moment, and waits for the end.
    fn play(&self, experiment: &mut Experiment) -> Ended {
        let armed = self.moment.arm(&experiment.host(self.moment.end), self.variant);
        let mut run = experiment.start(self.fault.name.starts_with("clock-"));
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
        let wrecks = (self.fault.wrecks)(experiment);
        let lease = if self.fault.vanishes { LEASE } else { Duration::ZERO };
        assert!(*code != 6 || said.contains(": LEFT BEHIND: "), "nothing is said to be left:\n{said}");
        if wrecks.is_empty() {
            let mut hosts = experiment.hosts();
            hosts.retain(|host| !experiment.down.contains(host));
            // What a run says that it leaves behind may stay until that is mended.
            let is_told = |line: &str| {
                let host = line.split(':').next().unwrap_or_default();
                *code == 6 && said.contains(&format!("{host}: LEFT BEHIND: "))
            };
            experiment.await_gone(&hosts, *at + lease + CLOSED, |line| is_open(line) && !is_told(line));
        }
        if self.fault.vanishes && wrecks.is_empty() {
            let mut hosts = experiment.hosts();
            hosts.retain(|host| !experiment.down.contains(host));
            let counts = |line: &str| !experiment.is_ours(line) && !line.contains("process: sshd ");
            experiment.await_gone(&hosts, *at + lease + UNDONE, counts);
        }
        (self.fault.mend)(experiment);
        let mended = Instant::now();
        experiment.clear(&wrecks, *code);
        experiment.await_gone(&experiment.hosts(), mended.max(*at + lease) + UNDONE, |line| {
            !experiment.is_ours(line)
        });
        experiment.armed.take().expect("armed").disarm();
        self.judge_copies(experiment, *code, said);
        experiment.follow();
    }

    /// No half copy, and none where the run has failed before its publication; every old one is whole.
    fn judge_copies(&self, experiment: &Experiment, code: i32, said: &str) {
        for target in experiment.variant.targets {
            let host = host_of(target);
            let found = experiment.found(host);
            let nothing = if experiment.variant.replaces() { Found::Old } else { Found::Nothing };
            let alone = experiment.variant.targets.len() == 1;
            let end = format!("{target}{}", experiment.variant.directory);
            if said.contains(&format!("{end}: done: ")) {
                assert_eq!(found, Found::Copy, "told as done on {host}; said:\n{said}");
            } else if said.contains(&format!("{end}: FAILED: ")) && !self.moment.may_be_published() {
                assert_eq!(found, nothing, "told as failed on {host}; said:\n{said}");
            }
            match code {
                0 => assert_eq!(found, Found::Copy, "exit code 0 without a copy on {host}; said:\n{said}"),
                // Done, and something of the run could not be undone.
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
