//! Any input, from a user, a file or a hostile host, is accepted or refused: nothing panics, and nothing that
//! is shown has control sequences.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use transfer::admin::Answer;
use transfer::base::endpoint::{Endpoint, HostName};
use transfer::base::printable::{LONGEST_PATH, LONGEST_TEXT, message, printable};
use transfer::base::run_id::RunId;
use transfer::cli::Cli;
use transfer::config::settings::{Login, Settings, Sources};
use transfer::config::values::{Pattern, TargetAddress};
use transfer::engine::netcat::variant::Netcat;
use transfer::host::agent::told::Shared;
use transfer::host::facts::{Facts, SourceFacts};
use transfer::lease::settled;
use transfer::plan::{Plan, SourceFactsOf, TargetFactsOf};
use transfer::proto::command::Event;
use transfer::proto::facts::{HookShell, HostFacts, NetcatHelp};
use transfer::proto::frame::decode;
use transfer::proto::job::{
    BackupFacts, Dropped, FaultClass, JobName, JobReport, List, Manifest, Meter, Program,
};
use transfer::proto::journal::{Hook, Undo};
use transfer::proto::name::AgentName;
use transfer::proto::status::{RollbackEvent, StatusEntry};
use transfer::proto::{HostBytes, Text};

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(1u8.., 0..60)
}

/// Words of the domain between arbitrary bytes: they reach more code than bytes alone.
fn word() -> impl Strategy<Value = Vec<u8>> {
    const KNOWN: [&str; 12] = [
        "db1:/srv",
        "root@",
        "[fd77::11]:/",
        "localhost:",
        "/",
        "-o",
        "--compress=",
        "status",
        "\x1b[2J",
        "\u{202e}",
        "\u{2028}",
        "ü",
    ];
    let known = (0..KNOWN.len()).prop_map(|index| KNOWN[index].as_bytes().to_vec());
    vec(prop_oneof![known, vec(1u8.., 0..4)], 0..5).prop_map(|parts| parts.concat())
}

/// Whether a text is one line without control characters, of C0 and C1, and without bidirectional overrides.
fn is_harmless(text: &str) -> bool {
    let misleads = |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !text.chars().any(|c| c.is_control() || misleads(c))
}

/// Messages of an agent: what hostile bytes are decoded to, and messages with hostile texts in them.
fn event() -> impl Strategy<Value = Event> {
    let long = (vec(any::<u8>(), 1..5), 1..4000_usize).prop_map(|(bytes, count)| bytes.repeat(count));
    let field = prop_oneof![4 => bytes(), 1 => long];
    let number = prop_oneof![any::<u64>(), Just(u64::MAX)];
    let known = (0..17_u8, field, number).prop_map(|(kind, bytes, number)| {
        let text = Text::new(&bytes);
        let raw = String::from_utf8_lossy(&bytes).into_owned();
        let path = HostBytes::from(bytes);
        let agent = AgentName::new("r-target1").unwrap();
        let undo = Undo::Hook(Hook {
            end: raw.clone(),
            number: 0,
            command: raw.clone(),
            source: raw.clone(),
            targets: raw.clone(),
        });
        let job = |report| Event::Job(JobName::Sender, report);
        match kind {
            0 => Event::Rollback(RollbackEvent::Left { agent, undo, reason: text }),
            1 => Event::Rollback(RollbackEvent::Kept { agent, path }),
            2 => Event::Rollback(RollbackEvent::Failed { agent, reason: text }),
            3 => Event::Status(StatusEntry::Lease(Undo::Replaced { path })),
            4 => Event::Published { old: Some(path) },
            5 => job(JobReport::Complaint(text)),
            6 => job(JobReport::Bytes(Meter::Wire, number)),
            7 => job(JobReport::Dropped(usize::try_from(number).unwrap_or(7), Dropped::Closed)),
            8 => job(JobReport::Digest(raw)),
            9 => job(JobReport::Manifest(
                List::Entries,
                Manifest { records: number, bytes: number, digest: raw },
            )),
            10 => job(JobReport::Stages(vec![(Program::Other(raw), 7)])),
            11 => job(JobReport::Stuck(text)),
            12 => job(JobReport::Waits(Some(text))),
            13 => job(JobReport::Backup(BackupFacts {
                gtid: raw.clone(),
                source_position: raw,
                ..BackupFacts::default()
            })),
            14 => job(JobReport::Silenced(number)),
            15 => job(JobReport::Unconfined(Program::Other(raw))),
            _ => job(JobReport::Fault(FaultClass::Skipped, number, Some(text))),
        }
    });
    let decoded = vec(any::<u8>(), 0..200).prop_map(|bytes| decode(&bytes).unwrap_or(Event::Bye));
    prop_oneof![8 => known, 1 => decoded]
}

