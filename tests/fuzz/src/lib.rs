//! Common parts of the targets: conversion of bytes to answers of a host, and the properties of everything
//! that is shown.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::sync::LazyLock;

use futures_util::FutureExt as _;
use serde::de::DeserializeOwned;
use transfer::base::endpoint::Endpoint;
use transfer::base::run_id::RunId;
use transfer::cli::Cli;
use transfer::config::settings::{Settings, Sources};
use transfer::host::facts::Facts;
use transfer::plan::{Plan, SourceFactsOf, TargetFactsOf};
use transfer::proto::frame;

/// Reads frames until one is torn or no such message, as the controller does.
pub fn messages<T: DeserializeOwned>(mut data: &[u8]) -> Vec<T> {
    let mut messages = Vec::new();
    while let Ok(Some(message)) = frame::read(&mut data) {
        messages.push(message);
    }
    messages
}

/// Splits bytes into the answers of several hosts, at bytes of 0xff, which is never UTF-8. Missing answers
/// are empty.
pub fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut parts = data.splitn(N, |byte| *byte == 0xff);
    [(); N].map(|()| parts.next().unwrap_or_default())
}

/// Returns the result of a future that never waits.
pub fn done<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("it waits")
}

/// Asserts a single line of at most `most` bytes, without control characters.
#[track_caller]
pub fn assert_line(text: &str, most: usize) {
    let misleads = |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!text.chars().any(|c| c.is_control() || misleads(c)), "{text:?}");
    assert!(text.len() <= most, "{} bytes: {text:?}", text.len());
}

/// Asserts lines of that kind.
#[track_caller]
pub fn assert_lines(text: &str, most: usize) {
    text.split('\n').for_each(|line| assert_line(line, most));
    assert!(text.len() <= most, "{} bytes", text.len());
}

/// Returns the settings of a command line.
pub fn settings(words: &[&str]) -> Settings {
    let words = ["transfer", "db1:/srv/data", "db2:/srv"].into_iter().chain(words.iter().copied());
    let nowhere = Sources { own: "/nonexistent".into(), old: "/nonexistent".into(), environment: Vec::new() };
    Settings::load(&Cli::read(words).expect("words").typed, &nowhere).expect("settings")
}

pub fn endpoint(word: &str) -> Endpoint {
    Endpoint::parse(OsStr::new(word)).expect("an endpoint")
}

static RUN: LazyLock<RunId> = LazyLock::new(|| RunId::new().expect("a name"));

/// Returns the plan of a run from db1 to db2.
pub fn plan(settings: &Settings, of_source: &Facts, of_target: &Facts) -> Plan {
    let (source, target) = (endpoint("db1:/srv/data"), endpoint("db2:/srv"));
    let [address, peer] = [IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 0, 1])];
    let targets = [TargetFactsOf { endpoint: &target, facts: of_target, address, peer }];
    Plan::new(&RUN, settings, SourceFactsOf { endpoint: &source, facts: of_source }, &targets)
}
