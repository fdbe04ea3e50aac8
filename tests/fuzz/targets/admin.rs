//! Answers to `transfer status` and `transfer clean`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use transfer::admin::Answer;
use transfer::base::exit::Exit;
use transfer::config::settings::Login;
use transfer::proto::status::{Condition, RollbackEvent, StatusEntry};
use transfer_fuzz::{assert_lines, messages};

fuzz_target!(|data: &[u8]| {
    let entries: Vec<StatusEntry> = messages(data);
    let foreign = entries.iter().any(|entry| matches!(entry, StatusEntry::Foreign(_)));
    shown(&Answer::Status(entries), foreign, data.len());
    let events: Vec<RollbackEvent> = messages(data);
    let left = events.iter().any(|event| match event {
        RollbackEvent::Left { .. } | RollbackEvent::Failed { .. } => true,
        RollbackEvent::Foreign(journal) => journal.condition == Condition::Orphaned,
        _ => false,
    });
    for start_servers in [false, true] {
        shown(&Answer::Clean { events: events.clone(), start_servers }, left, data.len());
    }
});

/// Asserts that each message is a bounded line, and that leftovers show in the exit code.
fn shown(answer: &Answer, left: bool, length: usize) {
    let count = match answer {
        Answer::Status(entries) => entries.len(),
        Answer::Clean { events, .. } => events.len(),
    };
    let (text, exit) = answer.describe("db2", &Login::default());
    assert_lines(&text, 200 + 600 * count + 10 * length);
    assert!(text.ends_with('\n') && text.lines().count() == count.max(1));
    assert_eq!(exit, if left { Exit::Leftovers } else { Exit::Done });
}
