//! Answers to `transfer status` and `transfer clean`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use transfer::admin::Verb;
use transfer::base::exit::Exit;
use transfer::config::settings::Login;
use transfer_fuzz::{answer, assert_lines};

fuzz_target!(|data: &[u8]| {
    let messages = answer(data);
    for verb in [Verb::Status, Verb::Clean { start_servers: false, forget_hooks: false }] {
        let (text, exit) = verb.describe("db2", &Login::default(), &messages);
        assert_lines(&text, 200 + 300 * messages.len() + 10 * data.len());
        assert!(text.ends_with('\n') && text.lines().count() <= messages.len().max(1));
        let left = messages.iter().any(|message| message[0] == b"left");
        assert_eq!(exit, if left { Exit::Leftovers } else { Exit::Done });
    }
});
