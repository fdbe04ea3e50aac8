//! One cell: a run that is held at a moment, a fault, and the judgement of every host afterwards.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::faults::Fault;
use super::lane::{DATA, Lane};
use super::moments::{Armed, End, Moment};
use super::variants::{Variant, WITH_OLD, host_of};
use crate::fixtures;
use crate::harness::{Cut, Host, Lab, Output, Running};

/// `--lease-time` and `--idle-timeout` of the runs.
pub(crate) const LEASE: Duration = Duration::from_secs(4);
/// Within which the moment comes.
const HELD: Duration = Duration::from_secs(30);
/// Within which, from the end, pipelines, port and hole are gone.
const CLOSED: Duration = Duration::from_secs(5);
/// And all else.
const UNDONE: Duration = Duration::from_secs(15);

/// Between two looks at hosts.
const LOOK: Duration = Duration::from_millis(300);

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

/// What a fault can reach.
pub(crate) struct Scene {
    lane: Lane,
    moment: &'static Moment,
    variant: &'static Variant,
    run: Option<Running>,
    armed: Option<Armed>,
    cuts: Vec<Cut>,
    down: Vec<&'static str>,
    others: Vec<Running>,
    altered: Option<Vec<String>>,
}

/// How a run ended.
struct Ended {
    /// Its exit code, or the signal that killed it as a negative number.
    code: i32,
    said: String,
    at: Instant,
}

/// What is under the final name on a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Old,
    Copy,
}

impl Cell {
    /// Plays it.
    ///
    /// # Panics
    ///
    /// When anything is not as it must be.
    pub(crate) fn run(&self) {
        let Some(main) = Lab::get() else { return };
        let mut scene = Scene::new(&main, self.moment, self.variant);
        let ended = self.play(&mut scene);
        self.judge(&mut scene, &ended);
        scene.give_back();
    }

    /// Starts the run, strikes at the moment, and waits for the end.
    fn play(&self, scene: &mut Scene) -> Ended {
        let armed = self.moment.arm(&scene.host(self.moment.end), self.variant);
        let mut run = scene.start(self.fault.name.starts_with("clock-"));
        let held = armed.await_held(&mut run, HELD);
        scene.armed = Some(armed);
        if !held {
            run.signal("TERM");
            panic!("the moment does not come: {}", run.wait());
        }
        scene.run = Some(run);
        (self.fault.strike)(scene);
        scene.let_go();
        let mut run = scene.run.take().expect("a run");
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

    fn judge(&self, scene: &mut Scene, ended: &Ended) {
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
        scene.others.clear();
        let wrecks = (self.fault.wrecks)(scene);
        let lease = if self.fault.vanishes { LEASE } else { Duration::ZERO };
        assert!(*code != 6 || said.contains(": LEFT BEHIND: "), "nothing is said to be left:\n{said}");
        if wrecks.is_empty() {
            let mut hosts = scene.hosts();
            hosts.retain(|host| !scene.down.contains(host));
            // What a run says that it leaves behind may stay until that is mended.
            let is_told = |line: &str| {
                let host = line.split(':').next().unwrap_or_default();
                *code == 6 && said.contains(&format!("{host}: LEFT BEHIND: "))
            };
            scene.await_gone(&hosts, *at + lease + CLOSED, |line| is_open(line) && !is_told(line));
        }
        if self.fault.vanishes && wrecks.is_empty() {
            let mut hosts = scene.hosts();
            hosts.retain(|host| !scene.down.contains(host));
            let counts = |line: &str| !scene.is_ours(line) && !line.contains("process: sshd ");
            scene.await_gone(&hosts, *at + lease + UNDONE, counts);
        }
        (self.fault.mend)(scene);
        let mended = Instant::now();
        scene.clear(&wrecks, *code);
        scene.await_gone(&scene.hosts(), mended.max(*at + lease) + UNDONE, |line| !scene.is_ours(line));
        scene.armed.take().expect("armed").disarm();
        self.judge_copies(scene, *code, said);
        scene.follow();
    }

    /// No half copy, and none where the run has failed before its publication; every old one is whole.
    fn judge_copies(&self, scene: &Scene, code: i32, said: &str) {
        for target in scene.variant.targets {
            let host = host_of(target);
            let found = scene.found(host);
            let nothing = if scene.variant.replaces() { Found::Old } else { Found::Nothing };
            let alone = scene.variant.targets.len() == 1;
            let end = format!("{target}{}", scene.variant.directory);
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
            scene.reset(host);
        }
    }
}

impl Scene {
    pub(crate) fn new(main: &Lab, moment: &'static Moment, variant: &'static Variant) -> Self {
        Self {
            lane: Lane::take(main),
            moment,
            variant,
            run: None,
            armed: None,
            cuts: Vec::new(),
            down: Vec::new(),
            others: Vec::new(),
            altered: None,
        }
    }

