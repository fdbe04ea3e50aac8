//! Leases that the host of a lost agent reports, and the port that an agent replies.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use transfer::config::values::PortRange;
use transfer::host::wire::{LONGEST_PATH, LONGEST_TEXT};
use transfer::lease::{Leftover, leased, settled};
use transfer::report::Report;
use transfer_fuzz::{answer, assert_line, assert_lines};

fuzz_target!(|data: &[u8]| {
    let messages = answer(data);
    let left = settled(&messages, Duration::from_secs(3), "transfer status db2");
    assert!(left.len() <= 64);
    left.iter().for_each(|what| assert_line(&what.to_string(), LONGEST_PATH + 100));
    let leftovers = left.into_iter().map(|what| Leftover { host: "db2".into(), what }).collect();
    let report = Report { leftovers, ..Report::default() };
    assert_lines(&report.to_string(), 64 * (LONGEST_PATH + 200));
    assert_line(&report.to_json(), 64 * 2 * (LONGEST_PATH + 200));
    for reply in &messages {
        match leased(reply, PortRange { first: 4400, last: 4500 }) {
            Ok(port) => assert!((4400..=4500).contains(&port)),
            Err(text) => assert_line(&text, LONGEST_TEXT + 3),
        }
    }
});
