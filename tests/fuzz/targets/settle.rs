//! Leases that the host of a lost agent reports.

#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use transfer::base::printable::LONGEST_PATH;
use transfer::lease::{Leftover, settled};
use transfer::proto::status::RollbackEvent;
use transfer::report::Report;
use transfer_fuzz::{assert_line, assert_lines, messages};

/// Limit for the text of a lease: no undo names more than a few paths.
const MOST: usize = 6 * LONGEST_PATH;

fuzz_target!(|data: &[u8]| {
    let events: Vec<RollbackEvent> = messages(data);
    let left = settled(&events, Duration::from_secs(3), "transfer status db2");
    assert!(left.len() <= 64);
    left.iter().for_each(|what| assert_line(&what.to_string(), MOST + 10 * data.len()));
    let leftovers = left.into_iter().map(|what| Leftover { host: "db2".into(), what }).collect();
    let report = Report { leftovers, ..Report::default() };
    let most = 64 * (MOST + 1000) + 10 * data.len();
    assert_lines(&report.to_string(), most);
    assert_line(&report.to_json(), 2 * most);
});