    /// The hosts are as they were.
    pub(crate) fn give_back(self) {
        self.lane.give_back();
    }

    pub(crate) fn variant(&self) -> &'static Variant {
        self.variant
    }

    pub(crate) fn moment(&self) -> &'static Moment {
        self.moment
    }

    pub(crate) fn run(&mut self) -> &mut Running {
        self.run.as_mut().expect("a run")
    }

    pub(crate) fn host(&self, end: End) -> Host {
        self.lane.host(self.name_of(end))
    }

    fn name_of(&self, end: End) -> &'static str {
        match end {
            End::Controller => "ctl",
            End::Source => host_of(self.variant.source),
            End::Target => "db2",
        }
    }

    /// Runs a script on a host.
    pub(crate) fn on(&self, host: &str, script: &str) {
        self.lane.host(host).sh(script);
    }

    /// Runs a script on an end.
    pub(crate) fn sh(&self, end: End, script: &str) -> String {
        self.host(end).sh(script)
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![format!("{}{}", self.variant.source, self.variant.data)];
        arguments
            .extend(self.variant.targets.iter().map(|target| format!("{target}{}", self.variant.directory)));
        for option in ["--lease-time", "--idle-timeout"] {
            arguments.extend([option.to_owned(), LEASE.as_secs().to_string()]);
        }
        arguments.extend(self.variant.options.iter().map(ToString::to_string));
        arguments
    }

    /// Starts the run, if need be with a wall clock that [`Scene::jump`] can set.
    fn start(&self, on_our_clock: bool) -> Running {
        let arguments = self.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut program = self.lane.lab.program(&arguments);
        if on_our_clock {
            // Where there is none, it is not missed.
            let library = self.lane.host("ctl").sh("echo -n /usr/lib/*/faketime/libfaketime.so.1");
            self.lane.host("ctl").sh(&format!("test -e {library}"));
            self.jump("+0");
            program = program
                .env("LD_PRELOAD", &library)
                .env("FAKETIME_TIMESTAMP_FILE", CLOCK)
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        program.spawn()
    }

    fn transfer(&self, arguments: &[&str]) -> Output {
        self.lane.lab.transfer(arguments)
    }

    /// The wall clock of the controller jumps.
    pub(crate) fn jump(&self, by: &str) {
        self.lane.host("ctl").sh(&format!("echo {by} >{CLOCK}"));
    }

    /// What is held goes on.
    pub(crate) fn let_go(&self) {
        if let Some(armed) = &self.armed {
            armed.open();
        }
    }

    pub(crate) fn cut(&mut self, a: &'static str, b: &'static str) {
        self.cuts.push(self.lane.lab.cut(a, b));
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    pub(crate) fn crash(&mut self, host: &'static str) {
        self.lane.host(host).crash();
        self.down.push(host);
    }

    pub(crate) fn boot(&mut self, host: &'static str) {
        self.lane.boot(host);
        self.down.retain(|down| *down != host);
    }

    /// The controller's connection to a host.
    pub(crate) fn kill_master(&self, host: &str) {
        let script = format!("pkill -KILL -f -- 'ssh -M -N .* -- (dba@)?{host}$'");
        self.lane.host("ctl").sh(&script);
    }

    /// A host's side of it.
    pub(crate) fn kill_session(&self, host: &str) {
        self.lane.host(host).sh("pkill -KILL -f '^sshd: (root|dba)'");
    }

    /// What sshd has on all hosts for logins.
    pub(crate) fn end_sessions(&self) {
        for host in self.hosts() {
            self.on(host, "pkill -KILL -f '^sshd: (root|dba|\\[)' || :");
        }
    }

    pub(crate) fn stop_sshd(&self, host: &str) {
        self.lane.host(host).sh("systemctl stop ssh");
    }

    pub(crate) fn start_sshd(&self, host: &str) {
        self.lane.host(host).sh("systemctl start ssh");
    }

    /// Something that goes on beside the run, until the run has ended.
    pub(crate) fn spawn(&mut self, end: End, command: &[&str]) {
        let running = self.host(end).spawn(command);
        self.others.push(running);
    }

    /// Connects to the port before our own sender does.
    pub(crate) fn send_stranger(&mut self, then: &str) {
        let script =
            format!("exec 3<>/dev/tcp/10.77.0.12/{} || exit; echo connected; {then}", self.variant.port());
        let mut stranger = self.host(End::Source).spawn(&["bash", "--norc", "-c", &script]);
        stranger.wait_for("connected", HELD);
        self.others.push(stranger);
    }

    /// Listens on the port before our own receiver does.
    pub(crate) fn take_port(&mut self) {
        let port = self.variant.port().to_string();
        self.spawn(End::Target, &["nc", "-l", "-k", "-d", &port]);
        let listening = format!("until [[ $(ss -Hltn 'sport = :{port}') ]]; do sleep 0.01; done");
        self.sh(End::Target, &listening);
    }

    /// A program fails from now on.
    pub(crate) fn break_tool(&self, end: End, tool: &str, status: &str) {
        let text = format!("#!/bin/sh\necho '{tool}: broken' >&2\nexit {status}\n");
        // In front of what may hold the run at this moment.
        self.host(end).put(text, &format!("/usr/local/sbin/{tool}"), 0o755);
    }

    pub(crate) fn mend_tool(&self, end: End, tool: &str) {
        // It may be the one that removes.
        self.sh(end, &format!("/usr/bin/rm /usr/local/sbin/{tool}"));
    }

    /// What netcat sends from now on goes through a filter of perl's, which has all of it in `$all`.
    pub(crate) fn damage_wire(&self, how: &str) {
        let text = format!(
            "#!/bin/bash\n[[ $* == *-h* ]] && exec /usr/bin/nc \"$@\"\n\
             perl -e 'undef $/; my $all = <STDIN>; {how}; print $all' | /usr/bin/nc \"$@\"\nexit \"${{PIPESTATUS[1]}}\"\n"
        );
        self.host(End::Source).put(text, "/usr/local/sbin/nc", 0o755);
    }

    /// Changes the source: what is copied may be what it was, or what it is then.
    pub(crate) fn alter_source(&mut self, script: &str) {
        self.sh(End::Source, script);
        self.altered = Some(fixtures::list(&self.host(End::Source), DATA));
    }

    /// What a run may leave under the final name, and what the judgement takes away.
    fn is_ours(&self, line: &str) -> bool {
        let names: &[&str] = match self.variant {
            variant if variant.keeps_staging() => &["data", ".transfer-"],
            variant if variant.fills() => &["one", "two", "three", "sub", "link", "xtrabackup_checkpoints"],
            _ => &["data"],
        };
        names.iter().any(|name| line.contains(&format!("file: {}/{name}", self.variant.directory)))
    }

    /// Waits until no line of that kind differs from before on any of these hosts.
    fn await_gone(&self, hosts: &[&'static str], until: Instant, counts: impl Fn(&str) -> bool) {
        let mut hosts = hosts.to_vec();
        loop {
            let mut lines = self.lane.differences(&hosts);
            lines.retain(|line| counts(line));
            if lines.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "not gone in time: {lines:#?}");
            // One that is as before needs no other look.
            hosts.retain(|host| lines.iter().any(|line| line.starts_with(&format!("{host}:"))));
            thread::sleep(LOOK);
        }
    }

    /// What nobody is left to undo is shown, and undone by one command.
    fn clear(&self, wrecks: &[&str], code: i32) {
        let sudo: &[&str] = if self.variant.options.contains(&"--sudo") { &["--sudo"] } else { &[] };
        let ends = [self.variant.source].into_iter().chain(self.variant.targets.iter().copied());
        let logins: Vec<&str> =
            ends.map(|end| end.trim_end_matches(':')).filter(|login| !login.is_empty()).collect();
        for login in logins.iter().filter(|login| wrecks.contains(&host_of(login))) {
            let status = self.transfer(&[sudo, &["status", login]].concat()).expect_success().stdout;
            assert!(status.contains(" dead ") && status.contains("clean"), "no wreck is shown: {status}");
        }
        if !wrecks.is_empty() || code == 6 {
            let start: &[&str] = if self.variant.makes_rest() { &["--start-servers"] } else { &[] };
            let cleaned = self.transfer(&[sudo, &["clean"], start, &logins[..]].concat());
            println!("clean: {cleaned}");
            cleaned.expect_success();
        }
    }

    /// The same again, with nothing done in between.
    fn follow(&self) {
        let output = self.start(false).wait();
        assert!(output.status.success(), "the following transfer: {output}");
        for target in self.variant.targets {
            let host = host_of(target);
            assert_eq!(self.found(host), Found::Copy, "after the following transfer");
            self.reset(host);
        }
        self.expect_as_before();
    }

    /// The hosts that take part.
    fn hosts(&self) -> Vec<&'static str> {
        let targets = self.variant.targets.iter().copied();
        let mut hosts: Vec<&'static str> =
            [":", self.variant.source].into_iter().chain(targets).map(host_of).collect();
        hosts.dedup();
        hosts
    }

    /// All that is not as it was before, in words.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let mut lines = self.lane.differences(&self.hosts());
        let source = host_of(self.variant.source);
        if fixtures::list(&self.lane.host(source), DATA) != self.lane.data_of(source) {
            lines.push(format!("{source}: the source is not what it was"));
        }
        let sockets = self.lane.host("ctl").sh("find /run/transfer-ssh -mindepth 1 2>/dev/null || :");
        lines.extend(sockets.lines().map(|socket| format!("ctl: + file: {socket}")));
        lines
    }

    fn expect_as_before(&self) {
        let end = Instant::now() + CLOSED;
        loop {
            let lines = self.leftovers();
            if lines.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "not as before: {lines:#?}");
        }
    }

    /// What a target has, of which every entry is compared.
    fn found(&self, host: &str) -> Found {
        let on = self.lane.host(host);
        if self.variant.fills() {
            return self.filled(&on);
        }
        let names = fixtures::names(&on, self.variant.directory);
        let list = |name: &str| fixtures::list(&on, &format!("{}/{name}", self.variant.directory));
        let old = |list: &[String]| list == self.lane.lists.old;
        let (asides, others): (Vec<&String>, Vec<&String>) =
            names.iter().filter(|name| *name != "data").partition(|name| name.starts_with("data.old-20"));
        let others: Vec<&String> = others
            .into_iter()
            .filter(|name| !(self.variant.keeps_staging() && name.starts_with(".transfer-")))
            .collect();
        assert_eq!(others, Vec::<&String>::new(), "on {host}");
        let has_one = names.iter().any(|name| name == "data");
        let found = match has_one.then(|| list("data")) {
            None => Found::Nothing,
            Some(list) if old(&list) => Found::Old,
            Some(list) => {
                let data = self.lane.data_of(host_of(self.variant.source));
                let good = list == data || self.altered.as_ref() == Some(&list);
                assert!(good, "half a copy on {host}: {list:#?} instead of {data:#?}");
                Found::Copy
            }
        };
        let kept = found == Found::Copy && self.variant.keeps_old();
        assert_eq!(asides.len(), usize::from(kept), "{names:?} on {host}");
        if let [aside] = asides[..] {
            let rename = |line: &String| line.replace(&format!("./{aside}"), "./data");
            let aside: Vec<String> = list(aside).iter().map(rename).collect();
            assert!(old(&aside), "the old one was changed: {aside:#?}");
        }
        found
    }

    /// What a directory has that is filled: everything, or nothing.
    fn filled(&self, on: &Host) -> Found {
        let directory = self.variant.directory;
        let names = fixtures::names(on, directory);
        if names.is_empty() {
            return Found::Nothing;
        }
        if self.variant.is_hot() {
            let files = |directory: &str| {
                format!(
                    "cd {directory}; find . -type f ! -name xtrabackup_checkpoints -exec sha256sum {{}} + | sort"
                )
            };
            let there = self.host(End::Source).sh(&files(DATA));
            assert_eq!(on.sh(&files(directory)), there, "not all of the backup is there");
            return Found::Copy;
        }
        let parent = directory.rsplit('/').next().unwrap_or_default();
        let rename = |line: &String| line.replace(&format!("./{parent}"), "./data");
        let all: Vec<String> = fixtures::list(on, directory).iter().map(rename).collect();
        // The directory itself is not the copy's.
        let data = self.lane.data_of(host_of(self.variant.source));
        assert_eq!(all[1..], data[1..], "not all of the archive is there");
        Found::Copy
    }

    /// As it was before the run, whatever is under the final name.
    fn reset(&self, host: &str) {
        let back = if self.variant.directory == WITH_OLD {
            format!("rm -rf {WITH_OLD}/*; cp -a /srv/damage/template/data {WITH_OLD}/")
        } else {
            format!("rm -rf {0}/* {0}/.transfer-*", self.variant.directory)
        };
        self.lane.host(host).sh(&back);
    }
}

const CLOCK: &str = "/run/damage-clock";

/// Pipelines, ports and holes.
pub(crate) fn is_open(line: &str) -> bool {
    const PIPELINE: [&str; 8] = ["tar", "nc", "perl", "zstd", "openssl", "pigz", "gzip", "md5sum"];
    let Some((_, fact)) = line.split_once(": + ") else { return false };
    match fact.split_once(": ") {
        Some(("process", process)) => PIPELINE.contains(&process.split(' ').next().unwrap_or_default()),
        Some((section, _)) => section == "listening" || section == "nft" || section.contains("tables"),
        None => false,
    }
}
