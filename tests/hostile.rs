//! Any input, from a user, a file or a hostile host, is accepted or refused: nothing panics, and nothing that
//! is shown has control sequences.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use transfer::admin::Verb;
use transfer::base::endpoint::{Endpoint, HostName};
use transfer::base::run_id::RunId;
use transfer::cli::Cli;
use transfer::config::settings::{Login, Settings, Sources};
use transfer::config::values::{Pattern, TargetAddress};
use transfer::engine::netcat::variant::Netcat;
use transfer::host::agent::told::Shared;
use transfer::host::facts::Facts;
use transfer::host::wire::{LONGEST_PATH, LONGEST_TEXT, decode, encode, message, printable};
use transfer::lease::settled;
use transfer::plan::{Plan, SourceFactsOf, TargetFactsOf};

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

/// Answers of an agent or a probe: its own words between arbitrary bytes.
fn answer() -> impl Strategy<Value = Vec<Vec<u8>>> {
    const KEYS: [&str; 26] = [
        "host",
        "user",
        "ssh",
        "cores",
        "bash",
        "syscalls",
        "tools",
        "tar",
        "netcat",
        "addresses",
        "firewall",
        "firewall_owned",
        "owner",
        "clock",
        "source_type",
        "source_real",
        "source_size",
        "source_inode",
        "target_type",
        "target_real",
        "target_free",
        "target_busy",
        "target_exists",
        "target_device",
        "target_unknown_owner",
        "end",
    ];
    let field = prop_oneof![
        bytes(),
        any::<u64>().prop_map(|n| n.to_string().into_bytes()),
        any::<f64>().prop_map(|n| n.to_string().into_bytes()),
        Just(b"10.0.0.1".to_vec()),
        Just(b"nftables".to_vec()),
    ];
    (0..KEYS.len(), vec(field, 0..8)).prop_map(|(key, fields)| {
        let mut message = vec![KEYS[key].as_bytes().to_vec()];
        message.extend(fields);
        message
    })
}

/// Lines of an agent: its own words, those of other runs, and arbitrary bytes.
fn agent_line() -> impl Strategy<Value = Vec<Vec<u8>>> {
    const BEGINNINGS: [&[&str]; 21] = [
        &["=", "1", "ok"],
        &["=", "2", "fail"],
        &["=", "18446744073709551616"],
        &["!", "refused"],
        &["!", "ending"],
        &["!", "published"],
        &["!", "kept"],
        &["!", "left", "r-target1"],
        &["!", "undone"],
        &["!", "bytes", "sender", "wire"],
        &["!", "dropped", "sender"],
        &["!", "stderr", "sender"],
        &["!", "silenced", "sender"],
        &["!", "stages", "sender", "tar=0", "x==\x1b"],
        &["!", "digest", "sender"],
        &["!", "manifest", "sender", "entries"],
        &["!", "exit", "sender"],
        &["!", "fact", "follow", "error"],
        &["!", "fact", "follow", "gtid"],
        &["!", "stuck", "prepare"],
        &["!"],
    ];
    let long = (vec(any::<u8>(), 1..5), 1..4000_usize).prop_map(|(bytes, count)| bytes.repeat(count));
    let number = prop_oneof![any::<u64>(), Just(u64::MAX)].prop_map(|n| n.to_string().into_bytes());
    let field = prop_oneof![4 => bytes(), 4 => number, 1 => long];
    (0..BEGINNINGS.len(), vec(field, 0..6)).prop_map(|(beginning, fields)| {
        let words = BEGINNINGS[beginning].iter().map(|word| word.as_bytes().to_vec());
        words.chain(fields).collect()
    })
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
    fn wire_fields_round_trip(fields in vec(bytes(), 1..6)) {
        let line = encode(&fields);
        prop_assert!(!line.contains(&b'\n'));
        prop_assert_eq!(decode(&line), fields);
    }

    #[test]
    fn shown_text_cannot_control_the_terminal(bytes in vec(any::<u8>(), 0..200)) {
        for shown in [printable(&bytes), message(&bytes, LONGEST_TEXT), message(&bytes, 20)] {
            prop_assert!(is_harmless(&shown), "{shown:?}");
        }
    }

    #[test]
    fn any_probe_answer_yields_harmless_text(messages in vec(answer(), 0..40)) {
        let facts = Facts::parse(&messages);
        let target = facts.target.clone().unwrap_or_default();
        let source = facts.source.clone().unwrap_or_default();
        for text in [&facts.machine, &facts.tar, &target.file_type, &source.file_type]
            .into_iter()
            .chain(&target.busy)
            .chain(&target.unknown_owners)
            .chain(&facts.owned_tables)
            .chain(facts.users.keys())
        {
            prop_assert!(is_harmless(text), "{text:?}");
        }
    }

    #[test]
    fn agent_messages_are_bounded_and_escaped(lines in vec(agent_line(), 0..40)) {
        let shared = Shared::default();
        let replies: Vec<_> = (0..2).filter_map(|_| shared.expect_reply()).collect();
        for line in &lines {
            // As received.
            shared.take(&decode(&encode(line)));
        }
        let state = shared.state();
        let mut texts: Vec<String> = state.refused.iter().chain(&state.kept).cloned().collect();
        texts.extend(state.left.iter().flat_map(|(agent, held)| [agent.clone(), held.to_string()]));
        for job in state.jobs.values() {
            let _ = job.moved();
            let facts = &job.facts;
            texts.extend(job.complaints.iter().chain(&job.digest).chain(&job.waits).chain(&job.stuck).cloned());
            texts.extend(facts.error.iter().chain(&facts.gtid).chain(&facts.state).cloned());
            texts.extend(job.stages.iter().map(|(stage, _)| stage.to_string()));
            texts.extend(job.manifests.values().map(|manifest| manifest.digest.clone()));
        }
        for (_, mut reply) in replies {
            if let Ok(Err((_, text))) = reply.try_recv() {
                texts.push(text);
            }
        }
        for text in texts {
            prop_assert!(is_harmless(&text) && text.len() <= LONGEST_PATH + 3, "{text:?}");
        }
    }

    #[test]
    fn admin_answers_are_escaped(
        messages in vec((0..7_usize, vec(bytes(), 0..9)), 0..20)
    ) {
        const KEYS: [&str; 7] = ["run", "lease", "undone", "kept", "live", "left", "held"];
        let message = |(key, fields): (usize, Vec<Vec<u8>>)| [vec![KEYS[key].into()], fields].concat();
        let messages: Vec<Vec<Vec<u8>>> = messages.into_iter().map(message).collect();
        for verb in [Verb::Status, Verb::Clean { start_servers: false, forget_hooks: false }] {
            let (text, _) = verb.describe("db2", &Login::default(), &messages);
            prop_assert!(text.lines().all(is_harmless), "{text:?}");
        }
        let left = settled(&messages, Duration::ZERO, "transfer status db2");
        prop_assert!(left.iter().all(|what| is_harmless(&what.to_string())), "{left:?}");
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

#[test]
fn huge_source_size_does_not_overflow() {
    let most = u64::MAX.to_string().into_bytes();
    let size = [vec![b"source_size".to_vec()], vec![most; 4]].concat();
    let facts = Facts::parse(&[size]);
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
    let left = vec![vec![b"left".to_vec(), vec![0x1b; 60_000]]; 5000];
    let left = settled(&left, Duration::ZERO, "transfer status db2");
    assert!(left.len() <= 64 && left.iter().all(|what| what.to_string().len() <= LONGEST_PATH + 100));
}
