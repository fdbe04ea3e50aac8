//! Two controllers that start at the same instant, with one name and with two. `CONCURRENT_ROUNDS` is the
//! number of rounds.

use std::env;

use serde_json::Value;

use crate::support::changes::Changed;
use crate::support::copies::assert_same;
use crate::support::hosts::Host;
use crate::support::midstream::THROTTLE;
use crate::support::scenes::{SOON, Scene};
use crate::support::snapshots::Snapshot;

/// Starts the program twice, each with one of the words `$2` and `$3` and all that follow. Both busy-wait for
/// the same moment. Prints the pid, exit code and report of each. `$1` is a directory.
const START: &str = r#"
    cd -- "$1"; each=("$2" "$3"); shift 3
    for n in 0 1; do
        (until [[ -e go ]]; do :; done; exec "$0" "${each[n]}" "$@" --json >"$n" 2>"$n.err") &
        pids[n]=$!
    done
    sleep 0.1; : >go
    for n in 0 1; do wait "${pids[n]}"; codes[n]=$?; done
    for n in 0 1; do echo "${pids[n]} ${codes[n]}"; tail -n 1 "$n"; done
    rm go 0 1 0.err 1.err"#;

/// End of one of the two runs.
struct Contender {
    pid: String,
    code: i32,
    report: Value,
}

/// A scene with a tree `data` on db1 and an empty directory on db2, and the state of the hosts.
struct Race {
    scene: Scene,
    hosts: [Host; 3],
    before: [Snapshot; 3],
}

impl Race {
    fn set() -> Option<Self> {
        let mut scene = Scene::on(&["ctl", "db1", "db2"])?;
        scene.source = scene.at("data");
        let hosts = ["ctl", "db1", "db2"].map(|name| scene.lab.host(name));
        scene.db1.sh(&format!("mkdir {0}; head -c 2M /dev/urandom >{0}/random", scene.source));
        scene.db2.sh(&format!("mkdir {}", scene.target));
        // The first connection leaves traces.
        scene.lab.transfer(&["status", "db1", "db2"]).expect_success();
        let before =
            hosts.each_ref().map(|host| Snapshot::of(host, &[scene.scratch.path(), "/run/transfer-ssh"]));
        Some(Self { scene, hosts, before })
    }

    /// Runs the program twice at once, each with its name.
    #[track_caller]
    fn start(&self, names: [&str; 2]) -> [Contender; 2] {
        let names = names.map(|name| format!("--as={name}"));
        let ends = self.scene.args(&[]);
        let words = [self.scene.scratch.path(), &names[0], &names[1], &ends[0], &ends[1]];
        let output = self.scene.lab.program(&words).in_script(START).run().expect_success();
        let lines: Vec<&str> = output.stdout.lines().collect();
        assert_eq!(lines.len(), 4, "{output}");
        [0, 2].map(|at| {
            let (pid, code) = lines[at].split_once(' ').expect("two numbers");
            let report = serde_json::from_str(lines[at + 1]).unwrap_or_else(|_| panic!("{output}"));
            Contender { pid: pid.to_owned(), code: code.parse().expect("a number"), report }
        })
    }

    /// Asserts that the copies are there, and removes them.
    #[track_caller]
    fn expect_copies(&self, expected: &[&str]) {
        let Scene { db1, db2, source, target, .. } = &self.scene;
        assert_eq!(self.scene.arrived(), expected);
        for name in expected {
            // Under the name of the source, for the comparison.
            db2.sh(&format!("mv {target}/{name} {source}"));
            assert_same((db1, source), (db2, source));
            db2.sh(&format!("rm -r {source}"));
        }
    }

    #[track_caller]
    fn expect_as_before(&self) {
        for (host, before) in self.hosts.iter().zip(&self.before) {
            assert_eq!(before.remaining(host, SOON), Vec::<String>::new());
        }
    }
}

fn rounds() -> u32 {
    env::var("CONCURRENT_ROUNDS").map_or(5, |text| text.parse().expect("CONCURRENT_ROUNDS is a number"))
}

#[test]
fn exclusive_one_of_two_simultaneous_runs_gets_the_name() {
    let Some(race) = Race::set() else { return };
    let path = race.scene.at("in/data");
    for round in 0..rounds() {
        let mut contenders = race.start(["data", "data"]);
        contenders.sort_by_key(|contender| contender.code);
        let [winner, loser] = contenders;
        let said = loser.report.to_string();
        let run = winner.report["run"].as_str().unwrap_or("none");
        let reasons = [
            (5, format!("another run writes to {path}: run {run} of ctl (pid {}), since 20", winner.pid)),
            (
                5,
                format!(
                    "another run writes to {path}: a run that has just started; see: transfer status db2"
                ),
            ),
            (5, format!("{path} was created by another process since the preflight; it is left unchanged")),
            (4, format!("{path} already exists")),
        ];
        let reason = reasons.iter().find(|(code, text)| *code == loser.code && said.contains(text));
        let codes = [winner.code, loser.code];
        assert!(winner.code == 0 && reason.is_some(), "round {round}: {codes:?}\n{}\n{said}", winner.report);
        println!("round {round}: {codes:?} {}", reason.map_or("", |(_, text)| text));
        race.expect_copies(&["data"]);
    }
    race.expect_as_before();
}

#[test]
fn exclusive_simultaneous_runs_use_separate_ports() {
    let Some(race) = Race::set() else { return };
    // Each takes seconds, so that they overlap.
    let throttle = Changed::new(&race.scene.db1, THROTTLE, "tc qdisc del dev e0 root");
    for round in 0..rounds().div_ceil(5) {
        let contenders = race.start(["one", "two"]);
        let ports = contenders.each_ref().map(|contender| contender.report["targets"][0]["port"].as_u64());
        println!("round {round}: {ports:?}");
        for contender in &contenders {
            assert_eq!(contender.code, 0, "{}", contender.report);
        }
        assert!(ports[0].is_some() && ports[1].is_some() && ports[0] != ports[1], "{ports:?}");
        race.expect_copies(&["one", "two"]);
    }
    drop(throttle);
    race.expect_as_before();
}