proptest! {
    #[test]
    fn parsed_endpoints_are_safe_for_ssh(word in word()) {
        if let Ok(endpoint) = Endpoint::parse(OsStr::from_bytes(&word)) {
            prop_assert!(endpoint.path.is_absolute());
            prop_assert!(is_harmless(&endpoint.to_string()), "{endpoint}");
            let host = endpoint.host.to_string();
            prop_assert!(!host.is_empty() && !host.starts_with('-') && !host.contains([' ', '\'', '$', ';']), "{host}");
        }
        let _ = HostName::parse(OsStr::from_bytes(&word));
    }

    #[test]
    fn shown_text_cannot_control_the_terminal(bytes in vec(any::<u8>(), 0..200)) {
        for shown in [printable(&bytes), message(&bytes, LONGEST_TEXT), message(&bytes, 20)] {
            prop_assert!(is_harmless(&shown), "{shown:?}");
        }
    }

    #[test]
    fn facts_are_harmless_text(bytes in bytes(), number: u64) {
        let text = Text::new(&bytes);
        let facts = host_facts(&text, number);
        for text in [&facts.machine, &facts.tar].into_iter().chain(&facts.owned_tables).chain(&facts.tools) {
            prop_assert!(is_harmless(text), "{text:?}");
        }
    }

    #[test]
    fn agent_messages_are_bounded_and_escaped(events in vec(event(), 0..40)) {
        let shared = Shared::default();
        for event in events {
            shared.take(event);
        }
        let job = shared.job(JobName::Sender);
        let _ = job.moved();
        let mut texts = job.complaints.clone();
        texts.extend(job.digest.iter().chain(&job.waits).chain(&job.stuck).chain(&job.unconfined).cloned());
        texts.extend(job.backup.iter().flat_map(|facts| [facts.gtid.clone(), facts.source_position.clone()]));
        texts.extend(job.stages.iter().map(|(stage, _)| stage.to_string()));
        texts.extend(job.manifests.values().map(|manifest| manifest.digest.clone()));
        texts.extend(job.faults.values().flat_map(|fault| fault.named.clone()));
        for text in texts {
            prop_assert!(is_harmless(&text) && text.len() <= LONGEST_PATH + 3, "{text:?}");
        }
    }

    #[test]
    fn admin_answers_are_escaped(events in vec(event(), 0..20)) {
        let mut answers = (Vec::new(), Vec::new());
        for event in events {
            match event {
                Event::Status(entry) => answers.0.push(entry),
                Event::Rollback(event) => answers.1.push(event),
                _ => {}
            }
        }
        let (entries, events) = answers;
        let left = settled(&events, Duration::ZERO, "transfer status db2");
        prop_assert!(left.iter().all(|what| is_harmless(&what.to_string())), "{left:?}");
        for answer in [Answer::Status(entries), Answer::Clean { events, start_servers: false }] {
            let (text, _) = answer.describe("db2", &Login::default());
            prop_assert!(text.lines().all(is_harmless), "{text:?}");
        }
    }

    #[test]
    fn any_netcat_line_is_classified(line in ".*", address in any::<std::net::IpAddr>(), port: u16) {
        let _ = Netcat::from_help("nc", &line);
        let _ = Netcat::finds_port_taken(&line);
        prop_assert!(!Netcat::default().gives_up(&line, address, port, true) || line.contains("failed"));
    }

    #[test]
    fn configuration_errors_fit_one_line(text in prop_oneof![
        ".*",
        "(\\[DEFAULT\\]\n)?((port|compress|exclude|as|nice|lease_time|profile|type) ?= ?(true|[0-9]{1,6}|\"[a-z0-9*/]{0,8}\"|\\[\\]|False)\n){0,5}",
    ]) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let sources = Sources { own: file.path().into(), old: "/nonexistent".into(), environment: Vec::new() };
        let cli = Cli::read(["transfer", "a:/x", "b:/y"]).unwrap();
        if let Err(error) = Settings::load(&cli.typed, &sources) {
            let error = error.to_string();
            prop_assert!(is_harmless(&error), "{error:?}");
        }
    }

    #[test]
    fn command_line_errors_are_escaped(words in vec(word(), 0..6)) {
        let words = words.iter().map(|word| OsStr::from_bytes(word).to_owned());
        if let Err(error) = Cli::read([OsStr::new("transfer").to_owned()].into_iter().chain(words)) {
            let text = error.render().to_string();
            prop_assert!(text.lines().all(is_harmless), "{text:?}");
        }
    }

    #[test]
    fn environment_errors_fit_one_line(
        name in "(PORT|AS|PROFILE|\\PC{0,4}|[\u{1b}\u{202e}]{0,2})",
        value in prop_oneof![bytes(), Just(b"\x1b[2J".to_vec()), Just(b"4400".to_vec())],
        profile in prop::option::of("[\u{1b}\u{202e}a]{0,3}"),
    ) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"[profile.\"\\u001b[2J\\u202e\"]\nport = 4400\n").unwrap();
        let value = OsStr::from_bytes(&value).to_owned();
        let environment = vec![(format!("TRANSFER_{name}"), value)];
        let sources = Sources { own: file.path().into(), old: "/nonexistent".into(), environment };
        let mut cli = Cli::read(["transfer", "a:/x", "b:/y"]).unwrap();
        cli.typed.profile = profile;
        if let Err(error) = Settings::load(&cli.typed, &sources) {
            let error = error.to_string();
            prop_assert!(is_harmless(&error), "{error:?}");
        }
    }

    #[test]
    fn patterns_stay_below_the_source(pattern in bytes(), name in bytes()) {
        let name = OsStr::from_bytes(&name);
        if let Ok(pattern) = Pattern::parse(OsStr::from_bytes(&pattern)) {
            prop_assert!(pattern.below(name).iter().all(|path| path.starts_with(b"./") && path.len() > name.len() + 3));
        }
        let _ = name.to_string_lossy().parse::<TargetAddress>();
    }
}

