//! Answers of a source and a target to the probe, and everything shown of them: findings, the plan, a dry
//! run.

#![no_main]

use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use transfer::base::printable::{LONGEST_PATH, LONGEST_TEXT};
use transfer::config::settings::Settings;
use transfer::host::facts::Facts;
use transfer::proto::command::Answer;
use transfer::preflight::{Before, Side};
use transfer::probe::{NamedFacts, candidates};
use transfer::report::dry_run::DryRun;
use transfer::report::{Report, RunFacts};
use transfer::run::findings;
use transfer_fuzz::{assert_line, assert_lines, endpoint, messages, plan, settings};

static WAYS: LazyLock<[Settings; 4]> = LazyLock::new(|| {
    [
        settings(&[]),
        settings(&["--chown=mysql:mysql", "--replace", "--compress=lz4"]),
        settings(&[
            "--firewall=iptables",
            "--nice=10",
            "--replace",
            "--keep-old",
            "--checksum-algorithm=blake2b",
        ]),
        settings(&["--port=4444", "--source-address=10.0.0.1", "--no-encrypt", "--exclude=*.log"]),
    ]
});

/// Time of the controller's clock.
const NOW: Duration = Duration::from_secs(1_700_000_000);

/// Asserts that everything that is kept of an answer is printable and bounded.
fn assert_bounded(facts: &Facts) {
    let source = facts.source.clone().unwrap_or_default();
    let target = facts.target.clone().unwrap_or_default();
    let texts = [&facts.machine, &facts.boot, &facts.machine_id, &facts.tar, &target.owner];
    let more = source.quiesced.iter().chain(&target.busy);
    let lists = facts.tools.iter().chain(&facts.owned_tables).chain(&target.unknown_owners);
    let names = facts.users.keys().chain(facts.groups.keys());
    let programs = facts.netcats.iter().map(|netcat| &netcat.program);
    for text in texts.into_iter().chain(more).chain(lists).chain(names).chain(programs) {
        assert_line(text, LONGEST_TEXT + 3);
    }
    target.holds.iter().for_each(|name| assert_line(name, LONGEST_PATH + 3));
    assert!(facts.tools.len() <= 64 && facts.addresses.len() <= 64);
    assert!(facts.users.len() <= 1000 && facts.groups.len() <= 1000);
    let few =
        [facts.netcats.len(), facts.firewall.len(), facts.owned_tables.len(), target.unknown_owners.len()];
    assert!(few.into_iter().all(|count| count <= 16));
}

/// Returns the facts about both ends: each begins with those about its host.
fn sides(data: &[u8]) -> [Facts; 2] {
    let mut sides = Vec::new();
    for answer in messages(data) {
        match answer {
            Answer::Host(host) if sides.len() < 2 => sides.push(Facts::of_host(*host)),
            Answer::Source(facts) if sides.len() == 1 => sides[0].add_source(*facts),
            Answer::Target(facts) if sides.len() == 2 => sides[1].add_target(*facts),
            _ => {}
        }
    }
    sides.resize(2, Facts::default());
    sides.try_into().expect("two of them")
}

fuzz_target!(|data: &[u8]| {
    let Some((&way, data)) = data.split_first() else { return };
    let settings = &WAYS[usize::from(way) % WAYS.len()];
    let [there, here] = sides(data);
    assert_bounded(&there);
    assert_bounded(&here);

    let (source, target) = (endpoint("db1:/srv/data"), endpoint("db2:/srv"));
    let named = |name, facts| NamedFacts { name, facts };
    assert!(candidates(named(&source.host, &there), named(&target.host, &here)).len() <= 65);
    let side = |endpoint, facts, peer| Side {
        endpoint,
        facts,
        skew: Some(Facts::clone(facts).clock.as_secs_f64() - NOW.as_secs_f64()),
        foreign: (way & 0x10 != 0).then_some(IpAddr::from([10, 0, 0, 9])),
        peer,
    };
    let of_source = side(&source, &there, None);
    let of_target = side(&target, &here, (way & 0x20 == 0).then_some(IpAddr::from([10, 0, 0, 1])));
    let before = Before { replicas: false, named: &[of_source], accepted: &[of_source] };
    let mut findings = findings::source(settings, of_source);
    findings.extend(findings::target(settings, of_source, of_target, before));
    assert!(findings.len() <= 150, "{}", findings.len());
    for finding in &findings {
        assert_line(&finding.to_string(), 80 * 1024);
        assert_line(&transfer::base::json::line("finding", finding), 80 * 1024);
    }

    let plan = plan(settings, &there, &here);
    assert!(plan.expected_bytes() > 0);
    let report = Report {
        run: Some(RunFacts::of(&plan)),
        dry_run: Some(DryRun::of(&plan, plan.engine.describe_source(&plan), |target| {
            plan.engine.describe_target(&plan, target)
        })),
        findings,
        ..Report::default()
    };
    assert_lines(&report.to_string(), 256 * 1024);
    assert_line(&report.to_json(), 512 * 1024);
});
