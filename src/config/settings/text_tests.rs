//! Texts of options, compared with what they describe.

use super::tests::settings;
use crate::config::options::Options;

#[test]
fn example_has_the_defaults() {
    let example =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/transfer.conf.example")).unwrap();
    assert_eq!(settings(&example, &[]).unwrap(), settings("", &[]).unwrap());
    // Each commented line is a valid key.
    let keys: Vec<&str> = example.lines().filter_map(|line| line.strip_prefix("#:")).collect();
    assert_eq!(
        settings(&keys.join("\n").replace("port = 0\n", ""), &[]).unwrap(),
        settings("", &[]).unwrap()
    );
    // Each example is a valid key, too, and together they are complete.
    let is_key = |line: &&str| {
        line.split_once(" = ")
            .is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    };
    let examples: Vec<&str> =
        example.lines().filter_map(|line| line.strip_prefix("# ")).filter(is_key).collect();
    for key in &examples {
        settings(key, &[]).unwrap();
    }
    let mut names: Vec<&str> =
        keys.iter().chain(&examples).filter_map(|line| line.split(' ').next()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names, known_keys());
}

/// Returns all keys that serde knows, sorted: without `profile`, which is not an option, and without
/// transferpy's name of a key.
fn known_keys() -> Vec<String> {
    let error = toml::from_str::<Options>("no_such_key = 1").unwrap_err();
    let listed = error.message().split('`').skip(3).step_by(2);
    let mut keys: Vec<String> =
        listed.filter(|key| !["profile", "stop_slave"].contains(key)).map(ToOwned::to_owned).collect();
    assert!(keys.len() > 40, "they were not found: {keys:?}");
    keys.sort_unstable();
    keys
}

#[test]
fn every_key_is_an_option() {
    let mut declared: Vec<String> =
        crate::cli::keys().iter().flat_map(|(_, keys)| keys).filter_map(|key| key.key.clone()).collect();
    declared.sort_unstable();
    assert_eq!(declared, known_keys());
}

/// Returns the limits that a text names, as in `2s-24h` or `From 1 to 1024`.
fn limits(text: &str) -> Option<(&str, &str)> {
    let is_limit = |word: &str| word.starts_with(|c: char| c.is_ascii_digit());
    let ranges = text.split(' ').filter_map(|word| word.split_once('-'));
    let times = ranges.filter(|(_, last)| last.ends_with(['s', 'h']));
    let numbers = text.split("From ").skip(1).filter_map(|rest| {
        let (first, rest) = rest.split_once(" to ")?;
        Some((first, rest.trim_end_matches('.')))
    });
    times.chain(numbers).find(|(first, last)| is_limit(first) && is_limit(last))
}

#[test]
fn limits_in_texts_are_those_of_the_values() {
    let mut seen = 0;
    for option in crate::cli::keys().into_iter().flat_map(|(_, keys)| keys) {
        let Some(key) = &option.key else { continue };
        let Some((first, last)) = limits(&option.help).or_else(|| limits(&option.details)) else { continue };
        let is_accepted = |value: u64| settings(&format!("{key} = {value}"), &[]).is_ok();
        let number = |word: &str| {
            word.parse::<u64>()
                .unwrap_or_else(|_| word.parse::<jiff::SignedDuration>().unwrap().as_secs().unsigned_abs())
        };
        let (first, last) = (number(first), number(last));
        assert!(is_accepted(first) && is_accepted(last), "{key}: {first} to {last}");
        assert!(!is_accepted(last + 1), "{key}: {last} is not the highest");
        assert!(first == 0 || !is_accepted(first - 1), "{key}: {first} is not the lowest");
        seen += 1;
    }
    assert_eq!(seen, 7, "texts with limits");
}
