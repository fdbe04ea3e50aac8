//! Many transfers of all kinds, with faults, in parallel: no leaks, every success is identical, every failure
//! is clean. A seed determines the plan (`soak/plan.rs`), which is judged at the end (`soak/judge.rs`).
//!
//! `SOAK_SEED` repeats a plan, `SOAK_TRANSFERS` and `SOAK_SECONDS` limit it.

mod judge;
mod plan;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};
use std::{env, thread};

use self::plan::{Case, Data, Fault, LEASE, Place, Whom};

use crate::support::commands::Running;
use crate::support::every_kind::make_every_kind;
use crate::support::firewall::FIREWALL;
use crate::support::hosts::{Host, Lab};
use crate::support::output::Output;
use crate::support::scratch::Scratch;
use crate::support::snapshots::Snapshot;
use crate::support::waiting::eventually;
use plan::{WINDOW, draw, places_of};

/// Number of transfers at the same time.
const AT_ONCE: usize = 8;
/// Limit for the last transfers and rollbacks, after their start.
const DRAIN: Duration = Duration::from_secs(25);
/// Limit for one run on a busy machine.
const LONGEST_RUN: Duration = Duration::from_secs(90);
/// The soak ends after this number of failures.
const ENOUGH_FAILURES: usize = 5;

/// Creates a source. Arguments: directory, name, total size in bytes, number of files (0 for a single file
/// without a tree).
const MAKE: &str = r#"
    mkdir -- "$1"; cd -- "$1"
    if (($4 == 0)); then
        head -c "$3" /dev/urandom >"./$2"; chmod 0640 "./$2"; touch -d '2001-02-03 04:05:06.123456789Z' "./$2"
        exit
    fi
    mkdir -- "./$2"; cd -- "./$2"
    for ((n = 1; n < $4; n++)); do
        mkdir -p "dir $((n % 3))"
        if ((n % 2)); then from=/dev/urandom; else from=/dev/zero; fi
        head -c "$(($3 / $4 + n))" "$from" >"dir $((n % 3))/"$'odd\n'"*$n"
    done
    : >empty; ln -s nowhere link; ln empty hard; setfattr -n user.soak -v 1 empty; truncate -s 3M sparse
    chown 111:112 empty; chmod 0500 .; touch -d '2002-02-02 02:02:02.2Z' .
"#;

/// End of one transfer.
struct Ended {
    /// `None` when it did not end and was killed.
    output: Option<Output>,
    /// The fault that was applied, if any.
    struck: Option<String>,
    seconds: f32,
}

/// State that the threads of the soak share.
struct Soak {
    lab: Lab,
    scratch: Scratch,
    cases: Vec<Case>,
}

impl Soak {
    fn source(&self, index: usize) -> String {
        self.scratch.join(&format!("s{index}"))
    }

    fn directory(&self, place: &Place) -> String {
        self.scratch.join(&place.directory)
    }

    fn args(&self, index: usize) -> Vec<String> {
        let case = &self.cases[index];
        let path = format!("{}/{}", self.source(index), case.own_name);
        let source = match case.source {
            // Both ways to name the controller.
            "ctl" if index % 2 == 0 => path,
            "ctl" => format!("localhost:{path}"),
            host => format!("{host}:{path}"),
        };
        let targets = case.places.iter().map(|place| format!("{}:{}", place.host, self.directory(place)));
        [source].into_iter().chain(targets).chain(case.options.iter().cloned()).collect()
    }

    /// Returns the command in the syntax of a shell.
    fn command(&self, index: usize) -> String {
        let quoted = |word: String| format!("'{}'", word.replace('\'', r"'\''"));
        let plain = |word: &String| !word.contains(|c: char| c.is_whitespace() || "'\"$*()".contains(c));
        let words = self.args(index).into_iter().map(|word| if plain(&word) { word } else { quoted(word) });
        words.fold("transfer".to_owned(), |line, word| line + " " + &word)
    }

    fn make_source(&self, index: usize) {
        let case = &self.cases[index];
        let host = self.lab.host(case.source);
        let (directory, name) = (self.source(index), case.own_name);
        let (bytes, files) = match case.data {
            Data::File { bytes } => (bytes, 0),
            Data::Tree { bytes, files } => (bytes, files + 1),
            Data::EveryKind => {
                host.run(&["mkdir", &directory]).expect_success();
                return make_every_kind(&host, &format!("{directory}/{name}"));
            }
        };
        let script = format!("set -eu; {MAKE}");
        let numbers = [bytes, files].map(|number| number.to_string());
        host.run(&["bash", "--norc", "-c", &script, "make", &directory, name, &numbers[0], &numbers[1]])
            .expect_success();
    }

