//! Plan of a soak, drawn from one seed before anything begins: the same seed repeats the plan.

use std::time::Duration;

use fastrand::Rng;

/// Number of transfers that share target directories, so that some have the same name.
pub(super) const WINDOW: usize = 12;
/// `--lease-time` of all runs.
pub(super) const LEASE: Duration = Duration::from_secs(8);

const NAMES: [&str; 3] = ["data", "two  blanks,\na new line and $(touch pwned)", "-rf grün 'quoted'"];
const SOURCES: [&str; 4] = ["db1", "db2", "db3", "ctl"];
const TARGETS: [&str; 3] = ["db1", "db2", "db3"];
const DIRECTORIES: [&str; 2] = ["a", "b"];

/// Data to copy.
#[derive(Clone, Copy, Debug)]
pub(super) enum Data {
    File { bytes: u32 },
    Tree { bytes: u32, files: u32 },
    EveryKind,
}

/// Destination of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: &'static str,
    pub(super) directory: String,
}

/// Fault, unless the run is over by then.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    None,
    /// Signal to the controller.
    Signal(&'static str, Duration),
    /// SIGKILL of a part of a run on a host, at some time after the start of its agent.
    Kill {
        whom: Whom,
        host: &'static str,
        /// End of the agent's name.
        end: String,
        after: Duration,
        /// Number that selects one of several.
        pick: u32,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whom {
    Agent,
    AgentAndWatchdog,
    /// Agent first, and the controller a moment later.
    AgentAndController,
    /// The ssh session of the agent; on the controller's own host the agent.
    Session,
    /// Any process of its jobs.
    Stage,
}

/// One transfer.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) source: &'static str,
    pub(super) data: Data,
    /// Name of the source, which is also the final name unless there is `--as`.
    pub(super) own_name: &'static str,
    pub(super) name: &'static str,
    pub(super) places: Vec<Place>,
    pub(super) options: Vec<String>,
    pub(super) replace: bool,
    pub(super) keep_old: bool,
    pub(super) keep_staging: bool,
    pub(super) fault: Fault,
}

/// Number of directories of a window on each target.
pub(super) fn places_of(window: usize) -> impl Iterator<Item = Place> {
    TARGETS.into_iter().flat_map(move |host| {
        DIRECTORIES.map(|directory| Place { host, directory: format!("{window}{directory}") })
    })
}

/// Returns all transfers.
pub(super) fn draw(seed: u64, count: usize) -> Vec<Case> {
    let mut rng = Rng::with_seed(seed);
    (0..count).map(|index| case(&mut rng, index / WINDOW)).collect()
}

fn one_of<T: Clone>(rng: &mut Rng, all: &[T]) -> T {
    all[rng.usize(..all.len())].clone()
}

fn percent(rng: &mut Rng, chance: u8) -> bool {
    rng.u8(..100) < chance
}

fn millis(rng: &mut Rng, most: u64) -> Duration {
    Duration::from_millis(rng.u64(..=most))
}

fn case(rng: &mut Rng, window: usize) -> Case {
    let source = one_of(rng, &SOURCES);
    // Small sizes are as likely as large ones.
    let bytes = (1 << rng.u32(..=23)) - 1;
    let data = match rng.u8(..20) {
        0 => Data::EveryKind,
        1..=9 => Data::File { bytes },
        _ => Data::Tree { bytes, files: rng.u32(..12) },
    };
    let mut places: Vec<Place> = places_of(window).collect();
    rng.shuffle(&mut places);
    places.truncate(if percent(rng, 35) { 2 } else { 1 });
    let name = one_of(rng, &NAMES);
    let renamed = percent(rng, 30);
    let replace = percent(rng, 40);
    let keep_old = replace && percent(rng, 40);
    let keep_staging = !replace && percent(rng, 15);
    let mut case = Case {
        source,
        data,
        own_name: if renamed { "before" } else { name },
        name,
        places,
        options: vec!["--json".into(), "--lease-time".into(), LEASE.as_secs().to_string()],
        replace,
        keep_old,
        keep_staging,
        fault: Fault::None,
    };
    if renamed {
        case.options.push(format!("--as={name}"));
    }
    for (option, on) in [("--replace", replace), ("--keep-old", keep_old), ("--keep-staging", keep_staging)] {
        case.options.extend(on.then(|| option.to_owned()));
    }
    case.options.extend(options(rng, case.places.len()));
    case.fault = fault(rng, &case);
    case
}

fn options(rng: &mut Rng, targets: usize) -> Vec<String> {
    let mut options: Vec<String> = Vec::new();
    for (chance, some) in [
        (25, &["--no-encrypt"][..]),
        (50, &["--compress=zstd", "--compress=pigz", "--compress=gzip", "--compress=lz4", "--no-compress"]),
        (
            60,
            &[
                "--no-checksum",
                "--parallel-checksum",
                "--checksum-algorithm=sha256",
                "--checksum-algorithm=blake2b",
            ],
        ),
        (20, &["--port-range=4600-4640"]),
        (20, &["--threads=1", "--threads=3"]),
        (20, &["--nice", "--nice=19"]),
        (30, &["--no-fsync"]),
        (30, &["--verbose"]),
        (20, &["--progress=plain"]),
        (if targets > 1 { 40 } else { 0 }, &["--skip-refused"]),
    ] {
        if percent(rng, chance) {
            options.push(one_of(rng, some).to_owned());
        }
    }
    options
}

fn fault(rng: &mut Rng, case: &Case) -> Fault {
    if percent(rng, 40) {
        return Fault::None;
    }
    if percent(rng, 50) {
        let signal = one_of(rng, &["INT", "TERM", "HUP", "KILL", "KILL"]);
        return Fault::Signal(signal, millis(rng, 5000));
    }
    let whom = one_of(
        rng,
        &[
            Whom::Agent,
            Whom::AgentAndWatchdog,
            Whom::AgentAndController,
            Whom::Session,
            Whom::Stage,
            Whom::Stage,
        ],
    );
    let end = rng.usize(..=case.places.len());
    let (host, end) = match end {
        0 => (case.source, "source".to_owned()),
        number => (case.places[number - 1].host, format!("target{number}")),
    };
    Fault::Kill { whom, host, end, after: millis(rng, 1500), pick: rng.u32(..100) }
}
