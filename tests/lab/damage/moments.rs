//! Moments of a run, at each of which one process of one host is held, once, until the test lets it continue.

use std::cell::OnceCell;
use std::time::{Duration, Instant};

use super::lane::GATE;
use super::places::{self, Hold, Place, Script};
use super::variants::Variant;
use crate::support::commands::{Invocation, Running};
use crate::support::holder::{Holder, Spec};
use crate::support::hosts::Host;
use crate::support::roots;

/// Host of the held process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Controller,
    Source,
    Target,
}

/// One moment. Its name is a part of the cell's name.
#[derive(Debug)]
pub(crate) struct Moment {
    pub(crate) name: &'static str,
    pub(crate) end: End,
    /// Place at which a variant of the run is held.
    place: fn(&Variant) -> Place,
}

/// All moments, in the order of a run.
pub(crate) const MOMENTS: [Moment; 20] = [
    moment("connecting", End::Controller, places::connecting),
    moment("probing", End::Target, places::probing),
    moment("target", End::Target, places::TARGET),
    moment("staging", End::Target, places::STAGING),
    moment("port", End::Target, places::PORT),
    moment("rule", End::Target, places::RULE),
    moment("receiver", End::Target, places::JOB),
    moment("sender", End::Source, places::JOB),
    moment("listening", End::Source, places::listening),
    moment("resting", End::Source, places::QUIESCED),
    moment("first", End::Source, places::first),
    moment("middle", End::Source, places::middle),
    moment("last", End::Source, places::last),
    moment("restarting", End::Source, places::restarting),
    moment("closing", End::Target, places::closing),
    moment("syncing", End::Target, places::syncing),
    moment("verifying", End::Target, places::verifying),
    moment("publishing", End::Target, places::publishing),
    moment("published", End::Target, places::published),
    moment("releasing", End::Target, places::releasing),
];

const fn moment(name: &'static str, end: End, place: fn(&Variant) -> Place) -> Moment {
    Moment { name, end, place }
}

impl Moment {
    /// Returns the moment of that name.
    pub(crate) fn of(name: &str) -> &'static Self {
        MOMENTS.iter().find(|moment| moment.name == name).unwrap_or_else(|| panic!("no moment '{name}'"))
    }

    fn index(&self) -> usize {
        MOMENTS.iter().position(|moment| moment.name == self.name).expect("one of them")
    }

    /// Whether it is at or after another moment.
    pub(crate) fn is_from(&self, name: &str) -> bool {
        self.index() >= Self::of(name).index()
    }

    /// Whether the copy may be published when the operation that has begun completes.
    pub(crate) fn may_be_published(&self) -> bool {
        self.is_from("publishing")
    }

    /// Prepares the hold of the next run.
    pub(crate) fn arm(&self, host: &Host, variant: &Variant) -> Armed {
        match (self.place)(variant) {
            Place::Script(script) => put_script(host, &script),
            // Agents on the controller are children of the run, and not of sshd.
            Place::Agent(spec) if self.end == End::Source && variant.source.is_empty() => {
                Armed { host: host.clone(), hold: Held::Run(spec, OnceCell::new()) }
            }
            Place::Agent(Spec { roles, point }) => {
                Armed { host: host.clone(), hold: Held::Agent(roots::hold(host, roles, point)) }
            }
        }
    }
}

/// Puts a script that holds the run in front of a program, for its next such call only.
fn put_script(host: &Host, script: &Script) -> Armed {
    let Script { program, condition, hold } = script;
    let body = match hold {
        Hold::Before => "hold".to_owned(),
        Hold::Behind(bytes) => {
            format!("\"$real\" \"$@\" | {{ head -c {bytes}; hold; cat; }}; exit \"${{PIPESTATUS[0]}}\"")
        }
        Hold::BeforeTheLast => format!("\"$real\" \"$@\" | {KEEP}; exit \"${{PIPESTATUS[0]}}\""),
    };
    let text = format!(
        "#!/bin/bash\nreal=$(PATH=/usr/sbin:/usr/bin type -P {program})\n\
         hold() {{ /usr/bin/mv {GATE}/armed {GATE}/held || return; for ((i = 0; i < 4000; i++)); do [[ ! -e {GATE}/go ]] || return; {NAP}; done; }} 2>/dev/null {REST}\n\
         if [[ -e {GATE}/armed ]] && {condition}; then {body}; fi\nexec \"$real\" \"$@\"\n"
    );
    let path = format!("/usr/local/bin/{program}");
    host.put(text, &path, 0o755);
    // Both files exist from the start, and are only renamed: disks may be full later.
    host.sh(&format!("rm -rf {GATE}; mkdir -m 0777 {GATE}; touch {GATE}/armed {GATE}/stop"));
    Armed { host: host.clone(), hold: Held::Script(path) }
}

/// Waits without starting a process, since the calls add up. Needs the redirection in [`REST`].
const NAP: &str = "read -rt 0.02 -u 12";
const REST: &str = "12<> <(:)";

/// Passes on all but the last bytes of its input, which follow when the program may continue.
const KEEP: &str = r#"{ perl -e 'my $kept = ""; $| = 1;
    while (sysread(STDIN, my $read, 65536)) {
        $kept .= $read;
        print substr($kept, 0, -4096, "") if length $kept > 4096;
    }
    system("bash", "-c", "$ARGV[0]"); print $kept' "$(declare -f hold); hold"; }"#;

/// Prepared hold of a run.
pub(crate) struct Armed {
    host: Host,
    hold: Held,
}

enum Held {
    /// By a script with this path.
    Script(String),
    /// By the tracer of a host's sshd.
    Agent(Holder),
    /// By the tracer of the run itself, which starts with it.
    Run(Spec, OnceCell<Holder>),
}

impl Armed {
    /// Starts the run.
    pub(crate) fn start(&self, program: Invocation) -> Running {
        let Held::Run(spec, holder) = &self.hold else { return program.spawn() };
        let (traced, run) = roots::start(*spec, &self.host, program);
        assert!(holder.set(traced).is_ok(), "the run was started twice");
        run
    }

    fn holder(&self) -> Option<&Holder> {
        match &self.hold {
            Held::Script(_) => None,
            Held::Agent(holder) => Some(holder),
            Held::Run(_, holder) => holder.get(),
        }
    }

    /// Waits until the run is held. `false` when it ends before that.
    pub(crate) fn await_held(&self, run: &mut Running, within: Duration) -> bool {
        if let Some(holder) = self.holder() {
            return holder.await_held(within, || run.is_running()).is_some();
        }
        let look = format!(
            "{{ for ((i = 0; i < 50; i++)); do [[ ! -e {GATE}/held ]] || exit 0; {NAP}; done; }} {REST}; exit 1"
        );
        let end = Instant::now() + within;
        while Instant::now() < end {
            if self.host.run(&["bash", "-c", &look]).status.success() {
                return true;
            }
            if !run.is_running() {
                return false;
            }
        }
        false
    }

    /// Lets the held program continue, and all later calls. No error when the host is down.
    pub(crate) fn open(&self) {
        match self.holder() {
            Some(holder) => holder.open(),
            None => {
                self.host.run(&["/usr/bin/mv", &format!("{GATE}/stop"), &format!("{GATE}/go")]);
            }
        }
    }

    /// Removes the script.
    pub(crate) fn disarm(self) {
        if let Held::Script(path) = &self.hold {
            self.host.run(&["/usr/bin/rm", "-f", path]);
        }
    }
}