    /// Runs one transfer, with its fault, to its end.
    fn perform(&self, index: usize) -> Ended {
        self.make_source(index);
        let args = self.args(index);
        let began = Instant::now();
        let mut run = self.lab.transfer_spawn(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let mut struck = None;
        match &self.cases[index].fault {
            Fault::None => {}
            Fault::Signal(name, after) => {
                if !eventually(*after, || !run.is_running()) {
                    run.signal(name);
                    struck = Some(format!("SIG{name}"));
                }
            }
            Fault::Kill { whom, host, end, after, pick } => {
                let (pid, after) = (run.pid().to_string(), after.as_secs_f32().to_string());
                let (who, pick) = (format!("{whom:?}"), pick.to_string());
                let mut killer = self
                    .lab
                    .host(host)
                    .command(&["bash", "--norc", "-s", "--", &pid, end, &after, &who, &pick])
                    .stdin(include_str!("soak/kill.sh"))
                    .spawn();
                eventually(LONGEST_RUN, || !killer.is_running() || !run.is_running());
                // The fault may have been applied just before the end.
                eventually(Duration::from_millis(100), || !killer.is_running());
                if !killer.is_running() {
                    let reported = killer.wait().stdout;
                    struck = reported
                        .strip_prefix("killed")
                        .map(|reported| format!("{whom:?} on {host}:{reported}"));
                }
                if *whom == Whom::AgentAndController && struck.is_some() && run.is_running() {
                    run.signal("KILL");
                }
            }
        }
        let ends = eventually(LONGEST_RUN, || !run.is_running());
        if !ends {
            run.signal("KILL");
        }
        let seconds = began.elapsed().as_secs_f32();
        let output = run.wait();
        Ended { output: ends.then_some(output), struck, seconds }
    }

    /// Describes a transfer and its end, for a reader who wants to repeat it.
    fn story(&self, index: usize, ended: Option<&Ended>) -> String {
        let mut story = format!("transfer {index}: {}\n", self.command(index));
        let case = &self.cases[index];
        let _ = writeln!(story, "  of {:?} on {}, with {:?}", case.data, case.source, case.fault);
        if let Some(ended) = ended {
            let struck = ended.struck.as_deref().unwrap_or("nothing").trim();
            let _ = writeln!(story, "  struck: {struck}; {:.1} s", ended.seconds);
            match &ended.output {
                Some(output) => story.push_str(&output.to_string()),
                None => story.push_str("it did not end"),
            }
        }
        story
    }
}

/// Returns a number from the environment.
fn setting(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

fn seed() -> u64 {
    let now = UNIX_EPOCH.elapsed().expect("a clock");
    setting("SOAK_SEED", now.as_secs() * 1000 + u64::from(now.subsec_millis()))
}

const HOSTS: [&str; 4] = ["ctl", "db1", "db2", "db3"];

/// Results of the transfers so far.
#[derive(Default)]
struct Results {
    ended: BTreeMap<usize, Ended>,
    failures: Vec<String>,
}

/// Firewalls that let only ssh in, on two of the targets.
struct Firewalls([Host; 2]);

impl Firewalls {
    fn new(lab: &Lab) -> Self {
        let hosts = ["db2", "db3"].map(|name| lab.host(name));
        for host in &hosts {
            host.sh(FIREWALL);
        }
        Self(hosts)
    }
}

impl Drop for Firewalls {
    fn drop(&mut self) {
        for host in &self.0 {
            host.run(&["nft", "delete", "table", "inet", "closed"]);
        }
    }
}

/// Runs one transfer after the other, and judges the last state of each window.
fn work(
    soak: &Soak,
    next: &AtomicUsize,
    left: &[AtomicUsize],
    results: &Mutex<Results>,
    last_start: Instant,
) {
    loop {
        let index = next.fetch_add(1, Ordering::SeqCst);
        if index >= soak.cases.len() {
            return;
        }
        let goes_on = Instant::now() < last_start
            && results.lock().expect("a thread panicked").failures.len() < ENOUGH_FAILURES;
        if goes_on {
            let done = catch_unwind(AssertUnwindSafe(|| soak.perform(index)));
            let mut results = results.lock().expect("a thread panicked");
            match done {
                Ok(ended) => {
                    println!("{}", judge::line(index, &ended));
                    results.failures.extend(soak.judge_end(index, &ended));
                    results.ended.insert(index, ended);
                }
                Err(_) => {
                    results.failures.push(format!("the test itself failed in {}", soak.story(index, None)));
                }
            }
        }
        let window = index / WINDOW;
        if left[window].fetch_sub(1, Ordering::SeqCst) == 1 {
            let members = {
                let results = results.lock().expect("a thread panicked");
                let first = window * WINDOW;
                judge::members(soak, results.ended.range(first..first + WINDOW))
            };
            let judged = catch_unwind(AssertUnwindSafe(|| soak.judge_window(window, &members)));
            let failures = judged.unwrap_or_else(|_| vec![format!("window {window} cannot be judged")]);
            results.lock().expect("a thread panicked").failures.extend(failures);
        }
    }
}

#[test]
fn exclusive_random_faults_leave_only_identical_copies() {
    let began = Instant::now();
    let seed = seed();
    let count = usize::try_from(setting("SOAK_TRANSFERS", 30)).expect("a small number");
    let seconds = setting("SOAK_SECONDS", 60);
    let bound = format!("SOAK_SEED={seed} SOAK_TRANSFERS={count} SOAK_SECONDS={seconds}");
    println!("{bound}");
    let last_start = began + Duration::from_secs(seconds).saturating_sub(DRAIN);
    let Some(lab) = Lab::get() else { return };

    let hosts = HOSTS.map(|name| lab.host(name));
    let scratch = lab.scratch(&HOSTS);
    let _firewalls = Firewalls::new(&lab);
    // The first connection leaves traces.
    lab.transfer(&["status", "db1", "db2", "db3"]).expect_success();
    let soak = Soak { lab, scratch, cases: draw(seed, count) };
    let windows = count.div_ceil(WINDOW);
    for host in &hosts {
        let directories: Vec<String> =
            (0..windows).flat_map(places_of).map(|place| soak.directory(&place)).collect();
        host.sh(&format!("mkdir -p {}", directories.join(" ")));
    }
    let before =
        hosts.each_ref().map(|host| Snapshot::of(host, &[soak.scratch.path(), "/run/transfer-ssh", "/root"]));
    let samplers = hosts
        .each_ref()
        .map(|host| host.command(&["perl", "-"]).stdin(include_str!("soak/descriptors.pl")).spawn());

    let next = AtomicUsize::new(0);
    let left: Vec<AtomicUsize> =
        (0..windows).map(|window| AtomicUsize::new(WINDOW.min(count - window * WINDOW))).collect();
    let results = Mutex::new(Results::default());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| work(&soak, &next, &left, &results, last_start));
        }
    });
    let Results { ended, mut failures } = results.into_inner().expect("a thread panicked");
    let most = HOSTS.iter().zip(samplers).map(|(name, sampler)| look(name, sampler, &mut failures)).max();

    let looked = thread::scope(|scope| {
        let lookers: Vec<_> = (hosts.iter().zip(&before))
            .map(|(host, before)| scope.spawn(|| before.remaining(host, LEASE + Duration::from_secs(15))))
            .collect();
        lookers.into_iter().map(|looker| looker.join().expect("a snapshot failed")).collect::<Vec<_>>()
    });
    for (name, remaining) in HOSTS.iter().zip(looked) {
        failures.extend(remaining.iter().map(|line| format!("{name} is not as before: {line:.200}")));
    }

    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    for ended in ended.values() {
        *codes.entry(judge::outcome(ended)).or_default() += 1;
    }
    println!(
        "{} of {count} transfers in {:.0} s: {codes:?}; {} were struck; an agent has at most {} descriptors",
        ended.len(),
        began.elapsed().as_secs_f32(),
        ended.values().filter(|ended| ended.struck.is_some()).count(),
        most.unwrap_or(0),
    );
    assert!(failures.is_empty(), "to repeat it: {bound}\n{}", failures.join("\n\n"));
    assert!(!ended.is_empty() || count == 0, "no transfer began in time");
}

/// Stops a sampler and reads its result: failures, and the highest number of descriptors of an agent.
fn look(name: &str, mut sampler: Running, failures: &mut Vec<String>) -> usize {
    if !sampler.is_running() {
        failures.push(format!("{name}: the descriptors were not sampled: {}", sampler.wait()));
        return 0;
    }
    sampler.signal("KILL");
    let seen = sampler.wait().stdout;
    let of = |kind: &'static str| seen.lines().filter_map(move |line| line.strip_prefix(kind));
    failures.extend(of("bad: ").map(|line| format!("{name}: {line}")));
    of("most: ").filter_map(|number| number.parse().ok()).max().unwrap_or(0)
}