fn host_facts(text: &Text, number: u64) -> Facts {
    Facts::of_host(HostFacts {
        machine: text.clone(),
        boot: text.clone(),
        machine_id: text.clone(),
        uid: 0,
        ssh: None,
        cores: u32::MAX,
        memory: number,
        hook_shell: HookShell::Sh,
        tools: [text.clone()].into(),
        tar: text.clone(),
        netcats: vec![NetcatHelp { program: text.clone(), help: Text::new("OpenBSD netcat") }],
        addresses: Vec::new(),
        firewall: Vec::new(),
        owned_tables: vec![text.clone()],
        backup_tools: Vec::new(),
        clock: Duration::from_secs(number),
    })
}

#[test]
fn huge_source_size_does_not_overflow() {
    let mut facts = host_facts(&Text::default(), u64::MAX);
    facts.source = Some(SourceFacts {
        entries: u64::MAX,
        files: u64::MAX,
        bytes: u64::MAX,
        disk_bytes: u64::MAX,
        ..SourceFacts::default()
    });
    let nowhere = Sources { own: "/nonexistent".into(), old: "/nonexistent".into(), environment: Vec::new() };
    let settings = Settings::load(&Cli::read(["transfer", "a:/x", "b:/y"]).unwrap().typed, &nowhere).unwrap();
    let endpoint = |word: &str| Endpoint::parse(OsStr::new(word)).unwrap();
    let (source, target) = (endpoint("a:/x"), endpoint("b:/y"));
    let address = std::net::IpAddr::from([10, 0, 0, 1]);
    let targets = [TargetFactsOf { endpoint: &target, facts: &facts, address, peer: address }];
    let plan = Plan::new(
        &RunId::new().unwrap(),
        &settings,
        SourceFactsOf { endpoint: &source, facts: &facts },
        &targets,
    );
    assert_eq!(plan.expected_bytes(), u64::MAX);
}

#[test]
fn leftovers_of_one_host_are_bounded() {
    let agent = AgentName::new("r-target1").unwrap();
    let undo = Undo::Replaced { path: HostBytes::from(vec![0x1b; 60_000]) };
    let left = vec![RollbackEvent::Left { agent, undo, reason: Text::default() }; 5000];
    let left = settled(&left, Duration::ZERO, "transfer status db2");
    assert!(left.len() <= 64 && left.iter().all(|what| what.to_string().len() <= LONGEST_PATH + 100));
}
